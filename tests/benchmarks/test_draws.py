"""What a preset offers of a recorded table, and what a random draw of it is worth."""

import dataclasses
import io
import sys
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from naskd.spec.design import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec
from naskd.teachings import TEACHINGS


@pytest.fixture(autouse=True)
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.mark.parametrize("values", [[1.0], [0.0, 1.0], [2.0, -1.0, 0.5, 2.0]])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_best_of_some_draws_is_the_mean_over_all_of_them(values: list[float], n: int) -> None:
    from table_parts.offered import best_of

    drawn = [max(draw) for draw in product(values, repeat=n)]
    assert best_of(values, n) == pytest.approx(sum(drawn) / len(drawn))


def student(block: str) -> ArchitectureSpec:
    return ArchitectureSpec((StageSpec(block, 1, 8),) * 3)


def test_of_the_recorded_ways_a_preset_offers_what_it_says() -> None:
    from table_parts import space
    from table_parts.offered import offers

    more = TEACHINGS["more-images-1"]
    offered = {
        kind: [offers(more, student(block), space.way(kind)) for block in ("basic", "depthwise_separable")]
        for kind in space.KINDS
    }
    assert offered == {
        "none": [True, True],
        "logits": [True, True],
        "standardized": [False, False],
        "dist": [True, False],
        "dkd": [True, True],
        "hint": [True, True],
        "attention": [False, False],
        "rkd": [False, False],
        "assistant": [False, False],
    }
    same = TEACHINGS["same-images-1"]
    assert not offers(same, student("basic"), space.way("hint"))
    hot = DistillationSpec((KnowledgeTerm("logits", temperature=8.0),))
    assert not offers(more, student("basic"), hot)
    assert offers(dataclasses.replace(more, temperature=(2.0, 8.0)), student("basic"), hot)


def test_draws_go_on_where_they_stopped_and_arms_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import teachings
    from table_parts import space

    monkeypatch.setattr(space, "TEACHER", space.three_stages(8, (1, 1, 1)))
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        for label, number in product("ab", range(30)):
            content = io.BytesIO()
            Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(content, "PNG")
            file.writestr(f"train/{label}/{number}.png", content.getvalue())
    sizes = ("--student-images", "16", "--teacher-images", "32", "--val-images", "8", "--test-images", "16")
    given = ["teachings.py", "--images", str(tmp_path / "images.zip"), "--out", str(tmp_path / "out"), *sizes]
    given += ["--halved", "--teacher-epochs", "2", "--epochs", "1", "--width", "4", "--alone", "1"]
    # 3 students: one seed alone, and a draw of each arm; then a draw more, and nothing twice.
    for draws, trainings in (("1", 9), ("2", 15)):
        monkeypatch.setattr(sys, "argv", [*given, "--draws", draws])
        teachings.main()
        rows = (tmp_path / "out" / "draws.jsonl").read_text().splitlines()
        assert len(rows) == trainings
    printed = capsys.readouterr().out
    assert "| basic | more-images-1 | 2 |" in printed
    assert "| choice of `more-images-1` |" in printed
