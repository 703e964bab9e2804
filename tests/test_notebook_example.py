"""docs/guides/notebook.md is run as a user would run it."""

import linecache
import re
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "notebook.md"


def _blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from typer.testing import CliRunner

    from naskd.cli import app

    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["init", "."]).exit_code == 0
    study = tmp_path / "study.toml"
    text = study.read_text()
    study.write_text(re.sub(r"(?m)^epochs = \d+", "epochs = 3", text))
    assert study.read_text() != text
    names: dict[str, object] = {"__name__": "__main__"}
    blocks = _blocks()
    assert len(blocks) == 12
    monkeypatch.setenv("MPLBACKEND", "Agg")
    for number, block in enumerate(blocks):
        # As a notebook does, so that the source of what is defined in a cell is known.
        cell = f"<cell {number}>"
        monkeypatch.setitem(linecache.cache, cell, (len(block), None, block.splitlines(True), cell))
        exec(compile(block, cell, "exec"), names)
    told = capsys.readouterr().out
    assert "trials done, hypervolume" in told
    assert (tmp_path / "front.html").is_file()
    assert (tmp_path / "front.png").is_file()
    classes, digits = names["classes"], load_digits()
    assert isinstance(classes, torch.Tensor)
    accuracy = float((classes.numpy() == digits.target).mean())
    result = names["result"]
    assert result["designs"][0]["n"] == 2
    # Most of these images were its training images, the rest its validation and test images.
    assert accuracy > 0.3, "what was loaded is no trained student"
    assert abs(accuracy - result["designs"][0]["test_accuracies"][0]) < 0.2
