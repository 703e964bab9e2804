"""What earlier versions wrote, as it is read today."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from naskd.spec import compat
from naskd.spec.identity import identity_difference
from naskd.spec.study import SamplerSpec, StudySpec

SAMPLER = {"name": "tpe", "startup_trials": 10, "population_size": 20, "multivariate": True}
EXECUTION = {
    "executor": "serial",
    "device": "auto",
    "threads": 1,
    "precision": "auto",
    "channels_last": "auto",
    "device_data_bytes": None,
    "cuda_graphs": True,
    "bank_bytes": 1073741824,
    "bank_device_bytes": 1073741824,
    "checkpoint_every": 0,
    "checkpoints": None,
    "retries": 3,
    "trials_per_device": None,
    "mps": True,
    "address": None,
    "workers": None,
    "cpus_per_trial": None,
    "gpus_per_trial": None,
    "callbacks": [],
}
STUDY = {
    "name": "old",
    "space": "space.py:joint",
    "data": {"kind": "digits", "root": None, "max_train": None},
    "budget": {"trials": 2},
    "sampler": SAMPLER,
    "execution": EXECUTION,
    "base": "/somewhere",
}


def opened(sampler: dict[str, Any] = {}, execution: dict[str, Any] = {}) -> StudySpec:  # noqa: B006 - read only
    old = {**STUDY, "sampler": {**SAMPLER, **sampler}, "execution": {**EXECUTION, **execution}}
    kept = copy.deepcopy(old)
    spec = StudySpec.from_dict(old)
    assert old == kept
    return spec


def test_flat_fields_become_options_of_who_reads_them() -> None:
    assert opened().sampler == SamplerSpec()
    assert opened().execution.options == ()
    found = opened({"name": "nsga2", "population_size": 6, "startup_trials": 3})
    assert found.sampler == SamplerSpec("nsga2", (("population_size", 6),))
    ray = {
        "executor": "ray",
        "workers": 2,
        "cpus_per_trial": 1,
        "trials_per_device": 4,
        "address": "auto",
        "threads": 2,
    }
    found = opened(execution=ray)
    assert found.execution.options == (("address", "auto"), ("cpus_per_trial", 1.0), ("workers", 2))
    assert found.execution.threads == 2
    assert opened(execution={"executor": "processes", "mps": False}).execution.options == (("mps", False),)


def test_what_nobody_read_is_dropped() -> None:
    """``workers`` beside the serial executor was allowed, and did nothing."""
    assert opened(execution={"workers": 4, "mps": False}).execution.options == ()


def test_a_run_of_before_was_shown_all_views_and_had_no_maps_in_8_bits() -> None:
    found = opened()
    assert (found.data.views, found.data.most_views) == ("all", None)
    assert (found.execution.bank_disk_bytes, found.execution.disk_bytes) == (0, 0)
    assert "views" not in found.identity()["data"]
    assert "bank_disk_bytes" not in found.identity()["execution"]


def test_todays_shape_stays() -> None:
    today = opened({"startup_trials": 3}, {"executor": "ray", "workers": 2})
    assert compat.study(today.to_dict()) == today.to_dict()
    assert compat.identity(today.identity()) == today.identity()
    assert StudySpec.from_dict(today.to_dict()) == today


@pytest.mark.parametrize(
    ("before", "now", "lines"),
    [
        ({}, SamplerSpec(), []),
        ({"population_size": 7}, SamplerSpec(), []),
        ({"startup_trials": 7}, SamplerSpec("tpe", (("startup_trials", 7),)), []),
        ({"startup_trials": 7}, SamplerSpec(), ["sampler.startup_trials: 7 -> 10"]),
        ({}, SamplerSpec("tpe", (("multivariate", False),)), ["sampler.multivariate: true -> false"]),
        (
            {},
            SamplerSpec("random"),
            [
                'sampler.name: "tpe" -> "random"',
                "sampler.startup_trials: 10 -> (absent)",
                "sampler.multivariate: true -> (absent)",
            ],
        ),
        ({"name": "nsga2"}, SamplerSpec("nsga2"), []),
    ],
)
def test_an_older_identity_is_that_of_the_same_study(
    before: dict[str, Any], now: SamplerSpec, lines: list[str]
) -> None:
    spec = replace(opened(), sampler=now)
    old = {**spec.identity(), "sampler": {**SAMPLER, **before}}
    assert sorted(identity_difference(old, spec.identity())) == sorted(lines)


def test_what_is_damaged_is_said_and_no_traceback() -> None:
    with pytest.raises(ValueError, match="no study of this version"):
        StudySpec.from_dict({**STUDY, "sampler": 3})
    with pytest.raises(ValueError, match="no study of this version"):
        StudySpec.from_dict({**STUDY, "sampler": {**SAMPLER, "name": 3}})
