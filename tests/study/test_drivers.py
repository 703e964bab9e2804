"""Several drivers on one storage: one budget, no design twice, and what a dead one leaves is run again once."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import optuna
import pytest
from fake_world import (
    ASSISTANT_MACS,
    IDENTITY,
    TRIAL_MACS,
    FakeWorld,
    assisted,
    drive,
    made_up,
    make_spec,
    make_study,
    plain,
    reasons,
    states,
    student,
)
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from naskd.spec.clock import FakeClock, SystemClock
from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.study import BudgetSpec, LimitsSpec
from naskd.study import drivers as drivers_module
from naskd.study import study as study_module
from naskd.study.ledger import booked_artifacts
from naskd.study.observer import SnapshotObserver
from naskd.study.record import run_record
from naskd.study.shared_networks import MAX_BLOCKED
from naskd.study.snapshot import Snapshot
from naskd.study.storage import open_storage
from naskd.study.study import Study


class Place:
    """Where drivers meet: a storage that each opens for itself, and who of them is alive.

    Args:
        kind: ``memory``, ``journal`` or ``sqlite``.
    """

    def __init__(self, kind: str, folder, monkeypatch) -> None:
        self.kind, self.folder = kind, folder
        self.memory = InMemoryStorage()
        self.dead: set[str] = set()
        self._monkeypatch = monkeypatch
        self._names = iter("ABCDEFGH")
        monkeypatch.setattr(drivers_module, "process_lives", lambda owner: owner not in self.dead)

    def storage(self) -> optuna.storages.BaseStorage:
        if self.kind == "memory":
            return self.memory
        return open_storage(self.kind, self.folder, writing=True)

    def driver(self, spec=None, world=None, **changes) -> Study:
        """A new one; its name is its owner id."""
        name = next(self._names)
        self._monkeypatch.setattr(study_module, "owner_id", lambda: name)
        changes.setdefault("space", plain)
        study = make_study(spec or make_spec(10, teacher=None), self.storage(), world, **changes)
        study.name = name
        return study

    def kill(self, study: Study) -> None:
        self.dead.add(study.name)


@pytest.fixture(params=["memory", "journal"])
def place(request, tmp_path, monkeypatch) -> Place:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    return Place(request.param, tmp_path, monkeypatch)


@pytest.fixture
def memory(tmp_path, monkeypatch) -> Place:
    return Place("memory", tmp_path, monkeypatch)


def _work(study: Study, job) -> None:
    study.tell(job, study.facts.work(job))


def _drive_in_turns(drivers: list[Study], seed: int = 0, at_once: int = 2) -> None:
    """Each driver asks and tells at any moment, and holds some trials, until none has anything to do."""
    moments, running = random.Random(seed), {study.name: [] for study in drivers}
    for _ in range(3000):
        if not any(running.values()) and all(study.finished for study in drivers):
            return
        study = moments.choice(drivers)
        held = running[study.name]
        if held and (len(held) == at_once or moments.random() < 0.5):
            _work(study, held.pop(moments.randrange(len(held))))
        elif (job := study.ask()) is not None:
            held.append(job)
    pytest.fail("the drivers do not come to an end")


def _check(study: Study, n: int) -> None:
    """The ledger of a study that has ended, whoever has died."""
    trials = study.optuna_study.get_trials(deepcopy=False)
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    assert len(complete) == n, states(study)
    assert len({(t.user_attrs["config_id"], t.user_attrs["seed"]) for t in complete}) == n, "a design twice"
    assert set(states(study)) <= {"COMPLETE", "PRUNED", "FAIL"}, "something is left running or waiting"
    record = run_record(study.optuna_study, study.spec.objectives)
    assert record["counts"]["failed"] == 0, reasons(study)


# --- one budget ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_drivers", [2, 3])
def test_drivers_share_the_budget_of_trials(place, n_drivers):
    spec = make_spec(14, teacher=None, limits=LimitsSpec(max_macs=60_000))
    drivers = [place.driver(spec) for _ in range(n_drivers)]
    _drive_in_turns(drivers, seed=n_drivers)
    for study in drivers:
        _check(study, 14)
        assert study.end_reason == "all 14 trials done"
        assert study.ask() is None
        assert study.train_macs == 14 * TRIAL_MACS, "each knows what the others have spent"
    done = Counter(t.user_attrs["owner"] for t in drivers[0].optuna_study.trials if t.values)
    assert len(done) == n_drivers, "one of them has done nothing: the test shows nothing"


def test_a_driver_that_joins_counts_what_others_have_running(place):
    first = place.driver(make_spec(3, teacher=None))
    jobs = [first.ask(), first.ask()]
    second = place.driver(make_spec(3, teacher=None))
    mine = second.ask()
    assert mine is not None
    assert second.ask() is None
    assert first.ask() is None
    for study, job in ((first, jobs[0]), (second, mine), (first, jobs[1])):
        _work(study, job)
    for study in (first, second):
        assert study.ask() is None
        assert study.finished
    _check(first, 3)


def test_drivers_share_the_budget_of_training_macs(place):
    spec = make_spec(budget=BudgetSpec(train_macs=5 * TRIAL_MACS), teacher=None)
    first, second = place.driver(spec), place.driver(spec)
    while (job := first.ask()) is not None:
        _work(first, job)
        if (job := second.ask()) is not None:
            _work(second, job)
    assert second.ask() is None
    assert second.finished
    _check(first, 5)


def _meanwhile(study: Study, action: Callable[[], object]) -> None:
    """Let something happen between the look that `study` takes at the ledger and its next proposal."""
    ask = study.optuna_study.ask

    def asked():
        study.optuna_study.ask = ask
        action()
        return ask()

    study.optuna_study.ask = asked


@pytest.mark.parametrize("given", [(), ({"width": 5, "depth": 1}, {"width": 6, "depth": 1})])
def test_when_two_drivers_take_the_last_place_together_the_lower_number_has_it(place, given):
    spec = make_spec(1, teacher=None, warm_start=given)
    first, second = place.driver(spec), place.driver(spec)
    jobs: list = []
    _meanwhile(second, lambda: jobs.append(first.ask()))
    assert second.ask() is None
    assert not second.finished
    assert states(first) == ["RUNNING", "FAIL"] + ["WAITING"] * bool(given), "what is given is not lost"
    assert "fill the budget" in reasons(first)[1]
    _work(first, jobs[0])
    assert second.ask() is None
    assert second.finished
    assert states(second)[:2] == ["COMPLETE", "FAIL"]


def _nobody_waits_for_others_to_choose(place: Place) -> None:
    """Where tests put one driver's proposal inside of another's, the other one cannot go on meanwhile."""
    place._monkeypatch.setattr(drivers_module, "CHOOSING_SECONDS", 0.0)


def test_first_designs_beyond_the_budget_wait_for_a_larger_one(place):
    given = tuple({"width": 5 + i, "depth": 1} for i in range(4))
    spec = make_spec(2, teacher=None, warm_start=given)
    first, second = place.driver(spec), place.driver(spec)
    _drive_in_turns([first, second])
    assert states(first) == ["COMPLETE", "COMPLETE", "WAITING", "WAITING"]
    more = make_spec(4, teacher=None, warm_start=given)
    _drive_in_turns(drivers := [place.driver(more), place.driver(more)])
    assert states(drivers[0]) == ["COMPLETE"] * 4


# --- no design twice -------------------------------------------------------------------------------------------


def test_a_design_that_another_driver_has_begun_since_is_a_duplicate(place):
    first, second = place.driver(), place.driver()
    job = first.ask()
    given = first.optuna_study.trials[0].params
    second.optuna_study.enqueue_trial(given)
    other = second.ask()
    assert other.config != job.config
    assert reasons(second)[1].endswith(f"{job.config.config_id} is trial 0")


def test_of_two_drivers_that_choose_the_same_at_the_same_moment_the_lower_number_trains_it(place):
    """The second one waits until the first, which is still choosing, has chosen."""
    chosen = threading.Event()

    def same(trial):
        return TrialConfig(student(trial.suggest_int("width", 7, 7)))

    def slow(trial):
        assert chosen.wait(30)
        return same(trial)

    class Waiting(SystemClock):
        def sleep(self, seconds):
            chosen.set()
            super().sleep(seconds)

    spec = make_spec(2, teacher=None)
    first = place.driver(spec, space=slow)
    few = make_spec(2, teacher=None, budget=BudgetSpec(trials=2, max_turned_away=1))
    second = place.driver(few, space=same, clock=Waiting())
    thread = threading.Thread(target=lambda: first_jobs.append(first.ask()))
    first_jobs: list = []
    thread.start()
    while not states(first):
        time.sleep(0.01)
    assert second.ask() is None
    thread.join()
    assert [job.job_id for job in first_jobs] == ["0"]
    assert states(first) == ["RUNNING", "PRUNED"]
    assert "is trial 0" in reasons(first)[1]


@pytest.mark.parametrize("slow_one_tells_first", [False, True])
def test_a_design_that_two_drivers_train_all_the_same_is_complete_once(memory, slow_one_tells_first):
    """One took so long to choose that the other did not wait any more."""
    _nobody_waits_for_others_to_choose(memory)

    def same(trial):
        return TrialConfig(student(trial.suggest_int("width", 7, 7)))

    spec = make_spec(5, teacher=None)
    slow, fast = memory.driver(spec), memory.driver(spec, space=same)
    fast_jobs: list = []

    def while_choosing(trial):
        fast_jobs.append(fast.ask())
        return same(trial)

    slow._asking.space = while_choosing
    slow_job = slow.ask()
    assert slow_job.config == fast_jobs[0].config
    told = [(slow, slow_job), (fast, fast_jobs[0])]
    for study, job in told if slow_one_tells_first else told[::-1]:
        _work(study, job)
    assert sorted(states(slow)) == ["COMPLETE", "PRUNED"]


def test_who_took_so_long_to_choose_that_another_has_trained_the_same_does_not_train_it(memory):
    _nobody_waits_for_others_to_choose(memory)

    def same(trial):
        return TrialConfig(student(trial.suggest_int("width", 7, 7)))

    spec = make_spec(5, teacher=None, budget=BudgetSpec(trials=5, max_turned_away=1))
    slow, fast = memory.driver(spec), memory.driver(spec, space=same)

    def while_choosing(trial):
        _work(fast, fast.ask())
        return same(trial)

    slow._asking.space = while_choosing
    assert slow.ask() is None
    assert states(slow) == ["PRUNED", "COMPLETE"]


def test_drivers_that_begin_together_do_not_propose_the_same(place):
    def wide(trial):
        trial.suggest_float("rate", 0.0, 1.0)
        return TrialConfig(student(trial.suggest_int("width", 1, 65536)))

    spec = make_spec(20, teacher=None)
    drivers = [place.driver(spec, space=wide) for _ in range(3)]
    jobs = [study.ask() for _ in range(4) for study in drivers]
    assert len({job.config.config_id for job in jobs}) == 12
    assert states(drivers[0]) == ["RUNNING"] * 12, "nothing was turned away as a duplicate"


def test_a_driver_alone_proposes_the_same_in_each_run(memory, tmp_path):
    found = []
    for _ in range(2):
        study = make_study(make_spec(4, teacher=None), space=plain)
        drive(study)
        found.append([t.params for t in study.optuna_study.trials])
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_drivers_at_the_same_time_in_earnest(kind, tmp_path, monkeypatch):
    """Threads, each with a connection of its own, on a space so small that they often choose the same."""
    place = Place(kind, tmp_path, monkeypatch)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)

    def small(trial):
        return TrialConfig(student(trial.suggest_int("width", 1, 5), trial.suggest_int("depth", 1, 4)))

    given = tuple({"width": width, "depth": 1} for width in (1, 2, 3))
    spec = make_spec(14, teacher=None, warm_start=given)
    drivers = [place.driver(spec, space=small) for _ in range(3)]
    failures: list[BaseException] = []
    start = threading.Barrier(3)

    def live(study: Study) -> None:
        try:
            start.wait()
            while not study.finished:
                if (job := study.ask()) is None:
                    time.sleep(0.005)
                else:
                    _work(study, job)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=live, args=(study,)) for study in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    _check(drivers[0], 14)
    found = [t.params for t in drivers[0].optuna_study.trials if t.values]
    assert all(params in found for params in given)


# --- the dead --------------------------------------------------------------------------------------------------


def test_a_living_driver_runs_again_what_a_dead_one_has_left(place):
    first, second = place.driver(make_spec(4, teacher=None)), place.driver(make_spec(4, teacher=None))
    _work(second, second.ask())
    lost = [first.ask(), first.ask()]
    place.kill(first)
    drive(second)
    _check(second, 4)
    again = {t.user_attrs["retry_of"]: t for t in second.optuna_study.trials if "retry_of" in t.user_attrs}
    assert sorted(again) == [int(job.job_id) for job in lost]
    for job in lost:
        assert again[int(job.job_id)].user_attrs["config"] == job.config.to_dict()
        assert again[int(job.job_id)].user_attrs["retries"] == 1
    assert second.finished


def test_a_driver_that_trains_looks_now_and_then(memory):
    first, second = memory.driver(), memory.driver()
    first.ask()
    job = second.ask()
    memory.kill(first)
    second.report(job, 1, {})
    assert states(second)[0] == "RUNNING", "not with every epoch"
    second._looked -= study_module.LOOK_SECONDS
    second.report(job, 2, {})
    assert states(second) == ["FAIL", "RUNNING", "WAITING"]


def test_two_drivers_that_find_the_same_dead_one_run_its_trial_once(place):
    """Both enqueue it before either has closed it."""
    spec = make_spec(3, teacher=None)
    first, second, third = (place.driver(spec) for _ in range(3))
    lost = first.ask()
    place.kill(first)
    enqueue = second.optuna_study.enqueue_trial

    def at_the_same_moment(*args, **kwargs):
        second.optuna_study.enqueue_trial = enqueue
        third._look()
        enqueue(*args, **kwargs)

    second.optuna_study.enqueue_trial = at_the_same_moment
    second._look()
    assert states(second)[0] == "FAIL"
    assert [t.user_attrs.get("retry_of") for t in second.optuna_study.trials] == [None, 0, 0]
    _drive_in_turns([second, third])
    _check(second, 3)
    assert states(second)[:3] == ["FAIL", "COMPLETE", "FAIL"]
    assert "trial 1 runs trial 0 again" in reasons(second)[2]
    assert lost.config.to_dict() == second.optuna_study.trials[1].user_attrs["config"]


def test_a_driver_waits_for_the_others_last_trials_and_runs_what_they_lose(place):
    seen: list[Snapshot] = []
    first = place.driver(make_spec(2, teacher=None))
    second = place.driver(make_spec(2, teacher=None), observers=[SnapshotObserver(seen.append)])
    lost = first.ask()
    _work(second, second.ask())
    assert second.ask() is None
    assert not second.finished, "the other one may die"
    assert (seen[-1].waiting_for, seen[-1].running) == (1, "")
    place.kill(first)
    job = second.ask()
    assert job.config == lost.config
    assert seen[-1].waiting_for == 0
    _work(second, job)
    assert second.ask() is None
    assert second.finished
    _check(second, 2)


def test_a_driver_with_nothing_left_to_propose_still_runs_what_another_one_loses(memory):
    def tiny(trial):
        return TrialConfig(student(trial.suggest_int("width", 1, 2)))

    spec = make_spec(9, teacher=None, budget=BudgetSpec(trials=9, max_turned_away=5))
    first, second = memory.driver(spec, space=tiny), memory.driver(spec, space=tiny)
    first.ask()
    _work(second, second.ask())
    assert second.ask() is None
    assert "in a row were turned away" in second.end_reason
    assert not second.finished
    memory.kill(first)
    drive(second)
    assert second.finished
    _check(second, 2)


def test_what_an_interrupted_driver_gives_back_another_one_takes_up(place):
    first, second = place.driver(make_spec(2, teacher=None)), place.driver(make_spec(2, teacher=None))
    given_back = first.ask()
    _work(second, second.ask())
    first.release()
    job = second.ask()
    assert job.config == given_back.config
    _work(second, job)
    _check(second, 2)


def test_a_driver_whose_lease_has_ended_drops_what_it_trained(place, caplog):
    """It was asleep, and the trial is run again by another driver."""
    first, second = place.driver(make_spec(2, teacher=None)), place.driver(make_spec(2, teacher=None))
    job = first.ask()
    place.kill(first)
    again = second.ask()
    assert again.config == job.config
    place.dead.clear()
    _work(first, job)
    assert "trial 0 is run again by another driver" in caplog.text
    assert states(first) == ["FAIL", "RUNNING"]
    _work(second, again)
    _drive_in_turns([first, second])
    _check(first, 2)


def test_a_driver_that_loses_a_trial_while_it_chooses_goes_on(memory):
    first, second = memory.driver(make_spec(1, teacher=None)), memory.driver(make_spec(1, teacher=None))

    def asleep(trial):
        trial.suggest_int("width", 9, 9)
        memory.kill(first)
        second._look()
        memory.dead.clear()
        first._asking.space = second._asking.space = lambda t: TrialConfig(
            student(t.suggest_int("width", 9, 9))
        )
        return TrialConfig(student(trial.suggest_int("other", 1, 5)))

    first._asking.space = asleep
    job = first.ask()
    assert states(first) == ["FAIL", "RUNNING"]
    _work(first, job)
    _check(first, 1)


def test_the_dead_are_told_from_those_who_have_not_signed_yet_by_this_machines_clock(memory):
    """The clock of another host may be wrong."""
    first, second = memory.driver(), memory.driver(clock=(clock := FakeClock()))
    unsigned = first.optuna_study.ask()
    second.optuna_study._storage.get_trial(unsigned._trial_id).datetime_start = None
    second._look()
    assert states(second) == ["RUNNING"]
    clock.sleep(drivers_module.CLAIM_SECONDS)
    second._look()
    assert states(second) == ["FAIL"]


# --- beginning together ----------------------------------------------------------------------------------------


def _created_by_two(place: Place, spec, second_identity=IDENTITY) -> list:
    """A study whose second driver opens it while the first one is creating it."""
    opened: list = []
    created = threading.Event()
    waiting = threading.Event()

    class Waiting(SystemClock):
        def sleep(self, seconds):
            waiting.set()
            assert created.wait(30)

    def join() -> None:
        try:
            opened.append(place.driver(spec, identity=second_identity, clock=Waiting()))
        except InputError as error:
            opened.append(error)

    thread = threading.Thread(target=join)
    enqueue = optuna.Study.enqueue_trial

    def in_the_middle(self, *args, **kwargs):
        if not thread.is_alive() and not waiting.is_set():
            thread.start()
            assert waiting.wait(30)
        enqueue(self, *args, **kwargs)

    place._monkeypatch.setattr(optuna.Study, "enqueue_trial", in_the_middle)
    opened.append(place.driver(spec))
    created.set()
    thread.join()
    return opened


GIVEN = ({"width": 5, "depth": 1}, {"width": 6, "depth": 2})


def test_first_designs_are_enqueued_once_by_drivers_that_begin_together(place):
    first, second = _created_by_two(place, make_spec(4, teacher=None, warm_start=GIVEN))
    assert states(first) == ["WAITING"] * 2
    _drive_in_turns([first, second])
    assert states(second) == ["COMPLETE"] * 4


def test_a_driver_of_another_study_is_refused_even_while_the_first_one_is_created(memory):
    spec = make_spec(4, teacher=None, warm_start=GIVEN)
    found = _created_by_two(memory, spec, {**IDENTITY, "data_hash": "d2"})
    assert isinstance(found[0], Study)
    assert 'data_hash: "d1" -> "d2"' in str(found[1])


@pytest.mark.parametrize("attempt", range(3))
def test_drivers_that_begin_together_all_open_a_new_database(attempt, tmp_path):
    url, opened = f"sqlite:///{tmp_path / 'new.db'}", []
    start = threading.Barrier(4)

    def begin() -> None:
        start.wait()
        opened.append(open_storage(url, tmp_path, writing=True))

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    optuna.create_study(storage=opened[0], study_name="s")
    assert [study.study_name for study in opened[3].get_all_studies()] == ["s"]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_each_waiting_trial_is_begun_by_one_driver(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    n = 24
    study = optuna.create_study(storage=open_storage(kind, tmp_path, writing=True), study_name="s")
    for value in range(n):
        study.enqueue_trial({"x": value})
    begun: list[int] = []
    start = threading.Barrier(3)

    def take() -> None:
        mine = optuna.load_study(study_name="s", storage=open_storage(kind, tmp_path, writing=True))
        start.wait()
        while len(begun) < n:
            begun.append(mine.ask().number)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(begun)) == len(begun)


# --- shared networks -------------------------------------------------------------------------------------------


def test_drivers_without_a_shared_disk_make_each_network_and_book_it_once(place):
    worlds = [FakeWorld(), FakeWorld()]
    drivers = [place.driver(make_spec(6), world, space=assisted) for world in worlds]
    for study in drivers * 12:
        if (job := study.ask()) is not None:
            _work(study, job)
    assert all(study.finished for study in drivers)
    assert worlds[0].made == worlds[1].made
    assert len(worlds[0].made) == 2
    for study in drivers:
        _check(study, 6)
        booked = booked_artifacts(study.optuna_study.user_attrs)
        assert sorted(entry["label"] for entry in booked.values()) == ["assistant", "teacher"]
        assert study.train_macs == ASSISTANT_MACS + 6 * TRIAL_MACS
        record = run_record(study.optuna_study, study.spec.objectives)
        assert record["train_macs"] == study.train_macs
        assert (record["teacher"]["label"], len(record["assistants"])) == ("teacher", 1)


def test_two_networks_booked_at_the_same_moment_are_both_kept(memory):
    first, second = memory.driver(make_spec(6)), memory.driver(make_spec(6))
    write = first.optuna_study.set_user_attr

    def at_the_same_moment(key, value):
        second._ledger.book_artifact("other", {"label": "assistant", "spent_macs": 7})
        write(key, value)

    first.optuna_study.set_user_attr = at_the_same_moment
    teacher = first.ask()
    _work(first, teacher)
    assert booked_artifacts(first.optuna_study.user_attrs).keys() == {teacher.job_id, "other"}


def test_what_a_dead_driver_was_making_is_made_by_another(place):
    world = FakeWorld()
    first, second = (place.driver(make_spec(3), world, space=assisted) for _ in range(2))
    teacher = first.ask()
    assert first.ask() is None, "its designs wait for the teacher"
    place.kill(first)
    drive(second)
    _check(second, 3)
    assert teacher.job_id in world.made
    retries = [t.user_attrs["retries"] for t in second.optuna_study.trials if "retry_of" in t.user_attrs]
    assert set(retries) == {0}, "who waits cannot be why its process died"


# --- looking ---------------------------------------------------------------------------------------------------


def test_snapshots_tell_of_all_drivers(place):
    seen: list[Snapshot] = []
    first = place.driver(make_spec(6, teacher=None))
    second = place.driver(make_spec(6, teacher=None), observers=[SnapshotObserver(seen.append)])
    for _ in range(3):
        _work(first, first.ask())
    job = second.ask()
    result = made_up(job, second.facts.design_cost(job.config))
    second.tell(job, result)
    assert (seen[-1].complete, seen[-1].train_macs) == (4, 4 * TRIAL_MACS)
    record = run_record(first.optuna_study, first.spec.objectives)
    assert seen[-1].hypervolume == second.hypervolume() == record["hypervolume"] > 0
    assert seen[-1].fraction == pytest.approx(4 / 6)


@pytest.mark.parametrize("stored", [False, True])
def test_a_teacher_that_is_stored_is_loaded_and_not_trained(memory, stored):
    """Another run has made it: this one looks at it, which takes no time."""
    seen: list[Snapshot] = []
    study = memory.driver(make_spec(2), observers=[SnapshotObserver(seen.append)])
    if stored:
        study.facts.made.add("teacher-id")
    job = study.ask()
    assert (job.kind, job.trained, seen[-1].trained) == ("artifact", not stored, not stored)
    assert bool(job.until_epoch) is not stored


def test_one_number_tells_that_a_driver_lives_however_many_trials_it_holds(memory):
    study = memory.driver(make_spec(100), space=assisted)
    study.renew()
    assert study._ledger.heartbeats() == {}, "nothing of it runs"
    study.ask()
    study.ask()
    assert len(study.optuna_study.trials) == MAX_BLOCKED
    assert study._ledger.heartbeats() == {study.name: 1}
    study.renew()
    assert study._ledger.heartbeats() == {study.name: 2}
