"""The final trainings: fresh seeds, the test split, honest means, and no training done twice."""

import io
import json
import math
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from small_studies import STUDENT, TEACHER, design, small_context
from torch import nn

from naskd.data.sealed import load_test_split, load_test_splits
from naskd.networks.student_file import load_student, student_metadata
from naskd.report.record import retrained
from naskd.report.retrained_table import retrained_table
from naskd.runs import retrain as module
from naskd.runs.directory import RESULTS_FILE
from naskd.runs.results import damaged_students, doubts, load_results
from naskd.runs.retrain import Design, Retraining
from naskd.runs.summary import standard_error
from naskd.schemes.offline import OfflineScheme
from naskd.spec.design import AssistantSpec, KnowledgeTerm, TrialConfig
from naskd.spec.errors import DamagedError, InputError
from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.spec.seeds import trial_seed
from naskd.spec.study import ExecutionSpec
from naskd.store.artifacts import ArtifactStore
from naskd.store.files import file_hash, write_sealed
from naskd.training.compute import Compute
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run

EPOCHS = 2
TAUGHT = Design(3, design(KnowledgeTerm("logits", weighting="balanced")), 0.5)
PLAIN = Design(8, TrialConfig(replace(STUDENT, stem_width=3), design().distillation, design().training), None)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("context"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds of the trainings that are started."""
    seeds: list[int] = []

    def note(config, context, seed):
        seeds.append(seed)
        return start_run(config, context, seed)

    monkeypatch.setattr(module, "start_run", note)
    return seeds


def results(run_dir: Path) -> dict[str, Any]:
    return load_results(run_dir)


def test_every_number_is_that_of_the_students_that_are_kept(context, tmp_path, trained) -> None:
    record = Retraining(context, tmp_path, EPOCHS).run([TAUGHT, PLAIN], seeds=3)
    assert (record["seeds"], record["epochs"]) == (3, EPOCHS)
    assert len(set(trained)) == 6
    test = load_test_split(context.resources.spec.data, context.resources.spec.base)
    assert record["n_test"] == len(test) == 359
    assert [row["number"] for row in record["designs"]] == [8, 3], "cheapest first"
    for row, wanted in zip(record["designs"], (PLAIN, TAUGHT), strict=True):
        accuracies = []
        for file in row["files"]:
            student = load_student(tmp_path / file)
            assert student.spec == wanted.config.architecture
            said = student(test.images.float() / 255).argmax(1)
            accuracies.append(float((said == test.labels).float().mean()))
        assert row["test_accuracies"] == pytest.approx(accuracies)
        assert row["test_accuracy_mean"] == pytest.approx(sum(accuracies) / 3)
        assert row["test_accuracy_sd"] == pytest.approx(statistics.stdev(accuracies))
        assert row["n"] == 3
        assert row["val_accuracy_search"] == wanted.val_accuracy
        cost = context.designs.design_cost(wanted.config)
        assert (row["macs"], row["n_params"]) == (cost.macs, cost.n_params)
    assert {key: value for key, value in results(tmp_path).items() if key != "trainings"} == record


def test_one_seed_has_no_standard_deviation(context, tmp_path) -> None:
    (row,) = Retraining(context, tmp_path, 1).run([PLAIN], seeds=1)["designs"]
    assert row["test_accuracy_sd"] is None
    assert row["test_accuracies"] == [row["test_accuracy_mean"]]


def test_seeds_are_none_that_the_search_has_used(context, tmp_path, trained) -> None:
    """The winner of a search owes something to its seed."""
    Retraining(context, tmp_path, EPOCHS).run([TAUGHT, PLAIN], seeds=2)
    used = {
        trial_seed(context.resources.spec.seed, replace(d.config, training=training).config_id, replicate)
        for d in (TAUGHT, PLAIN)
        for training in (d.config.training, replace(d.config.training, epochs=EPOCHS))
        for replicate in range(10)
    }
    assert len(set(trained)) == 4
    assert not set(trained) & used


def test_a_retraining_is_reproducible_from_the_study_alone(context, tmp_path) -> None:
    one = Retraining(context, tmp_path / "one", EPOCHS)
    two = Retraining(context, tmp_path / "two", EPOCHS)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert one.run([PLAIN, TAUGHT], seeds=1)["designs"] == two.run([TAUGHT, PLAIN], seeds=1)["designs"]


def test_the_final_schedule_is_the_one_asked_for(context, tmp_path, trained) -> None:
    for epochs in (1, 2):
        run = Retraining(context, tmp_path, epochs)
        run.run([PLAIN], seeds=1)
    trainings = results(tmp_path)["trainings"]
    macs = [training["train_macs"] for training in trainings.values()]
    assert macs[1] == 2 * macs[0]
    assert len(trained) == 2


# --- interruptions ------------------------------------------------------------------------------------------------


def test_what_was_done_is_not_done_again(context, tmp_path, trained) -> None:
    class Interrupted(Exception):
        pass

    def observe(done: int, total: int, what: str) -> None:
        seen.append((done, total, what))
        if done == 3:
            raise Interrupted

    seen: list[tuple[int, int, str]] = []
    with pytest.raises(Interrupted):
        Retraining(context, tmp_path, EPOCHS).run([TAUGHT, PLAIN], 2, observe)
    assert seen[:2] == [(0, 4, "trial 3, seed 1 of 2"), (1, 4, "trial 3, seed 2 of 2")]
    first = list(trained)
    assert len(first) == 3
    record = Retraining(context, tmp_path, EPOCHS).run([TAUGHT, PLAIN], 2)
    assert len(trained) == 4
    assert len(set(trained)) == 4
    (tmp_path / "straight").mkdir()
    assert Retraining(context, tmp_path / "straight", EPOCHS).run([TAUGHT, PLAIN], 2) == record
    more = Retraining(context, tmp_path, EPOCHS).run([TAUGHT], 3)
    assert len(trained) == 4 + 4 + 1, "a further seed is one further training"
    assert more["designs"][0]["test_accuracies"][:2] == record["designs"][1]["test_accuracies"]


def test_equal_designs_are_trained_once(context, tmp_path, trained) -> None:
    record = Retraining(context, tmp_path, EPOCHS).run([PLAIN, replace(PLAIN, number=9)], 1)
    assert len(trained) == 1
    assert [row["number"] for row in record["designs"]] == [8, 9]
    assert record["designs"][0]["files"] == record["designs"][1]["files"]


def test_a_student_that_was_deleted_is_trained_again_to_the_same_bits(context, tmp_path, trained) -> None:
    retraining = Retraining(context, tmp_path, EPOCHS)
    path = retraining.train(PLAIN, 0)
    before = load_student(path).state_dict()
    path.unlink()
    assert retraining.train(PLAIN, 0) == path
    after = load_student(path).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert len(trained) == 2
    assert trained[0] == trained[1]
    assert int(json.loads(student_metadata(path)["extra"])["seed"]) == trained[0]


class Unknown(nn.Module):
    """What a scheme may deploy that no file can hold."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :10]


def test_what_could_not_be_saved_is_not_trained(context, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(OfflineScheme, "deployed", property(lambda self: Unknown()))
    monkeypatch.setattr(TrialRun, "advance", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(InputError, match="Unknown cannot be deployed: it has no taps, head"):
        Retraining(context, tmp_path, EPOCHS).train(PLAIN, 0)
    assert not list(tmp_path.iterdir())


def test_what_was_found_before_stays_until_there_is_something_newer(context, tmp_path) -> None:
    record = Retraining(context, tmp_path, EPOCHS).run([PLAIN], 1)

    def observe(done: int, total: int, what: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Retraining(context, tmp_path, EPOCHS).run([TAUGHT, PLAIN], 1, observe)
    assert results(tmp_path)["designs"] == record["designs"]
    assert len(results(tmp_path)["trainings"]) == 2


# --- the test split -----------------------------------------------------------------------------------------------


def test_the_test_split_is_opened_by_the_first_finished_training_and_once(
    context, tmp_path, monkeypatch
) -> None:
    opened: list[bool] = []

    def load(spec, base, **given):
        opened.append(True)
        return load_test_splits(spec, base, **given)

    monkeypatch.setattr(module, "load_test_splits", load)
    retraining = Retraining(context, tmp_path, EPOCHS)
    assert not opened
    retraining.run([PLAIN, TAUGHT], 2)
    assert opened == [True]


def test_no_image_of_it_is_among_those_that_the_search_saw(context) -> None:
    test = load_test_split(context.resources.spec.data, context.resources.spec.base)
    seen = torch.cat([context.resources.data.train.images, context.resources.data.val.images]).flatten(1)
    known = {bytes(image.numpy()) for image in seen}
    # Digits hold no two equal images across the splits.
    assert not known & {bytes(image.numpy()) for image in test.images.flatten(1)}


# --- the teacher and the front ------------------------------------------------------------------------------------


class Fixed(Retraining):
    """Trainings with given results."""

    def __init__(
        self, context: StudyContext, run_dir: Path, accuracies: dict[int, list[float]], teacher: float
    ) -> None:
        super().__init__(context, run_dir, EPOCHS)
        self.accuracies, self.teacher = accuracies, teacher

    def _train(self, design: Design, replicate: int) -> dict[str, Any]:
        (self.run_dir / "file").touch()
        return {
            "val_accuracy": 0.5,
            "test_accuracy": self.accuracies[design.number][replicate],
            "macs": self.context.designs.design_cost(design.config).macs,
            "n_params": 1,
            "train_macs": 1,
            "file": "file",
        }

    def _teacher_accuracy(self, teacher: torch.nn.Module) -> float:
        return self.teacher


def designs(n: int) -> list[Design]:
    """Ever larger ones."""
    return [
        Design(i, replace(PLAIN.config, architecture=replace(STUDENT, stem_width=4 + i)), None)
        for i in range(n)
    ]


def test_the_smallest_student_within_a_standard_error_of_the_teacher_is_named(context, tmp_path) -> None:
    teacher = 0.9
    shrunk = (0.9 * 359 + 2) / 363  # Agresti and Coull: two right and two wrong are added
    error = math.sqrt(shrunk * (1 - shrunk) / 363)
    found = {0: [0.99, 0.7], 1: [teacher - error - 1e-6] * 2, 2: [teacher - error + 1e-6] * 2, 3: [1.0, 1.0]}
    record = Fixed(context, tmp_path, found, teacher).run(list(reversed(designs(4))), 2)
    macs = context.designs.design_cost(designs(4)[2].config).macs
    teacher_macs = context.sources.online(context.prerequisites.teacher()).macs
    assert record["teacher_test_accuracy"] == teacher
    assert record["teacher_test_standard_error"] == pytest.approx(error)
    assert record["teacher_macs"] == teacher_macs
    assert record["matches_teacher"] == {"number": 2, "macs": macs, "times_cheaper": teacher_macs / macs}


def test_where_nobody_reaches_the_teacher_nobody_is_named(context, tmp_path) -> None:
    record = Fixed(context, tmp_path, {0: [0.2], 1: [0.3]}, 0.9).run(designs(2), 1)
    assert record["matches_teacher"] is None
    assert record["teacher_test_accuracy"] == 0.9


def test_the_front_is_drawn_again_from_the_means(context, tmp_path) -> None:
    found = {0: [0.5, 0.7], 1: [0.9, 0.1], 2: [0.6, 0.61], 3: [0.6, 0.6]}
    record = Fixed(context, tmp_path, found, 0.9).run(designs(4), 2)
    assert [row["on_front"] for row in record["designs"]] == [True, False, True, False]


def test_the_front_is_over_the_objectives_of_the_study(tmp_path) -> None:
    """Trainings of before did not keep the size; it is known without them. What only training tells is not."""
    names = ("val_accuracy", "size_bytes")
    context = small_context(tmp_path, teacher=None, objectives=names)
    rows = Fixed(context, tmp_path, {0: [0.5], 1: [0.4], 2: [0.6]}, 0.9).run(designs(3), 1)["designs"]
    sizes = [context.designs.design_cost(design.config).size_bytes for design in designs(3)]
    assert [row["size_bytes"] for row in rows] == sizes == sorted(sizes)
    assert [row["on_front"] for row in rows] == [True, False, True]
    (tmp_path / "retrained.json").unlink()
    late = Objective("gain", "gain", "maximize", "", "linear", "after", lambda trained: 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OBJECTIVES._cards, "gain", late)
        context = small_context(tmp_path, teacher=None, objectives=("val_accuracy", "gain"))
        (row,) = Fixed(context, tmp_path, {0: [0.5]}, 0.9).run(designs(1), 1)["designs"]
    assert row["gain"] is None
    assert not row["on_front"]


@pytest.mark.parametrize(("objective", "again"), [("forgetting", 1), ("train_macs", 0)])
def test_what_was_judged_without_its_measures_is_made_again(tmp_path, trained, objective, again) -> None:
    """Earlier versions did not hand on what a scheme measures, so that what is judged by it was 0."""
    objectives = ("val_accuracy", "macs", objective)
    retraining = Retraining(small_context(tmp_path, teacher=None, objectives=objectives), tmp_path, 1)
    plain = replace(PLAIN, config=design())
    retraining.run([plain], seeds=1)
    record = results(tmp_path)
    for training in record["trainings"].values():
        assert training.pop("measures") == {}
    write_sealed(tmp_path / RESULTS_FILE, {key: value for key, value in record.items() if key != "seal"})
    trained.clear()
    retraining.run([plain], seeds=1)
    assert len(trained) == again


def test_without_a_teacher_there_is_nothing_to_compare_with(tmp_path) -> None:
    context = small_context(tmp_path, teacher=None)
    record = Retraining(context, tmp_path, 1).run([PLAIN], 1)
    assert record["teacher_test_accuracy"] is None
    assert record["matches_teacher"] is None


# --- what can go wrong --------------------------------------------------------------------------------------------


def test_an_assistant_that_is_missing_is_made_first(tmp_path) -> None:
    context = small_context(tmp_path)
    assistant = AssistantSpec(TEACHER, replace(PLAIN.config.training, epochs=1))
    config = replace(TAUGHT.config, distillation=replace(TAUGHT.config.distillation, assistants=(assistant,)))
    recipes = context.designs.recipes(config)
    assert not context.designs.has_artifact(recipes[1].artifact_id)
    Retraining(context, tmp_path, 1).run([Design(0, config, None)], 1)
    assert context.designs.has_artifact(recipes[1].artifact_id)


def test_a_training_that_diverges_is_one_clear_error_that_names_it(context, tmp_path) -> None:
    wild = replace(PLAIN.config.training, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(
        ValueError, match=r"trial 8 cannot be retrained, with seed 1: non-finite .*; leave it out"
    ):
        Retraining(context, tmp_path, EPOCHS).run(
            [replace(PLAIN, config=replace(PLAIN.config, training=wild))], 1
        )


def _raises() -> None:
    raise ValueError


@pytest.mark.parametrize(
    ("happens", "says"),
    [
        (_raises, r"ValueError: no message \(.*test_retrain\.py:\d+\)"),
        (lambda: sys.exit(0), r"SystemExit: 0 \("),
        (lambda: time.sleep(60), r"an epoch took longer than execution\.epoch_seconds = 0\.05"),
    ],
)
def test_what_a_users_code_does_in_a_final_training_is_one_line(tmp_path, monkeypatch, happens, says) -> None:
    execution = ExecutionSpec(epoch_seconds=0.05)
    context = small_context(tmp_path, teacher=None, execution=execution)
    monkeypatch.setattr(TrialRun, "advance", lambda *_: happens())
    with pytest.raises(
        InputError, match=rf"^trial 8 cannot be retrained, with seed 1: {says}.*; leave it out$"
    ):
        Retraining(context, tmp_path, EPOCHS).run([PLAIN], 1)


def test_nothing_to_do_is_said(context, tmp_path) -> None:
    with pytest.raises(ValueError, match="seeds is 0; at least 1"):
        Retraining(context, tmp_path, EPOCHS).run([PLAIN], 0)
    with pytest.raises(ValueError, match="no design to retrain"):
        Retraining(context, tmp_path, EPOCHS).run([], 1)
    assert list(tmp_path.iterdir()) == []


# --- damage ------------------------------------------------------------------------------------------------------


def _flip(path: Path, position: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])


def test_a_damaged_student_is_trained_again_and_is_the_same(context, tmp_path, trained, caplog) -> None:
    retraining = Retraining(context, tmp_path, EPOCHS)
    path = retraining.train(PLAIN, 0)
    whole, before = path.read_bytes(), results(tmp_path)
    assert before["trainings"][retraining.key(PLAIN, 0)]["sha256"] == file_hash(path)
    _flip(path, len(whole) - 9)
    assert damaged_students(tmp_path, before) == [str(path.relative_to(tmp_path))]
    assert Retraining(context, tmp_path, EPOCHS).train(PLAIN, 0) == path
    assert "is damaged: its content is not what was written; it is trained again" in caplog.text
    assert path.read_bytes() == whole
    assert results(tmp_path) == before
    assert len(trained) == 2
    assert Retraining(context, tmp_path, EPOCHS).train(PLAIN, 0) == path
    assert len(trained) == 2, "what is whole is not trained again"


def test_damaged_results_are_refused_by_name_with_the_way_out(context, tmp_path, trained) -> None:
    retraining = Retraining(context, tmp_path, EPOCHS)
    retraining.train(PLAIN, 0)
    path = tmp_path / RESULTS_FILE
    whole = path.read_bytes()
    number = whole.index(b'"test_accuracy": 0.') + len(b'"test_accuracy": 0.')
    for content in (
        whole[:number] + b"9" + whole[number + 1 :],
        whole[: len(whole) // 2],
        b'{"trainings": 3}',
        b'{"trainings": {"a": {}}}',
        b"[]",
    ):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=r"retrained\.json is damaged: .*move it away and retrain"):
            retraining.train(PLAIN, 0)
    assert len(trained) == 1


def test_results_of_an_earlier_version_have_no_hashes_and_go_on(context, tmp_path, trained) -> None:
    retraining = Retraining(context, tmp_path, EPOCHS)
    retraining.train(PLAIN, 0)
    record = results(tmp_path)
    for training in record["trainings"].values():
        del training["sha256"]
    (tmp_path / RESULTS_FILE).write_text(json.dumps(record))
    assert damaged_students(tmp_path, record) == []
    retraining.train(PLAIN, 0)
    assert len(trained) == 1


def test_an_empty_file_of_results_is_no_file_of_results(context, tmp_path) -> None:
    for content in ("{}", '{"trainings": {}}', '{"seeds": 1, "designs": []}'):
        (tmp_path / RESULTS_FILE).write_text(content)
        with pytest.raises(DamagedError, match=r"retrained\.json is damaged"):
            load_results(tmp_path)


# --- beside earlier retrainings -----------------------------------------------------------------------------------


def test_designs_that_a_retraining_leaves_out_stay_shown(context, tmp_path, caplog) -> None:
    found = {number: [0.5 + number / 10] * 3 for number in range(4)}
    retraining = Fixed(context, tmp_path, found, 0.9)
    one, two, three = designs(3)
    retraining.run([one, two], 3)
    retraining.epochs = 5
    assert [row["number"] for row in retraining.run([three], 1)["earlier"]] == [0, 1]
    record = retraining.run([one], 2)
    shown = {row["number"]: (row["n"], row["epochs"], row["on_front"]) for row in record["earlier"]}
    assert shown == {1: (3, EPOCHS, None), 2: (1, 5, None)}
    by_number = retrained({"retrained": record})
    assert [(number, row["n"], row["epochs"]) for number, row in sorted(by_number.items())] == [
        (0, 2, 5),
        (1, 3, EPOCHS),
        (2, 1, 5),
    ]
    assert not caplog.text
    kept = results(tmp_path)
    write_sealed(tmp_path / RESULTS_FILE, {**kept, "made_with": {"naskd": "0"}})
    assert retraining.run([one], 2)["earlier"] == []
    assert "of trials 1, 2; retrain all that you compare" in caplog.text


# --- numbers that say nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("teacher", [0.0, 0.1, 0.11])
def test_nothing_is_compared_with_a_teacher_who_may_as_well_guess(
    context, tmp_path, teacher, caplog, monkeypatch
) -> None:
    manifest = ArtifactStore.manifest
    good = {"val_accuracy": 0.95}  # the one of these tests has hardly learnt anything
    monkeypatch.setattr(ArtifactStore, "manifest", lambda self, name: {**manifest(self, name), **good})
    record = Fixed(context, tmp_path, {0: [0.9], 1: [0.95]}, teacher).run(designs(2), 1)
    assert record["teacher_at_chance"]
    assert record["matches_teacher"] is None
    (line,) = record["warnings"]
    assert f"The teacher is right on {teacher:.1%} of the test images, which is no better than chance" in line
    assert line in caplog.text
    assert any(line in said for said in doubts(tmp_path))
    text = io.StringIO()
    Console(file=text, width=200).print(retrained_table(record))
    assert "The teacher is no better than chance on the test images" in text.getvalue()
    assert "within one standard error" not in text.getvalue()


def test_a_student_who_guesses_on_the_test_images_alone_is_said(context, tmp_path) -> None:
    record = Fixed(context, tmp_path, {0: [0.08], 1: [0.9]}, 0.9).run(designs(2), 1)
    (line,) = record["warnings"]
    assert line.startswith("Trial 0 is right on 8.0% of the test images")


@pytest.mark.parametrize(("right", "wrong"), [(18, 0), (0, 18)])
def test_no_accuracy_is_certain(right: int, wrong: int) -> None:
    error = standard_error(right / (right + wrong), 18)
    assert error == pytest.approx(math.sqrt((20 / 22) * (2 / 22) / 22))
    assert 1 - error <= 17 / 18, "one image off is within it"
    assert standard_error(0.9, 10**6) == pytest.approx(math.sqrt(0.9 * 0.1 / 10**6), rel=1e-4)


@pytest.mark.parametrize(
    ("elsewhere", "said"),
    [
        (
            {"device": "cuda:0", "precision": "bfloat16"},
            "2 with naskd {0} on cuda in bfloat16; 1 with naskd {0} on cpu",
        ),
        ({"host": "another", "device_name": "another"}, ""),
    ],
)
def test_a_mean_over_several_devices_says_so(context, tmp_path, monkeypatch, elsewhere, said) -> None:
    """A retraining may go on on another machine: its seeds are then of both."""
    here = Compute.environment
    monkeypatch.setattr(Compute, "environment", lambda compute: {**here(compute), **elsewhere})
    Retraining(context, tmp_path, 1).run([PLAIN], seeds=1)
    # What the last retraining leaves out stays shown beside it.
    Retraining(context, tmp_path, 1).run([TAUGHT], seeds=1)
    monkeypatch.undo()
    Retraining(context, tmp_path, 1).run([PLAIN], seeds=2)
    found = [w for w in doubts(tmp_path) if "several ways" in w]
    assert len(found) == bool(said)
    assert all(said.format(here(context.resources.compute)["naskd"]) in warning for warning in found)
