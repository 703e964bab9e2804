"""The pages of own parts: their examples are copied into files and searched, and mistakes are blamed on their line."""
# ruff: noqa: E501 - a mistake is a line of a table

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import own_methods
from typer.testing import CliRunner, Result

from naskd import open_run
from naskd.cli import app

from .prose import ROOT

GUIDES = ROOT / "docs" / "guides"
PAGES = ("own-block", "own-loss", "own-scheme", "own-data-kind", "own-sampler", "own-stopping-rule")
LONGEST = 120
"""Lines of a page, that is read at once."""


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each example registers what the last one has registered, too, in files of the same names."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    with own_methods():
        yield
    for name in ("my_loss", "beside"):
        sys.modules.pop(name, None)


def files_of(page: str) -> dict[str, str]:
    """The files that a page shows, by name."""
    text = (GUIDES / f"{page}.md").read_text()
    return dict(re.findall(r'^```\w+ title="(.*?)"\n(.*?)^```$', text, re.DOTALL | re.MULTILINE))


def write(page: str, folder: Path, old: str = "", new: str = "") -> tuple[str, int]:
    """The files of a page, with a mistake in its Python file; the name of that, and the line of the mistake."""
    files = files_of(page)
    name = next(name for name in files if name.endswith(".py") and not name.startswith("test_"))
    text = files[name]
    assert text.count(old) == 1 or not old, (page, old)
    for file, content in files.items():
        (folder / file).write_text(content)
    if page == "own-data-kind":
        with own_methods():
            runpy.run_path(str(folder / name), run_name="__main__")
    if old:
        (folder / name).write_text(text.replace(old, new))
    return name, text[: text.index(old)].count("\n") + 1


def search(folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> Result:
    monkeypatch.chdir(folder)
    words = [word for setting in settings for word in ("--set", setting)]
    return CliRunner().invoke(app, ["search", "study.toml", "--out", "run", *words], prog_name="naskd")


SMALL = ("epochs=1", "data.max_train=60", "budget.trials=1")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_read_at_once(page: str) -> None:
    assert len((GUIDES / f"{page}.md").read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("page", PAGES)
def test_lines_that_a_page_names_are_those_of_its_file(page: str) -> None:
    files = files_of(page)
    shown = re.findall(r"(my_\w+\.py):(\d+)(?:, in (\w+))?\)", (GUIDES / f"{page}.md").read_text())
    assert len(shown) >= 3
    for name, line, function in shown:
        lines = files[name].splitlines()[: int(line)]
        if function:
            defined = [re.match(r" *def (\w+)", text) for text in lines]
            assert [found[1] for found in defined if found][-1] == function, (name, line)
        else:
            assert re.match(r" *(def|class) |[A-Z_]+\.register", lines[-1]), (name, line)


def kinds_of(trial: dict[str, Any]) -> dict[str, Any]:
    design = trial["config"]
    return {
        "block": {stage["block"] for stage in design["architecture"]["stages"]},
        "scheme": design["distillation"]["scheme"],
        "terms": [term["kind"] for term in design["distillation"]["terms"]],
    }


@pytest.mark.parametrize("page", PAGES)
def test_the_example_of_a_page_is_searched(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(page, tmp_path)
    quick = {
        "own-sampler": ("budget.trials=5", "data.max_train=60"),
        "own-stopping-rule": ("data.max_train=60",),
        "own-loss": (*SMALL, "teacher.training.epochs=1"),
    }
    shown = search(tmp_path, monkeypatch, *quick.get(page, SMALL))
    assert shown.exit_code == 0, shown.output
    run = open_run(tmp_path / "run")
    trials = run.trials()
    used = kinds_of(trials[0])
    if page == "own-block":
        assert used["block"] == {"plain"}
    elif page == "own-loss":
        assert used["terms"] == ["cosine"]
        assert 0 < trials[0]["curve"][0]["cosine"] < 2
    elif page == "own-scheme":
        assert used["scheme"] == "mean_teacher"
        assert trials[0]["curve"][0]["consistency"] > 0
        assert trials[0]["spent_macs"] > trials[0]["macs"] * 60 * 4, "the mean's passes are booked"
    elif page == "own-data-kind":
        assert "data: pixel_table, 10 classes, 707 images of 1x8x8" in shown.stderr
    elif page == "own-sampler":
        params = [trial.params for trial in run.study.trials]
        first, later = params[:3], params[3:]
        assert any(set(new.items()) & set(old.items()) for new in later for old in first), "something is kept"
    else:
        assert {t["reason"] for t in trials if t["state"] == "PRUNED"} <= {
            f"stopped by rule 'median' after epoch {epoch}" for epoch in (1, 2)
        }
        assert "PRUNED" in {t["state"] for t in trials}


IN_FORWARD = "return KnowledgeOutput(1 - ((own * other).sum(dim=1) / lengths).mean())"
STEP = 'yield Update("student", loss + self.weight * apart, {**terms, "consistency": apart.detach()})'
PROPOSED = "return self.values.sample_independent(study, trial, name, distribution)"

MISTAKES = [
    # Page, what stands there, a mistake in its place, and what is said; {here} is the file with the line of the mistake.
    ("own-block", "from torch import nn", "from torch import nm", "{here}: cannot be imported: ImportError: "),
    ("own-block", "implementation=Plain,", "implementation=Plane,", "{here}: cannot be imported: NameError: name 'Plane'"),
    ("own-block", "kernel, stride, padding", "kernel, 1, padding", r"block Plain \({file}:21\) turns .* with stride 2 into"),
    ("own-block", "self.norm(self.conv", "self.norn(self.conv", r"block 'plain' raised AttributeError: .*'norn' \({here}, in pre_activation\)"),
    ("own-block", "self.activation = nn.ReLU()", "pass", r"block 'plain' raised AttributeError: .*'activation' \({file}:10\)"),
    ("own-block", "return self.norm(", "return float('nan') * self.norm(", r"non-finite loss: ce is nan .*: Plain \({file}:10\)"),
    ("own-block", "class Plain(Block)", "class Plain(nn.Module)", r"block 'plain' is Plain \({here}\), which is no subclass of naskd"),
    ("own-loss", "KnowledgeLoss, KnowledgeOutput", "KnowledgeLos, KnowledgeOutput", "{here}: cannot be imported: ImportError: "),
    ("own-loss", "implementation=CosineLoss", 'implementation="my_loss:Cosine"', r"knowledge loss 'cosine' names .*'my_loss:Cosine' \({file}:\d+\): AttributeError"),
    ("own-loss", IN_FORWARD, IN_FORWARD.replace("KnowledgeOutput", ""), r"knowledge 'cosine': forward returned Tensor; wanted a KnowledgeOutput \({file}:\d+\)"),
    ("own-loss", ".mean())", ")", r"term of a KnowledgeOutput has the shape \(\d+,\); wanted one number.* \({here}, in forward\)"),
    ("own-loss", "lengths).mean()", "lengths).mean() * float('nan')", r"non-finite loss: cosine is nan .*: CosineLoss \({file}:\d+\)"),
    ("own-loss", 'widened(teacher["logits"])', 'widened(teacher["logit"])', r"KeyError: 'logit' \({here}, in forward\)"),
    ("own-loss", "teacher.logits.detach()", "teacher.logits.detach().mean()", r"summarise returned 'logits' of shape \(\); .* \({file}:\d+\)"),
    ("own-loss", "return (student.logits,)", "return None", r"student_tensors returned NoneType; wanted a tuple of tensors \({file}:\d+\)"),
    ("own-scheme", "schemes.distilled import", "schemes.distiled import", "{here}: cannot be imported: ModuleNotFoundError: "),
    ("own-scheme", "mean.module.taps", "mean.modul.taps", r"AttributeError: .* 'modul' \({here}, in step\)"),
    ("own-scheme", STEP, STEP.replace("apart,", "said.sum(1),"), r"loss of an Update has the shape .* \({here}, in step\)"),
    ("own-scheme", "apart.detach()})", "apart.detach() * float('nan')})", r"non-finite loss: consistency is nan .*: MeanTeacher \({file}:\d+\)"),
    ("own-scheme", STEP, "return [loss]", r"the step of phase 'training' returned list; .* \({file}:\d+\)"),
    ("own-scheme", STEP, "yield loss", r"the step of phase 'training' yielded Tensor; .* of 'student' \({file}:\d+\)"),
    ("own-scheme", 'Update("student"', 'Update("pupil"', r"yielded an Update of 'pupil'; .* of 'student' \({file}:\d+\)"),
    ("own-scheme", 'return (*first, self.taught.phase("main", step=self.step))', "return ()", r"phases of 0 epochs; wanted the design's 1 \({file}:\d+\)"),
    ("own-data-kind", "from naskd.data.raw import", "from naskd.data.row import", "{here}: cannot be imported: ModuleNotFoundError: "),
    ("own-data-kind", "names = tuple(", "names = tupel(", r"data kind 'pixel_table' raised NameError: .*'tupel'.* \({here}, in opened\)"),
    ("own-data-kind", "labels, names, spec)", "labels[1:], names, spec)", r"there are 1797 images and 1796 labels \({here}, in opened\)"),
    ("own-data-kind", "rows[:, 0], rows[:, 1:]", "rows[:, 0] - 1, rows[:, 1:]", r"labels of 9 classes are from 0 to 8; there are -1 to 8 \({file}:\d+, in opened\)"),
    ("own-data-kind", ".astype(np.uint8)", " / 255", r"images are float64 of \(1797, 8, 8\); wanted bytes .* \({here}, in opened\)"),
    ("own-data-kind", "return array_source(", "return (", r"development returned tuple; wanted a naskd.data.raw.Source \({file}:\d+\)"),
    ("own-sampler", "import BaseSampler,", "import BaseSamplr,", "{here}: cannot be imported: ImportError: "),
    ("own-sampler", PROPOSED, PROPOSED.replace("return self.values", "return self.value"), r"sampler 'mutation' raised AttributeError: .* \({here}, in sample_independent\)"),
    ("own-sampler", PROPOSED, "return 1e9", r"sampler 'mutation' raised ValueError: it proposed 1000000000.0 for 'width0', .* \({file}:\d+\)"),
    ("own-sampler", "class Mutation(BaseSampler)", "class Mutation", r"sampler 'mutation' returned Mutation; .* \({here}\)"),
    ("own-sampler", "def __init__(self, seed, rate,", "def __init__(self, seed,", r"sampler 'mutation' cannot be made: TypeError: .*'rate' \({file}:\d+\)"),
    ("own-stopping-rule", "import Decision", "import Decisions", "{here}: cannot be imported: ImportError: "),
    ("own-stopping-rule", 'trial.metrics["macs"]', 'trial.metrics["mac"]', r"stopping rule 'median' raised KeyError: 'mac' \({file}:\d+, in .*\)"),
    ("own-stopping-rule", "return Decision.STOP", "return True", r"stopping rule 'median' returned True; it must return a Decision \({file}:\d+\)"),
    ("own-stopping-rule", "def decide(", "def decides(", r"stopping rule 'median' returned Median; .* a method decide \({file}:\d+\)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "old", "new", "said"), MISTAKES, ids=lambda value: re.sub(r"\W+", "-", str(value))[:30]
)
def test_a_mistake_is_blamed_on_its_line(
    page: str, old: str, new: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, line = write(page, tmp_path, old, new)
    settings = {
        "own-loss": (*SMALL, "teacher.training.epochs=1"),
        "own-sampler": ("budget.trials=2", "data.max_train=60", "sampler.startup_trials=1"),
        "own-stopping-rule": ("budget.trials=8", "epochs=2", "data.max_train=60", "stopping.min_trials=1"),
    }
    shown = search(tmp_path, monkeypatch, *settings.get(page, SMALL))
    assert shown.exit_code in (1, 2)
    assert isinstance(shown.exception, SystemExit), shown.exception
    assert "Traceback" not in shown.output
    pattern = said.replace("{here}", re.escape(f"{name}:{line}")).replace("{file}", re.escape(name))
    assert re.search(pattern, shown.stderr), shown.stderr


def test_a_neighbour_that_an_own_file_imports_is_blamed_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        "own-block", tmp_path, "return self.norm(self.convolution(x))", "import beside; return beside.norm(x)"
    )
    (tmp_path / "beside.py").write_text("\n\ndef norm(x):\n    return x.nrm()\n")
    shown = search(tmp_path, monkeypatch, *SMALL)
    assert "error: block 'plain' raised AttributeError: " in shown.stderr
    assert "(beside.py:4, in norm)" in shown.stderr
