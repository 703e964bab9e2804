"""Numbers are read as they are printed."""

import math

import numpy as np
import pytest

from naskd.cli.looking import _limits
from naskd.report import units
from naskd.runs.choose import choose
from naskd.spec.errors import InputError
from naskd.spec.numbers import read_number, unit_of
from naskd.spec.objectives import OBJECTIVES, Objective


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("50000", 50_000), ("1e6", 1e6), ("100k", 100_000), ("1.5M", 1_500_000), ("1.1M", 1_100_000), ("2 G", 2e9),
        ("16 GiB", 2**34), ("1.5KiB", 1536), ("0.35 ms", 0.35),
        ("12.3 kMACs", 12_300), ("42.6 kB", 42_600), ("97.5%", 0.975), ("1_000", 1000), ("1,000", 1000), (".5", 0.5),
        ("1,234,567.5", 1_234_567.5), ("1,234 ms", 1234),
        ("-3", -3), (7, 7), (0.25, 0.25), (np.int64(5), 5), (np.float32(0.5), 0.5),
    ],
)  # fmt: skip
def test_a_number(given: object, number: float) -> None:
    assert read_number(given) == number


@pytest.mark.parametrize(
    "given",
    ["", "k", "1kk", "2iB", "1k%", "ten", "1e", "nan", "inf", "0x10", "1e99999", "١", None, True, math.nan, math.inf,
     10**400, [1], "1" * 400, "1,5", "1,5M", "0,35 ms", "0,350", "1,500M", "1,2,3", "1234,567", "1,,000", "97,5%"],
)  # fmt: skip
def test_no_number(given: object) -> None:
    assert read_number(given) is None


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("trial_seconds", ["90", "1.5k"], ["500ms", "5MB", "7 MACs", "50%"]),
        ("latency_ms", ["0.35 ms", "2"], ["5MB", "1 GMACs", "50%"]),
        ("train_macs", ["3.2 TMACs", "3.2T"], ["3.2 TB", "7ms"]),
        ("bank_bytes", ["16 GiB", "42.6 kB", "2e9"], ["16 GMACs", "16ms"]),
        ("max_params", ["50k"], ["50 kB"]),
        ("val_fraction", ["20%", "0.2"], ["0.2ms"]),
        ("temperature", ["4"], ["4ms", "4%"]),
        ("trials", ["2k", "2e3"], ["500MB", "500ms", "2 kMACs"]),
    ],
)
def test_a_number_has_the_unit_of_what_is_asked_for(name: str, right: list[str], wrong: list[str]) -> None:
    assert [text for text in right + wrong if read_number(text, unit_of(name)) is not None] == right


def test_a_limit_has_the_unit_of_its_objective_whatever_that_is_called() -> None:
    """`naskd best --limit delay=5ms`, where a delay is counted in seconds, had been five of them."""
    delay = Objective("delay", "delay", "minimize", "seconds", "linear", "after", "nobody:asks")
    axes, front = [OBJECTIVES["val_accuracy"], delay], [{"number": 0, "val_accuracy": 0.9, "delay": 2.0}]
    assert choose(front, axes, _limits(["delay=5"]))["number"] == 0
    with pytest.raises(
        InputError, match=r"the limit on delay is '5ms'; it must be a finite number \(seconds\)"
    ):
        choose(front, axes, _limits(["delay=5ms"]))


def test_what_a_table_prints_is_read() -> None:
    for value in (0, 7, 999, 1000, 12_345, 99_950, 3_219_999, 5e12):
        assert read_number(units.count(value)) == pytest.approx(value, rel=6e-3)
        assert read_number(units.macs(value)) == pytest.approx(value, rel=6e-3)
