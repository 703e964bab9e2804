"""Students that begin with the weights of their teacher: in a study, a trial and a report."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_studies import STUDENT, TEACHER, TRAINING, design, given, make, open_context, small_context, study

from naskd.networks.student import Student
from naskd.report import summary
from naskd.spaces import suggest_training
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.errors import UnknownNameError
from naskd.spec.teachers import TeacherSpec
from naskd.spec.userfile import load_function
from naskd.store.artifacts import ArtifactStore
from naskd.store.checkpoints import CheckpointStore
from naskd.study.admission import settle
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.run import start_run
from naskd.trials.steps import run_job

STARTED = design(start="teacher")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a context; its store has the teacher."""
    found = tmp_path_factory.mktemp("context")
    small_context(found)
    return found


@pytest.fixture(scope="module")
def context(folder: Path) -> StudyContext:
    return small_context(folder)


def train(context: StudyContext, config: TrialConfig) -> TrialResult:
    job = Job("0", "trial", config, 7, TRAINING.epochs)
    return run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)


# --- the design ----------------------------------------------------------------------------------------------------


def test_the_start_names_a_design_and_is_written_only_where_it_is_another() -> None:
    assert STARTED.config_id != design().config_id
    assert TrialConfig.from_dict(STARTED.to_dict()) == STARTED
    assert STARTED.to_dict()["training"]["start"] == "teacher"
    assert "start" not in design(start="scratch").to_dict()["training"]
    assert design(start="scratch").config_id == design().config_id


def test_whoever_teaches_starts_from_scratch() -> None:
    started = dataclasses.replace(TRAINING, start="teacher")
    with pytest.raises(ValueError, match=r"training\.start of an assistant is 'teacher'; allowed: 'scratch'"):
        AssistantSpec(STUDENT, started)
    with pytest.raises(ValueError, match=r"training\.start of a teacher is 'teacher'; allowed: 'scratch'"):
        TeacherSpec(architecture=TEACHER, training=started)


class Chosen:
    """A trial whose every choice is the last one."""

    def suggest_categorical(self, name: str, choices):
        assert name == "train.start"
        return choices[-1]


def test_a_space_searches_the_start() -> None:
    found = suggest_training(Chosen(), TrainingSpec(), starts=("scratch", "teacher"))  # type: ignore[arg-type]  # chooses alone
    assert found == TrainingSpec(start="teacher")


# --- which designs a study takes -----------------------------------------------------------------------------------


def why_not(config: TrialConfig, context: StudyContext) -> list[str]:
    return context.designs.design_problems(settle(config, context.resources.spec))


def test_a_simplified_version_of_the_teacher_is_taken(context) -> None:
    assert why_not(STARTED, context) == []


def test_another_network_is_turned_away_with_the_reason(context) -> None:
    wide = ArchitectureSpec((StageSpec("basic", 1, 6), StageSpec("basic", 1, 9, stride=2)), stem_width=4)
    found = why_not(dataclasses.replace(STARTED, architecture=wide), context)
    assert found == ["cannot start from teacher: stage 2 has more channels than the teacher's: 9 > 8"]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            "shufflenet_v2_x0_5",
            "it is no ResNet of basic or bottleneck blocks: its layer 'conv1' is a Sequential",
        ),
        (
            "resnet18",
            "it takes images of 3 channels, and students see 1: they cannot begin with its first layer",
        ),
    ],
)
def test_a_teacher_with_other_layers_cannot_be_started_from(model: str, why: str, tmp_path) -> None:
    foreign = study(teacher=TeacherSpec(torchvision=model, training=TRAINING))
    context = open_context(foreign, ArtifactStore(tmp_path / "artifacts"))
    (found,) = why_not(STARTED, context)
    assert found.startswith(f"cannot start from teacher: {why}")


RESNET = """
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


class Narrow(ResNet):
    def _make_layer(self, block, planes, *rest, **settings):
        return super()._make_layer(block, planes // 16, *rest, **settings)


def build():
    network = Narrow(BasicBlock, [1, 1, 1, 1])
    network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    network.fc = nn.Linear(32, 10)
    return network
"""


def test_a_resnet_that_was_trained_elsewhere_can_be_started_from(tmp_path) -> None:
    """Up to the student that is all of it, and says the same; its classes are in the study's order."""
    (tmp_path / "teacher.py").write_text(RESNET)
    torch.manual_seed(5)
    elsewhere = load_function("teacher.py:build", tmp_path)().eval()
    torch.save(elsewhere.state_dict(), tmp_path / "teacher.pt")
    teacher = TeacherSpec(
        builder="teacher.py:build",
        checkpoint="teacher.pt",
        mean=(0.2,),
        std=(0.7,),
        classes=tuple("1234567890"),
    )
    context = open_context(study(teacher=teacher, base=tmp_path), ArtifactStore(tmp_path / "artifacts"))
    whole = ArchitectureSpec(
        tuple(StageSpec("basic", 1, 4 * 2**i, stride=2 if i else 1) for i in range(4)), 64, 7, 2, True
    )
    part = replace(
        whole, stages=(*whole.stages[:2], StageSpec("bottleneck", 2, 12, stride=2), whole.stages[3])
    )
    for architecture in (whole, part):
        config = replace(STARTED, architecture=architecture)
        assert why_not(config, context) == []
        assert [result.status for result in make(context, config)][-1:] in (["complete"], [])
    wide = replace(whole, stages=(*whole.stages[:3], replace(whole.stages[3], width=33)))
    assert why_not(replace(STARTED, architecture=wide), context) == [
        "cannot start from teacher: stage 4 has more channels than the teacher's: 33 > 32"
    ]
    student = start_run(replace(STARTED, architecture=whole), context, 1)[0].scheme.deployed.eval()
    images = context.resources.data.val.images[:9].float() / 255
    order = [*range(1, 10), 0]
    with torch.no_grad():
        wanted = elsewhere((images - 0.2) / 0.7)
        torch.testing.assert_close(student(images)[:, order], wanted, rtol=1e-4, atol=1e-5)
    assert train(context, replace(STARTED, architecture=part)).status == "complete"


BUILDER = """
from naskd.config import ArchitectureSpec, StageSpec
from naskd.networks.student import build_student


def build():
    stages = StageSpec("basic", 1, 12), StageSpec("basic", 2, 12, stride=2)
    return build_student(ArchitectureSpec(stages, stem_width=12), 1, 10, (0.2,), (0.7,))
"""


def test_a_network_of_naskd_that_was_trained_elsewhere_can_be_started_from(tmp_path) -> None:
    """So that a student has what a teacher of more images has learned."""
    (tmp_path / "teacher.py").write_text(BUILDER)
    elsewhere = build_teacher(tmp_path)
    torch.save(elsewhere.state_dict(), tmp_path / "teacher.pt")
    spec = study(teacher=TeacherSpec(builder="teacher.py:build", checkpoint="teacher.pt"), base=tmp_path)
    context = open_context(spec, ArtifactStore(tmp_path / "artifacts"))
    assert why_not(STARTED, context) == []
    assert [result.status for result in make(context, STARTED)] == ["complete"]
    expected = context.networks.student(STUDENT)
    assert isinstance(expected, Student)
    expected.take_weights(elsewhere)
    found = start_run(STARTED, context, 1)[0].scheme.deployed.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    assert found["std"].item() == pytest.approx(0.7)


def build_teacher(folder: Path) -> Student:
    torch.manual_seed(5)
    built: Student = load_function("teacher.py:build", folder)()
    return built


def test_an_unknown_start_is_refused_with_the_known_ones(context) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown teacher 'techer'; known: teacher; did you mean 'teacher'\?"
    ):
        settle(design(start="techer"), context.resources.spec)
    with pytest.raises(
        UnknownNameError, match=r"known: none \(training\.start may be 'scratch' or a teacher"
    ):
        settle(STARTED, study(teacher=None))


# --- what then happens ---------------------------------------------------------------------------------------------


def test_the_student_begins_with_what_the_teacher_learned(context) -> None:
    recipe = context.prerequisites.teacher()
    teacher = context.sources.online(recipe).network.network
    expected = context.networks.student(STUDENT)
    assert isinstance(expected, Student)
    expected.take_weights(teacher)
    for seed in (1, 2):
        found = start_run(STARTED, context, seed)[0].scheme.deployed.state_dict()
        for name, value in expected.state_dict().items():
            assert torch.equal(found[name], value), name


def test_the_teacher_is_not_changed_by_whoever_starts_from_it(context) -> None:
    recipe = context.prerequisites.teacher()
    state = context.resources.store.load(recipe.artifact_id)[0]
    assert train(context, STARTED).status == "complete"
    now = context.sources.online(recipe).network.network.state_dict()
    assert all(torch.equal(now[name], value) for name, value in state.items())


def test_a_design_without_knowledge_has_its_teacher_made_first(tmp_path) -> None:
    context = open_context(study(), ArtifactStore(tmp_path / "artifacts"))
    assert context.designs.recipes(design()) == []
    assert context.designs.recipes(STARTED) == context.designs.teachers()
    assert [result.status for result in make(context, STARTED)] == ["complete"]
    result = train(context, STARTED)
    assert result.status == "complete"
    assert result.teacher_agreement is None


def test_a_teacher_that_teaches_too_is_made_once(context) -> None:
    taught = dataclasses.replace(STARTED, distillation=DistillationSpec((KnowledgeTerm("logits"),)))
    assert context.designs.recipes(taught) == context.designs.teachers()
    assert train(context, taught).status == "complete"


def test_the_end_and_a_state_of_a_teacher_are_left_by_one_training(tmp_path) -> None:
    teacher = TeacherSpec(architecture=TEACHER, training=dataclasses.replace(TRAINING, epochs=2))
    context = open_context(study(teacher=teacher), ArtifactStore(tmp_path / "artifacts"))
    halfway = DistillationSpec((KnowledgeTerm("logits"),), teacher_state=0.5)
    config = settle(dataclasses.replace(STARTED, distillation=halfway), context.resources.spec)
    end, state = context.designs.recipes(config)
    assert (end, state.epoch) == (context.prerequisites.teacher(), 1)
    assert [result.train_macs > 0 for result in make(context, config)] == [True, False]
    assert train(context, config).status == "complete"


def test_it_starts_from_the_teacher_that_it_names(tmp_path) -> None:
    one = dataclasses.replace(TRAINING, epochs=1)
    small = TeacherSpec(architecture=STUDENT, training=one, name="small")
    large = TeacherSpec(architecture=TEACHER, training=one, name="large")
    context = open_context(
        study(teacher=None, teachers=(small, large)), ArtifactStore(tmp_path / "artifacts")
    )
    make(context)
    config = settle(design(start="small"), context.resources.spec)
    assert context.prerequisites.of(config).start == context.prerequisites.teacher("small")
    state = context.resources.store.load(context.prerequisites.teacher("small").artifact_id)[0]
    found = start_run(config, context, 1)[0].scheme.deployed.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_the_same_design_always_trains_the_same(folder) -> None:
    one, other = (train(small_context(folder), STARTED) for _ in range(2))
    assert one.status == "complete"
    assert one.curve == other.curve
    assert one.curve != train(small_context(folder), design()).curve


def test_an_interrupted_training_goes_on_where_it_was(folder, tmp_path) -> None:
    whole = train(small_context(folder), STARTED)
    checked = given(small_context(folder), checkpoints=CheckpointStore(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run_job(Job("0", "trial", STARTED, 7, TRAINING.epochs), checked, interrupt_at(2))
    assert train(checked, STARTED).curve == whole.curve


def interrupt_at(epoch: int):
    def report(reached: int, _: object) -> Decision:
        if reached == epoch:
            raise KeyboardInterrupt
        return Decision.CONTINUE

    return report


# --- what is said of it --------------------------------------------------------------------------------------------


def test_tables_and_pages_say_how_a_student_started() -> None:
    assert summary.taught_by(design().to_dict()) == "labels only"
    assert summary.taught_by(STARTED.to_dict()) == "labels only, started from teacher"
    named = summary.taught_by(design(KnowledgeTerm("sp"), start="wide").to_dict())
    assert named.endswith("sp (last), started from teacher 'wide'")
    assert summary.choices(STARTED.to_dict())["start"] == "teacher"
    assert summary.choices(design().to_dict())["start"] == "scratch"
