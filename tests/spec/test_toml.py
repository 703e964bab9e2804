"""Study files of any bytes, and values of --set: one problem, no traceback, no wait."""

import os
import random
import re
import tomllib
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from naskd.spec.errors import InputError
from naskd.spec.parse import StudyFileError, parse_study
from naskd.spec.study import StudySpec
from naskd.spec.toml import MOST_BYTES

HEAD = b'name = "one"\nspace = "space.py:joint"\n'
TAIL = b"[data]\nkind = 'digits'\n[budget]\ntrials = 3\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "space.py").write_text("def joint(trial): ...\n")
    return tmp_path


def parse(folder: Path, content: bytes = HEAD + TAIL, *settings: str) -> StudySpec:
    (folder / "study.toml").write_bytes(content)
    return parse_study(folder / "study.toml", settings)


def refusal(folder: Path, content: bytes = HEAD + TAIL, *settings: str) -> str:
    with pytest.raises(StudyFileError) as caught:
        parse(folder, content, *settings)
    said = str(caught.value)
    assert len(said.splitlines()) == len(caught.value.problems) + 1, "a line each"
    assert all(character.isprintable() for character in said.replace("\n", ""))
    return said


def test_byte_order_marks(folder: Path) -> None:
    assert parse(folder, b"\xef\xbb\xbf" + HEAD + TAIL).name == "one"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        said = refusal(folder, (HEAD + TAIL).decode().encode(encoding))
        assert "UTF-16" in said
        assert "UTF-8" in said
    assert "position 8" in refusal(folder, 'name = "é"'.encode("latin-1"))
    assert parse(folder, (HEAD + TAIL).replace(b"\n", b"\r\n")).name == "one"


def test_what_is_no_regular_file_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.toml")
    (folder / "large.toml").write_bytes(b"#" * (MOST_BYTES + 1))
    for path, why in (
        (folder / "pipe.toml", "no regular file"),
        (folder, "Is a directory|no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (folder / "large.toml", "at most 10 MiB"),
        (folder / "none.toml", "No such file"),
        (folder / ("x" * 4000), "File name too long"),
        (folder / "a\nb\x1b\udcff", "No such file"),
        (folder / "a\0b", "null byte"),
    ):
        with pytest.raises(StudyFileError, match=why) as caught:
            parse_study(path)
        assert len(str(caught.value).splitlines()) == 2
        assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("levels", [33, 100, 400, 5000])
def test_nests_are_refused(folder: Path, levels: int) -> None:
    for text in (
        "x = " + "[" * levels + "]" * levels,
        "x = " + "{a = " * levels + "1" + "}" * levels,
        "a" + ".a" * levels + " = 1",
        "[a" + ".a" * levels + "]",
        "[[a" + ".a" * levels + "]]",
    ):
        assert "nested too deeply" in refusal(folder, HEAD + TAIL + text.encode())


@pytest.mark.parametrize(
    "number", ["9" * 30, "-" + "9" * 30, "9" * 5000, "0x" + "f" * 6000, "1_" * 3000 + "1"]
)
def test_numbers_of_more_than_64_bits_are_refused(folder: Path, number: str) -> None:
    for key in (b"seed", b"epochs", b"name", b"unknown"):
        assert "at most 64 bits" in refusal(folder, key + b" = " + number.encode() + b"\n" + HEAD[13:] + TAIL)


def test_a_setting_of_text_is_taken_as_it_is_typed(folder: Path) -> None:
    for text in ("123", "2026-11-28", "1e3", "true", "nan", "0x1f", "1.5"):
        assert parse(folder, HEAD + TAIL, f"name={text}").name == text
    assert parse(folder, HEAD + TAIL, 'name="123"').name == "123"
    assert parse(folder, HEAD + TAIL, "execution.checkpoints=2026").execution.checkpoints == "2026"
    ray = parse(folder, HEAD + TAIL, "execution.executor=ray", "execution.address=local")
    assert ray.execution.option("address") == "local"


def test_a_setting_of_another_type_says_how_values_are_read(folder: Path) -> None:
    for setting in ("epochs=ten", "objectives=val_accuracy,macs", "budget.trials=3 trials"):
        assert "--set reads TOML" in refusal(folder, HEAD + TAIL, setting)
    assert "--set reads TOML" not in refusal(folder, HEAD + TAIL, "epochs=0")
    assert "s3kr1t" not in refusal(folder, HEAD + TAIL, "storage=a://u:s3kr1t@h/b", "name.x=b://u:s3kr1t@h")


VALUES: list[Any] = [
    True, -1, 0, 2**64 - 1, 1e308, float("nan"), float("-inf"), "", "x" * 5000, "\0", "a\nb.py:f", "\x1b[31m",
    "~nobody/x.py:f", "x/" * 2000 + "y.py:f", "a" * 300 + ".py:f", "/dev/null", "/dev/zero.py:f", "\u202e", "s3://",
    "a://u:s3kr1t@h/b", [], [[]], [1, "a", {}], {}, {"a": {}}, {"": 1}, date(2026, 1, 1),
]  # fmt: skip


def toml(value: Any) -> str:
    """A value in TOML, inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in value) + '"'
    return str(value)


FULL = """
name = "full"
space = "space.py:joint"
seed = 1
epochs = 3
objectives = ["val_accuracy", "macs", "n_params"]
reference_point = {macs = 5e7}
storage = "journal"
modules = []
data = {kind = "digits", resolution = 8, channels = 1, val_fraction = 0.2, max_train = 100, root = "x"}
teacher = {torchvision = "resnet18", mean = [0.5], std = [0.2], classes = ["a", "b"], taps = ["a"], saw = "other"}
teachers = [{name = "u", architecture = {stem_width = 8, stages = [{block = "basic", width = 8}]}}]
sampler = {name = "tpe", startup_trials = 5}
budget = {trials = 3, seconds = 10.5, train_macs = 1e12}
limits = {max_macs = 1e7, min_macs = 1e3, max = {size_bytes = 1e6}}
execution = {executor = "processes", device = "cpu", threads = 1, checkpoints = "x", callbacks = [], workers = 1}
retrain = {epochs = 3, seeds = 2}
warm_start = [{stages = 2}]
"""


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every container of a study file with a key of it."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, item in items for place in ((data, key), *places(item))]


def test_any_value_at_any_key_is_right_or_one_clear_problem(folder: Path) -> None:
    """Each key of a study file in turn with a value that may be anything."""
    chance = random.Random(3)
    for index in range(len(places(tomllib.loads(FULL)))):
        for value in chance.sample(VALUES, 2):
            data = tomllib.loads(FULL)
            table, key = places(data)[index]
            table[key] = value
            text = "\n".join(f"{name} = {toml(item)}" for name, item in data.items())
            (folder / "study.toml").write_text(text)
            try:
                spec = parse_study(folder / "study.toml")
                assert StudySpec.from_dict(spec.to_dict()) == spec
            except InputError as error:
                said = str(error).replace("\n", "")
                assert said.isprintable()
                assert "s3kr1t" not in said


def test_damaged_bytes_are_problems(folder: Path) -> None:
    chance, whole = random.Random(5), FULL.encode()
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3, 20])):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        (folder / "study.toml").write_bytes(damaged)
        with suppress(InputError):
            parse_study(folder / "study.toml")


@pytest.mark.parametrize(
    ("setting", "table", "key", "value"),
    [
        ("limits.max_macs=1.5M", "limits", "max_macs", 1_500_000),
        ("budget.train_macs=12.3 TMACs", "budget", "train_macs", 12_300_000_000_000),
        ("execution.bank_bytes=16 GiB", "execution", "bank_bytes", 2**34),
        ("data.val_fraction=25%", "data", "val_fraction", 0.25),
    ],
)
def test_a_setting_is_read_as_it_is_printed(
    setting: str, table: str, key: str, value: float, folder: Path
) -> None:
    (folder / "study.toml").write_bytes(HEAD + TAIL)
    assert getattr(getattr(parse_study(folder / "study.toml", [setting]), table), key) == value


@pytest.mark.parametrize(
    "setting",
    [
        "budget.seconds=500ms",
        "execution.trial_seconds=5 MB",
        "budget.train_macs=7ms",
        "budget.trials=500MB",
        "seed=4ms",
        "teacher.training.batch_size=64 MACs",
        "limits.max.peak_memory=5ms",
    ],
)
def test_a_setting_with_the_unit_of_something_else_is_refused(setting: str, folder: Path) -> None:
    (folder / "study.toml").write_bytes(HEAD + TAIL)
    with pytest.raises(InputError, match=re.escape(f'{setting.partition("=")[0]}: got "')):
        parse_study(folder / "study.toml", [setting])


def test_a_text_that_looks_like_a_number_stays_one(folder: Path) -> None:
    (folder / "study.toml").write_bytes(HEAD + TAIL)
    assert parse_study(folder / "study.toml", ["name=5k"]).name == "5k"
