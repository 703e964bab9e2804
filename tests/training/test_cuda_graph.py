"""Which phases may be replayed, that every call is one step, and, on a GPU, that a replay trains alike."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_studies import TEACHER, design, make, open_context, small_context, study
from torch import Tensor, nn

from naskd.knowledge import KNOWLEDGE
from naskd.schemes import SCHEMES
from naskd.schemes.scheme import Asked, Batch
from naskd.spec.design import AssistantSpec, KnowledgeTerm, TrialConfig
from naskd.spec.study import ExecutionSpec
from naskd.training import cuda_graph as replay
from naskd.training import feeding
from naskd.training.cuda_graph import Replay, Row
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run

KINDS = KNOWLEDGE.names()
NEVER = {"information_flow", "svd", "mhgd"}
"""Whose steps change with the epoch, or wait for the device."""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("context"))


def taught(kind: str, scheme: str = "offline", **training: Any) -> TrialConfig:
    found = design(KnowledgeTerm(kind, weighting="balanced"), **training)
    assistants = (AssistantSpec(TEACHER),) if KNOWLEDGE[kind].several_teachers else ()
    return replace(found, distillation=replace(found.distillation, scheme=scheme, assistants=assistants))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KNOWLEDGE[kind].several_teachers])
def test_which_losses_may_be_replayed(kind, context) -> None:
    run, _ = start_run(taught(kind), context, 0)
    assert {phase.repeats for phase in run.loop.phases} == {kind not in NEVER}


SCHEMES_ON_A_GPU = [card.name for card in SCHEMES if not card.own_teaching]
APART = {"blockwise", "progressive_blockwise"}
"""Whose stages learn apart first, in phases that do not promise to be the same each time, and are launched."""


@pytest.mark.parametrize("scheme", SCHEMES_ON_A_GPU)
def test_which_schemes_may_be_replayed(scheme, context) -> None:
    config = taught("logits", scheme, epochs=12, batch_size=24)
    make(context, config)
    *first, last = start_run(config, context, 0)[0].loop.phases
    assert last.repeats
    assert {phase.repeats for phase in first} <= {scheme not in APART}


class Foreign(nn.Module):
    """A module that naskd knows nothing of."""


class Promised(Foreign):
    repeats = True


@pytest.mark.parametrize(("module", "expected"), [(Foreign(), False), (Promised(), True)])
def test_code_from_elsewhere_is_replayed_only_if_it_says_so(module, expected, context) -> None:
    run, _ = start_run(taught("logits"), context, 0)
    run.scheme.taught.network.extra = module
    assert [phase.repeats for phase in run.scheme.phases()] == [expected]


def test_nothing_is_recorded_on_a_cpu(context) -> None:
    assert not context.resources.compute.cuda_graphs


# --- every call is one step ---------------------------------------------------------------------------------------


class Fake(Replay):
    """Counts what is done and how, and tells the time that it is told to."""

    def __init__(self, *, eager: float, replayed: float, records: bool = True) -> None:
        super().__init__(self.launch, torch.device("cpu"))
        self.cost = {"launch": eager, "replay": replayed}
        self.records = records
        self.first_replay = 0.0
        self.steps: list[str] = []
        self.now = 0.0

    def launch(self, batch: Batch, asked: Asked) -> Row:
        return self._do("launch")

    def _do(self, how: str) -> Row:
        self.steps.append(how)
        first = self.steps.count("replay") == 1
        self.now += self.first_replay if how == "replay" and first and self.first_replay else self.cost[how]
        return ("loss",), torch.tensor([float(len(self.steps))])

    def _record(self, batch: Batch, asked: Asked) -> None:
        self._graph = object() if self.records else None

    def _replay(self, batch: Batch, asked: Asked) -> Row:
        assert self._graph is not None
        return self._do("replay")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fake], Fake]:
    def watch(fake: Fake) -> Fake:
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        monkeypatch.setattr(replay.time, "perf_counter", lambda: fake.now)
        return fake

    return watch


def run(fake: Fake, n: int) -> list[str]:
    batch = Batch(*(torch.zeros(1) for _ in range(4)), epoch=0)
    rows = [fake(batch, ()) for _ in range(n)]
    assert [values.item() for _, values in rows] == list(range(1, n + 1))  # one step a call, and its own row
    return fake.steps


def test_a_faster_recording_is_kept(clock) -> None:
    fake = clock(Fake(eager=2.0, replayed=1.0))
    assert run(fake, 10) == ["launch"] * 2 + ["replay"] * 8


def test_a_slower_recording_is_dropped(clock) -> None:
    fake = clock(Fake(eager=1.0, replayed=2.0))
    assert run(fake, 10) == ["launch"] * 2 + ["replay"] * 2 + ["launch"] * 6


def test_a_recording_whose_first_replay_is_slow_is_kept(clock) -> None:
    fake = clock(Fake(eager=2.0, replayed=1.0))
    fake.first_replay = 9.0
    assert run(fake, 10) == ["launch"] * 2 + ["replay"] * 8


def test_what_cannot_be_recorded_is_launched_each_time(clock) -> None:
    assert run(clock(Fake(eager=2.0, replayed=1.0, records=False)), 10) == ["launch"] * 10


# --- on a GPU -----------------------------------------------------------------------------------------------------

on_gpu = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def gpu_context(folder: Any, *, graphs: bool) -> StudyContext:
    execution = ExecutionSpec(device="cuda", precision="float32", cuda_graphs=graphs)
    return small_context(folder, **vars(study(execution=execution)) | {"base": study().base})


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, StudyContext]:
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    first = gpu_context(tmp_path_factory.mktemp("first"), graphs=False)
    # The same teacher for both.
    second = open_context(
        replace(first.spec, execution=replace(first.spec.execution, cuda_graphs=True)), first.store
    )
    return {False: first, True: second}


def trained(context: StudyContext, config: TrialConfig) -> tuple[TrialRun, dict[str, Tensor]]:
    found, _ = start_run(config, context, 3)
    found.advance(found.total_epochs)
    return found, {
        name: tensor.cpu() for name, tensor in found.scheme.state_dict().items() if isinstance(tensor, Tensor)
    }


@pytest.mark.parametrize("mixing", ["none", "mixup", "cutmix"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("scheme", SCHEMES_ON_A_GPU)
class TestOnGpu:
    pytestmark = on_gpu

    def test_schemes(self, scheme, optimizer, mixing, contexts, monkeypatch) -> None:
        config = taught("logits", scheme, epochs=12, batch_size=24, optimizer=optimizer, mixing=mixing)
        same(config, contexts, monkeypatch)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_alike_on_a_gpu(kind, contexts, monkeypatch) -> None:
    same(taught(kind, epochs=12, batch_size=24, learning_rate=1e-3), contexts, monkeypatch)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_waited_for_as_often_in_a_long_epoch_as_in_a_short_one(contexts, monkeypatch) -> None:
    monkeypatch.setitem(feeding.GATHERED, "cuda", (2**24, 8))
    found, _ = start_run(taught("logits", epochs=8, batch_size=4), contexts[True], 3)
    for _ in range(4):
        found.loop.run_epoch()

    def waits(steps: int) -> int:
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found.loop.run_epoch(max_steps=steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(one.message) for one in said)

    assert waits(6) == waits(30) > 0


class Impatient:
    """A clock by which everything takes less time than what came before."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 1.0

    def perf_counter(self) -> float:
        self.step *= 0.9
        self.now += self.step
        return self.now


def same(config: TrialConfig, contexts: dict[bool, StudyContext], monkeypatch: pytest.MonkeyPatch) -> None:
    """Launched and replayed, a training ends at about the same place; and it was replayed."""
    replays = []
    there = Replay._replay
    monkeypatch.setattr(Replay, "_replay", lambda self, *given: replays.append(1) or there(self, *given))
    monkeypatch.setattr(replay, "time", Impatient())  # slower or not, it must be right
    make(contexts[False], config)
    launched, expected = trained(contexts[False], config)
    assert not replays
    replayed, found = trained(contexts[True], config)
    assert bool(replays) == any(phase.repeats for phase in replayed.loop.phases)
    for point, other in zip(replayed.curve, launched.curve, strict=True):
        assert point["loss"] == pytest.approx(other["loss"], rel=0.02, abs=1e-3)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=0.05, atol=0.02, msg=lambda m, name=name: f"{name}: {m}"
        )
