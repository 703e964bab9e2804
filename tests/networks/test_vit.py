"""Transformer students: their settings, their attention, and losses between them and convolutional networks."""

import math

import pytest
import torch
from torch.nn import functional

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import KnowledgeLoss, Lesson, LossInputs
from naskd.knowledge.source import teacher_parts
from naskd.networks import FAMILIES
from naskd.networks.student import Student, build_student, design_cost
from naskd.networks.teachers import Teacher
from naskd.networks.transformer import SelfAttention, interleaved, position_embedding
from naskd.networks.vit import stage_depths
from naskd.nn.taps import tap_shapes
from naskd.spec.design import ArchitectureSpec, Cost, KnowledgeTerm, StageSpec, TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.option import OptionValue
from naskd.trials.methods import canonical

CLASSES = 5
CNN = ArchitectureSpec(
    (StageSpec("basic", 1, 6), StageSpec("convnext", 1, 8, stride=2), StageSpec("basic", 1, 10, stride=2)),
    stem_width=4,
)


def vit(**options: OptionValue) -> ArchitectureSpec:
    return ArchitectureSpec(family="vit", options=tuple(sorted(options.items())))


SMALL = vit(depth=3, width=12, heads=2, patch=4, mlp_ratio=2.0)


def network(spec: ArchitectureSpec) -> Student:
    torch.manual_seed(0)
    return build_student(spec, 3, CLASSES, (0.5,) * 3, (0.25,) * 3)


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (
            {"width": 10, "heads": 2},
            "'width' of network family 'vit' is 10; allowed: multiples of 4.*8 or 12",
        ),
        ({"width": 16, "heads": 3}, "width 16 cannot be shared by 3 heads; allowed: a multiple of 3"),
        ({"patch": 0}, r"in \[1, 256\]"),
        ({"pach": 4}, "did you mean 'patch'"),
    ],
)
def test_settings_that_cannot_be_built_are_refused_before_anything_is(options, what) -> None:
    for use in (network, lambda spec: design_cost(spec, 3, CLASSES, 8)):
        with pytest.raises(InputError, match=what):
            use(vit(**options))


def test_more_stages_than_layers_are_as_many_as_layers() -> None:
    card = FAMILIES["vit"]
    assert card.n_stages(vit(depth=2, stages=4)) == 2
    assert card.canonical(vit(depth=2, stages=4)) == card.canonical(vit(depth=2, stages=2))
    assert card.canonical(vit(depth=6, stages=3, patch=4)) == ArchitectureSpec(family="vit", options=())
    written = ArchitectureSpec((StageSpec("basic", 1, 8),), 7, family="vit", stem="patches", stem_stride=4)
    assert canonical(TrialConfig(written)).architecture == ArchitectureSpec(family="vit")


@pytest.mark.parametrize(
    ("factor", "heads", "width"), [(2, 4, 24), (1, 2, 12), (0.5, 2, 12), (0.01, 2, 12), (1.5, 4, 24)]
)
def test_a_wider_one_has_more_heads_of_the_same_width(factor, heads, width) -> None:
    """Of 6 features each, so that their number must be even."""
    found = FAMILIES["vit"].widened(SMALL, factor)
    assert dict(found.options) == {**dict(SMALL.options), "heads": heads, "width": width}
    assert FAMILIES["vit"].problems(found) == []


@pytest.mark.parametrize(("depth", "stages", "wanted"), [(6, 3, (2, 2, 2)), (5, 3, (1, 2, 2)), (1, 3, (1,))])
def test_layers_are_shared_among_the_stages(depth, stages, wanted) -> None:
    spec = vit(depth=depth, stages=stages, width=12)
    assert stage_depths(spec) == wanted
    taps = network(spec).taps(torch.rand(2, 3, 8, 8))
    assert [tap.position for tap in taps.stages] == [sum(wanted[: i + 1]) / depth for i in range(len(wanted))]


def test_the_cost_of_a_small_one_by_hand() -> None:
    """Four tokens of 12 features, one layer with an MLP of 24."""
    weights = 48 * 12 + 12 * 36 + 12 * 12 + 2 * 12 * 24
    macs = 4 * weights + 2 * 4 * 4 * 12 + 12 * 5
    n_params = weights + 12 * 5 + (12 + 12 + 24 + 12 + 5) + 3 * 24
    spec = vit(depth=1, width=12, heads=3, patch=4, mlp_ratio=2.0)
    assert design_cost(spec, 3, CLASSES, 8) == Cost(macs, n_params, 4 * (n_params + 6))


# --- what it computes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 3), (1, 5), (1, 1)])
@pytest.mark.parametrize("apart", [1, 2])
def test_attention_is_torchs_among_the_tokens_that_it_is_for(apart, height, width) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(6, 2, apart).double()
    x = torch.randn(2, height, width, 6, dtype=torch.float64)
    tokens = layer.queries_keys_values(x).flatten(1, 2)
    heads = tokens.unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
    rows, columns = torch.arange(height) % apart, torch.arange(width) % apart
    groups = (rows[:, None] * apart + columns).flatten()
    wanted = functional.scaled_dot_product_attention(*heads, attn_mask=groups[:, None] == groups)
    wanted = layer.project(wanted.transpose(1, 2).reshape(2, height, width, 6))
    torch.testing.assert_close(layer(x), wanted)


def test_what_is_taken_apart_is_put_together() -> None:
    x = torch.arange(2 * 7 * 3).reshape(2, 7, 3)
    assert torch.equal(interleaved([x[:, i::3] for i in range(3)], 7, 1), x)


def test_positions_are_told_apart_and_tokens_are_not_but_for_them() -> None:
    places = position_embedding(5, 6, 8, torch.zeros(1)).flatten(0, 1)
    assert torch.pdist(places).min() > 0.1
    student = network(SMALL).eval()
    one = torch.rand(1, 3, 4, 4)
    images = torch.stack([one[0].repeat(1, 2, 2), one[0].repeat(1, 2, 2).flip(1)])
    assert not torch.allclose(student(images)[0], student(images)[1])
    halves = torch.cat([torch.zeros(1, 3, 8, 4), torch.ones(1, 3, 8, 4)], 3)
    assert not torch.allclose(student(halves), student(halves.flip(3)), atol=1e-4)


def test_it_takes_images_of_any_size() -> None:
    student = network(SMALL).eval()
    for height, width in ((8, 8), (9, 14), (1, 1)):
        taps = student.taps(torch.rand(2, 3, height, width))
        grid = (math.ceil(height / 4), math.ceil(width / 4))
        assert [tap.shape.grid for tap in taps.stages] == [grid] * 3
        assert taps.logits.shape == (2, CLASSES)


def test_it_learns() -> None:
    student, labels = network(SMALL), torch.arange(8) % CLASSES
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(student.parameters(), 0.01)
    losses = []
    for _ in range(25):
        loss = functional.cross_entropy(student(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


# --- losses across families --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Student, Teacher]]:
    """A transformer that hears a convolutional network, and the reverse."""
    return [(network(SMALL), Teacher(network(CNN))), (network(CNN), Teacher(network(SMALL)))]


@pytest.mark.parametrize("kind", KNOWLEDGE.names())
def test_every_loss_teaches_across_families(kind: str, pairs: list[tuple[Student, Teacher]]) -> None:
    """A finite term, and a gradient at the student and at what the loss trains beside it."""
    images, labels = torch.rand(8, 3, 8, 8), torch.arange(8) % CLASSES
    for student, teacher in pairs:
        student.zero_grad()
        student.train()
        shapes = tap_shapes(student, 3, 8), tap_shapes(teacher, 3, 8)
        card = KNOWLEDGE[kind]
        term = KnowledgeTerm(kind, pairs="all" if card.uses_pairs else "last")
        given = LossInputs(teacher_parts(teacher), 64, (shapes[1],) * 2)
        if kind == "ofd" and not any(given.parts.norms):
            with pytest.raises(InputError, match="needs the BatchNorm"):
                KNOWLEDGE.load(kind)(term, *shapes, given)
            continue
        loss = KNOWLEDGE.load(kind)(term, *shapes, given)
        assert isinstance(loss, KnowledgeLoss)
        with torch.no_grad():
            summary = loss.summarise(teacher.taps(images))
            if card.several_teachers:
                summary = {f"{i}/{name}": x for i in range(2) for name, x in summary.items()}
        found = loss(student.taps(images), summary, Lesson(labels, torch.arange(8), 0.5)).term
        assert found.isfinite()
        found.backward()
        gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients) or not found
