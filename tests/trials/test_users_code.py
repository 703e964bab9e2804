"""Whatever a user's code raises, and a call that leaves the process too, is a failure with a reason."""

import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from small_studies import design, small_context, study

from naskd import launch
from naskd.cli.app import Commands
from naskd.executors.local.serial import SerialExecutor
from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.bank import BankedSource
from naskd.knowledge.source import OnlineSource
from naskd.networks import teachers
from naskd.runs import estimate, timing
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError, RunError
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.userfile import import_file
from naskd.study.observer import Observers, StudyObserver
from naskd.study.space import SlowSpaceError, timed
from naskd.study.space_sample import sample_space
from naskd.testing.fixed_source import FixedSource
from naskd.trials.jobs import Job
from naskd.trials.measures import ObjectiveError, objective_value


def _leave(*_: Any, **__: Any) -> Any:
    sys.exit(0)


def _say_nothing(*_: Any, **__: Any) -> Any:
    raise ValueError


class _Panic(BaseException):
    """As an extension in Rust raises it."""


def _panic(*_: Any, **__: Any) -> Any:
    raise _Panic("lost")


@pytest.mark.parametrize(
    ("mishap", "reason"),
    [
        (_leave, "SystemExit: 0"),
        (_say_nothing, "ValueError: no message"),
        (_panic, "_Panic: lost"),
    ],
)
@pytest.mark.parametrize("where", ["build_student", "predict"])
def test_a_trial_fails_with_what_it_raised(tmp_path, monkeypatch, where: str, mishap: Any, reason: str):
    context = small_context(tmp_path, teacher=None)
    place = "naskd.trials.networks" if where == "build_student" else "naskd.trials.run"
    monkeypatch.setattr(f"{place}.{where}", mishap)
    source = FixedSource([Job("0", "trial", design(), 1, 1)])
    SerialExecutor(context, tmp_path).run(source)
    assert source.results["0"].status == "failed"
    assert source.results["0"].reason == reason
    assert "Traceback" in source.results["0"].error


def test_a_teacher_that_leaves_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    context = small_context(tmp_path)
    recipe = context.prerequisites.teacher()
    context.resources.store.remove(recipe.artifact_id)
    monkeypatch.setattr("naskd.trials.networks.build_teacher_network", _leave)
    source = FixedSource([Job(recipe.artifact_id, "artifact", None, 1, 0)])
    SerialExecutor(context, tmp_path).run(source)
    assert source.results[recipe.artifact_id].reason == "SystemExit: 0"


def test_a_builder_a_module_and_an_objective_that_leave_are_named(tmp_path: Path, monkeypatch):
    (tmp_path / "own.py").write_text("import sys\n\n\ndef build():\n    sys.exit(0)\n")
    with pytest.raises(InputError, match=r"builder 'own\.py:build' failed: SystemExit: 0"):
        teachers._call_builder("own.py:build", tmp_path)
    (tmp_path / "module.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(InputError, match=r"module\.py:2: cannot be imported: SystemExit: 0"):
        import_file(tmp_path / "module.py")
    monkeypatch.setattr("naskd.trials.measures.imported", lambda _: _leave)
    with pytest.raises(ObjectiveError, match="objective macs: SystemExit: 0"):
        objective_value(OBJECTIVES["macs"], None)


def test_a_space_that_leaves_or_hangs_is_one_error():
    measure: Any = None
    with pytest.raises(InputError, match=r"the search space space\.py:joint called sys\.exit\(0\)"):
        sample_space(_leave, study(), measure, 1)

    def hang(_: optuna.Trial) -> Any:
        while True:
            pass

    line = hang.__code__.co_firstlineno
    late = rf"a call took longer than execution\.space_seconds = 0\.02 in line ({line + 1}|{line + 2})\b"
    with pytest.raises(InputError, match=late):
        sample_space(timed(hang, 0.02), study(), measure, 1)
    with pytest.raises(SlowSpaceError):
        timed(hang, 0.02)(None)


def test_what_a_sampler_takes_to_propose_is_not_the_time_of_the_space():
    class Slow(optuna.samplers.RandomSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            time.sleep(0.3)
            return {}

    space = timed(lambda trial: trial.suggest_float("x", 0, 1), 0.2)
    trial = optuna.create_study(sampler=Slow()).ask()
    assert space(trial) == trial.params["x"]  # type: ignore[comparison-overlap]  # no design, a number


def test_an_observer_that_leaves_ends_nothing(caplog: pytest.LogCaptureFixture):
    class Leaving(StudyObserver):
        closed = _leave

    Observers([Leaving()]).closed()
    assert "observer Leaving raised SystemExit: 0" in caplog.text


def test_what_nobody_foresaw_ends_a_search_with_one_line_and_not_with_exit_code_0(monkeypatch, capsys):
    monkeypatch.setattr("naskd.runs.search.run_search", _leave)
    monkeypatch.setattr(launch, "prepare", lambda _: None)
    line = r"code that the study names has left the process: SystemExit: 0 \(.*test_users_code\.py:\d+\)"
    with pytest.raises(RunError, match=line):
        launch.search(study())
    import click
    import typer

    monkeypatch.setattr("typer.core.TyperGroup.invoke", _leave)
    group = Commands(name="naskd")
    with pytest.raises(typer.Exit) as ending:
        group.invoke(click.Context(group))
    assert ending.value.exit_code == 1
    assert "error: code that the study names has left the process" in capsys.readouterr().err


# --- what a teacher is asked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mishap", [_leave, _say_nothing, lambda *_: None, lambda *_: {"x": 1}])
def test_a_loss_that_nobody_asks_with_now_may_fail_and_the_others_are_answered(tmp_path: Path, mishap: Any):
    context = small_context(tmp_path)
    online = context.sources.online(context.prerequisites.teacher())
    assert isinstance(online, OnlineSource)

    def loss(kind: str) -> Any:
        return KNOWLEDGE.load(kind)(KnowledgeTerm(kind), online.shapes, online.shapes)

    broken, asked = loss("rkd"), loss("logits")
    broken.summarise = mishap
    n = len(context.resources.data.train)
    images = context.images.views("none")
    bank = BankedSource(online, lambda i, e: images.batch(i, e)[0], n, 1, 1, foreseen=[broken])
    index = torch.arange(4)
    (found,) = bank.summaries(images.batch(index, 0)[0], index, 0, [asked])
    (expected,) = online.summaries(images.batch(index, 0)[0], index, 0, [asked])
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-3)
    if mishap is _leave:
        with pytest.raises(SystemExit):  # who asks with it is told
            bank.summaries(images.batch(index, 0)[0], index, 0, [broken])


def test_a_loss_that_cannot_be_built_for_all_pairs_is_not_foreseen(tmp_path: Path, monkeypatch):
    context = small_context(tmp_path)
    load = type(KNOWLEDGE).load
    monkeypatch.setattr(
        type(KNOWLEDGE), "load", lambda self, name: _leave if name == "rkd" else load(self, name)
    )
    from naskd.trials.sources import _template

    online = context.sources.online(context.prerequisites.teacher())
    assert list(_template("rkd", online, 10)) == []
    assert len(list(_template("hint", online, 10))) == 1


# --- estimates -----------------------------------------------------------------------------------------------------


def test_a_design_that_cannot_be_timed_is_left_out_and_named(tmp_path: Path, monkeypatch, caplog):
    context = small_context(tmp_path, teacher=None)
    bad, good, run = design(batch_size=32), design(batch_size=16), timing._run
    monkeypatch.setattr(timing, "_run", lambda job, c: _leave() if job.config is bad else run(job, c))
    found = estimate.estimate_search(context, [bad, good])
    assert found["n_timed"] == 1
    assert f"design {bad.config_id} cannot be timed, and is left out: SystemExit: 0" in caplog.text
    with pytest.raises(RunError, match="no design can be timed; the last one: "):
        estimate.estimate_search(context, [bad])
