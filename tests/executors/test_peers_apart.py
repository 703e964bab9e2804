"""Peers that train apart in processes, of which some die. What all executors have in common is in test_executors.py."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mishaps
import pytest
from mishaps import notes
from small_studies import by_scheme, execution, given, small_context

from naskd.executors.local.processes import ProcessesExecutor
from naskd.spec.design import TrialConfig
from naskd.store.checkpoints import CheckpointStore
from naskd.testing.fixed_source import FixedSource
from naskd.trials.groups import Groups
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job

EPOCHS = 5


def config(**options: Any) -> TrialConfig:
    return by_scheme("codistillation", training={"epochs": EPOCHS}, **options)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Trains peers with two workers."""

    def run(label: str) -> Any:
        (tmp_path / "space.py").write_text("")
        settings = execution("processes", device="cpu", workers=2, trials_per_device=2, retries=1)
        context = small_context(tmp_path, base=tmp_path, teacher=None, execution=settings)
        context = given(context, checkpoints=CheckpointStore(tmp_path / "checkpoints"))
        source = FixedSource([Job("0", "trial", config(peers_in="trials"), 7, EPOCHS, label=label)])
        ProcessesExecutor(context, tmp_path, mishaps.work).run(Groups(source, context))
        return SimpleNamespace(
            context=context, store=context.resources.store.root, result=source.results["0"]
        )

    return run


def test_peers_whose_workers_are_killed_go_on_from_their_last_exchange_with_the_same_bits(run):
    """Without any checkpoint that the study asked for."""
    found = run("kill@3 once")
    assert found.result.status == "complete", found.result.reason
    for name in ("0", "0.peer1"):
        assert notes(found.store, f"epochs-{name}") == ["1", "2", "3", "3", "4", "5"]
    workers = {line.split()[0]: set() for line in notes(found.store, "pids")}
    for line in notes(found.store, "pids"):
        workers[line.split()[0]].add(line.split()[1])
    assert not workers["0"] & workers["0.peer1"] or len(workers["0"] | workers["0.peer1"]) >= 3
    alone = run_job(
        Job("1", "trial", config(), 7, EPOCHS), found.context, lambda epoch, metrics: Decision.CONTINUE
    )
    for row, together in zip(found.result.curve, alone.curve, strict=True):
        assert {**row, "loss": 0} == {**together, "loss": 0, "peer1.loss": row["peer1.loss"]}
    assert found.result.train_macs == alone.train_macs
    assert found.context.resources.checkpoints.kept() == []


def test_when_a_peer_dies_every_time_the_trial_fails_with_the_reason_and_nobody_hangs(run):
    found = run("exit@3")
    assert found.result.status == "failed"
    reason = found.result.reason.removeprefix("peer 1: ")
    assert reason == "its worker died 2 times, the last time: its process ended with exit code 3"
    assert found.context.resources.checkpoints.kept() == []
