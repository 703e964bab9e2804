"""A study from Python objects: a function, arrays and a module in place of files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from typer.testing import CliRunner

import naskd
from naskd.cli import app
from naskd.runs.given import given_study
from naskd.spec import held
from naskd.spec.design import (
    ArchitectureSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.errors import InputError
from naskd.spec.study import BudgetSpec, ExecutionSpec

WIDTHS = (4, 6)


def small(trial: Any) -> TrialConfig:
    width = trial.suggest_int("width", *WIDTHS)
    return TrialConfig(
        ArchitectureSpec((StageSpec("basic", 1, width, stride=2),), stem_width=4),
        DistillationSpec(terms=(KnowledgeTerm("logits"),)),
        TrainingSpec(epochs=1, batch_size=32),
    )


class Mean(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.body = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images).relu().mean((2, 3)) * self.scale)
        return logits


def teacher(**settings: float) -> nn.Module:
    torch.manual_seed(0)
    return Mean(**settings)


def images(n: int = 120) -> tuple[Tensor, Tensor]:
    digits = load_digits()
    return torch.tensor(digits.images[:n] / 16, dtype=torch.float32), torch.tensor(digits.target[:n])


def study(**changes: Any) -> dict[str, Any]:
    given = {"name": "given", "space": small, "data": images(), "teacher": teacher(), "epochs": 1}
    return {**given, **changes}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    naskd.search(**study(), trials=1, out=folder / "run")
    return folder / "run"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another process, which was given nothing."""
    monkeypatch.setattr(held, "_HELD", {})


@pytest.mark.usefixtures("elsewhere")
def test_equal_objects_go_on_with_a_run(searched: Path) -> None:
    run = naskd.search(**study(), trials=2, out=searched)
    assert [trial["state"] for trial in run.trials()] == ["COMPLETE", "COMPLETE"]
    assert (searched / "space.py").read_text().startswith("def small(trial")


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": images(119)}, "data_hash"),
        ({"teacher": teacher(scale=2.0)}, "teacher"),
        ({"space": lambda: wider}, "space"),
    ],
)
def test_other_objects_are_refused(changes: dict[str, Any], says: str, searched: Path) -> None:
    if "space" in changes:
        changes = {"space": changes["space"]()}
    with pytest.raises(InputError, match=f"started differently(.|\n)*{says}"):
        naskd.search(**study(**changes), trials=2, out=searched)


def wider(trial: Any) -> TrialConfig:
    trial.suggest_categorical("wider", (True,))
    return small(trial)


@pytest.mark.usefixtures("elsewhere")
def test_a_run_is_looked_at_without_objects_and_retrained_with_them(searched: Path) -> None:
    run = naskd.open_run(searched)
    number = run.front()[0]["number"]
    with pytest.raises(InputError, match=r"is a Python object of content .* go on in Python"):
        run.retrain([number], seeds=1)
    with pytest.raises(InputError, match=r"data: the run has [0-9a-f]{12}, given is"):
        naskd.open_run(searched, data=images(119))
    run = naskd.open_run(searched, data=images(), space=small, teacher=teacher())
    found = run.retrain([number], seeds=1)
    assert found["designs"][0]["n"] == 1
    assert run.export(number)["images"] == "test"


@pytest.mark.usefixtures("elsewhere")
def test_the_command_line_shows_such_a_run_and_refuses_the_rest(searched: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["front", str(searched)]).exit_code == 0
    refused = runner.invoke(app, ["retrain", str(searched), "--seeds", "3"])
    assert refused.exit_code == 2
    assert "which this process was not given: go on in Python" in refused.stderr


def test_other_processes_have_no_objects(tmp_path: Path) -> None:
    given = study(execution=ExecutionSpec("processes"), data={"kind": "digits", "max_train": 60})
    with pytest.raises(InputError, match=r"space, teacher: given as Python objects.*'processes'.*'serial'"):
        naskd.search(**given, trials=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_study_of_tables_is_one_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.py").write_text("def joint(trial): ...\n")
    (tmp_path / "s.toml").write_text(
        'name = "one"\nspace = "space.py:joint"\n[data]\nkind = "digits"\nmax_train = 9\n[budget]\ntrials = 3\n'
        '[stopping]\nname = "front"\npromote = false\n'
    )
    from naskd.spec.parse import parse_study

    tables = {
        "name": "one",
        "space": "space.py:joint",
        "data": {"kind": "digits", "max_train": 9},
        "budget": BudgetSpec(trials=3),
        "stopping": {"name": "front", "promote": False},
    }
    assert given_study(tables) == parse_study(tmp_path / "s.toml")


def test_mistakes_are_said_together_as_of_a_file() -> None:
    with pytest.raises(InputError) as wrong:
        given_study(study(epocs=3, budget={"trials": 0}, sampler={"name": "tpee"}))
    said = str(wrong.value)
    assert said.startswith("the study: 3 problems")
    assert "epocs" in said
    assert "budget.trials: got 0" in said
    assert "did you mean 'tpe'" in said


@pytest.mark.parametrize(
    ("search", "says"),
    [
        (lambda: naskd.search("study.toml", epochs=3), "epochs: keys of a study, beside a study"),
        (
            lambda: naskd.search(given_study(study(budget={"trials": 1})), settings=["epochs=3"]),
            r"settings = \['epochs=3'\] are for a study file",
        ),
        (lambda: naskd.search(**study(teacher=3), trials=1), "teacher: got a int; allowed: an nn.Module"),
        (lambda: naskd.search(**study(space=lambda trial: None), trials=1), "define it with def"),
        (lambda: naskd.search(**study(data=3), trials=1), "data.train is of type int"),
    ],
)
def test_what_is_no_study(search: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        search()


def test_progress_is_shown_as_lines_where_no_terminal_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    naskd.search(**study(), trials=1, out=tmp_path / "run", progress=True)
    assert "1 of 1 trials, 0 failed" in capsys.readouterr().err
