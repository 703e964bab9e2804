"""MACs and parameters of students, by naskd and by four counters of others; every difference is to be explained.

    pip install fvcore ptflops torchinfo     # in an environment of your own
    python benchmarks/counters.py

Students of each block, with a stem of stride 2 and the classifier, on images of 32x32 pixels in three colours.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.arguments import parser
from naskd.networks.student import build_student, design_cost
from naskd.nn.merging import merged
from naskd.spec.design import ArchitectureSpec, StageSpec

SHAPE = (3, 32, 32)


def students() -> dict[str, ArchitectureSpec]:
    """By name: one of each block, with what it reads; some with squeeze-excitation or of integers; a transformer."""

    def of(block: str, **more: object) -> ArchitectureSpec:
        stages = (StageSpec(block, 2, 16, **more), StageSpec(block, 1, 32, stride=2, **more))  # type: ignore[arg-type]  # by name
        return ArchitectureSpec(stages, stem_width=16, stem_stride=2)

    return {
        "basic": of("basic"),
        "bottleneck": of("bottleneck", expansion=0.5),
        "inverted_residual": of("inverted_residual", expansion=4.0),
        "inverted_residual, squeeze-excitation": of(
            "inverted_residual", expansion=4.0, squeeze_excitation=True
        ),
        "depthwise_separable": of("depthwise_separable"),
        "fused_inverted_residual": of("fused_inverted_residual", expansion=4.0),
        "ghost": of("ghost", expansion=2.0),
        "shuffle_v2": of("shuffle_v2"),
        "mixed_kernel, 3 and 5": of("mixed_kernel", kernel=5, expansion=2.0),
        "rep_vgg, merged": of("rep_vgg"),
        "convnext": of("convnext", kernel=7, expansion=4.0),
        "self_attention": of("self_attention", expansion=2.0),
        "basic, 8 bits": of("basic", bits=8),
        "vit": ArchitectureSpec(
            family="vit", options=(("depth", 2), ("heads", 2), ("patch", 4), ("width", 32))
        ),
    }


def network_of(spec: ArchitectureSpec) -> nn.Module:
    """The student of a design as it leaves, on random weights."""
    return merged(build_student(spec, 3, 10, (0.5,) * 3, (0.25,) * 3).eval())


def by_torch(network: nn.Module) -> tuple[float, float]:
    """By the counter of torch, which counts two operations for each multiply-accumulate, and no parameters."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.rand(1, *SHAPE))
    return counter.get_total_flops() / 2, float("nan")


def by_fvcore(network: nn.Module) -> tuple[float, float]:
    """fvcore, whose flops are multiply-accumulates."""
    from fvcore.nn import FlopCountAnalysis, parameter_count

    found = FlopCountAnalysis(network, torch.rand(1, *SHAPE))
    return found.unsupported_ops_warnings(False).total(), parameter_count(network)[""]


def by_ptflops(network: nn.Module) -> tuple[float, float]:
    """What ptflops counts."""
    from ptflops import get_model_complexity_info

    found: tuple[float, float] = get_model_complexity_info(
        network, SHAPE, as_strings=False, print_per_layer_stat=False, backend="pytorch"
    )
    return found


def by_torchinfo(network: nn.Module) -> tuple[float, float]:
    """What torchinfo counts."""
    from torchinfo import summary

    found = summary(network, input_size=(1, *SHAPE), verbose=0)
    return found.total_mult_adds, found.total_params


COUNTERS: dict[str, Callable[[nn.Module], tuple[float, float]]] = {
    "torch": by_torch,
    "fvcore": by_fvcore,
    "ptflops": by_ptflops,
    "torchinfo": by_torchinfo,
}


def main() -> None:
    """Print a table: MACs, then parameters, each beside the closed form's."""
    parser(__doc__, json=False).parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print("| student | naskd | torch | fvcore | ptflops | torchinfo | parameters |")
    print("|---|---|---|---|---|---|---|")
    for name, spec in students().items():
        ours = design_cost(spec, 3, 10, 32)
        network = network_of(spec)
        row, params = [f"{ours.macs:,}"], {"naskd": ours.n_params}
        for counter, count in COUNTERS.items():
            with contextlib.redirect_stdout(io.StringIO()):
                macs, n = count(network)
            row.append("the same" if macs == ours.macs else f"{macs - ours.macs:+,.0f}")
            params[counter] = int(n) if n == n else ours.n_params
        same = len(set(params.values())) == 1
        row.append(f"{ours.n_params:,}" + ("" if same else f" {params}"))
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
