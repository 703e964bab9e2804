"""What small operators cost on a CPU: behind ``layout.py``, ``pointwise.py``, ``adapters.py`` and ``optimizers.py``.

Each line compares two ways to the same numbers, in turns, as medians in microseconds of forward and backward::

    python benchmarks/operators.py

On another processor the limit in ``naskd/nn/pointwise.py`` may lie elsewhere.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row
from harness.spread import header
from harness.timing import alternating
from naskd.knowledge.adapters import ChannelAdapter
from naskd.knowledge.precision import mean_square, widened
from naskd.networks.student import build_student
from naskd.nn.layout import spatial_mean
from naskd.nn.pointwise import SMALL
from naskd.spec.design import ArchitectureSpec, StageSpec, TrainingSpec
from naskd.training.compute import Compute
from naskd.training.evaluation import predict
from naskd.training.optimizers import build_optimizer

LAST = torch.channels_last
Call = Callable[[], object]
Case = tuple[str, Call, Call]


def maps(*size: int) -> Tensor:
    return torch.randn(*size).contiguous(memory_format=LAST).requires_grad_()


def learning(call: Callable[[], Tensor], *learned: Tensor) -> Call:
    """Forward and backward, from fresh gradients."""
    weights = torch.randn_like(call().detach())

    def both() -> None:
        for tensor in learned:
            tensor.grad = None
        call().backward(weights)

    return both


def pointwise(batch: int) -> Iterator[Case]:
    """1x1 convolution: oneDNN's, and a matrix product."""
    for side in (8, 4, 2, 1):
        for inputs, outputs in ((8, 32), (32, 8), (48, 12), (64, 64)):
            x, w = maps(batch, inputs, side, side), maps(outputs, inputs, 1, 1)
            macs = batch * side * side * inputs * outputs

            def product(x: Tensor = x, w: Tensor = w) -> Tensor:
                return functional.linear(x.permute(0, 2, 3, 1), w.flatten(1)).permute(0, 3, 1, 2)

            def convolution(x: Tensor = x, w: Tensor = w) -> Tensor:
                return functional.conv2d(x, w)

            chosen = "product" if macs <= SMALL else "convolution"
            size = f"{inputs} to {outputs} channels, {side}x{side}, {macs / 1e6:.2f} M MACs"
            what = f"1x1 convolution and product, {size} ({chosen} taken)"
            yield what, learning(convolution, x, w), learning(product, x, w)


def layouts(batch: int) -> Iterator[Case]:
    """Operations whose torch form hands back, or is given, NCHW: torch's, and naskd's."""
    for channels, side in ((32, 8), (64, 8), (64, 4)):
        x, target = maps(batch, channels, side, side), maps(batch, channels, side, side).detach()
        norm = nn.BatchNorm2d(channels)
        w = maps(channels, channels, 1, 1)

        def layer(x: Tensor = x, w: Tensor = w, norm: nn.Module = norm) -> Tensor:
            return norm(functional.conv2d(x, w)).relu()

        shape = f"{channels} channels, {side}x{side}"
        yield (
            f"mean over space after a layer, {shape}",
            learning(lambda layer=layer: layer().mean((2, 3)), x, w),
            learning(lambda layer=layer: spatial_mean(layer()), x, w),
        )
        yield (
            f"mean square after a layer, {shape}",
            learning(lambda layer=layer, t=target: functional.mse_loss(layer(), t), x, w),
            learning(lambda layer=layer, t=target: mean_square(layer(), t), x, w),
        )
        nchw = target.contiguous()
        yield (
            f"pooling of a map at rest in NCHW, and in channels_last, {shape}",
            lambda t=nchw, half=side // 2: functional.adaptive_avg_pool2d(t, (half, half)),
            lambda t=target, half=side // 2: functional.adaptive_avg_pool2d(t, (half, half)),
        )


def regressors(batch: int) -> Iterator[Case]:
    """A regressor and the mean square of what is left: two operations, and one. Targets at half precision."""
    for inputs, outputs, side in (
        (8, 16, 32),
        (16, 32, 16),
        (32, 64, 8),
        (64, 64, 8),
        (64, 128, 16),
        (128, 256, 8),
    ):
        x, target = maps(batch, inputs, side, side), maps(batch, outputs, side, side).detach().half()
        adapter = ChannelAdapter(inputs, outputs)
        learned = (x, adapter.weight, adapter.bias)
        yield (
            f"regressor and mean square, {inputs} to {outputs} channels, {side}x{side}",
            learning(lambda a=adapter, x=x, t=target: mean_square(a(x), widened(t)), *learned),
            learning(lambda a=adapter, x=x, t=target: a.mean_square(x, t), *learned),
        )


def optimizers(batch: int) -> Iterator[Case]:
    """A step of 38 small tensors: torch's fused optimizer, and the same kernels called with prepared lists."""
    adamw, sgd = TrainingSpec(optimizer="adamw"), TrainingSpec(optimizer="sgd")
    for spec, plain in ((adamw, torch.optim.AdamW), (sgd, torch.optim.SGD)):
        network = nn.Sequential(*(m for _ in range(12) for m in (nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16))))
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        ours = build_optimizer(spec, [network])
        theirs = plain([dict(group) for group in ours.param_groups])
        yield f"step of {spec.optimizer}, {len(list(network.parameters()))} tensors", theirs.step, ours.step


def depthwise(batch: int) -> Iterator[Case]:
    """Weight gradient of a depthwise convolution: oneDNN's, and a sum for each place of the kernel."""
    for channels, kernel in ((48, 3), (48, 5), (160, 5)):
        x = maps(batch, channels, 8, 8).detach()
        w, gradient = torch.randn(channels, 1, kernel, kernel), torch.randn_like(x)
        pad = kernel // 2

        def plain(
            x: Tensor = x, w: Tensor = w, g: Tensor = gradient, c: int = channels, p: int = pad
        ) -> Tensor:
            found: Tensor = torch.ops.aten.convolution_backward(
                g, x, w, None, [1, 1], [p, p], [1, 1], False, [0, 0], c, [False, True, False]
            )[1]
            return found

        def sums(x: Tensor = x, g: Tensor = gradient, k: int = kernel, p: int = pad) -> Tensor:
            padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, p, p, p, p))
            rows, height, width = g.permute(0, 2, 3, 1), g.shape[2], g.shape[3]
            shifted = [padded[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]
            return torch.stack([(s * rows).sum((0, 1, 2)) for s in shifted]).T.reshape(-1, 1, k, k)

        torch.testing.assert_close(plain(), sums(), rtol=1e-3, atol=1e-2)
        yield f"weight gradient, depthwise {kernel}x{kernel}, {channels} channels, 8x8", plain, sums


def evaluation(batch: int) -> Iterator[Case]:
    """A pass over 512 images in one batch, and in those that a cache holds."""
    stages = tuple(StageSpec("basic", 3, 16 * 2**i, stride=2 if i else 1) for i in range(3))
    for name, spec in (
        ("ResNet-20", ArchitectureSpec(stages, stem_width=16)),
        (
            "student of 3 M MACs",
            ArchitectureSpec(tuple(replace(s, depth=1) for s in stages), 16, stem_stride=2),
        ),
    ):
        compute = Compute.resolve("cpu", "float32", True, torch.get_num_threads())
        network = compute.place(build_student(spec, 3, 10, (0.5,) * 3, (0.5,) * 3)).eval()
        images = torch.randint(0, 256, (512, 3, 32, 32), dtype=torch.uint8)

        def at_once(network: nn.Module = network, images: Tensor = images) -> Tensor:
            with torch.no_grad():
                found: Tensor = network(images.float().div_(255).contiguous(memory_format=LAST)).argmax(1)
            return found

        def in_batches(network: nn.Module = network, images: Tensor = images, c: Compute = compute) -> Tensor:
            return predict(network, images, c)

        yield f"evaluation of 512 images of 32x32, {name}", at_once, in_batches


def seeds(batch: int) -> Iterator[Case]:
    """A seed for all devices, and for the CPU alone."""
    yield "seed", lambda: torch.manual_seed(0), lambda: torch.default_generator.manual_seed(0)


PARTS = {
    "pointwise": pointwise,
    "layouts": layouts,
    "regressors": regressors,
    "optimizers": optimizers,
    "depthwise": depthwise,
    "evaluation": evaluation,
    "seeds": seeds,
}


SECONDS = 5.0
"""Of a comparison, after which it needs no more calls."""


def compared(first: Call, second: Call, calls: int) -> tuple[float, float]:
    """Medians in microseconds; the two take turns."""
    one, other = (1e6 * statistics.median(taken) for taken in alternating((first, second), calls, SECONDS))
    return one, other


def main() -> None:
    given = parser(__doc__)
    given.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    given.add_argument("--batch", type=int, default=64)
    given.add_argument("--threads", type=int, default=1)
    given.add_argument("--calls", type=int, default=200, help="of each way")
    args = given.parse_args()
    compute = Compute.resolve("cpu", "float32", True, args.threads)
    compute.apply_threads()
    torch.manual_seed(0)
    results = Results(args.json, args, machine.facts(), resume=args.resume)
    kept: dict[str, list[Row]] = results.found.setdefault("parts", {})
    print(f"{args.threads} thread(s), batch {args.batch}, torch {compute.environment()['torch']}\n")
    print(*header("what", "first way, us", "second way, us", "second over first"), sep="\n")
    for part in args.part:
        if part in kept:
            print(*map(line, kept[part]), sep="\n")
            continue
        rows = []
        for what, first, second in PARTS[part](args.batch):
            one, other = compared(first, second, args.calls)
            rows.append({"what": what, "first_us": one, "second_us": other})
            print(line(rows[-1]), flush=True)
        kept[part] = rows
        results.save()


def line(row: Row) -> str:
    one, other = row["first_us"], row["second_us"]
    return f"| {row['what']} | {one:.1f} | {other:.1f} | {other / one:.2f} |"


if __name__ == "__main__":
    main()
