"""Gradients keep the layout of the maps, whoever hands them over."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import Lesson, LossInputs, TeacherParts
from naskd.networks import BLOCKS
from naskd.networks.student import Student, build_student
from naskd.nn.layout import keep_layout, spatial_mean
from naskd.spec.design import ArchitectureSpec, KnowledgeTerm, StageSpec

BATCH = 6
LAST = torch.channels_last


def maps(*size: int, memory_format: torch.memory_format = LAST) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*size, generator=generator).contiguous(memory_format=memory_format).requires_grad_()


def in_layout(gradient: Tensor) -> bool:
    return 0 in gradient.stride() or gradient.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("memory_format", [LAST, torch.contiguous_format])
def test_a_spatial_mean_and_its_gradient_are_torchs(memory_format: torch.memory_format) -> None:
    x = maps(3, 4, 5, 2, memory_format=memory_format)
    weights = torch.randn(3, 4)
    (spatial_mean(x) * weights).sum().backward()
    own, x.grad = x.grad, None
    (x.mean((2, 3)) * weights).sum().backward()
    torch.testing.assert_close(own, x.grad)
    assert torch.equal(spatial_mean(x), x.mean((2, 3)))
    assert torch.autograd.gradcheck(spatial_mean, (x.detach().double().requires_grad_(),))
    assert torch.autograd.gradgradcheck(spatial_mean, (x.detach().double().requires_grad_(),))


def test_the_gradient_of_a_mean_takes_no_memory_of_a_map() -> None:
    seen = []
    x = maps(3, 4, 5, 5) * 1
    x.register_hook(seen.append)
    spatial_mean(x).sum().backward()
    assert seen[0].untyped_storage().nbytes() == 4 * 3 * 4


def test_a_gradient_of_another_layout_is_laid_out_once_and_keeps_its_values() -> None:
    seen = []
    leaf = maps(3, 4, 5, 5)
    x = keep_layout(leaf * 1)
    x.register_hook(seen.append)
    weights = torch.randn(3, 4, 5, 5)
    (x.flatten(1) * weights.flatten(1)).sum().backward()
    assert seen[0].is_contiguous(memory_format=LAST)
    assert torch.equal(seen[0], weights)
    # In a network that keeps its maps in NCHW nothing is touched.
    plain = maps(3, 4, 5, 5, memory_format=torch.contiguous_format)
    y = keep_layout(plain * 1)
    y.register_hook(seen.append)
    (y * weights).sum().backward()
    assert seen[1].is_contiguous()


@pytest.mark.parametrize(
    ("kind", "block"),
    [
        *((kind, block) for kind in ("labels", "hint") for block in BLOCKS.names()),
        *((kind, "basic") for kind in KNOWLEDGE.names() if kind != "hint"),
        *((kind, "inverted_residual") for kind in KNOWLEDGE.names() if kind != "hint"),
    ],
)
def test_every_layer_meets_its_gradient_in_channels_last(kind: str, block: str) -> None:
    """Of a student in channels_last, whichever loss teaches it: else each layer would copy it first."""
    torch.manual_seed(0)
    options = {"expansion": 2.0, "squeeze_excitation": True} if block == "inverted_residual" else {}
    spec = ArchitectureSpec(
        (StageSpec(block, 1, 8, **options), StageSpec(block, 2, 12, stride=2, **options)), stem_width=6
    )
    student = build_student(spec, 3, 5, (0.5,) * 3, (0.5,) * 3).to(memory_format=LAST)
    teacher = build_student(spec, 3, 5, (0.5,) * 3, (0.5,) * 3).to(memory_format=LAST).eval()
    images = maps(BATCH, 3, 8, 8).detach()
    labels = torch.arange(BATCH) % 5
    met: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        # What the backward pass of a layer is given is the gradient of its output.
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            output.register_hook(met.setdefault(name, []).append)

        return hook

    for name, module in student.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(watch(name))
    taps = student.taps(images)
    loss = nn.functional.cross_entropy(taps.logits, labels)
    if kind != "labels":
        with torch.no_grad():
            answers = [teacher.taps(images), teacher.taps(images.flip(3))]
        shapes = answers[0].shapes
        given = LossInputs(_parts(teacher), n_samples=BATCH, teachers=(shapes, shapes))
        term = KNOWLEDGE.load(kind)(KnowledgeTerm(kind), taps.shapes, shapes, given)
        if term.card.several_teachers:
            parts = [term.summarise(answer) for answer in answers]
            summary = {f"{i}/{name}": x for i, part in enumerate(parts) for name, x in part.items()}
        else:
            summary = term.summarise(answers[0])
        loss = loss + term(taps, summary, Lesson(labels, torch.arange(BATCH), 0.5)).term
    loss.backward()
    assert met
    wrong = {
        name: [g.stride() for g in found] for name, found in met.items() if not all(map(in_layout, found))
    }
    assert not wrong


def _parts(teacher: Student) -> TeacherParts:
    norms = tuple(
        None if norm is None else (norm.bias.detach(), norm.weight.detach())
        for norm in teacher.pre_activation_norms()
    )
    return TeacherParts((teacher.head.weight.detach(), teacher.head.bias.detach()), norms)
