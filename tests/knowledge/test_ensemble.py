import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_studies import TEACHER, TRAINING, design, make, small_context
from torch import Tensor

import naskd
from naskd.knowledge.base import Lesson, LossInputs
from naskd.knowledge.comparison import divergences
from naskd.knowledge.drawn_source import DrawnSource
from naskd.knowledge.response.ca_mkd import ca_mkd_loss, confidence_weights
from naskd.knowledge.response.ensemble import (
    EnsembleLoss,
    ensemble_logits,
    ensemble_loss,
    learned_loss,
)
from naskd.knowledge.response.logits import logits_loss
from naskd.nn.taps import Taps
from naskd.spec.design import AssistantSpec, KnowledgeTerm, TrialConfig
from naskd.spec.teachers import TeacherSpec
from naskd.study.admission import settle
from naskd.trials.context import StudyContext
from naskd.trials.run import start_run

from .responses import random_logits, slope

MEANS = ("probabilities", "logits", "drawn", "learned")
LABELS = torch.tensor([0, 3, 1, 2])


def several(n: int = 3) -> Tensor:
    return torch.stack([random_logits(seed=1 + i) for i in range(n)])


def build(mean: str, n: int = 3, temperature: float = 2.0) -> EnsembleLoss:
    shapes = taps_of(random_logits()).shapes
    term = KnowledgeTerm("ensemble", temperature=temperature, options=(("mean", mean),))
    return EnsembleLoss(term, shapes, shapes, LossInputs(teachers=(shapes,) * n)).double()


def taps_of(logits: Tensor) -> Taps:
    return Taps(logits, (), (), logits)


def value(loss: EnsembleLoss, student: Tensor, teachers: Tensor) -> Tensor:
    summary = {
        f"{i}/{name}": x for i, z in enumerate(teachers) for name, x in loss.summarise(taps_of(z)).items()
    }
    return loss(taps_of(student), summary, Lesson(LABELS, LABELS)).term


def test_means_of_two_opinions_by_hand() -> None:
    """(0.9, 0.1) and (0.5, 0.5): the mean is (0.7, 0.3); of the logits, odds of 9 and 1 have the mean odds 3."""
    teachers = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]], dtype=torch.float64).log()
    for mean, first in (("probabilities", 0.7), ("logits", 0.75)):
        found = ensemble_logits(teachers, 1.0, mean).softmax(dim=1)
        torch.testing.assert_close(found, torch.tensor([[first, 1 - first]], dtype=torch.float64))


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_an_ensemble_of_one_is_that_teacher(mean: str, temperature: float) -> None:
    """As is one of equal teachers, however the mean is taken."""
    student, teacher = random_logits(), random_logits(seed=1)
    alone = logits_loss(student, teacher, temperature)
    for n in (1, 3):
        teachers = teacher.expand(n, -1, -1)
        torch.testing.assert_close(ensemble_loss(student, teachers, temperature, mean), alone)
        torch.testing.assert_close(
            slope(lambda x, t=teachers: ensemble_loss(x, t, temperature, mean), student),
            slope(lambda x: logits_loss(x, teacher, temperature), student),
        )
        torch.testing.assert_close(ca_mkd_loss(student, teachers, LABELS, temperature), alone)
        even = torch.zeros(n, dtype=torch.float64)
        torch.testing.assert_close(learned_loss(student, teachers, temperature, even), alone)


@pytest.mark.parametrize("mean", MEANS)
def test_the_order_of_the_teachers_does_not_matter(mean: str) -> None:
    student, teachers = random_logits(), several()
    loss = build(mean).eval()
    torch.testing.assert_close(value(loss, student, teachers[[2, 0, 1]]), value(loss, student, teachers))
    torch.testing.assert_close(
        ca_mkd_loss(student, teachers[[2, 0, 1]], LABELS, 2.0), ca_mkd_loss(student, teachers, LABELS, 2.0)
    )


@pytest.mark.parametrize("mean", ["drawn", "learned"])
def test_even_weights_pull_as_the_mean_of_the_probabilities_does(mean: str) -> None:
    """What does not depend on the student is the difference."""
    student, teachers = random_logits(), several()
    loss = build(mean).eval()
    found = slope(lambda x: value(loss, x, teachers), student)
    expected = slope(lambda x: ensemble_loss(x, teachers, 2.0), student)
    torch.testing.assert_close(found, expected)
    assert value(loss, student, teachers) > ensemble_loss(student, teachers, 2.0)


class Saying:
    """A teacher that says its logits of the images at positions, and remembers of which it was asked."""

    learns = False

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.asked, self.macs = logits, [], 10

    def summaries(self, images: Tensor, index: Tensor, epoch: int, losses: list[EnsembleLoss]) -> list[dict]:
        assert len(images) == len(index) > 0
        self.asked += index.tolist()
        return [loss.summarise(taps_of(self.logits[index])) for loss in losses]


def test_each_image_draws_one_teacher_evenly_and_asks_no_other() -> None:
    student, teachers = random_logits(), several()
    apart = divergences(student, teachers, 2.0)
    loss, values, found = build("drawn"), [], [0, 0, 0]
    torch.manual_seed(0)
    for _ in range(2000):
        members = [Saying(logits) for logits in teachers]
        (summary,) = DrawnSource(members).summaries(torch.zeros(4, 1, 2, 2), torch.arange(4), 0, [loss])
        assert sorted(i for member in members for i in member.asked) == [0, 1, 2, 3]
        by_hand = sum(apart[m, i] for m, member in enumerate(members) for i in member.asked) / 4
        values.append(loss(taps_of(student), summary, Lesson(LABELS, LABELS)).term)
        torch.testing.assert_close(values[-1], by_hand)
        found = [n + len(member.asked) for n, member in zip(found, members, strict=True)]
    assert all(abs(n - 8000 / 3) < 4 * math.sqrt(8000 * 2 / 9) for n in found)
    expected, drawn = value(loss, student, teachers), torch.stack(values)
    assert abs(drawn.mean() - expected) < 4 * drawn.std() / math.sqrt(len(values))


def test_learned_weights_come_to_rest_at_the_softmax_of_what_the_student_cannot_follow() -> None:
    """So that none vanishes: the closed form of what they minimise, for a student that stands still."""
    student, teachers = random_logits() / 3, several() / 3
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([scores], lr=0.5)
    for _ in range(600):
        optimizer.zero_grad()
        learned_loss(student, teachers, 1.0, scores).backward()
        optimizer.step()
    expected = (-divergences(student, teachers, 1.0).mean(dim=1)).softmax(dim=0)
    torch.testing.assert_close(scores.softmax(dim=0).detach(), expected)
    assert expected.min() > 0.05


def test_who_is_sure_of_the_label_is_heard_and_who_is_wrong_is_not() -> None:
    """Cross-entropies ln 2 and ln 4: shares 1/3 and 2/3 are taken from the weights, which are 2/3 and 1/3."""
    teachers = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]]).log()
    weights = confidence_weights(teachers, torch.tensor([0]))
    torch.testing.assert_close(weights, torch.tensor([[2 / 3], [1 / 3]]))
    certain = torch.tensor([[[9.0, 0.0]], [[0.0, 9.0]], [[5.0, 5.0]]])
    weights = confidence_weights(certain, torch.tensor([1]))[:, 0]
    assert weights.sum().item() == pytest.approx(1)
    assert weights[0] < 0.01
    assert abs(weights[1] - weights[2]) < 0.01


def test_an_unknown_mean_is_named() -> None:
    with pytest.raises(ValueError, match=r"mean.*probabilities"):
        build("median")


# --- in a training ------------------------------------------------------------------------------------------------

WIDE = TeacherSpec(
    name="wide", architecture=replace(TEACHER, stem_width=8), training=replace(TRAINING, epochs=1)
)
ASSISTANT = AssistantSpec(replace(TEACHER, stem_width=5), replace(TRAINING, epochs=1))
BOTH = ("teacher", "wide")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("ensemble"), teachers=(WIDE,))


def taught(
    kind: str, *assistants: AssistantSpec, names: tuple[str, ...] = BOTH, **options: str
) -> TrialConfig:
    config = design(KnowledgeTerm(kind, options=tuple(options.items())), epochs=2)
    return replace(config, distillation=replace(config.distillation, teachers=names, assistants=assistants))


@pytest.mark.parametrize("kind", ["ensemble", "ca_mkd", "teacher_graph"])
def test_all_named_teachers_are_heard_and_the_chain_too(context: StudyContext, kind: str) -> None:
    config = settle(taught(kind), replace(context.resources.spec, epochs=2))
    assert config.distillation.teachers == BOTH
    assert context.designs.design_problems(config) == []
    run, compared = start_run(config, context, seed=1)
    teacher, wide = context.prerequisites.teachers()
    assert compared == teacher
    heard = [source.network for source in run.scheme.inputs.sources]
    assert heard == [context.sources.online(recipe).network for recipe in (teacher, wide)]
    run.advance(2)
    assert run.curve[1][kind] < run.curve[0][kind]

    assisted = taught(kind, ASSISTANT)
    make(context, assisted)
    run, compared = start_run(assisted, context, seed=1)
    assistant = context.designs.recipes(assisted)[1]
    assert compared == assistant
    heard = [source.network for source in run.scheme.inputs.sources]
    assert heard == [context.sources.online(recipe).network for recipe in (assistant, wide, teacher)]


@pytest.mark.parametrize("mean", MEANS)
def test_each_mean_trains(context: StudyContext, mean: str) -> None:
    run, _ = start_run(taught("ensemble", mean=mean), context, seed=1)
    (phase,) = run.scheme.phases()
    assert phase.repeats
    run.advance(1)
    resumed, _ = start_run(taught("ensemble", mean=mean), context, seed=1)
    resumed.load_state_dict(copy.deepcopy(run.state_dict()))
    assert resumed.advance(2) == run.advance(2)
    scores = dict(run.scheme.named_parameters()).get("taught.objective.losses.0.scores")
    assert (scores is not None) == (mean == "learned")
    assert scores is None or 0 < scores.detach().abs().max() < 1


@pytest.mark.parametrize(("mean", "share"), [("probabilities", 1), ("learned", 1), ("drawn", 2)])
@pytest.mark.parametrize("scheme", ["offline", "mutual"])
def test_asking_two_costs_what_two_cost_and_drawing_one_what_one_does(
    context: StudyContext, mean: str, share: int, scheme: str
) -> None:
    config = taught("ensemble", mean=mean)
    config = replace(config, distillation=replace(config.distillation, scheme=scheme))
    both, one = (
        start_run(config, context, seed=1)[0],
        start_run(design(KnowledgeTerm("logits")), context, 1)[0],
    )
    macs = [source.macs for source in both.scheme.inputs.sources]
    asked = [run.scheme.step_macs(32, run.scheme.phases()[0])[1] for run in (both, one)]
    assert asked == [round(sum(macs) / share), macs[0]]
    both.advance(1)
    assert both.asked_images == 2 * both.loop.images_per_epoch(0) / share


def test_one_teacher_is_no_ensemble(context: StudyContext) -> None:
    (problem,) = context.designs.design_problems(taught("ensemble", names=("wide",)))
    assert problem == (
        "knowledge 'ensemble' needs at least 2 teachers, got 1; name another teacher in the design, "
        "or add a teacher assistant"
    )


SPACE = """
from naskd.config import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig
from naskd.spaces import suggest_teachers

STAGES = (StageSpec("basic", 1, 4), StageSpec("basic", 1, 6, stride=2))

def space(trial):
    teachers = suggest_teachers(trial, ("teacher", "wide", "third"))
    kind = trial.suggest_categorical("kind", ("ensemble", "ca_mkd", "teacher_graph"))
    term = KnowledgeTerm(kind if len(teachers) > 1 else "logits")
    return TrialConfig(
        ArchitectureSpec(STAGES, stem_width=4),
        DistillationSpec((term,), teachers=teachers),
        TrainingSpec(batch_size=32, learning_rate=0.01),
    )
"""

STUDY = """
name = "several"
space = "space.py:space"
epochs = 1
[data]
kind = "digits"
max_train = 120
[sampler]
name = "random"
[budget]
trials = 7
[execution]
device = "cpu"
[teacher]
architecture = {stem_width = 6, stages = [{block = "basic", depth = 1, width = 6}]}
training = {epochs = 1, batch_size = 32}
[[teachers]]
name = "wide"
architecture = {stem_width = 8, stages = [{block = "basic", depth = 1, width = 8}]}
training = {epochs = 1, batch_size = 32}
[[teachers]]
name = "third"
seed = 1
architecture = {stem_width = 6, stages = [{block = "basic", depth = 1, width = 6}]}
training = {epochs = 1, batch_size = 32}
"""


def test_a_search_chooses_who_teaches_together(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    trials = naskd.search(tmp_path / "study.toml", out=tmp_path / "run").trials()
    found = [trial["config"]["distillation"] for trial in trials if trial["state"] == "COMPLETE"]
    assert len(found) == 7
    assert len({tuple(d["teachers"]) for d in found}) > 2
    for each in found:
        (term,) = each["terms"]
        assert (term["kind"] == "logits") == (len(each["teachers"]) == 1)
