"""What a search would take: as it is done, with what is remembered counted once."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import write_tiny_study
from small_studies import by_scheme, design, execution, given, small_context

import naskd
from naskd.knowledge.source import OnlineSource
from naskd.runs import estimate, opening, timing
from naskd.runs.checking import threads_that_help
from naskd.schemes import generations, head_first
from naskd.schemes.scheme import TrainingOverError
from naskd.spec.design import KnowledgeTerm
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Job

SLOW = 0.5


@pytest.fixture
def slow_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question takes longer than any step here."""
    ask = OnlineSource.summaries
    monkeypatch.setattr(OnlineSource, "summaries", lambda *a: time.sleep(SLOW) or ask(*a))


@pytest.mark.usefixtures("whole_laps")
def test_a_teacher_is_counted_once_and_not_in_every_trial(tmp_path: Path, slow_teacher: None) -> None:
    context = small_context(tmp_path)
    taught = design(KnowledgeTerm("logits"), batch_size=8)
    found = estimate.estimate_search(context, [taught])
    steps = taught.training.epochs * len(context.resources.data.train) / 8
    assert found["trial_seconds"]["median"] < 0.5 * SLOW * steps, "a search asks nobody twice"
    assert found["bank_seconds"] > SLOW
    assert found["seconds"] >= found["least_seconds"] > found["bank_seconds"]
    alone = estimate.estimate_search(context, [design(batch_size=8)])
    assert alone["bank_seconds"] == 0


def test_what_earlier_runs_have_remembered_takes_no_time(tiny_run_copy: Path, monkeypatch) -> None:
    monkeypatch.chdir(tiny_run_copy.parents[1])
    study = tiny_run_copy.parents[1] / "tiny.toml"
    assert opening.dry_run(study, designs=2)["bank_seconds"] == 0
    other = opening.dry_run(study, ["teacher.training.epochs=3"], designs=2)
    assert other["bank_seconds"] > 0, "another teacher"


def test_a_budget_of_macs_allows_as_many_trials_as_the_search_then_makes(tmp_path: Path, monkeypatch) -> None:
    """A search counts what it executes: a teacher once for each view of an image."""
    monkeypatch.chdir(tmp_path)
    study = write_tiny_study(tmp_path)
    run = naskd.search(study, trials=6, settings=["epochs=3", "sampler.name='random'"])
    spent = run.to_dict(everything=True)["train_macs"]
    found = opening.dry_run(
        study, ["epochs=3", f"budget.train_macs={spent}", "budget.trials=1000"], designs=40
    )
    assert found["trials"] == pytest.approx(6, abs=2)


def test_what_is_too_large_to_be_timed_is_scaled(tmp_path: Path) -> None:
    context = small_context(tmp_path, teacher=None)
    small, large = design(epochs=1), design(epochs=5)
    alone = estimate.estimate_search(context, [small])
    both = estimate.estimate_search(context, [small], beyond=[large])
    assert (both["n_timed"], alone["n_timed"]) == (1, 1)
    assert both["trial_seconds"]["max"] == pytest.approx(5 * both["trial_seconds"]["min"])


def test_each_phase_is_timed_and_counts_by_its_epochs(tmp_path: Path, monkeypatch) -> None:
    """From the second generation on, each step waits for what the one before says."""
    ask, wait = generations.earlier_logits, 0.3
    monkeypatch.setattr(timing, "LAPS", 1)
    monkeypatch.setattr(generations, "earlier_logits", lambda *a: time.sleep(wait) or ask(*a))
    context = small_context(tmp_path, teacher=None)
    born = by_scheme("born_again", training={"epochs": 4, "batch_size": 8}, generations=4)
    steps = 3 * len(context.resources.data.train) / 8
    found = estimate.estimate_search(context, [born])
    assert found["least_seconds"] / found["trials"] > wait * steps


def test_a_phase_that_needs_what_the_one_before_leaves_is_timed(tmp_path: Path, monkeypatch) -> None:
    """No epoch is done to its end here; what it has learned so far is no reason to end, either."""
    phases = head_first.HeadFirstScheme.phases

    def needing(scheme):
        def leave(means):
            scheme.left = 1.0
            raise TrainingOverError("it has learned nothing")

        def step(batch, asked):
            assert scheme.left == 1.0
            return whole.step(batch, asked)

        first, whole = phases(scheme)
        return dataclasses.replace(first, after_epoch=leave), dataclasses.replace(whole, step=step)

    monkeypatch.setattr(head_first.HeadFirstScheme, "phases", needing)
    monkeypatch.setattr(timing, "LAPS", 1)
    context = small_context(tmp_path, teacher=None)
    found = estimate.estimate_search(context, [by_scheme("head_first")], said=pytest.fail)
    assert found["n_timed"] == 1


def test_phases_that_do_the_same_are_timed_once(tmp_path: Path, monkeypatch) -> None:
    seen = []

    def laps(run, most, epoch):
        seen.append(epoch)
        return [2.0 if epoch else 1.0]

    monkeypatch.setattr(timing, "_timed_laps", laps)
    context = small_context(tmp_path, teacher=None)
    born = by_scheme("born_again", training={"epochs": 8}, generations=4)
    found = estimate.estimate_search(context, [born])
    assert seen == [0, 2], "later generations do as the second one does"
    run, _ = timing._run(Job("0", "trial", born, 0, 0), context)
    first, *others = run.steps_by_phase().values()
    assert found["trial_seconds"]["median"] == pytest.approx(first + 2 * sum(others))


def test_a_later_phase_whose_step_takes_long_ends_the_timing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(timing, "_timed_laps", lambda run, most, epoch: [9.0 if epoch else 0.001])
    context = small_context(tmp_path, teacher=None)
    born = by_scheme("born_again", training={"epochs": 4})
    with pytest.raises(estimate.TooSlowError):
        estimate.estimate_search(context, [born], step_seconds=2.0)


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [({1: 0.1, 2: 2.0}, 1), ({1: 0.1, 2: 0.06}, 2), ({1: 0.1, 2: 0.095}, 1), ({1: 0.1, 4: 0.03}, 4)],
)
def test_threads_that_wait_for_each_other_do_not_help(steps: dict[int, float], wanted: int) -> None:
    assert threads_that_help(steps) == wanted


def test_threads_are_tried_and_left_as_they_were(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    found = timing.seconds_by_threads(small_context(tmp_path, teacher=None), design(), (1, 2))
    assert found.keys() == {1, 2}
    assert min(found.values()) > 0
    assert torch.get_num_threads() == before


def test_trials_at_once_are_those_that_a_cluster_of_this_machine_holds(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    """One after the other a search of eight workers would seem to take eight times as long as it does."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(estimate, "available_cpus", lambda: 8)
    context = small_context(tmp_path, teacher=None)

    def at_once(**options) -> int:
        return estimate._trials_at_once(
            given(
                context,
                spec=dataclasses.replace(context.resources.spec, execution=execution("ray", **options)),
            )
        )

    assert at_once() == 8
    assert at_once(threads=3) == 2
    assert at_once(cpus_per_trial=0.5) == 16
    assert at_once(workers=5) == 5
    assert at_once(workers=50) == 8
    assert not caplog.records
    assert at_once(address="10.0.0.1:6379", workers=50) == 50
    assert at_once(address="10.0.0.1:6379") == 1
    assert "is not known before a search connects" in caplog.text


class Steps:
    """Stands for a training whose steps take a while, by the number of threads."""

    def __init__(self, takes: dict[int, float]) -> None:
        self.takes, self.done = takes, list[int]()
        self.loop = self
        self.context = self.resources = self.compute = self
        self.cuda_graphs, self.epoch = False, 0
        self.spec, self.batch_size = self, 8

    def run_epoch(self, max_steps: int) -> None:
        for _ in range(max_steps):
            self.done.append(torch.get_num_threads())
            time.sleep(self.takes[torch.get_num_threads()])

    def images_per_epoch(self, epoch: int) -> int:
        return 8


@pytest.mark.usefixtures("whole_laps")
def test_a_bad_number_of_threads_is_left_after_a_step_and_more_are_not_tried(monkeypatch) -> None:
    steps = Steps({1: 0.001, 2: 0.3, 4: 100.0})
    monkeypatch.setattr(timing, "_run", lambda job, context: (steps, {}))
    found = timing.seconds_by_threads(None, None, (4, 2, 1))
    assert found.keys() == {1, 2}
    assert threads_that_help(found) == 1
    assert steps.done.count(2) == 2, "one that is not counted, and one"
    assert steps.done[: steps.done.index(2)] == [1] * steps.done.index(2)


def test_a_step_that_takes_long_ends_the_timing(tmp_path: Path, monkeypatch) -> None:
    context, seen = small_context(tmp_path, teacher=None), []

    def laps(run, most, epoch):
        seen.append(most)
        return [0.001] if len(seen) == 1 else [9.0]

    monkeypatch.setattr(timing, "_timed_laps", laps)
    designs = [design(epochs=epochs) for epochs in (1, 2, 5)]
    found = estimate.estimate_search(context, designs, step_seconds=2.0, said=pytest.fail)
    assert seen == [2.0, 2.0], "the third is not begun"
    assert found["n_timed"] == 1
    assert found["trial_seconds"]["max"] == pytest.approx(5 * found["trial_seconds"]["min"])
    with pytest.raises(estimate.TooSlowError, match="one step takes long here"):
        estimate.estimate_search(context, designs, step_seconds=2.0)
    with pytest.raises(estimate.TooSlowError):
        estimate.estimate_search(context, designs, timing_seconds=0.0)


def test_one_ctrl_c_ends_the_timing(tmp_path: Path, monkeypatch) -> None:
    """Half of the times would be said as if they were all."""

    def laps(run, most, epoch):
        os.kill(os.getpid(), signal.SIGINT)
        return [0.001]

    monkeypatch.setattr(timing, "_timed_laps", laps)
    with pytest.raises(KeyboardInterrupt):
        estimate.estimate_search(small_context(tmp_path, teacher=None), [design(epochs=e) for e in (1, 2)])


def test_what_a_bank_takes_is_counted_once_however_many_designs_ask(tmp_path: Path) -> None:
    """Logits in half precision, of each image in each of its views that a search shows."""
    context = small_context(tmp_path)
    taught = design(KnowledgeTerm("logits"), batch_size=8)
    found = estimate.estimate_search(context, [taught, taught])
    data = context.resources.data
    column = 2 * len(data.train) * data.n_classes
    assert found["bank_bytes"] >= column
    assert found["bank_bytes"] % column == 0
    assert found["bank_bytes"] / column <= context.resources.spec.epochs
    assert estimate.estimate_search(context, [design(batch_size=8)])["bank_bytes"] == 0


@pytest.mark.usefixtures("whole_laps")
def test_a_bank_that_only_other_designs_fill_counts_too(tmp_path: Path) -> None:
    """The timed one hears nobody, or other views: what a check says of the disk is of all that a search may try."""
    resources = dataclasses.replace(small_context(tmp_path).resources, foreseen=("logits",))
    context = StudyContext.of(resources)
    taught = design(KnowledgeTerm("logits"), batch_size=8)
    plain = design(KnowledgeTerm("logits"), batch_size=8, augmentation="none")
    full = {
        name: estimate.estimate_search(context, [one])
        for name, one in (("as it is", taught), ("plain", plain))
    }
    sizes = {name: found["bank_bytes"] for name, found in full.items()}
    assert min(sizes.values()) >= 2 * len(resources.data.train) * resources.data.n_classes
    nobody = estimate.estimate_search(context, [design(batch_size=8)], sample=[taught, plain, taught])
    assert nobody["bank_bytes"] == sum(sizes.values())
    assert nobody["seconds"] > nobody["bank_seconds"] > 0, "by the speed of the students that were timed"
    one = estimate.estimate_search(context, [taught], sample=[taught, plain])
    assert one["bank_bytes"] == sum(sizes.values())
    assert one["bank_seconds"] > full["as it is"]["bank_seconds"] / 2
    assert one["seconds"] > one["bank_seconds"] > 0
