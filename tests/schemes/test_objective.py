"""The total loss: exactly the weighted sum that a design writes down."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from conftest import own_methods
from small_studies import STUDENT, TEACHER
from torch import Tensor

from naskd.knowledge import KNOWLEDGE, KnowledgeCard
from naskd.knowledge.base import KnowledgeLoss, KnowledgeOutput, Lesson, Summary
from naskd.knowledge.source import OnlineSource, teacher_parts
from naskd.networks.student import build_student
from naskd.networks.teachers import Teacher
from naskd.nn.taps import Taps, TapShapes, tap_shapes
from naskd.schemes import objective as objective_module
from naskd.schemes.distilled import deployed_network
from naskd.schemes.objective import DistillationObjective, term_names
from naskd.spec.design import DistillationSpec, KnowledgeTerm

KINDS = ("logits", "hint", "attention", "rkd")
"""One of each family, and two that pair stages: what is tested here is the sum, not its terms."""
STATISTICS = ((0.5,), (0.25,))
LABELS = torch.arange(12) % 10
INDEX = torch.arange(12)


class Scene:
    """A student, its teachers, and a batch."""

    def __init__(self, n_teachers: int = 1) -> None:
        torch.manual_seed(0)
        self.student = build_student(STUDENT, 1, 10, *STATISTICS)
        teachers = [Teacher(build_student(TEACHER, 1, 10, *STATISTICS)) for _ in range(n_teachers)]
        self.sources = [OnlineSource(t, tap_shapes(t, 1, 8), 0, teacher_parts(t)) for t in teachers]
        self.images = torch.rand(12, 1, 8, 8)

    def objective(self, *terms: KnowledgeTerm, ce_weight: float = 1.0) -> DistillationObjective:
        teachers = tuple(f"teacher{i}" for i in range(len(self.sources)))
        spec = DistillationSpec(terms, ce_weight, teachers=teachers)
        torch.manual_seed(1)
        return DistillationObjective(spec, tap_shapes(self.student, 1, 8), self.sources)

    def taps(self) -> Taps:
        return self.student.taps(self.images)

    def value(
        self, objective: DistillationObjective, taps: Taps | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        summaries = objective.summaries(self.images, INDEX, epoch=0)
        return objective(taps or self.taps(), summaries, Lesson(LABELS, INDEX))


def test_without_terms_it_is_cross_entropy() -> None:
    scene = Scene()
    taps = scene.taps()
    total, terms = scene.value(scene.objective(ce_weight=0.5), taps)
    assert list(terms) == ["ce"]
    torch.testing.assert_close(total, 0.5 * F.cross_entropy(taps.logits, LABELS))


@pytest.mark.parametrize("weighting", ["paper", "balanced"])
def test_the_total_is_the_weighted_sum_of_its_terms(weighting) -> None:
    scene = Scene()
    design = [KnowledgeTerm(kind, 0.5 + i, weighting) for i, kind in enumerate(KINDS)]
    objective = scene.objective(*design, ce_weight=0.25)
    for _ in range(2):
        total, terms = scene.value(objective)
        assert list(terms) == ["ce", *KINDS]
        assert not any(term.requires_grad for term in terms.values())
        expected = 0.25 * terms["ce"] + sum(
            weight * terms[kind] for weight, kind in zip(objective.weights, KINDS, strict=True)
        )
        torch.testing.assert_close(total.detach(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_each_term_is_the_loss_alone(kind) -> None:
    scene = Scene()
    _, terms = scene.value(scene.objective(KnowledgeTerm(kind, 3.0)))
    torch.manual_seed(1)
    (source,) = scene.sources
    loss = KNOWLEDGE.load(kind)(KnowledgeTerm(kind), tap_shapes(scene.student, 1, 8), source.shapes)
    (summary,) = source.summaries(scene.images, INDEX, 0, [loss])
    torch.testing.assert_close(terms[kind], loss(scene.taps(), summary, Lesson(LABELS, INDEX)).term.detach())


def test_who_listens_without_a_term_hears_the_first_teacher_in_the_same_pass() -> None:
    scene = Scene(2)
    objective = scene.objective(KnowledgeTerm("hint"), KnowledgeTerm("logits", source=1))
    listener = KNOWLEDGE.load("rkd")(
        KnowledgeTerm("rkd"), tap_shapes(scene.student, 1, 8), scene.sources[0].shapes
    )
    *terms, heard = objective.summaries(scene.images, INDEX, epoch=0, beside=(listener,))
    assert [source.forward_images for source in scene.sources] == [12, 12]
    torch.testing.assert_close(heard["pooled"], scene.sources[0].network.taps(scene.images).pooled)
    expected = objective.summaries(scene.images, INDEX, epoch=0)
    assert [set(summary) for summary in terms] == [set(summary) for summary in expected]
    alone = scene.objective().summaries(scene.images, INDEX, epoch=0, beside=(listener,))
    torch.testing.assert_close(alone[0]["pooled"], heard["pooled"])


def test_a_papers_weight_is_its_constant_times_the_designs() -> None:
    objective = Scene().objective(*(KnowledgeTerm(kind, 0.5) for kind in KINDS))
    assert objective.weights.tolist() == pytest.approx([0.5 * KNOWLEDGE[kind].paper_weight for kind in KINDS])


def gradient_norm(value: Tensor, tensors: tuple[Tensor, ...]) -> float:
    found = torch.autograd.grad(value, tensors, retain_graph=True)
    return float(torch.cat([g.flatten() for g in found]).double().norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("pairs", ["last", "all"])
def test_a_balanced_term_pulls_as_hard_as_cross_entropy_times_its_weight(kind, weight, pairs) -> None:
    """At the student's tensors that it reads, on the first batch."""
    scene = Scene()
    objective = scene.objective(
        KnowledgeTerm(kind, weight, "balanced", pairs=pairs),
        KnowledgeTerm("logits", 2.0, temperature=3.0),
        ce_weight=0.1,
    )
    assert not objective.calibrated
    taps = scene.taps()
    scene.value(objective, taps)
    assert objective.calibrated
    assert objective.weights[1] == pytest.approx(2.0 * KNOWLEDGE["logits"].paper_weight)

    loss = objective.losses[0]
    tensors = loss.student_tensors(taps)
    summary = scene.sources[0].summaries(scene.images, INDEX, 0, [loss])[0]
    term = loss(taps, summary, Lesson(LABELS, INDEX)).term
    cross_entropy = F.cross_entropy(taps.logits, LABELS)
    found = float(objective.weights[0]) * gradient_norm(term, tensors)
    assert found == pytest.approx(weight * gradient_norm(cross_entropy, tensors), rel=1e-4)


def test_balance_is_found_on_the_first_batch_and_kept() -> None:
    scene = Scene()
    objective = scene.objective(KnowledgeTerm("hint", 1.0, "balanced"))
    scene.value(objective)
    before = objective.weights.clone()
    scene.images = torch.rand(12, 1, 8, 8).square()
    scene.value(objective)
    assert torch.equal(objective.weights, before)


def test_balance_leaves_no_gradient_behind() -> None:
    """What trains is the gradient of the total, and nothing of the measurement."""
    scene = Scene()
    objective = scene.objective(KnowledgeTerm("hint", 1.0, "balanced"))
    total, _ = scene.value(objective)
    assert all(p.grad is None for p in [*scene.student.parameters(), *objective.parameters()])
    again = scene.objective(KnowledgeTerm("hint", 1.0, "balanced"))
    again.load_state_dict(objective.state_dict())
    expected = torch.autograd.grad(scene.value(again)[0], list(scene.student.parameters()))
    found = torch.autograd.grad(total, list(scene.student.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_balance_is_part_of_a_checkpoint() -> None:
    scene = Scene()
    objective = scene.objective(KnowledgeTerm("hint", 1.0, "balanced"))
    fresh = objective.state_dict()
    assert not scene.objective(KnowledgeTerm("hint", 1.0, "balanced")).calibrated
    scene.value(objective)
    again = scene.objective(KnowledgeTerm("hint", 1.0, "balanced"))
    again.load_state_dict(objective.state_dict())
    assert again.calibrated
    assert torch.equal(again.weights, objective.weights)
    assert fresh["_extra_state"] == []
    assert objective.state_dict()["_extra_state"] == ["main"]


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_a_term_that_has_nothing_to_say_keeps_its_weight(noise) -> None:
    """At its minimum a gradient is zero but for rounding, which must not be amplified a million times."""
    scene = Scene()
    objective = scene.objective(
        KnowledgeTerm("logits", 0.7, "balanced"), KnowledgeTerm("hint", 0.3, "balanced")
    )
    taps = scene.taps()
    own = {"logits": taps.logits.detach() * (1 + noise)}
    hint = scene.sources[0].summaries(scene.images, INDEX, 0, [objective.losses[1]])[0]
    total, _ = objective(taps, [own, hint], Lesson(LABELS, INDEX))
    assert objective.weights[0] == pytest.approx(0.7)
    assert objective.weights[1] != pytest.approx(0.3)
    assert total.isfinite()
    assert objective.calibrated


@pytest.mark.parametrize("n_wrong", [0, 1, 6])
def test_balance_does_not_depend_on_how_many_labels_a_teacher_stands_in_for(n_wrong) -> None:
    """A teacher that is right about all images of the first batch leaves no label to compare with."""
    scene = Scene()
    objective = scene.objective(
        KnowledgeTerm("conditional", 1.0, "balanced"), KnowledgeTerm("hint", 0.5, "balanced")
    )
    said = 5 * F.one_hot(LABELS, 10).float()
    said[:n_wrong] = said[:n_wrong].roll(1, 1)
    taps = scene.taps()
    hint = scene.sources[0].summaries(scene.images, INDEX, 0, [objective.losses[1]])[0]
    summaries = [{"logits": said}, hint]
    objective(taps, summaries, Lesson(LABELS, INDEX))
    for loss, summary, weight, factor in zip(
        objective.losses, summaries, objective.weights, (1.0, 0.5), strict=True
    ):
        tensors = loss.student_tensors(taps)
        term = loss(taps, summary, Lesson(LABELS, INDEX)).term
        expected = factor * gradient_norm(F.cross_entropy(taps.logits, LABELS), tensors)
        assert float(weight) * gradient_norm(term, tensors) == pytest.approx(expected, rel=1e-4)


def test_balance_does_not_depend_on_whom_the_first_step_leaves_out() -> None:
    scene = Scene(n_teachers=3)
    found = set()
    for seed in range(8):
        objective = scene.objective(
            KnowledgeTerm("dgkd", 1.0, "balanced", options=(("drop", 0.6),)), ce_weight=0.5
        )
        taps = scene.taps()
        summaries = objective.summaries(scene.images, INDEX, epoch=0)
        torch.manual_seed(seed)
        objective(taps, summaries, Lesson(LABELS, INDEX))
        found.add(round(float(objective.weights[0]), 6))
    (weight,) = found
    usual = objective.losses[0].eval()(taps, summaries[0], Lesson(LABELS, INDEX)).term
    expected = gradient_norm(F.cross_entropy(taps.logits, LABELS), (taps.logits,))
    assert weight * gradient_norm(usual, (taps.logits,)) == pytest.approx(expected, rel=1e-4)


def test_an_initial_stage_is_weighed_against_the_logits_of_the_network_that_leaves() -> None:
    """Where a loss replaces the classifier, what the student hands out are no logits: here fewer than classes."""
    scene = Scene()
    objective = scene.objective(KnowledgeTerm("ab", 1.0, "balanced"), KnowledgeTerm("simkd"))
    objective.losses[1].eval()
    deployed_network(scene.student, objective)
    taps, summaries = scene.taps(), objective.summaries(scene.images, INDEX, 0, "initial")
    assert taps.logits.shape[1] < 10
    objective.initial(taps, summaries, Lesson(LABELS, INDEX))
    loss = objective.losses[0]
    tensors = loss.student_tensors(taps)
    term = loss(taps, summaries[0], Lesson(LABELS, INDEX)).term
    logits = objective.losses[1].deployed_taps(taps).logits
    expected = gradient_norm(F.cross_entropy(logits, LABELS), tensors)
    assert float(objective.weights[0]) * gradient_norm(term, tensors) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["srrl", "ofd", "simkd"])
def test_who_answers_in_place_of_a_teacher_is_read_with_its_own_weights(kind) -> None:
    """Classifier and margins are those of the network that speaks, or its features are read by another's."""
    scene = Scene(n_teachers=2)
    first, other = scene.sources
    with torch.no_grad():
        for norm in other.network.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 2.0)
                norm.bias.normal_()
    other.parts = teacher_parts(other.network)
    scene.sources = [first]
    objective = scene.objective(KnowledgeTerm(kind))
    scene.sources = [other]
    expected = scene.objective(KnowledgeTerm(kind))
    before = {name: x.clone() for name, x in objective.state_dict().items() if isinstance(x, Tensor)}
    summaries = objective.summaries(scene.images, INDEX, 0, sources=[other])
    mine, theirs = objective.eval(), expected.eval()
    assert any(not torch.equal(before[name], x) for name, x in mine.state_dict().items() if name in before)
    found, wanted = (each(scene.taps(), summaries, Lesson(LABELS, INDEX))[1] for each in (mine, theirs))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_no_measure(broken) -> None:
    """The loop finds it and ends the trial; the weights say nothing of it."""
    scene = Scene()
    objective = scene.objective(KnowledgeTerm("logits", 0.7, "balanced"))
    taps = scene.taps()
    objective(taps, [{"logits": torch.full_like(taps.logits, broken)}], Lesson(LABELS, INDEX))
    assert objective.weights.tolist() == pytest.approx([0.7])


def test_each_term_learns_from_its_own_teacher_and_each_teacher_is_asked_once() -> None:
    scene = Scene(n_teachers=2)
    asked: list[tuple[int, list[str]]] = []
    for number, source in enumerate(scene.sources):
        answer = source.summaries

        def note(images, index, epoch, losses, number=number, answer=answer):
            asked.append((number, [loss.settings.kind for loss in losses]))
            return answer(images, index, epoch, losses)

        source.summaries = note
    objective = scene.objective(
        KnowledgeTerm("hint", source=1), KnowledgeTerm("logits", source=0), KnowledgeTerm("rkd", source=1)
    )
    summaries = objective.summaries(scene.images, INDEX, epoch=0)
    assert asked == [(0, ["logits"]), (1, ["hint", "rkd"])]
    first, second = (source.network.taps(scene.images) for source in scene.sources)
    torch.testing.assert_close(summaries[1]["logits"], first.logits)
    torch.testing.assert_close(summaries[2]["pooled"], second.pooled)
    assert not torch.allclose(first.pooled, second.pooled)


def test_names_of_terms_are_unique() -> None:
    terms = [KnowledgeTerm(kind) for kind in ("logits", "hint", "logits", "logits")]
    assert term_names(terms) == ["logits", "hint", "logits#2", "logits#3"]


def test_the_smallest_batch_suits_every_term() -> None:
    scene = Scene()
    assert scene.objective().min_batch == 2
    assert (
        scene.objective(KnowledgeTerm("logits"), KnowledgeTerm("rkd")).min_batch
        == KNOWLEDGE["rkd"].min_batch
        == 3
    )


def test_what_cannot_be_matched_is_refused() -> None:
    scene = Scene()
    with pytest.raises(ValueError, match="has no option 'angle'"):
        scene.objective(KnowledgeTerm("rkd", options=(("angle", 1.0),)))
    with pytest.raises(ValueError, match=r"unknown knowledge loss 'logit'; .*did you mean 'logits'"):
        scene.objective(KnowledgeTerm("logit"))


# --- losses that speak about labels -------------------------------------------------------------------------------


class Doubting(KnowledgeLoss):
    """Weighs the label of a sample by its index."""

    def summarise(self, teacher: Taps) -> Summary:
        return {"logits": teacher.logits.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        return (student.logits,)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        return KnowledgeOutput(student.logits.square().mean(), label_weights=lesson.index / 4)


@pytest.fixture
def doubting() -> Iterator[Callable[..., KnowledgeTerm]]:
    KNOWLEDGE.register(
        KnowledgeCard(
            "doubting", "response", "", "", "", Doubting, taps=("logits",), paper_weight=1.0, paper_setting=""
        )
    )
    yield lambda **settings: KnowledgeTerm("doubting", **settings)
    del KNOWLEDGE._cards["doubting"]


def test_label_weights_scale_each_samples_cross_entropy(doubting) -> None:
    scene = Scene()
    taps = scene.taps()
    each = F.cross_entropy(taps.logits, LABELS, reduction="none")
    total, terms = scene.value(scene.objective(doubting(), ce_weight=0.5), taps)
    torch.testing.assert_close(terms["ce"], (each * INDEX / 4).mean().detach())
    torch.testing.assert_close(total, 0.5 * (each * INDEX / 4).mean() + taps.logits.square().mean())


def test_label_weights_of_several_terms_multiply_and_the_others_do_not_matter(doubting) -> None:
    scene = Scene()
    taps = scene.taps()
    each = F.cross_entropy(taps.logits, LABELS, reduction="none")
    objective = scene.objective(doubting(), KnowledgeTerm("logits"), doubting(weight=0.5))
    _, terms = scene.value(objective, taps)
    torch.testing.assert_close(terms["ce"], (each * (INDEX / 4) ** 2).mean().detach())
    assert list(terms) == ["ce", "doubting", "logits", "doubting#2"]


# --- cost ---------------------------------------------------------------------------------------------------------


def test_the_cost_of_the_terms_is_that_of_their_convolutions_and_products() -> None:
    """Hint: one 1x1 convolution on the smaller grid. Logits: nothing. RKD: products that grow with the batch."""
    scene = Scene()
    shapes: TapShapes = tap_shapes(scene.student, 1, 8)
    assert scene.objective().step_macs(shapes, 16) == 0
    assert scene.objective(KnowledgeTerm("logits")).step_macs(shapes, 16) == 0
    student, teacher = shapes.stages[-1], scene.sources[0].shapes.stages[-1]
    hint = scene.objective(KnowledgeTerm("hint"))
    assert (
        hint.step_macs(shapes, 16) == student.channels * teacher.channels * student.grid[0] * student.grid[1]
    )
    assert next(hint.parameters()).device.type == "cpu"
    rkd = scene.objective(KnowledgeTerm("rkd"))
    assert rkd.step_macs(shapes, 32) > rkd.step_macs(shapes, 16) > 0


def test_the_cost_of_equal_terms_is_counted_once_and_that_of_others_anew(monkeypatch) -> None:
    """Whatever a loss computes follows from its settings and the shapes it is given: each of them makes it another."""
    monkeypatch.setattr(objective_module, "_COUNTED", {})
    counted = []
    count = objective_module.count_macs
    monkeypatch.setattr(objective_module, "count_macs", lambda call: counted.append(call) or count(call))
    scene = Scene()
    shapes = tap_shapes(scene.student, 1, 8)
    larger = tap_shapes(scene.student, 1, 16)

    def macs(*terms: KnowledgeTerm, given: TapShapes = shapes, batch: int = 16, n_samples: int = 40) -> float:
        spec = DistillationSpec(terms, teachers=("teacher0",))
        found = DistillationObjective(spec, given, scene.sources, n_samples)
        value, seen = found.step_macs(given, batch), len(counted)
        assert found._counted(given, batch, "main") == value
        del counted[seen:]
        return value

    attention, rkd, crd = (KnowledgeTerm(kind) for kind in ("attention", "rkd", "crd"))
    asked = [
        lambda: macs(rkd),
        lambda: macs(rkd, batch=32),
        lambda: macs(KnowledgeTerm("rkd", pairs="first")),
        lambda: macs(rkd, rkd),
        lambda: macs(rkd, given=larger),
        lambda: macs(KnowledgeTerm("hint"), given=shapes),
        lambda: macs(KnowledgeTerm("hint"), given=larger),
        lambda: macs(KnowledgeTerm("hint", pairs="all")),
        lambda: macs(crd),
        lambda: macs(crd, n_samples=400),
        lambda: macs(attention, rkd),
    ]
    for number, ask in enumerate(asked, start=1):
        ask()
        assert len(counted) == number, "another term is counted anew"
    for ask in asked:
        ask()
    assert len(counted) == len(asked), "an equal one is not"


def test_a_loss_of_the_same_name_that_computes_something_else_is_counted_anew() -> None:
    """A notebook registers a loss again when its cell is run again."""
    found = []
    for factor in (1, 3):

        class Products(KnowledgeLoss):
            times = factor

            def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
                return (student.logits,)

            def summarise(self, teacher: Taps) -> Summary:
                return {}

            def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
                return KnowledgeOutput(
                    sum((student.logits.T @ student.logits).sum() for _ in range(self.times))
                )

        with own_methods():
            KNOWLEDGE.register(
                KnowledgeCard(
                    "products",
                    "response",
                    "",
                    "",
                    "",
                    Products,
                    taps=("logits",),
                    paper_weight=1.0,
                    paper_setting="",
                )
            )
            scene = Scene()
            found.append(
                scene.objective(KnowledgeTerm("products")).step_macs(tap_shapes(scene.student, 1, 8), 8)
            )
    assert found[1] == 3 * found[0] > 0
