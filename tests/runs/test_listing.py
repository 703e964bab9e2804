"""Runs are listed as they are, whatever is wrong with one of them, and removed whole or not at all."""

import json
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from naskd.cli import app
from naskd.runs.listing import list_runs, remove_run
from naskd.runs.run import open_run
from naskd.spec.errors import InputError
from naskd.store.files import read_sealed, write_sealed


def test_a_finished_run_is_listed_with_what_it_found(tiny_run: Path) -> None:
    (row,) = list_runs(tiny_run.parent)
    best = max(trial["val_accuracy"] for trial in open_run(tiny_run).trials())
    assert (row["path"], row["name"], row["state"]) == (str(tiny_run), "tiny", "done")
    assert (row["trials"], row["asked"], row["best"]) == (2, 2, best)
    assert row["front"] == len(open_run(tiny_run).front())
    assert row["size_bytes"] >= (tiny_run / "journal.log").stat().st_size
    assert list_runs(tiny_run) == [row]


def test_a_run_with_more_to_do_is_unfinished(tiny_run_copy: Path) -> None:
    study = read_sealed(tiny_run_copy / "study.json")
    write_sealed(tiny_run_copy / "study.json", {**study, "budget": {**study["budget"], "trials": 5}})
    (row,) = list_runs(tiny_run_copy)
    assert (row["state"], row["trials"], row["asked"], row["problem"]) == ("unfinished", 2, 5, "")


def test_a_damaged_run_hides_no_other(tiny_run_copy: Path) -> None:
    other = tiny_run_copy.parent / "other"
    shutil.copytree(tiny_run_copy, other)
    (other / "study.json").write_text("{")
    rows = {row["path"]: row for row in list_runs(tiny_run_copy.parent)}
    assert rows[str(tiny_run_copy)]["state"] == "done"
    assert rows[str(other)]["state"] == "unreadable"
    assert "study.json" in rows[str(other)]["problem"]


def test_a_run_that_is_held_is_in_use_and_stays(tiny_run_copy: Path) -> None:
    with FileLock(tiny_run_copy / ".lock"):
        assert list_runs(tiny_run_copy)[0]["state"] == "in use"
        with pytest.raises(InputError, match="in use"):
            remove_run(tiny_run_copy)
        result = CliRunner().invoke(app, ["rm", str(tiny_run_copy), "--yes"])
    assert result.exit_code == 2
    assert (tiny_run_copy / "journal.log").is_file()


def test_removing_asks_first_and_leaves_the_teachers(tiny_run_copy: Path) -> None:
    artifacts = sorted((tiny_run_copy.parent / "artifacts").iterdir())
    result = CliRunner().invoke(app, ["rm", str(tiny_run_copy)])
    assert result.exit_code == 0
    assert "add --yes" in result.stderr
    assert (tiny_run_copy / "study.json").is_file()
    result = CliRunner().invoke(app, ["rm", str(tiny_run_copy), "--yes"])
    assert result.exit_code == 0, result.output
    assert not tiny_run_copy.exists()
    assert list_runs(tiny_run_copy.parent) == []
    assert sorted((tiny_run_copy.parent / "artifacts").iterdir()) == artifacts != []


def test_checkpoints_elsewhere_stay_and_are_named(tiny_run_copy: Path, tmp_path: Path) -> None:
    """A copy of the run has the same: to remove one must not take what the other goes on from."""
    study = read_sealed(tiny_run_copy / "study.json")
    execution = {**study["execution"], "checkpoints": str(tmp_path / "far")}
    write_sealed(tiny_run_copy / "study.json", {**study, "execution": execution})
    assert list_runs(tiny_run_copy)[0]["checkpoints"] is None, "there are none"
    place = tmp_path / "far" / open_run(tiny_run_copy).study.user_attrs["checkpoints"]
    place.mkdir(parents=True)
    result = CliRunner().invoke(app, ["rm", str(tiny_run_copy), "--yes"])
    assert result.exit_code == 0, result.output
    assert f"checkpoints of {tiny_run_copy} stay where they are: {place}\n" in result.stderr
    assert place.is_dir()


def test_a_run_of_a_long_name_goes_and_what_a_killed_removal_leaves_is_none(
    tiny_run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tiny_run_copy.rename(tiny_run_copy.with_name("n" * 250))
    monkeypatch.setattr(shutil, "rmtree", lambda path: None)
    remove_run(long)
    assert not long.exists()
    assert list_runs(long.parent) == []
    assert [path.is_dir() for path in leftovers_beside(long)] == [True]


def leftovers_beside(path: Path) -> list[Path]:
    """What is named as half written or half removed."""
    return list(path.parent.glob(".partial-*"))


def test_of_several_runs_none_goes_where_one_is_wrong(tiny_run_copy: Path) -> None:
    result = CliRunner().invoke(app, ["rm", str(tiny_run_copy), str(tiny_run_copy.parent), "--yes"])
    assert result.exit_code == 2
    assert "is no run directory" in result.stderr
    assert tiny_run_copy.is_dir()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        list_runs(tmp_path / "nope")


def test_the_table_and_json_say_the_same(tiny_run: Path) -> None:
    shown = CliRunner().invoke(app, ["runs", str(tiny_run.parent)])
    assert shown.exit_code == 0, shown.output
    assert "2 of 2" in shown.stdout
    assert "done" in shown.stdout
    data = json.loads(CliRunner().invoke(app, ["runs", str(tiny_run.parent), "--json"]).stdout)
    assert data == list_runs(tiny_run.parent)
