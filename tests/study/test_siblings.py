"""Several designs of one training in a study: told once, booked once, wherever it is stopped."""

from collections import Counter
from dataclasses import replace
from typing import Any

import optuna
import pytest
from fake_world import FakeWorld, drive, drive_in_parallel, make_spec, make_study, reasons, states
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.trial import TrialState, create_trial
from test_crash import DEAD, Death, MortalJournal

from naskd.spec.design import ArchitectureSpec, Cost, DistillationSpec, StageSpec, TrialConfig
from naskd.spec.errors import DamagedError
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.seeds import trial_seed
from naskd.spec.study import BudgetSpec, LimitsSpec, SamplerSpec, StoppingSpec
from naskd.study import drivers as drivers_module
from naskd.study import optuna_private
from naskd.study import study as study_module
from naskd.study.ledger import REPLICATE, TRAINED_IN, Ledger
from naskd.study.record import run_record
from naskd.study.rules.mo_asha import MoAshaRule
from naskd.study.sampling.surrogate import Surrogate
from naskd.study.seals import check_trial
from naskd.study.stopping import NeverStop, TrialView, build_stopping
from naskd.trials.jobs import Decision, Job, SiblingResult, TrialResult
from naskd.trials.methods import canonical, seed_of, sibling_of

OBJ = ("val_accuracy", "macs")
EXITS = range(3)


def exit_of(config: TrialConfig) -> int:
    return int(dict(config.distillation.scheme_options).get("exit", 0))


def with_exit(config: TrialConfig, number: int) -> TrialConfig:
    return replace(config, distillation=sibling_of(config.distillation, {"exit": number}))


def network(width: int, scheme: str, number: int = 0) -> TrialConfig:
    stages = tuple(StageSpec("basic", 1, width) for _ in EXITS)
    options = (("exit", number),) if scheme == "byot" else ()
    return canonical(
        TrialConfig(ArchitectureSpec(stages), DistillationSpec(scheme=scheme, scheme_options=options))
    )


def by_exit(trial: optuna.Trial) -> TrialConfig:
    """Says which exit leaves."""
    width = trial.suggest_int("width", 1, 16)
    scheme = trial.suggest_categorical("scheme", ("byot", "offline"))
    return network(width, scheme, trial.suggest_int("exit", 0, 2) if scheme == "byot" else 0)


def whole(trial: optuna.Trial) -> TrialConfig:
    """Says nothing of exits."""
    return network(trial.suggest_int("width", 1, 64), "byot")


class ExitWorld(FakeWorld):
    """Three stages with exits; the accuracy follows from seed and exit alone, as if nothing else mattered."""

    def design_cost(self, config: TrialConfig) -> Cost:
        macs = 1000 * config.architecture.stages[0].width // (1 + (-exit_of(config) % 3))
        return Cost(macs, macs, macs)

    def siblings(self, config: TrialConfig) -> list[TrialConfig]:
        if config.distillation.scheme != "byot":
            return []
        return [with_exit(config, number) for number in EXITS if number != exit_of(config)]

    def of(self, config: TrialConfig, seed: int) -> TrialResult:
        accuracy = 0.2 + (seed % 997) / 2e3 + exit_of(config) / 100
        curve = tuple({"epoch": epoch, "val_accuracy": accuracy} for epoch in (1, 2))
        metrics = {"val_accuracy": accuracy, "macs": self.design_cost(config).macs, "train_macs": 77}
        return TrialResult("complete", seed, metrics=metrics, curve=curve, train_macs=77)

    def work(self, job: Job) -> TrialResult:
        self.log.append(job.job_id)
        siblings = tuple(SiblingResult(one, self.of(one, job.seed)) for one in job.siblings)
        return replace(self.of(job.config, job.seed), spent_macs=10, wall_seconds=0.5, siblings=siblings)


def spec_of(trials: int = 4, **changes: Any):
    return make_spec(trials, **{"teacher": None, "sampler": SamplerSpec("random"), **changes})


def searched(spec=None, storage=None, world=None, space=by_exit, **changes: Any):
    study = make_study(spec or spec_of(), storage, world or ExitWorld(), space=space, **changes)
    drive(study)
    return study


def trials_of(study):
    return study.optuna_study.get_trials(deepcopy=False)


def derived(study) -> dict[int, int]:
    return {t.number: t.user_attrs[TRAINED_IN] for t in trials_of(study) if TRAINED_IN in t.user_attrs}


def complete(study):
    return [t for t in trials_of(study) if t.state is TrialState.COMPLETE]


def check(study, spec) -> None:
    """What holds after every search, however often it was stopped."""
    found = complete(study)
    assert set(states(study)) <= {"COMPLETE", "PRUNED", "FAIL"}
    assert len({(t.user_attrs["config_id"], t.user_attrs["seed"]) for t in found}) == len(found)
    own = [t for t in found if TRAINED_IN not in t.user_attrs]
    assert len(own) == spec.budget.trials, "the budget is for trainings"
    taught = [t for t in own if t.user_attrs["config"]["distillation"]["scheme"] == "byot"]
    assert Counter(derived(study).values()) == {t.number: 2 for t in taught}
    world = ExitWorld()
    for trial in found:
        config = TrialConfig.from_dict(trial.user_attrs["config"])
        expected = world.of(config, seed_of(config, spec.seed))
        assert trial.user_attrs["config_id"] == config.config_id
        assert trial.values == [expected.metrics[name] for name in spec.objectives]
        assert by_exit(optuna.trial.FixedTrial(trial.params)) == replace(
            config, training=replace(config.training, epochs=TrialConfig(config.architecture).training.epochs)
        )
    record = run_record(study.optuna_study, spec.objectives)
    assert record["train_macs"] == study.train_macs == 10 * len(own)
    assert record["hypervolume"] == pytest.approx(study.hypervolume(), abs=1e-12)
    assert record["counts"]["complete"] == len(found)
    assert record["counts"]["trained"] == spec.budget.trials
    assert record["counts"]["siblings"] == len(derived(study)) == 2 * len(taught)


def test_one_training_gives_several_points() -> None:
    spec = spec_of(6)
    study = searched(spec)
    check(study, spec)
    assert derived(study)
    record = run_record(study.optuna_study, OBJ)
    for number, parent in derived(study).items():
        trial, other = record["trials"][number], record["trials"][parent]
        assert trial["trained_in"] == parent
        assert number in other["siblings"]
        assert trial["seed"] == other["seed"]
        assert (trial["spent_macs"], trial["wall_seconds"]) == (0, 0.0)
        assert trial["train_macs"] == 77, "what a training of this design takes"
    assert record["counts"]["again"] == 0
    front = {t["number"] for t in record["trials"] if t["on_front"]}
    assert front & set(derived(study))


def test_the_seed_is_that_of_the_training_whichever_design_was_proposed() -> None:
    config = network(4, "byot")
    seeds = {seed_of(with_exit(config, number), 3) for number in EXITS}
    assert seeds == {trial_seed(3, config.config_id)}
    assert seed_of(config, 3, 1) == trial_seed(3, config.config_id, 1)
    offline = network(4, "offline")
    assert seed_of(offline, 3) == trial_seed(3, offline.config_id)


def test_a_design_of_a_training_is_not_trained_again() -> None:
    given = tuple({"width": 4, "scheme": "byot", "exit": number} for number in (1, 0, 2, 1))
    study = searched(spec_of(2, warm_start=given))
    assert study.facts.log[0] == "0"
    assert len(study.facts.log) == 2
    assert reasons(study)[1:4] == [
        f"duplicate: design {with_exit(settled(study, 0), number).config_id} is trial {trial}"
        for number, trial in ((0, 4), (2, 5), (1, 0))
    ]


def settled(study, number: int) -> TrialConfig:
    return TrialConfig.from_dict(trials_of(study)[number].user_attrs["config"])


def test_while_a_training_runs_its_other_designs_are_not_begun() -> None:
    given = tuple({"width": 4, "scheme": "byot", "exit": number} for number in (1, 0, 2))
    study = make_study(spec_of(3, warm_start=given), world=ExitWorld(), space=by_exit)
    drive_in_parallel(study, 3)
    assert [reason.partition(" is ")[2] for reason in reasons(study)[1:3]] == ["trial 0", "trial 0"]
    check(study, study.spec)


def test_what_the_study_may_not_have_is_neither_evaluated_nor_told() -> None:
    limits = LimitsSpec(max={"macs": 2500.0})
    given = ({"width": 4, "scheme": "byot", "exit": 1},)
    study = make_study(spec_of(1, limits=limits, warm_start=given), world=ExitWorld(), space=by_exit)
    job = study.ask()
    assert [exit_of(one) for one in job.siblings] == [2], "the whole network has 4000"
    study.tell(job, study.facts.work(job))
    assert list(derived(study).values()) == [0]


def test_a_space_that_says_nothing_of_exits_gets_them_with_the_parameters_of_the_training() -> None:
    study = searched(spec_of(3), space=whole)
    for number, parent in derived(study).items():
        assert trials_of(study)[number].params == trials_of(study)[parent].params
    assert len(derived(study)) == 6


@pytest.mark.parametrize("space", [by_exit, whole])
def test_a_stopped_training_gives_nothing(space) -> None:
    class Stops(NeverStop):
        def decide(self, trial, curve, ledger):
            return Decision.STOP

    study = make_study(spec_of(3), world=ExitWorld(), space=space, stopping=Stops())
    while (job := study.ask()) is not None:
        assert study.report(job, 1, {"epoch": 1, "val_accuracy": 0.5}) is Decision.STOP
        study.tell(
            job, TrialResult("stopped", job.seed, "stopped", curve=({"epoch": 1, "val_accuracy": 0.5},))
        )
    assert not derived(study)


def test_a_failed_training_has_failed_for_all_its_designs() -> None:
    class Fails(ExitWorld):
        def work(self, job):
            return TrialResult("failed", job.seed, "no luck")

    given = tuple({"width": 4, "scheme": "byot", "exit": number} for number in (1, 0))
    study = searched(spec_of(2, warm_start=given), world=Fails())
    assert states(study)[:2] == ["FAIL", "PRUNED"]
    assert reasons(study)[1].endswith("is trial 0")
    assert not derived(study)


def test_a_design_whose_objective_fails_has_failed_alone() -> None:
    class OneFails(ExitWorld):
        def of(self, config, seed):
            result = super().of(config, seed)
            bad = {**result.metrics, "val_accuracy": float("nan")}
            return replace(result, metrics=bad) if exit_of(config) == 2 else result

    given = ({"width": 4, "scheme": "byot", "exit": 1},)
    study = searched(spec_of(1, warm_start=given), world=OneFails())
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert reasons(study)[2].startswith("objective val_accuracy: nan")
    counts = run_record(study.optuna_study, OBJ)["counts"]
    assert (counts["complete"], counts["siblings"], counts["failed"]) == (2, 1, 1)
    assert study.end_reason == "all 1 trials done"


def test_a_result_with_its_siblings_is_the_same_after_it_was_written() -> None:
    study = make_study(spec_of(2), world=ExitWorld(), space=whole)
    job = study.ask()
    result = study.facts.work(job)
    assert len(result.siblings) == 2
    assert TrialResult.from_dict(result.to_dict()) == result
    assert "siblings" not in replace(result, siblings=()).to_dict(), "written as before"


# --- stopped at any moment -------------------------------------------------------------------------------------------

SPEC = spec_of(1, warm_start=({"width": 4, "scheme": "byot", "exit": 1},))


def live(entries: list[dict[str, Any]], monkeypatch, writes: int | None):
    """One life of a study; None when it died."""
    monkeypatch.setattr(study_module, "owner_id", lambda: DEAD)
    monkeypatch.setattr(drivers_module, "CLAIM_SECONDS", 0.0)
    try:
        return searched(SPEC, JournalStorage(MortalJournal(entries, writes)))
    except Death:
        return None


def test_dying_at_any_write_nothing_is_lost_or_told_twice(monkeypatch) -> None:
    entries: list[dict[str, Any]] = []
    searched(SPEC, JournalStorage(MortalJournal(entries)))
    (result,) = (
        n for n, entry in enumerate(entries) if "result" in entry.get("user_attr", {}) and "trial_id" in entry
    )
    assert len(entries) - result == 4, "the result, two designs, the end"
    for death in range(result - 1, len(entries)):
        written: list[dict[str, Any]] = []
        first = live(written, monkeypatch, death)
        assert first is None
        live(written, monkeypatch, 1 + death % 3)  # and once more while it recovers
        study = live(written, monkeypatch, None)
        assert study is not None
        check(study, SPEC)


def test_a_second_driver_that_tells_the_same_at_one_moment_adds_no_design(monkeypatch) -> None:
    """Both have found the same dead trial with its result, and neither has seen the other's trials."""
    storage = InMemoryStorage()
    study = searched(SPEC, storage)
    first = min(derived(study))
    twin = trials_of(study)[first]
    number = optuna_private.add_trial(
        study.optuna_study,
        create_trial(
            state=twin.state, values=twin.values, params=twin.params,
            distributions=twin.distributions, user_attrs=twin.user_attrs,
        ),
    )  # fmt: skip
    record = run_record(study.optuna_study, OBJ)
    assert (record["trials"][number]["state"], record["trials"][number]["retried"]) == ("FAIL", True)
    assert record["trials"][number]["reason"].startswith(f"trial {first} says the same")
    assert record["counts"]["siblings"] == len(derived(study)) - 1
    assert record["counts"]["failed"] == 0
    again = searched(SPEC, storage)
    assert again.hypervolume() == study.hypervolume()
    assert record["hypervolume"] == pytest.approx(study.hypervolume(), abs=1e-12)


def test_they_take_no_place_of_the_budget_from_other_drivers() -> None:
    storage = InMemoryStorage()
    one, other = (make_study(spec_of(3), storage, ExitWorld(), space=whole) for _ in range(2))
    drive(one, 1)
    drive(other, 1)
    drive(one, 1)
    assert len(complete(one)) == 9
    assert not [reason for reason in reasons(one) if "fill the budget" in reason]


def test_what_was_told_cannot_be_changed_unseen() -> None:
    study = searched(SPEC)
    trial = trials_of(study)[min(derived(study))]
    check_trial(trial, OBJ)
    for key, value in (("seed", 1), (TRAINED_IN, 7), ("config_id", "0" * 12)):
        other = create_trial(
            values=trial.values, params=trial.params, distributions=trial.distributions,
            user_attrs={**trial.user_attrs, key: value},
        )  # fmt: skip
        with pytest.raises(DamagedError):
            check_trial(other, OBJ)


# --- further seeds, rules, samplers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [by_exit, whole])
def test_a_further_training_is_one_more_of_each_of_its_designs(space) -> None:
    spec = spec_of(12, budget=BudgetSpec(trials=12, front_seeds=2))
    study = searched(spec, space=space)
    record = run_record(study.optuna_study, OBJ)
    again = {t.number: tuple(t.user_attrs[REPLICATE]) for t in trials_of(study) if REPLICATE in t.user_attrs}
    trained = {number: first for number, (first, _) in again.items() if number not in derived(study)}
    assert trained
    by_number = record["trials"]
    for number, first in trained.items():
        assert trials_of(study)[number].params == trials_of(study)[first].params
        assert settled(study, number) == settled(study, first)
        told = [n for n, parent in derived(study).items() if parent == number]
        before = [n for n, parent in derived(study).items() if parent == first]
        assert sorted(again[n][0] for n in told) == sorted(before)
        for n in told:
            assert by_number[n]["seed"] == by_number[number]["seed"] != by_number[first]["seed"]
            assert by_number[again[n][0]]["replicates"]["n"] == 2
            assert settled(study, n) == settled(study, again[n][0])
    assert len(set(again.values())) == len(again), "no training twice"
    counts = record["counts"]
    assert counts["complete"] - counts["siblings"] == 12
    assert counts["again"] == len(trained)
    assert record["hypervolume"] == pytest.approx(study.hypervolume(), abs=1e-12)


def test_a_further_training_tells_of_designs_whose_first_is_complete() -> None:
    """A design that has failed once has no accuracy that a second one would be averaged with."""

    class FailsFirst(ExitWorld):
        def of(self, config, seed):
            result = super().of(config, seed)
            fails = exit_of(config) == 1 and seed == seed_of(config, 0)
            return (
                replace(result, metrics={**result.metrics, "val_accuracy": float("nan")}) if fails else result
            )

    study = searched(spec_of(8, budget=BudgetSpec(trials=8, front_seeds=2)), world=FailsFirst(), space=whole)
    again = [n for n in derived(study) if REPLICATE in trials_of(study)[n].user_attrs]
    assert {exit_of(settled(study, number)) for number in again} == {2}
    assert run_record(study.optuna_study, OBJ)["hypervolume"] == pytest.approx(study.hypervolume(), abs=1e-12)


def test_rules_and_samplers_see_them_as_trainings_that_took_none() -> None:
    class Looks(NeverStop):
        def decide(self, trial, curve, ledger):
            self.seen = list(ledger.finished)
            return Decision.CONTINUE

    rule = Looks()
    study = make_study(spec_of(2), world=ExitWorld(), space=whole, stopping=rule)
    for _ in range(2):
        job = study.ask()
        study.report(job, 1, {"epoch": 1, "val_accuracy": 0.5})
        study.tell(job, study.facts.work(job))
    assert [view.trained_in for view in rule.seen] == [0, 0, None]
    assert all(view.status == "complete" and len(view.curve) == 2 for view in rule.seen)


def test_a_rung_is_for_those_that_were_trained_up_to_it() -> None:
    """A sibling has taken no training, and takes no place."""

    def view(number: int, accuracy: float, trained_in: int | None = None) -> TrialView:
        curve = ({"epoch": 1, "val_accuracy": accuracy},)
        return TrialView(
            number, network(4, "byot"), 0, "complete", curve, {"macs": 10.0}, trained_in=trained_in
        )

    class Others:
        objectives = tuple(OBJECTIVES[name] for name in OBJ)
        running = ()

        def __init__(self, *finished: TrialView) -> None:
            self.finished = finished

    rule, mine = MoAshaRule(), view(9, 0.5)
    assert rule.decide(mine, mine.curve, Others(view(1, 0.9, trained_in=0))) is Decision.CONTINUE
    assert rule.decide(mine, mine.curve, Others(view(1, 0.9))) is Decision.STOP


def test_the_model_of_ehvi_waits_for_trainings(monkeypatch) -> None:
    """Designs of one training are alike: they do not stand for several."""
    fitted: list[int] = []
    fit = Surrogate.fit

    def noted(self, names, *rest):
        fitted.append(len(names))
        return fit(self, names, *rest)

    monkeypatch.setattr(Surrogate, "fit", noted)
    searched(spec_of(5, sampler=SamplerSpec("ehvi", (("startup_trials", 4),))), space=whole)
    assert fitted == [12], (
        "four trainings have come to twelve designs, and the fifth is chosen by all of them"
    )


def test_another_driver_sees_them_before_their_training_is_closed(monkeypatch) -> None:
    storage, world = InMemoryStorage(), ExitWorld()
    one = make_study(spec_of(2), storage, world, space=whole)
    job = one.ask()
    other = make_study(spec_of(2), storage, world, space=whole)
    assert other.hypervolume() == 0
    monkeypatch.setattr(Ledger, "end", lambda *_, **__: True)
    one.tell(job, world.work(job))
    monkeypatch.undo()
    other._look()
    assert len(derived(other)) == 2
    found = run_record(other.optuna_study, OBJ)
    assert other.hypervolume() == pytest.approx(found["hypervolume"], abs=1e-12)
    assert other.hypervolume() > 0


@pytest.mark.parametrize("sampler", ["tpe", "ehvi"])
def test_searches_of_all_kinds_go_on_with_them(sampler) -> None:
    spec = spec_of(14, sampler=SamplerSpec(sampler))
    check(searched(spec), spec)


@pytest.mark.parametrize("rule", ["front", "mo_asha"])
def test_rules_stop_with_them_about(rule) -> None:
    spec = StoppingSpec(rule)
    study = make_study(
        spec_of(8, stopping=spec), world=ExitWorld(), space=by_exit, stopping=build_stopping(spec)
    )
    while (job := study.ask()) is not None:
        result = study.facts.work(job)
        for point in result.curve[1 if job.continues else 0 :]:
            if study.report(job, int(point["epoch"]), point) is not Decision.CONTINUE:
                until = result.curve[: int(point["epoch"])]
                result = replace(result, status="stopped", curve=until, siblings=())
                break
        study.tell(job, result)
    found = complete(study)
    assert len({(t.user_attrs["config_id"], t.user_attrs["seed"]) for t in found}) == len(found)
    stopped = {
        t.number for t in trials_of(study) if t.user_attrs.get("result", {}).get("status") == "stopped"
    }
    assert not stopped & set(derived(study).values())
    assert run_record(study.optuna_study, OBJ)["counts"]["siblings"] == len(derived(study))


def test_a_run_of_before_goes_on(monkeypatch) -> None:
    """It has trained a design by itself that another one's training would give."""
    storage = InMemoryStorage()
    monkeypatch.setattr(ExitWorld, "siblings", lambda self, config: [])
    given = tuple({"width": 4, "scheme": "byot", "exit": number} for number in (1, 0))
    searched(spec_of(2, warm_start=given), storage)
    monkeypatch.undo()
    study = searched(spec_of(8, warm_start=given), storage)
    found = complete(study)
    assert len({(t.user_attrs["config_id"], t.user_attrs["seed"]) for t in found}) == len(found)
    assert sum(TRAINED_IN not in t.user_attrs for t in found) == 8
