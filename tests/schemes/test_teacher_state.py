"""A state of the teacher's own training teaches: kept on the way, heard, priced, and left out where there is none."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY_SPACE, TINY_STUDY
from small_studies import STUDENT, TEACHER, TRAINING, design, given, make, open_context, small_context, study

import naskd
from naskd.report import summary
from naskd.runs import opening
from naskd.runs.comparing import compare
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.study.admission import problems, settle
from naskd.trials.context import StudyContext
from naskd.trials.prerequisites import foreseen_states
from naskd.trials.run import start_run, teacher_run

LOGITS = KnowledgeTerm("logits")
EPOCHS = 8
HALF = 4
OWN = TeacherSpec(architecture=TEACHER, training=replace(TRAINING, epochs=EPOCHS))
FOREIGN = TeacherSpec(torchvision="resnet18", checkpoint="x.pt", saw="other")


def by_state(share: float = 0.5, *terms: KnowledgeTerm, **changes: object) -> TrialConfig:
    found = design(*(terms or (LOGITS,)))
    return replace(found, distillation=replace(found.distillation, teacher_state=share, **changes))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    """A study whose teacher was made once, with its state after half of its epochs."""
    spec = study(teacher=OWN)
    store = ArtifactStore(tmp_path_factory.mktemp("state"))
    opened = open_context(spec, store, foreseen_states=foreseen_states([by_state()], spec))
    assert [result.status for result in make(opened)] == ["complete"]
    return opened


class TestDesign:
    def test_the_default_is_no_part_of_a_designs_name_or_file(self) -> None:
        plain = design(LOGITS)
        assert "teacher_state" not in plain.to_dict()["distillation"]
        assert by_state(1.0).config_id == plain.config_id
        state = by_state(0.5)
        assert state.config_id != plain.config_id
        assert TrialConfig.from_dict(state.to_dict()) == state

    @pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
    def test_a_share_outside_is_refused(self, share: float) -> None:
        with pytest.raises(ValueError, match="teacher_state"):
            DistillationSpec((LOGITS,), teacher_state=share)

    @pytest.mark.parametrize("terms", [(), (KnowledgeTerm("logits", weight=0.0),), (KnowledgeTerm("tf_kd"),)])
    def test_where_nobody_asks_a_teacher_it_is_left_out(self, terms: tuple[KnowledgeTerm, ...]) -> None:
        config = TrialConfig(STUDENT, DistillationSpec(terms, teacher_state=0.5), TRAINING)
        assert settle(config, study(teacher=OWN)).distillation.teacher_state == 1

    def test_it_is_said_in_one_line(self) -> None:
        said = by_state(0.5).to_dict()
        assert summary.taught_by(said) == "logits T4 via teacher at 50%"
        assert summary.choices(said)["assistant"] == "state of the teacher"
        assert summary.choices(design(LOGITS).to_dict())["assistant"] == "none"

    def test_a_scheme_that_follows_the_teacher_takes_none(self, context) -> None:
        found = problems(context.designs.measured(by_state(scheme="rco")), context.resources.spec)
        assert "takes no single state" in found[0]


class TestMaking:
    def test_it_is_kept_on_the_way_and_costs_nothing(self, context) -> None:
        teacher, state = context.designs.recipes(by_state())
        assert (teacher.epoch, state.epoch) == (0, HALF)
        assert state.artifact_id in context.resources.store, "kept by whoever trained the teacher"
        results = make(context, by_state())
        assert results[0].train_macs > 0
        assert (results[1].train_macs, results[1].spent_macs) == (0, 0)
        run = teacher_run(context, teacher)
        run.advance(HALF)
        kept, _ = context.resources.store.load(state.artifact_id)
        for name, value in run.scheme.deployed.state_dict().items():
            assert torch.equal(kept[name], value), name

    def test_the_teacher_is_the_one_that_nobody_looked_at(self, context, tmp_path: Path) -> None:
        alone = small_context(tmp_path, teacher=OWN)
        ours, theirs = (one.prerequisites.teacher().artifact_id for one in (context, alone))
        assert (
            context.resources.store.manifest(ours)["sha256"]
            == alone.resources.store.manifest(theirs)["sha256"]
        )

    def test_one_that_was_not_foreseen_is_trained_again_and_booked(self, tmp_path: Path) -> None:
        alone = small_context(tmp_path, teacher=OWN)
        teacher, state = make(alone, by_state())
        assert state.train_macs == teacher.train_macs * HALF // EPOCHS

    def test_an_assistant_that_trains_as_long_keeps_no_state_of_a_teacher(self, tmp_path: Path) -> None:
        assistant = AssistantSpec(STUDENT, replace(TRAINING, epochs=EPOCHS))
        alone = small_context(tmp_path, teacher=OWN)
        foreseeing = given(alone, foreseen_states=(("teacher", HALF),))
        make(
            foreseeing,
            replace(design(LOGITS), distillation=DistillationSpec((LOGITS,), assistants=(assistant,))),
        )
        assert foreseeing.prerequisites.foreseen_states()[0].artifact_id not in alone.resources.store

    def test_the_nearest_epoch_is_meant_and_the_end_is_the_teacher(self, context) -> None:
        epochs = {share: context.designs.recipes(by_state(share))[-1].epoch for share in (0.01, 0.3, 0.99)}
        assert epochs == {0.01: 1, 0.3: 2, 0.99: 0}
        assert settle(by_state(0.99), context.resources.spec).distillation.teacher_state == 1


class TestTeaching:
    def test_the_student_hears_the_state(self, context) -> None:
        make(context, by_state())
        run, compared = start_run(by_state(), context, seed=1)
        state = context.designs.recipes(by_state())[-1]
        assert compared == state
        (source,) = run.scheme.inputs.sources
        network = context.sources.online(state).network
        assert source.source.network is network
        plain, _ = start_run(design(LOGITS), context, seed=1)
        assert run.advance(2) != plain.advance(2)

    def test_an_assistant_stands_below_it(self, context) -> None:
        assistant = AssistantSpec(STUDENT, TRAINING)
        teacher, state, below = context.designs.recipes(by_state(assistants=(assistant,)))
        assert below.requires == (state.artifact_id,)
        plain = context.designs.recipes(by_state(1.0, assistants=(assistant,)))[-1]
        assert plain.requires == (teacher.artifact_id,)
        assert plain.artifact_id != below.artifact_id

    def test_its_price_is_its_own_passes_and_what_is_not_there(self, context, tmp_path: Path) -> None:
        teacher, state = context.designs.recipes(by_state())
        there = context.designs.training_macs(by_state())
        plain = context.designs.training_macs(design(LOGITS))
        assert there.own == plain.own
        assert set(there.shared) == {f"{state.artifact_id} {TRAINING.augmentation}"}
        assert set(plain.shared) == {f"{teacher.artifact_id} {TRAINING.augmentation}"}
        (passes,), (others,) = there.shared.values(), plain.shared.values()
        assert passes == others, "one network, two moments"
        alone = small_context(tmp_path, teacher=OWN)
        missing = alone.designs.training_macs(by_state()).shared
        n_train = len(context.resources.data.train)
        assert missing[state.artifact_id] == 3 * HALF * n_train * passes / (n_train * TRAINING.epochs)


SPACE = TINY_SPACE.replace(
    '        DistillationSpec(terms=(KnowledgeTerm("logits", temperature=temperature),)),',
    '        DistillationSpec((KnowledgeTerm("logits", temperature=temperature),), teacher_state=0.5),',
)
BROUGHT = """
[teacher]
builder = "mine.py:build"
checkpoint = "mine.pt"
saw = "other"
"""
BUILDER = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""


def test_a_search_keeps_it_while_it_trains_the_teacher(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    text = TINY_STUDY.replace("[teacher.training]\nepochs = 1", "[teacher.training]\nepochs = 4")
    (tmp_path / "tiny.toml").write_text(text)
    record = naskd.search(tmp_path / "tiny.toml", out=tmp_path / "runs" / "tiny").to_dict(True)
    trials = record["trials"]
    assert [t["state"] for t in trials] == ["COMPLETE"] * 2
    assert all(t["config"]["distillation"]["teacher_state"] == 0.5 for t in trials)
    manifests = {path.parent.name for path in (tmp_path / "runs" / "artifacts").glob("*/manifest.json")}
    assert len(manifests) == 2
    assert record["train_macs"] == sum(t["spent_macs"] for t in trials), "the state cost nothing"
    (state,) = record["teacher_states"]
    assert (state["label"], state["spent_macs"]) == ("teacher after 2 of 4 epochs", 0)


def test_of_a_teacher_that_was_there_before_it_is_a_cost_of_the_search_and_said_as_that(
    tmp_path: Path,
) -> None:
    text = TINY_STUDY.replace("[teacher.training]\nepochs = 1", "[teacher.training]\nepochs = 4")
    (tmp_path / "tiny.toml").write_text(text)
    spent = {}
    for name, space in (("plain", TINY_SPACE), ("by_state", SPACE)):
        (tmp_path / "space.py").write_text(space)
        record = naskd.search(tmp_path / "tiny.toml", out=tmp_path / "runs" / name).to_dict(True)
        spent[name] = record["train_macs"] - sum(t["spent_macs"] for t in record["trials"])
    assert spent["plain"] == 0
    (state,) = record["teacher_states"]
    assert state["label"] == "teacher after 2 of 4 epochs"
    assert state["spent_macs"] == spent["by_state"] > 0
    assert 2 * state["spent_macs"] == record["teacher"]["spent_macs"], "half of its teacher's training"
    assert record["assistants"] == []
    said = compare([tmp_path / "runs" / "plain", tmp_path / "runs" / "by_state"])["warnings"]
    assert any("states of teachers" in warning and "by_state" in warning for warning in said), said


def test_a_teacher_that_was_brought_along_teaches_itself_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert settle(by_state(), study(teacher=FOREIGN)).distillation == DistillationSpec((LOGITS,))
    (tmp_path / "space.py").write_text(SPACE)
    owned = TINY_STUDY[TINY_STUDY.index("[teacher.architecture]") : TINY_STUDY.index("[budget]")]
    (tmp_path / "tiny.toml").write_text(TINY_STUDY.replace(owned, BROUGHT))
    (tmp_path / "mine.py").write_text(BUILDER)
    scope: dict[str, object] = {}
    exec(BUILDER, scope)
    torch.manual_seed(0)
    torch.save(scope["build"]().state_dict(), tmp_path / "mine.pt")
    with caplog.at_level(logging.WARNING):
        opening.check(tmp_path / "tiny.toml")
    assert "the teacher was not trained here, so that no state of its training is there" in caplog.text
    caplog.clear()
    (tmp_path / "space.py").write_text(TINY_SPACE)
    with caplog.at_level(logging.WARNING):
        opening.check(tmp_path / "tiny.toml")
    assert "no state of its training" not in caplog.text
