"""What is kept between runs: that all of it is listed, and that only what was chosen goes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from naskd.cli import app
from naskd.data.decoded_cache import load_decoded, store_decoded
from naskd.spec.processes import host_digits
from naskd.store import files
from naskd.store.artifacts import ArtifactStore
from naskd.store.cache import Entry, chosen, entries, node_cache, parse_age, parse_size, remove
from naskd.store.files import beside

DAY = 86400
NOW = 1_700_000_000.0


def used(days_ago: float, *paths: Path) -> None:
    for path in paths:
        os.utime(path, (NOW - days_ago * DAY,) * 2)


def bank(place: Path, name: str, size: int, days_ago: float) -> None:
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "logits@0.safetensors").write_bytes(bytes(size))
    (folder / "0.lock").touch()
    used(days_ago, folder)


def artifact(place: Path, name: str, label: str, days_ago: float) -> None:
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "model.pt").write_bytes(bytes(100))
    (folder / "manifest.json").write_text(
        json.dumps({"label": label, "sha256": sha256(bytes(100)).hexdigest()})
    )
    used(days_ago, folder / "model.pt", folder / "manifest.json")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of two studies, with what a worker of this machine keeps beside them."""
    runs, node = tmp_path / "runs", tmp_path / "node"
    monkeypatch.setenv("NASKD_CACHE", str(node))
    bank(runs / "cache" / "bank", "aaa1", 1000, days_ago=40)
    bank(runs / "cache" / "bank", "aab2", 2000, days_ago=5)
    bank(node / "bank", "ccc3", 3000, days_ago=20)
    store_decoded(runs / "cache", "ddd4", np.zeros((2, 3), dtype=np.uint8))
    used(50, runs / "cache" / "ddd4.npy", runs / "cache" / "ddd4.json")
    artifact(runs / "artifacts", "eee5", "teacher", days_ago=100)
    artifact(runs / "artifacts", "fff6", "teacher after 3 of 9 epochs", days_ago=99)
    artifact(runs / "artifacts", "ggg7", "assistant", days_ago=98)
    artifact(node / "artifacts", "eee5", "teacher", days_ago=97)
    (node / "files" / "hhh8" / "0").mkdir(parents=True)
    (node / "files" / "hhh8" / "0" / "space.py").write_text("")
    used(96, node / "files" / "hhh8" / "0" / "space.py")
    (runs / "digits").mkdir()
    (runs / "digits" / ".lock").touch()
    return runs


def found(runs: Path) -> list[Entry]:
    return entries(runs, node_cache())


def names(listed: list[Entry]) -> list[str]:
    return [f"{entry.kind} {entry.id}" for entry in listed]


def call(runs: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["cache", "--runs", str(runs), *arguments], env={"COLUMNS": "150"})


ALL = [
    "teacher eee5",
    "teacher fff6",
    "assistant ggg7",
    "teacher eee5",
    "files hhh8",
    "images ddd4",
    "bank aaa1",
    "bank ccc3",
    "bank aab2",
]


def test_a_damaged_array_of_images_counts_as_missing(tmp_path: Path) -> None:
    images = np.arange(96, dtype=np.uint8).reshape(4, 1, 4, 6)
    store_decoded(tmp_path, "x", images)
    assert (load_decoded(tmp_path, "x") == images).all()
    array = tmp_path / "x.npy"
    for file in (array, tmp_path / "x.json"):
        whole = file.read_bytes()
        for position in range(len(whole)):
            file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            found = load_decoded(tmp_path, "x")
            assert found is None or (found.shape == images.shape and (found == images).all())
        file.write_bytes(whole)
    array.write_bytes(array.read_bytes().replace(b"(4, 1, 4, 6)", b"(4, 1, 6, 4)"))
    assert load_decoded(tmp_path, "x") is None, "the bytes alone are the same"


# --- listing ------------------------------------------------------------------------------------------------------


def test_all_is_listed_by_last_use(runs: Path) -> None:
    assert names(found(runs)) == ALL
    by_id = {entry.id: entry for entry in found(runs)}
    assert by_id["aaa1"].size_bytes == 1000
    assert by_id["aaa1"].last_use == NOW - 40 * DAY
    assert by_id["ggg7"].size_bytes == 100 + (runs / "artifacts/ggg7/manifest.json").stat().st_size
    assert names(found(runs)) == ALL, "looking is not using"


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert entries(tmp_path / "no", tmp_path / "where") == []


def test_half_written_things_are_not_listed(runs: Path) -> None:
    (runs / "artifacts" / ".iii9-x").mkdir()
    (runs / "artifacts" / "jjj0").mkdir()
    (runs / "cache" / ".kkk1-x.npy").write_bytes(b"")
    (runs / "cache" / "bank" / ".lll2.7.removed").mkdir()
    assert names(found(runs)) == ALL


def test_reading_images_is_using_them(runs: Path) -> None:
    before = {entry.id: entry.last_use for entry in found(runs)}["ddd4"]
    assert load_decoded(runs / "cache", "ddd4") is not None
    assert {entry.id: entry.last_use for entry in found(runs)}["ddd4"] > before


def test_listing_imports_nothing_heavy(runs: Path) -> None:
    code = (
        "import sys\nfrom naskd.cli import app\n"
        f"try: app(['cache', '--runs', {str(runs)!r}])\nexcept SystemExit as end: assert not end.code, end\n"
        "heavy = {'torch', 'optuna', 'ray'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# --- choosing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "going"),
    [
        ({}, []),
        ({"remove": ["bank"]}, ["bank aaa1", "bank ccc3", "bank aab2"]),
        ({"remove": ["aaa"]}, ["bank aaa1"]),
        ({"remove": ["ggg7", "images", "ggg7"]}, ["assistant ggg7", "images ddd4"]),
        ({"remove": ["eee5"]}, ["teacher eee5", "teacher eee5"]),
        ({"older_than": 30 * DAY}, ["images ddd4", "bank aaa1"]),
        ({"older_than": 0}, ["images ddd4", "bank aaa1", "bank ccc3", "bank aab2"]),
        ({"remove": ["bank"], "older_than": 10 * DAY}, ["bank aaa1", "bank ccc3"]),
        ({"remove": ["teacher"], "older_than": 98 * DAY}, ["teacher eee5", "teacher fff6"]),
        ({"limit": 10**9}, []),
        ({"limit": 0}, ["bank aaa1", "bank ccc3", "bank aab2"]),
    ],
)
def test_what_is_chosen(how: dict, going: list[str], runs: Path) -> None:
    assert names(chosen(found(runs), now=NOW, **how)) == going


def test_a_limit_takes_the_least_recently_used_banks_and_no_more_than_needed(runs: Path) -> None:
    listed = found(runs)
    total = sum(entry.size_bytes for entry in listed)
    for limit, going in (
        (total, []),
        (total - 1, ["bank aaa1"]),
        (total - 1000, ["bank aaa1"]),
        (total - 1001, ["bank aaa1", "bank ccc3"]),
    ):
        assert names(chosen(listed, limit=limit, now=NOW)) == going
    both = chosen(listed, ["aab2"], limit=total - 2500, now=NOW)
    assert names(both) == ["bank aab2", "bank aaa1"], "what goes anyway counts"


def test_names_that_mean_nothing_or_several_are_refused(runs: Path) -> None:
    with pytest.raises(ValueError, match="several entries begin with 'aa': aaa1, aab2"):
        chosen(found(runs), ["aa"])
    for name in ("zzz", ""):
        with pytest.raises(ValueError, match="nothing is called"):
            chosen(found(runs), [name])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1e9", 10**9),
        ("20GiB", 20 * 2**30),
        ("1.5 MB", 1_500_000),
        ("7k", 7000),
        ("3 B", 3),
        ("2tib", 2**41),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * DAY), ("2w", 14 * DAY), ("0.5 h", 1800), ("45min", 2700), ("9s", 9)]
)
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "GiB", "-1GB", "infGB", "nan", "1 XB", "1e999", "ten"])
def test_what_is_no_size_or_age_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
    with pytest.raises(ValueError, match="is not a length of time"):
        parse_age(text)


# --- removing -----------------------------------------------------------------------------------------------------


def test_nothing_goes_without_yes(runs: Path) -> None:
    result = call(runs, "--remove", "bank", "--remove", "teacher")
    assert result.exit_code == 0
    assert "To be removed" in result.stdout
    assert "aaa1" in result.stdout
    assert "ddd4" not in result.stdout
    assert "add --yes" in result.stderr
    assert names(found(runs)) == ALL


def test_yes_removes_what_was_shown(runs: Path) -> None:
    result = call(runs, "--remove", "bank", "--remove", "images", "--yes")
    assert result.exit_code == 0
    assert "4 entries, 6." in result.stdout
    assert names(found(runs)) == [name for name in ALL if not name.startswith(("bank", "images"))]
    assert [path.name for path in (runs / "cache").rglob("*")] == ["bank"]


def test_what_was_trained_stays_unless_it_is_named(runs: Path) -> None:
    assert call(runs, "--older-than", "0s", "--limit", "0", "--yes").exit_code == 0
    assert names(found(runs)) == ALL[:5]
    assert "by name or age" in call(runs, "--limit", "0").stderr
    assert call(runs, "--remove", "eee5", "--yes").exit_code == 0
    assert names(found(runs)) == [name for name in ALL[:5] if name != "teacher eee5"]


def test_json_says_what_is_there_and_what_went(runs: Path) -> None:
    listed = json.loads(call(runs, "--json").stdout)
    assert [f"{e['kind']} {e['id']}" for e in listed["entries"]] == ALL
    assert listed["size_bytes"] == sum(e["size_bytes"] for e in listed["entries"])
    assert not any(e["removed"] for e in listed["entries"])
    gone = json.loads(call(runs, "--json", "--remove", "aab2", "--yes").stdout)
    assert [(e["id"], e["removed"]) for e in gone["entries"]] == [("aab2", True)]


@pytest.fixture
def held(runs: Path) -> Iterator[None]:
    """Another process fills a column of bank aaa1."""
    code = (
        "import sys, time; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); time.sleep(300)"
    )
    lock = runs / "cache" / "bank" / "aaa1" / "0.lock"
    process = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.usefixtures("held")
def test_what_a_process_writes_stays_and_is_named(runs: Path) -> None:
    result = call(runs, "--remove", "bank", "--yes")
    assert result.exit_code == 1
    assert "kept bank aaa1: in use" in result.stderr
    assert "aaa1" not in result.stdout
    assert names(found(runs)) == [name for name in ALL if name == "bank aaa1" or not name.startswith("bank")]
    said = json.loads(call(runs, "--remove", "aaa1", "--yes", "--json").stdout)
    assert [(e["removed"], "in use" in e["kept_because"]) for e in said["entries"]] == [(False, True)]


def test_a_teacher_stays_while_a_search_runs_or_makes_it(runs: Path) -> None:
    (teacher,) = (e for e in found(runs) if e.id == "eee5" and "runs" in e.place.parts)
    for lock in (runs / "digits" / ".lock", runs / "artifacts" / "eee5.lock"):
        with FileLock(lock):
            assert "in use" in remove(teacher, runs)
    assert "eee5" in ArtifactStore(runs / "artifacts")
    assert remove(teacher, runs) == ""
    assert "eee5" not in ArtifactStore(runs / "artifacts")
    assert remove(teacher, runs) == "", "somebody else was faster"


def test_what_a_killed_removal_left_goes_with_the_next(runs: Path) -> None:
    left = runs / "cache" / "bank" / ".old.77.removed"
    left.mkdir()
    (left / "logits@0.safetensors").write_bytes(b"x")
    call(runs, "--remove", "aaa1", "--yes")
    assert not left.exists()


def test_what_a_killed_process_left_half_written_is_listed_and_goes(runs: Path, monkeypatch) -> None:
    with monkeypatch.context() as another:
        another.setattr(files, "writer_id", lambda: f"4194999-1-{host_digits()}")
        left = [
            beside(runs / "artifacts" / "new"),
            beside(runs / "cache" / "bank" / "aaa1" / "x@0.safetensors"),
        ]
    left[0].mkdir()
    (left[0] / "model.pt").write_bytes(bytes(500))
    left[1].write_bytes(bytes(200))
    beside(runs / "cache" / "own.npy").touch()
    listed = [entry for entry in found(runs) if entry.kind == "leftover"]
    assert {(entry.id, entry.size_bytes) for entry in listed} == {(left[0].name, 500), (left[1].name, 200)}
    result = call(runs, "--remove", "leftover", "--yes")
    assert result.exit_code == 0
    assert not any(path.exists() for path in left)
    assert len(list((runs / "cache").glob(".partial-*"))) == 1, "that of a living process stays"
