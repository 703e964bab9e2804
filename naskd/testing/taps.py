"""Taps of imaginary networks, for tests of knowledge losses."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from naskd.knowledge.base import LossInputs, TeacherParts
from naskd.nn.taps import Tap, Taps, TapShape, TapShapes

N_CLASSES = 5
N_SAMPLES = 64


def shapes(*stages: tuple[int, int], features: int | None = None, layout: str = "map") -> TapShapes:
    """Shapes of a network from (channels, side) of each stage."""
    found = tuple(
        TapShape(channels, (side, side), "tokens" if layout == "tokens" else "map", (i + 1) / len(stages))
        for i, (channels, side) in enumerate(stages)
    )
    return TapShapes(N_CLASSES, found, found, features or stages[-1][0])


STUDENTS = {
    "one stage": shapes((4, 4)),
    "two stages": shapes((4, 8), (6, 4)),
    "three stages": shapes((4, 8), (6, 4), (8, 2)),
    "four stages, down to 1x1": shapes((3, 8), (4, 4), (5, 2), (6, 1)),
    "wider and larger than its teacher": shapes((24, 16), (32, 12), (40, 9)),
    "1x1 maps only": shapes((7, 1), (9, 1)),
    "no common grid": shapes((4, 7), (6, 5), (8, 3), features=10),
    "tokens": shapes((6, 4), (6, 4), layout="tokens"),
}
TEACHERS = {
    "three stages": shapes((8, 8), (12, 4), (16, 2)),
    "one stage": shapes((8, 4)),
    "four stages": shapes((8, 16), (12, 8), (16, 4), (20, 2)),
    "1x1 maps only": shapes((8, 1), (10, 1)),
    "tokens": shapes((12, 4), (12, 4), (12, 4), layout="tokens"),
}


def random_taps(
    of: TapShapes,
    batch: int = 6,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    gradients: bool = True,
) -> Taps:
    """Normal logits and pre-activations, and stages and pooled features as they are after a ReLU.

    Every tensor is a leaf of its own, so that its gradient says whether the loss reads it.
    """
    generator = torch.Generator().manual_seed(seed)

    def leaf(x: Tensor) -> Tensor:
        return x.to(dtype).requires_grad_(gradients)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    def tap(shape: TapShape) -> Tensor:
        height, width = shape.grid
        if shape.layout == "tokens":
            return normal(batch, height * width, shape.channels)
        return normal(batch, shape.channels, height, width)

    stages = [tap(s) for s in of.stages]
    return Taps(
        logits=leaf(2 * normal(batch, of.n_classes)),
        stages=tuple(
            Tap(leaf(x.relu()), s.layout, s.position, _grid(s))
            for x, s in zip(stages, of.stages, strict=True)
        ),
        pre_activations=tuple(
            Tap(leaf(x), s.layout, s.position, _grid(s)) for x, s in zip(stages, of.stages, strict=True)
        ),
        pooled=leaf(normal(batch, of.n_features).relu()),
    )


def _grid(shape: TapShape) -> tuple[int, int] | None:
    return shape.grid if shape.layout == "tokens" else None


def given(teacher: TapShapes, n_samples: int = N_SAMPLES, *, norms: bool = True) -> LossInputs:
    """What a teacher of these shapes could say of itself beyond its taps; the same for the same shapes."""
    generator = torch.Generator().manual_seed(teacher.n_features)
    head = (
        torch.randn(teacher.n_classes, teacher.n_features, generator=generator) / teacher.n_features**0.5,
        torch.randn(teacher.n_classes, generator=generator),
    )
    of_stages = tuple(
        (torch.randn(s.channels, generator=generator), torch.rand(s.channels, generator=generator) + 0.5)
        for s in teacher.pre_activations
    )
    return LossInputs(TeacherParts(head, of_stages if norms else ()), n_samples, (teacher, teacher))


def changed(taps: Taps, change: Callable[[Tensor], Tensor], *, logits: bool = True) -> Taps:
    """The same taps with `change` applied to every tensor, a new leaf each.

    Args:
        taps: Left as they are.
        change: Of a copy of a tensor.
        logits: False leaves those alone.
    """

    def leaf(x: Tensor) -> Tensor:
        return change(x.detach().clone()).requires_grad_(x.requires_grad)

    return Taps(
        logits=leaf(taps.logits) if logits else taps.logits,
        stages=tuple(replace(tap, tensor=leaf(tap.tensor)) for tap in taps.stages),
        pre_activations=tuple(replace(tap, tensor=leaf(tap.tensor)) for tap in taps.pre_activations),
        pooled=leaf(taps.pooled),
    )


def tensors(taps: Taps) -> dict[str, Tensor]:
    """All tensors by name."""
    found = {"logits": taps.logits, "pooled": taps.pooled}
    for field in ("stages", "pre_activations"):
        found.update((f"{field}.{i}", tap.tensor) for i, tap in enumerate(getattr(taps, field)))
    return found


def gradient(x: Tensor) -> Tensor:
    """Of a tensor that a loss must have reached."""
    assert x.grad is not None, "no gradient has arrived"
    return x.grad


def hard_cases(student: Taps, teacher: Taps) -> Iterator[tuple[str, Taps, Taps]]:
    """Students and teachers as they come in bad moments of a training, by name.

    Args:
        student: Taps of 6 samples and 5 classes, on which the cases are built.
        teacher: Likewise.
    """
    batch = len(student.logits)
    zeros, twins = torch.zeros_like, torch.tensor([0, 0, 2, 3, 3, 3])

    def dead(x: Tensor) -> Tensor:
        x[:, 1:] = 0
        return x

    yield "zero student", changed(student, zeros), teacher
    yield "zero teacher", student, changed(teacher, zeros)
    yield "both zero", changed(student, zeros), changed(teacher, zeros)
    yield (
        "one zero sample",
        changed(student, lambda x: x * (torch.arange(batch) > 0).view(-1, *[1] * (x.ndim - 1))),
        teacher,
    )
    yield "equal samples", changed(student, lambda x: x[twins]), changed(teacher, lambda x: x[twins])
    yield "equal samples in the student", changed(student, lambda x: x[twins]), teacher
    yield "equal samples in the teacher", student, changed(teacher, lambda x: x[twins])
    yield "all samples equal", changed(student, lambda x: x[:1].expand_as(x).clone()), teacher
    yield (
        "all samples almost equal and large",
        changed(student, lambda x: 1e4 * x[:1] + 1e-3 * x),
        teacher,
    )
    yield "constant student", changed(student, lambda x: torch.full_like(x, 0.3)), teacher
    yield "dead channels", changed(student, dead, logits=False), changed(teacher, dead, logits=False)
    yield "student equal to itself", student, changed(student, lambda x: x)
    for scale in (1e-8, 1e-4, 1e4):
        yield f"student scaled by {scale}", changed(student, partial(torch.mul, other=scale)), teacher
        yield f"teacher scaled by {scale}", student, changed(teacher, partial(torch.mul, other=scale))
    right = torch.nn.functional.one_hot(torch.arange(batch) % N_CLASSES, N_CLASSES).float()
    for gap in (50.0, 1e4):
        signed = (2 * right - 1) * gap
        yield (
            f"right student, logits of +-{gap:g}",
            replace(student, logits=signed.clone().requires_grad_()),
            teacher,
        )
        yield f"right teacher, logits of +-{gap:g}", student, replace(teacher, logits=signed)
        yield (
            f"wrong student, right teacher, logits of +-{gap:g}",
            replace(student, logits=(-signed).requires_grad_()),
            replace(teacher, logits=signed),
        )
