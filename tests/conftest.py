"""What tests share: one thread a process, one tiny run that was really searched, and who starts other processes."""

import os

# Before anything imports torch: two workers with two threads each would fight over two cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import gc
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from forks import Forker


def pytest_collection_finish() -> None:
    """Keep what thousands of tests hold out of collections of garbage, which would take longer than a search."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let go of it, or what extension modules hold is reported as leaked at the end of the process."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the collection of garbage before a search, and leave frozen what is frozen."""
    if (serial := sys.modules.get("naskd.executors.local.serial")) is not None:
        kept = SimpleNamespace(collect=lambda: 0, freeze=lambda: None, unfreeze=lambda: None)
        monkeypatch.setattr(serial, "gc", kept)


@pytest.fixture(scope="module", autouse=True)
def _small_sample() -> Iterator[None]:
    """Draw 16 designs of a space before a search, not 256: they take as long as two short trials.

    A test of what the sample shows asks for `whole_sample`.
    """
    from naskd.runs.opening import OpenStudy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenStudy.sample, "__defaults__", (16,))
        yield


@pytest.fixture
def whole_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many draws before a search as a user's search has."""
    from naskd.runs.opening import SAMPLE, OpenStudy

    monkeypatch.setattr(OpenStudy.sample, "__defaults__", (SAMPLE,))


@pytest.fixture(scope="module", autouse=True)
def _short_laps() -> Iterator[float]:
    """Time a training by one step a lap, not by as many as fill a tenth of a second: a check times six trainings.

    A test of how well it is timed asks for `whole_laps`. Gives the seconds of a user's lap.
    """
    from naskd.runs import timing

    whole = timing.LAP_SECONDS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "LAP_SECONDS", 0.0)
        yield whole


@pytest.fixture
def whole_laps(_short_laps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Laps as long as those of a user's check."""
    from naskd.runs import timing

    monkeypatch.setattr(timing, "LAP_SECONDS", _short_laps)


@pytest.fixture(scope="module", autouse=True)
def _own_methods() -> Iterator[None]:
    """Forget after each file what it has registered: studies of the next have the shipped methods and their own."""
    with own_methods():
        yield


@contextmanager
def own_methods() -> Iterator[None]:
    """Forget afterwards what was registered within."""
    from naskd.executors import EXECUTORS
    from naskd.spec.datasets import DATASETS
    from naskd.spec.exports import EXPORTS
    from naskd.spec.loggers import LOGGERS
    from naskd.spec.objectives import OBJECTIVES
    from naskd.spec.places import is_user_file
    from naskd.spec.samplers import SAMPLERS
    from naskd.spec.stopping import STOPPING_RULES
    from naskd.spec.teachers import TEACHER_SOURCES
    from naskd.trials.methods import METHODS

    named = (DATASETS, EXECUTORS, EXPORTS, LOGGERS, OBJECTIVES, SAMPLERS, STOPPING_RULES, TEACHER_SOURCES)
    before = [(registry, dict(registry._cards), dict(registry._origins)) for registry in (*METHODS, *named)]
    imported = {name for name in sys.modules if is_user_file(name)}
    yield
    for registry, cards, origins in before:
        registry._cards, registry._origins = cards, origins
    for name in [name for name in sys.modules if is_user_file(name)]:
        if name not in imported:
            del sys.modules[name]


@pytest.fixture(scope="session")
def forker() -> Iterator[Forker]:
    """Starts other processes without their start-up."""
    forker = Forker()
    yield forker
    forker.end()


TINY_STUDY = """\
name = "tiny"
space = "space.py:joint"
epochs = 1

[data]
kind = "digits"

[teacher.architecture]
stem_width = 8
stages = [{block = "basic", depth = 1, width = 8, stride = 2}]

[teacher.training]
epochs = 1

[budget]
trials = 2

[retrain]
seeds = 2
"""

TINY_SPACE = '''\
"""Students of one stage, taught by logits."""

from naskd.spec.design import (
    ArchitectureSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)


def joint(trial):
    width = trial.suggest_int("width", 4, 64)
    temperature = trial.suggest_float("temperature", 1.0, 8.0)
    return TrialConfig(
        ArchitectureSpec(stem_width=4, stages=(StageSpec("basic", depth=1, width=width, stride=2),)),
        DistillationSpec(terms=(KnowledgeTerm("logits", temperature=temperature),)),
        TrainingSpec(epochs=1),
    )
'''


def write_tiny_study(folder: Path) -> Path:
    """A study of digits with two trials of one epoch, and its space; the path of the study file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "space.py").write_text(TINY_SPACE)
    (folder / "tiny.toml").write_text(TINY_STUDY)
    return folder / "tiny.toml"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The run directory of a finished search with two complete trials. For reading; see `tiny_run_copy`.

    Its study file is ``tiny_run.parents[1] / "tiny.toml"``. Searched once for all workers of pytest-xdist.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "tiny"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            from naskd import search

            search(write_tiny_study(folder), out=folder / "runs" / "tiny")
            (folder / "done").touch()
    return folder / "runs" / "tiny"


@pytest.fixture
def tiny_run_copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_run`, with its artifacts, that a test may change."""
    shutil.copytree(tiny_run.parents[1], tmp_path / "tiny")
    return tmp_path / "tiny" / "runs" / "tiny"
