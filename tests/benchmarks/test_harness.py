"""What all benchmarks share; and that each of them can be started."""

import argparse
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from forks import Forker

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_every_benchmark_can_be_started(forker: Forker, tmp_path: Path) -> None:
    """All in one process, which imports torch, Ray and Optuna once."""
    files = sorted(path.name for path in BENCHMARKS.glob("*.py"))
    assert len(files) >= 8
    code = f"""
import contextlib, io, os, runpy, sys
os.chdir({str(BENCHMARKS)!r})
sys.path.insert(0, {str(BENCHMARKS)!r})
for name in {files}:
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_path(name, run_name="__main__")
        except SystemExit as ended:
            assert not ended.code, name
    assert "python benchmarks/" + name in out.getvalue(), name
print("all")
"""
    assert forker.run(code, tmp_path / "printed").splitlines()[-1] == "all"


def test_arms_take_turns_at_being_first() -> None:
    from harness.timing import in_turns

    assert list(in_turns("abc", 2)) == [(0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a")]


def test_ratios_and_differences_are_paired_by_repetition() -> None:
    from harness.spread import difference, interval, middle, ratios, sd, values

    rows = [
        {"arm": arm, "repetition": n, "s": s} for n, arm, s in [(1, "a", 4.0), (0, "a", 2.0), (0, "b", 1.0)]
    ]
    assert values(rows, "s", arm="a") == [2.0, 4.0]
    assert middle(ratios([2.0, 9.0], [1.0, 3.0]), 1) == "2.5 (2.0 to 3.0)"
    assert middle([]) == "-"
    assert difference([0.5, 0.7, 0.9], [0.4, 0.6, 0.8]) == "+0.1000 [+0.1000, +0.1000]"
    assert interval([1.0]) == (-math.inf, math.inf)
    assert math.isnan(sd([1.0]))


def test_a_file_of_results_is_taken_up_under_the_same_settings_only(tmp_path: Path) -> None:
    from harness.results import Results

    path = tmp_path / "kept.json"
    args = argparse.Namespace(trials=3, json=path, resume=False)
    first = Results(path, args, {"cpus": 2})
    first.found["rows"] = [{"s": 1.0}]
    first.save()
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]
    again = argparse.Namespace(trials=3, json=path, resume=True)
    assert Results(path, again, {"cpus": 9}, resume=True).found["rows"] == [{"s": 1.0}]
    assert "rows" not in Results(path, again, {"cpus": 9}).found
    rows = [
        {
            "curve": [0.5, 1e-7, None, float("inf")],
            "words": ["a", "[\n 1\n]"],
            "none": [],
            "pairs": [[1, 2], [3]],
        }
    ]
    first.found["rows"] = rows
    first.save()
    assert json.loads(path.read_text())["rows"] == rows
    assert '"curve": [0.5, 1e-07, null, Infinity],\n' in path.read_text()  # not a page for each curve
    with pytest.raises(SystemExit, match=r"other settings: \['trials'\]"):
        Results(path, argparse.Namespace(trials=4), {}, resume=True)
    path.write_text(json.dumps({"rows": []}))  # of before there were settings in it
    with pytest.raises(SystemExit, match="other settings: unknown"):
        Results(path, args, {}, resume=True)
    with pytest.raises(SystemExit, match="--resume needs"):
        Results(None, args, {}, resume=True)


def test_a_file_of_results_is_of_the_files_that_its_arguments_name(tmp_path: Path, capsys) -> None:
    """A table that has grown meanwhile is another one; so is an archive of other images under the same name."""
    from harness.results import Results

    table, images, kept = tmp_path / "table", tmp_path / "images.zip", tmp_path / "kept.json"
    table.mkdir()
    (table / "card.json").write_text("{}")
    (table / "trainings.parquet").write_bytes(b"rows")
    images.write_bytes(b"pictures")
    args = argparse.Namespace(
        table=table, images=images, runs=tmp_path, json=kept, resume=True, module=[images]
    )
    Results(kept, args, {"code": "a"}).save()
    assert "resumed_with" not in Results(kept, args, {"code": "a"}, resume=True).found
    for file, argument in (
        (table / "trainings.parquet", r"\['table'\]"),
        (images, r"\['images', 'module'\]"),
    ):
        before = file.read_bytes()
        file.write_bytes(before + b" and more")
        with pytest.raises(SystemExit, match=f"other files: {argument}"):
            Results(kept, args, {"code": "a"}, resume=True)
        file.write_bytes(before)
    assert not capsys.readouterr().err
    found = Results(kept, args, {"code": "b"}, resume=True)
    assert "measured with other code" in capsys.readouterr().err
    found.save()
    again = Results(kept, args, {"code": "b"}, resume=True)
    assert (again.found["code"], again.found["resumed_with"]) == ("a", ["b"])
    assert not capsys.readouterr().err, "that is known"
    old = json.loads(kept.read_text())
    del old["inputs"]
    kept.write_text(json.dumps(old))
    Results(kept, args, {"code": "b"}, resume=True)
    assert "does not say of which files" in capsys.readouterr().err


def test_studies_of_other_settings_are_none_of_a_comparison(tmp_path: Path, monkeypatch) -> None:
    import joint

    given = ["joint.py", "--out", str(tmp_path), "--task", "random:0"]
    monkeypatch.setattr(joint, "search", lambda spec, out: SimpleNamespace(path=tmp_path / "run"))
    monkeypatch.setattr(joint, "judge", lambda runs, seeds, reference: {"trials": seeds})
    for more, trials in (([], 3), (["--seeds", "9", "--arms", "random"], 3)):
        monkeypatch.setattr(sys, "argv", [*given, *more])
        joint.main()
        assert json.loads((tmp_path / "random-0.json").read_text())["trials"] == trials
    for more in (["--budget", "1e12"], ["--set", "epochs=3"]):
        monkeypatch.setattr(sys, "argv", [*given, *more])
        with pytest.raises(SystemExit, match="of other settings"):
            joint.main()


def test_a_part_that_fails_loses_no_other_and_a_resumed_one_is_not_measured_again(
    tmp_path: Path, capsys
) -> None:
    from harness import parts

    measured = []

    def part(name: str, broken: bool = False) -> SimpleNamespace:
        def measure(args: argparse.Namespace, folder: Path) -> list[dict]:
            measured.append(name)
            assert not list(folder.iterdir())
            if broken:
                raise ValueError("broken")
            return [{"name": name}]

        return SimpleNamespace(measure=measure, table=lambda rows: [f"table of {rows[0]['name']}"])

    facts = {"command": "python x", "date": "2026-01-01", "cpus": 1, "device_name": "d", "versions": "v"}
    args = argparse.Namespace(part=["a", "b", "c"], json=tmp_path / "kept.json", resume=False)
    assert parts.run({"a": part("a"), "b": part("b", broken=True), "c": part("c")}, args, facts) == 1
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith(("table", "failed"))] == [
        "table of a", "failed: ValueError: broken", "table of c",
    ]  # fmt: skip
    kept = json.loads(args.json.read_text())["parts"]
    assert (kept["a"]["rows"], "error" in kept["b"]) == ([{"name": "a"}], True)
    args.resume = True
    assert parts.run({name: part(name) for name in "abc"}, args, facts) == 0
    assert measured == ["a", "b", "c", "b"]


def test_a_file_whose_folder_is_missing_is_told_before_anything_is_measured(tmp_path: Path, capsys) -> None:
    from harness.arguments import parser

    with pytest.raises(SystemExit):
        parser("words").parse_args(["--json", str(tmp_path / "none" / "kept.json")])
    assert "the folder does not exist" in capsys.readouterr().err
    assert parser("words").parse_args(["--json", str(tmp_path / "x")]).json == tmp_path / "x"


def test_rows_that_were_measured_before_are_still_read() -> None:
    """Kept in docs/data by earlier versions, they make the same tables."""
    from executor_parts import fronts, scale, speedup
    from training_parts import digits, search, size, step

    data = BENCHMARKS.parent / "docs" / "data"
    found = 0
    tables = {
        "c": scale,
        "b": speedup,
        "d": fronts,
        "digits": digits,
        "search": search,
        "size": size,
        "step": step,
    }
    for file in [*data.glob("executors*.json"), *data.rglob("bench_training/*.json")]:
        for name, kept in json.loads(file.read_text()).get("parts", {}).items():
            older = name == "b" and "steady_per_minute" not in kept["rows"][0]  # before this was measured
            if name in tables and "error" not in kept and not older:
                lines = tables[name].table(kept["rows"])
                assert lines[1].startswith("|---")
                found += 1
    assert found >= 5
