import json
import math
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import moocore
import optuna
import pytest
from fake_world import ASSISTANT_MACS, REFERENCE, TRIAL_MACS, drive, joint, make_spec, make_study, plain
from optuna.storages import InMemoryStorage

from naskd.spec.errors import InputError
from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.study import importance as importance_module
from naskd.study.importance import importance_by_cost, importance_floor
from naskd.study.opening import COPIES, note_counts
from naskd.study.record import importance, load_ledger, run_record, study_objectives
from naskd.study.storage import open_storage
from naskd.study.used import UNUSED
from naskd.trials.jobs import TrialResult

TRIAL = {"number", "val_accuracy", "macs", "n_params", "config", "seed", "wall_seconds", "train_macs"}
TOP = {"study", "objectives", "reference_point", "hypervolume", "train_macs", "trials", "schema_version"}
THREE = ("val_accuracy", "macs", "n_params")


def _searched(trials=24, *, space=joint, fail=(), **changes):
    """A study with failures at some trials, one still running and one waiting."""
    study = make_study(make_spec(trials, **changes), InMemoryStorage(), space=space)
    done = 0
    while (job := study.ask()) is not None:
        result = study.facts.work(job)
        if job.kind == "trial":
            done += 1
            if done in fail:
                result = replace(result, status=fail[done], reason="why", metrics={})
        study.tell(job, result)
    return study


@pytest.fixture(scope="module")
def study():
    return _searched(fail={3: "failed", 5: "stopped"})


def _brute_force_front(trials, names):
    def better(a, b):
        signs = [(-1 if n == "val_accuracy" else 1) for n in names]
        pairs = [(s * a[n], s * b[n]) for s, n in zip(signs, names, strict=True)]
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    return [t for t in trials if not any(better(other, t) for other in trials)]


def test_the_front_record_is_what_scripts_rely_on(study):
    record = run_record(study.optuna_study, study.spec.objectives, everything=False)
    assert set(record) >= TOP
    assert (record["study"], record["schema_version"]) == ("fake", 1)
    assert record["objectives"] == [
        {
            "name": "val_accuracy",
            "title": "validation accuracy",
            "direction": "maximize",
            "unit": "fraction",
            "scale": "linear",
            "known": "after",
        },
        {
            "name": "macs",
            "title": "MACs",
            "direction": "minimize",
            "unit": "MACs",
            "scale": "log",
            "known": "before",
        },
    ]
    assert all(set(t) >= TRIAL for t in record["trials"])
    assert all(set(t["config"]) >= {"architecture", "distillation", "training"} for t in record["trials"])
    assert {t["state"] for t in record["trials"]} == {"COMPLETE"}
    assert not {"progress", "importance"} & set(record)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize("objectives", [("val_accuracy", "macs"), THREE])
def test_the_front_is_brute_forces_and_cheapest_first(objectives):
    study = _searched(20, objectives=objectives)
    everything = run_record(study.optuna_study, objectives)["trials"]
    front = run_record(study.optuna_study, objectives, everything=False)["trials"]
    complete = [t for t in everything if t["state"] == "COMPLETE"]
    expected = _brute_force_front(complete, objectives)
    assert sorted(t["number"] for t in front) == sorted(t["number"] for t in expected)
    assert [t["macs"] for t in front] == sorted(t["macs"] for t in front)
    assert {t["number"] for t in everything if t["on_front"]} == {t["number"] for t in front}
    assert len(front) > 1


@pytest.mark.parametrize("objectives", [("val_accuracy", "macs"), THREE])
def test_the_hypervolume_is_an_independent_ones_on_accuracy_and_log_costs(objectives):
    study = _searched(20, objectives=objectives)
    record = run_record(study.optuna_study, objectives)
    points = [
        [-t["val_accuracy"], *(math.log10(t[name]) for name in objectives[1:])]
        for t in record["trials"]
        if t["state"] == "COMPLETE"
    ]
    reference = [-REFERENCE["val_accuracy"], *(math.log10(REFERENCE[name]) for name in objectives[1:])]
    assert record["hypervolume"] == pytest.approx(moocore.hypervolume(points, ref=reference), rel=1e-9)
    assert record["hypervolume"] > 0
    assert record["reference_point"] == {name: REFERENCE[name] for name in objectives}


def test_all_states_are_told_with_their_reasons():
    study = _searched(8, space=plain, fail={2: "failed", 4: "stopped"})
    study.optuna_study.enqueue_trial({"width": 3, "depth": 1})
    study.optuna_study.enqueue_trial({"width": 3, "depth": 1})
    study.optuna_study.ask()
    record = run_record(study.optuna_study, study.spec.objectives)
    found = [t["state"] for t in record["trials"]]
    assert set(found) >= {"COMPLETE", "FAIL", "PRUNED", "RUNNING", "WAITING"}
    assert found.count("RUNNING") == found.count("WAITING") == record["counts"]["running"] == 1
    counts = record["counts"]
    assert (counts["complete"], counts["failed"], counts["stopped"]) == (6, 1, 1)
    assert counts["turned_away"] == found.count("PRUNED") - 1
    for trial in record["trials"]:
        assert bool(trial["reason"]) == (trial["state"] in ("FAIL", "PRUNED"))
        assert trial["number"] == record["trials"].index(trial)


def test_a_trial_that_was_run_again_is_no_failure():
    study = make_study(make_spec(3), InMemoryStorage(), space=plain)
    drive(study, 2)
    study.ask()
    study.release()
    again = make_study(make_spec(3), study.optuna_study._storage, study.facts, space=plain)
    drive(again)
    record = run_record(again.optuna_study, study.spec.objectives)
    assert record["counts"]["failed"] == 0
    assert [t["retried"] for t in record["trials"]][1]
    assert [t["retry_of"] for t in record["trials"]][2] == 1


def test_the_ledger_books_trials_and_assistants(study):
    record = run_record(study.optuna_study, study.spec.objectives)
    trained = [t for t in record["trials"] if t["curve"]]
    assert record["train_macs"] == study.train_macs
    assert record["train_macs"] == len(trained) * TRIAL_MACS + len(record["assistants"]) * ASSISTANT_MACS
    assert record["teacher"]["label"] == "teacher"
    assert len(record["assistants"]) == 2


def test_copies_that_were_removed_are_not_said_any_more():
    study = _searched(2, space=plain)
    found = []
    for n in (0, 2, 0):
        note_counts(study.optuna_study, COPIES, {"test in train": n})
        found.append(run_record(study.optuna_study, study.spec.objectives)["copies"])
    assert found == [None, {"test in train": 2}, None]


def test_the_bank_is_summed_over_trials(study):
    assert run_record(study.optuna_study, study.spec.objectives)["bank"] is None, "a ledger of before"
    other = make_study(make_spec(4), InMemoryStorage(), space=plain)
    counts = iter([(100, 120, {"a": 50}), (100, 0, {"a": 40, "b": 7}), (0, 0, {}), (100, 100, {"c": 1})])
    while (job := other.ask()) is not None:
        result = other.facts.work(job)
        if job.kind == "trial":
            asked, forward, sizes = next(counts)
            result = replace(result, asked_images=asked, forward_images=forward, bank_bytes=sizes)
            lost = 70 if job.job_id == "1" else 0
            result = replace(result, spent_macs=result.spent_macs + lost, lost_macs=lost)
        other.tell(job, result)
    found = run_record(other.optuna_study, other.spec.objectives)
    assert [t["lost_macs"] for t in found["trials"]] == [0, 70, 0, 0]
    assert found["train_macs"] == other.train_macs == sum(t["spent_macs"] for t in found["trials"])
    assert found["bank"] == {
        "asked_images": 300,
        "forward_images": 220,
        "hit_rate": pytest.approx(80 / 300),
        "saved_macs": 3 * TRIAL_MACS,
        "size_bytes": 50 + 7 + 1,
    }
    assert found["trials"][1]["asked_images"] == 100
    assert found["trials"][1]["bank_bytes"] == {"a": 40, "b": 7}


def test_progress_never_falls_and_ends_at_the_hypervolume(study):
    record = run_record(study.optuna_study, study.spec.objectives)
    progress = record["progress"]
    assert [p["trial"] for p in progress] == [
        t["number"] for t in record["trials"] if t["state"] == "COMPLETE"
    ]
    assert all(a["hypervolume"] <= b["hypervolume"] for a, b in pairwise(progress))
    assert all(a["train_macs"] < b["train_macs"] for a, b in pairwise(progress))
    assert progress[-1]["hypervolume"] == record["hypervolume"]
    failed_before_the_last = 2
    assert progress[-1]["train_macs"] == (len(progress) + failed_before_the_last) * TRIAL_MACS


@pytest.fixture(scope="module")
def long_study():
    return _searched(70, fail={3: "failed", 5: "stopped"})


def test_importance_shares_sum_to_one_and_find_what_matters(long_study):
    study = long_study
    found = importance(study.optuna_study, study_objectives(study.optuna_study, study.spec.objectives))
    assert set(found) == {"val_accuracy", "macs"}
    for shares in found.values():
        assert sum(shares.values()) == pytest.approx(1.0)
    names = {"width", "depth", "rate", "kd.use", "kd.temperature", "kd.assistant"}
    taught = [t for t in study.optuna_study.trials if t.state.name == "COMPLETE" and t.params["kd.use"]]
    assert len(taught) >= 25, "else temperatures are of too few"
    assert set(found["val_accuracy"]) == names
    assert set(found["macs"]) == {"width", "depth"}, "nothing else changes them"
    assert max(found["macs"], key=found["macs"].get) == "width"
    assert found["macs"]["width"] + found["macs"]["depth"] > 0.9


def test_importances_of_many_trials_are_those_of_some_the_same_each_time(long_study, monkeypatch):
    study, seen = long_study, []
    compute = optuna.importance.get_param_importances

    def counted(study, evaluator, normalize):
        seen.append(len(study.get_trials(deepcopy=False)))
        return compute(study, evaluator=evaluator, normalize=normalize)

    monkeypatch.setattr(optuna.importance, "get_param_importances", counted)
    axes = study_objectives(study.optuna_study, study.spec.objectives)
    record = run_record(study.optuna_study, study.spec.objectives)
    assert record["importance_trials"] == record["counts"]["complete"] > 26
    monkeypatch.setattr(importance_module, "IMPORTANCE_TRIALS", 26)
    seen.clear()
    some = importance(study.optuna_study, axes)
    assert some == importance(study.optuna_study, axes) != record["importance"]
    assert max(some["macs"], key=some["macs"].get) == "width"
    assert seen == [26] * 4, "a temperature has fewer than 25 of them"
    assert run_record(study.optuna_study, study.spec.objectives)["importance_trials"] == 26


def _study_of_bands(n):
    """Accuracy rises with cost; beside that `cheap` gives 5 points to cheap designs alone, `dear` 5 to costly ones."""
    rng = random.Random(0)
    found = optuna.create_study(directions=["maximize", "minimize"])
    yes_no = optuna.distributions.CategoricalDistribution((False, True))
    axes = {
        "width": optuna.distributions.IntDistribution(1, 1000),
        "cheap": yes_no,
        "dear": yes_no,
    }
    for _ in range(n):
        params = {"width": rng.randint(1, 1000), "cheap": rng.random() < 0.5, "dear": rng.random() < 0.5}
        helped = params["cheap"] if params["width"] < 400 else params["dear"]
        accuracy = 0.3 + 0.1 * math.log10(params["width"]) + 0.05 * helped
        found.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions=axes,
                values=[accuracy, 1000.0 * params["width"]],
                user_attrs={UNUSED: {"design": []}},
            )
        )
    return found, [OBJECTIVES["val_accuracy"], OBJECTIVES["macs"]]


def _explained_by(effect, seed, n=30):
    """Accuracies of eight parameters, by one of which they differ by `effect`, and by luck by 1 (sd)."""
    rng = random.Random(seed)
    axes = {f"p{i}": optuna.distributions.FloatDistribution(0, 1) for i in range(7)}
    axes["kind"] = optuna.distributions.CategoricalDistribution(("a", "b"))
    found = optuna.create_study(directions=["maximize", "minimize"])
    for _ in range(n):
        params = {name: rng.random() for name in axes if name != "kind"} | {"kind": rng.choice("ab")}
        values = [effect * params["p3"] + rng.gauss(0, 1), 1e6]
        given = {"params": params, "distributions": axes, "values": values}
        found.add_trial(optuna.trial.create_trial(**given, user_attrs={UNUSED: {"design": []}}))
    return found, [OBJECTIVES["val_accuracy"], OBJECTIVES["macs"]]


def test_what_luck_explains_is_told_beside_what_parameters_explain():
    """Eight shares add up to one whatever they mean: the largest of luck alone is no small number."""
    for effect in (0, 20):
        above = Counter()
        for seed in range(3):
            study, axes = _explained_by(effect, seed)
            shares, floors = importance(study, axes)["val_accuracy"], importance_floor(study, axes)
            assert set(floors) == {"val_accuracy"}, "a cost is computed, and luck has no part in it"
            assert max(shares.values()) > 0.2
            above.update(name for name, share in shares.items() if share > floors["val_accuracy"])
        by_luck = above.total() - (above["p3"] if effect else 0)
        assert by_luck <= 3, "of 21 or 24 shares one in twenty, more or less"
    assert above["p3"] == 3
    assert importance_floor(_explained_by(1, 0, n=24)[0], axes) == {}


def test_what_luck_explains_is_told_of_each_band():
    bands = importance_by_cost(*_study_of_bands(150))
    above = [{name for name, share in band["shares"].items() if share > band["floor"]} for band in bands]
    assert "cheap" in above[0]
    assert "dear" in above[2]
    assert "dear" not in above[0]
    assert "cheap" not in above[2]


def test_what_matters_at_which_cost_is_found_apart_from_size():
    bands = importance_by_cost(*_study_of_bands(150))
    assert [band["trials"] for band in bands] == [50, 50, 50]
    assert bands[0]["high"] <= bands[1]["low"] <= bands[1]["high"] <= bands[2]["low"]
    best = [max(band["shares"], key=band["shares"].get) for band in bands]
    assert (best[0], best[2]) == ("cheap", "dear")
    assert bands[0]["shares"]["cheap"] > 0.7
    assert bands[2]["shares"]["dear"] > 0.7
    assert bands[0]["spread"] == pytest.approx(0.025, abs=0.005)  # of half 0 and half 5 points


def test_what_matters_at_which_cost_needs_twenty_five_trials_a_band():
    assert importance_by_cost(*_study_of_bands(74)) == []
    assert len(importance_by_cost(*_study_of_bands(75))) == 3


def test_with_few_trials_importance_is_not_told():
    few = _searched(24).optuna_study
    axes = study_objectives(few, ("val_accuracy", "macs"))
    assert importance(few, axes) == {}
    constant = _searched(25, space=plain)
    for trial in constant.optuna_study._storage.get_all_trials(0, deepcopy=False):
        if trial.values:
            trial.values[0] = 0.5
    assert set(importance(constant.optuna_study, axes)) == {"macs"}


def test_a_study_without_a_complete_trial_has_an_empty_front():
    study = make_study(make_spec(2), space=plain)
    record = run_record(study.optuna_study, study.spec.objectives)
    assert (record["trials"], record["hypervolume"], record["progress"]) == ([], 0.0, [])
    drive(study, 1)
    job = study.ask()
    study.tell(job, TrialResult("failed", job.seed, reason="no"))
    record = run_record(study.optuna_study, study.spec.objectives, everything=False)
    assert (record["trials"], record["hypervolume"]) == ([], 0.0)
    assert record["counts"]["failed"] == 1


def test_designs_worse_than_the_reference_add_nothing():
    study = make_study(make_spec(2), space=plain)
    drive(study, 1)
    job = study.ask()
    study.tell(job, TrialResult("complete", job.seed, metrics={"val_accuracy": 0.05, "macs": 10}))
    assert run_record(study.optuna_study, study.spec.objectives)["hypervolume"] == 0.0


def test_loading_a_ledger_that_is_not_there(tmp_path):
    open_storage("journal", tmp_path)
    with pytest.raises(ValueError, match="holds no study named 'fake'"):
        load_ledger(make_spec(), tmp_path)


def test_a_study_keeps_what_its_objectives_are(monkeypatch):
    """Whoever looks need not know a user's own objectives."""
    energy = Objective(
        "energy", "energy", "minimize", "mJ", "linear", "before", lambda measured: measured.cost.macs
    )
    with monkeypatch.context() as patch:
        patch.setattr(OBJECTIVES, "_cards", dict(OBJECTIVES._cards))
        OBJECTIVES.register(energy)
        patch.setitem(REFERENCE, "energy", 1e6)
        names = ("val_accuracy", "energy")
        study = make_study(make_spec(3, objectives=names), InMemoryStorage(), space=plain)
        while (job := study.ask()) is not None:
            result = study.facts.work(job)
            if job.kind == "trial" and job.job_id != "2":
                result = replace(result, metrics={**result.metrics, "energy": 40.0 + int(job.job_id)})
            study.tell(job, result)
    assert "energy" not in OBJECTIVES
    record = run_record(study.optuna_study, names)
    assert record["objectives"][1] == energy.describe()
    assert [t["energy"] for t in record["trials"]] == [40.0, 41.0, None]
    assert record["trials"][2]["reason"] == "objective energy: nan is no finite number"
    assert record["hypervolume"] > 0


def test_a_study_of_before_is_described_by_what_is_registered(study):
    attributes = study.optuna_study._storage.get_study_user_attrs(study.optuna_study._study_id)
    kept, seal = attributes.pop("objectives"), attributes.pop("seal")
    try:
        assert run_record(study.optuna_study, study.spec.objectives)["objectives"] == kept
        with pytest.raises(InputError, match="unknown objective 'enery'"):
            study_objectives(study.optuna_study, ("val_accuracy", "enery"))
    finally:
        attributes |= {"objectives": kept, "seal": seal}


def test_epochs_that_a_killed_search_had_done_and_that_were_done_again_are_counted():
    """What they took is in no result: nobody was left to say it. Who goes on begins after a checkpoint."""
    storage = InMemoryStorage()
    first = make_study(make_spec(2, epochs=6, teacher=None), storage, space=plain)
    job = first.ask()
    for epoch in range(1, 6):
        first.report(job, epoch, {"epoch": epoch, "val_accuracy": 0.1})
    assert run_record(first.optuna_study, first.spec.objectives)["lost_epochs"] == 0, (
        "it may be taken up from the last"
    )
    first.release()
    second = make_study(make_spec(2, epochs=6, teacher=None), storage, space=plain)
    job = second.ask()
    for epoch in (4, 5, 6):  # from the state after the third
        second.report(job, epoch, {"epoch": epoch, "val_accuracy": 0.1})
    second.tell(job, second.facts.work(job))
    drive(second)
    record = run_record(second.optuna_study, second.spec.objectives)
    assert [trial["lost_epochs"] for trial in record["trials"]] == [2, 0, 0]
    assert record["lost_epochs"] == 2
