"""Tables of recorded trainings: what is written is read, what is damaged is refused, and costs are paid once."""

import dataclasses
import json

import pytest
from optuna.storages import InMemoryStorage
from pyarrow import parquet

from naskd.executors.local.replay import ReplayExecutor, ReplayFacts
from naskd.networks.student import design_cost
from naskd.spec.clock import FakeClock
from naskd.spec.datasets import DataSpec
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.errors import InputError
from naskd.spec.study import BudgetSpec, SamplerSpec, StudySpec
from naskd.spec.teachers import TeacherSpec
from naskd.study.study import Study
from naskd.tables import Training, read_table, write_table
from naskd.tables.files import TABLE_FILES
from naskd.trials.methods import canonical

WIDTHS, KINDS = (4, 8), ("none", "logits", "assistant")
STUDENTS = {width: ArchitectureSpec((StageSpec("basic", 1, width),)) for width in WIDTHS}
ASSISTANT = AssistantSpec(ArchitectureSpec((StageSpec("basic", 1, 16),)), TrainingSpec(epochs=2))
TAUGHT = {
    "none": DistillationSpec(),
    "logits": DistillationSpec((KnowledgeTerm("logits"),)),
    "assistant": DistillationSpec((KnowledgeTerm("logits"),), assistants=(ASSISTANT,)),
}
CARD = {
    "parameters": {"width": list(WIDTHS), "kind": list(KINDS)},
    "epochs": 2,
    "images": {"student": 100, "val": 50, "channels": 3, "resolution": 8, "classes": 4},
    "networks": {
        "teacher": {"macs": 1000, "train_macs": 10**6},
        "assistant": {"macs": 500, "train_macs": 10**5},
    },
}


def design(width, kind):
    return canonical(TrialConfig(STUDENTS[width], TAUGHT[kind], TrainingSpec(epochs=2)))


def rows():
    for width in WIDTHS:
        for kind in KINDS:
            config = design(width, kind)
            cost = design_cost(config.architecture, 3, 4, 8)
            for replicate in range(2):
                final = width / 20 + KINDS.index(kind) / 50 + replicate / 100
                yield Training(
                    config,
                    replicate,
                    2**63 + replicate,
                    cost,
                    3 * cost.macs * 200,
                    cost.macs * 100,
                    0 if kind == "none" else 200_000,
                    (final / 2, final),
                    (2,),
                    (final - 0.01,),
                    1.0,
                )


def points():
    return [
        {"width": width, "kind": kind, "config_id": design(width, kind).config_id}
        for width in WIDTHS
        for kind in KINDS
    ]


@pytest.fixture
def folder(tmp_path):
    write_table(tmp_path / "table", CARD, points(), rows())
    return tmp_path / "table"


def test_what_is_written_is_read(folder):
    found = read_table(folder)
    assert found.card == CARD
    assert list(found.points) == points()
    expected = sorted(rows(), key=lambda row: (row.config.config_id, row.replicate))
    assert [row for _, mine in sorted(found.trainings.items()) for row in mine] == expected


def test_what_cannot_be_written_leaves_the_table_that_was_there(folder, monkeypatch):
    def full(table, place, **how):
        if how:  # the trainings, after the points
            place.write_bytes(b"PAR1")
            raise OSError(28, "No space left on device")
        write(table, place, **how)

    write, before = parquet.write_table, read_table(folder)
    monkeypatch.setattr(parquet, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(folder, {**CARD, "epochs": 9}, points()[:2], list(rows())[:2])
    after = read_table(folder)
    assert (after.card, after.points, after.trainings) == (before.card, before.points, before.trainings)
    assert sorted(path.name for path in folder.iterdir()) == sorted(TABLE_FILES)


def test_a_point_leads_to_its_design(folder):
    found = read_table(folder)
    assert found.config({"width": 8, "kind": "logits"}) == design(8, "logits")
    assert found.config({"width": 16, "kind": "logits"}) is None


def test_test_accuracy_is_that_of_the_other_replicates(folder):
    found, name = read_table(folder), design(8, "none").config_id
    assert found.test_accuracy(name) == pytest.approx(0.395)
    assert found.test_accuracy(name, without=0) == pytest.approx(0.40)


def test_studies_of_different_seeds_see_different_replicates(folder):
    found = read_table(folder)
    seen = {found.replicate(design(8, "none").config_id, seed).replicate for seed in range(20)}
    assert seen == {0, 1}


def test_a_study_sees_the_other_replicates_as_further_trainings(folder):
    found, name = read_table(folder), design(8, "none").config_id
    for seed in range(4):
        seen = found.recorded(seed).trainings[name]
        values = [one.metrics["val_accuracy"] for one in (seen, *seen.again)]
        assert values[0] == found.replicate(name, seed).val_accuracy[-1]
        assert sorted(values) == sorted(row.val_accuracy[-1] for row in found.trainings[name])


@pytest.mark.parametrize("name", ["card.json", "points.parquet", "trainings.parquet"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
def test_a_damaged_table_is_refused_by_name(folder, name, damage):
    file = folder / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"[1, 2]"}[damage])
    with pytest.raises(InputError, match=str(folder)):
        read_table(folder)


def test_a_card_of_something_else_is_refused(folder):
    (folder / "card.json").write_text(json.dumps({"images": {}}))
    with pytest.raises(InputError, match="networks"):
        read_table(folder)


def replay(folder, workers=1):
    """All six designs; what was spent on each."""
    table = read_table(folder)
    recorded = table.recorded()

    def space(trial):
        values = {
            "width": trial.suggest_categorical("width", WIDTHS),
            "kind": trial.suggest_categorical("kind", KINDS),
        }
        return table.config(values)

    spec = StudySpec(
        name="replayed", space="space.py:space", data=DataSpec("digits"), epochs=2, budget=BudgetSpec(trials=6),
        sampler=SamplerSpec("random"), teacher=TeacherSpec(architecture=STUDENTS[8]),
    )  # fmt: skip
    clock, storage = FakeClock(), InMemoryStorage()
    facts = ReplayFacts(recorded.cost, recorded.trainings, resolution=8, n_classes=4, n_val=50)
    study = Study(
        spec,
        space,
        storage,
        facts,
        identity={},
        reference_point={"val_accuracy": 0.0, "macs": 1e9},
        clock=clock,
    )
    ReplayExecutor(recorded.trainings, clock, workers).run(study)
    results = [t.user_attrs["result"] for t in study.optuna_study.trials if "result" in t.user_attrs]
    return study, results


@pytest.mark.parametrize("workers", [1, 3])
def test_what_all_need_is_paid_once(folder, workers):
    study, results = replay(folder, workers)
    own = sum(row.student_macs + row.evaluation_macs for row in rows() if row.replicate == 0)
    bank = 2 * 100 * 1000 + 2 * 100 * 500  # two epochs of teacher and assistant
    assert len(results) == 6
    assert study.train_macs == own + bank + 10**5
    assert sum(result["train_macs"] for result in results) == own


def test_a_price_says_what_is_shared(folder):
    recorded = read_table(folder).recorded()
    facts = ReplayFacts(recorded.cost, recorded.trainings)
    macs = facts.training_macs(design(4, "assistant"))
    assert macs.shared["assistant"] == 10**5
    assert sum(macs.shared.values()) == 10**5 + 2 * 100 * 500
    assert sum(macs.made_after(1).values()) == 10**5 + 100 * 500, "the views of one epoch"
    assert facts.training_macs(design(4, "none")).shared == {}


def test_a_study_file_replays_a_folder(folder, tmp_path):
    import naskd

    (tmp_path / "space.py").write_text(
        "from pathlib import Path\n"
        "from naskd.tables import read_table\n"
        "TABLE = read_table(Path(__file__).parent / 'table')\n"
        "def space(trial):\n"
        "    return TABLE.config({n: trial.suggest_categorical(n, v) for n, v in TABLE.parameters.items()})\n"
    )
    (tmp_path / "study.toml").write_text(
        'name = "replayed"\nspace = "space.py:space"\nepochs = 2\n[data]\nkind = "digits"\n'
        '[teacher.architecture]\nstages = [{block = "basic", depth = 1, width = 8}]\n'
        '[budget]\ntrials = 6\n[execution]\nexecutor = "replay"\ntable = "table"\n'
    )
    run = naskd.search(tmp_path / "study.toml", out=tmp_path / "run")
    assert len([trial for trial in run.trials() if trial["state"] == "COMPLETE"]) == 6


def test_a_folder_that_is_not_there_is_said_before_anything(tmp_path):
    import naskd

    (tmp_path / "space.py").write_text("def space(trial): ...\n")
    (tmp_path / "study.toml").write_text(
        'name = "replayed"\nspace = "space.py:space"\n[data]\nkind = "digits"\n'
        '[budget]\ntrials = 6\n[execution]\nexecutor = "replay"\ntable = "tabel"\n'
    )
    with pytest.raises(InputError, match=r"execution\.table"):
        naskd.search(tmp_path / "study.toml", out=tmp_path / "run")


def test_optuna_takes_a_table_as_it_is(folder):
    import optuna

    from naskd.study.problem import TableProblem

    problem = TableProblem(folder)
    study = optuna.create_study(
        sampler=optuna.samplers.BruteForceSampler(),
        directions=[one.name.lower() for one in problem.directions],
    )
    study.optimize(problem, n_trials=20)
    assert len(study.trials) == 6
    assert study.trials[0].distributions == problem.search_space
    expected = {(row.val_accuracy[-1], row.cost.macs) for row in rows() if row.replicate == 0}
    other = {(row.val_accuracy[-1], row.cost.macs) for row in rows() if row.replicate == 1}
    assert {tuple(trial.values) for trial in study.trials} <= expected | other
    assert problem.evaluate({"width": 8, "kind": "none"}) == tuple(
        next(t.values for t in study.trials if t.params == {"width": 8, "kind": "none"})
    )
    with pytest.raises(InputError, match="nothing was recorded"):
        problem.evaluate({"width": 12, "kind": "none"})


def test_seeds_of_64_bits_survive(folder):
    assert {row.seed for mine in read_table(folder).trainings.values() for row in mine} == {2**63, 2**63 + 1}


def test_a_training_is_replaced_as_a_whole(folder):
    table = read_table(folder)
    row = next(iter(table.trainings.values()))[0]
    assert dataclasses.replace(row, seconds=2.0) != row
