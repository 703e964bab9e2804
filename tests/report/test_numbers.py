"""The page's script writes numbers as Python does, and a tick says exactly where it stands."""

import json
import math
import random
import shutil
import subprocess
from importlib.resources import files

import pytest

from naskd.report import units

NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None, reason="no node on this machine: the page's numbers are not checked"
)

PREFIXES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def run(*expressions: str) -> list:
    """Values of JavaScript expressions beside the page's numbers and scales."""
    sources = [(files("naskd.report") / name).read_text() for name in ("numbers.js", "draw.js")]
    script = "\n".join(
        [
            f"const data = {json.dumps({'formats': units.FORMATS})}, memory = new Map();",
            "const document = { getElementById: () => null };",
            *sources,
            f"console.log(JSON.stringify([{', '.join(expressions)}]));",
        ]
    )
    done = subprocess.run([NODE, "-"], input=script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def short(value: float) -> str:
    """A count without trailing zeros."""
    number, _, prefix = units.count(value).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {prefix}".rstrip()


def values() -> list[float]:
    """Of all sizes, with those at which digits or prefixes change, and exact halves of the last digit."""
    draw = random.Random(3)
    drawn = [sign * 10 ** draw.uniform(-6, 17) for _ in range(300) for sign in (1, -1)]
    whole = [draw.randrange(10**9) for _ in range(200)]
    edges = [
        b * 1000**p * f for p in range(4) for b in (9.995, 99.95, 999.5) for f in (1 - 1e-9, 1, 1 + 1e-9)
    ]
    halves = [k / 800 for k in range(0, 801, 5)] + [1.125, 1.375, 0.0625, 62.5, 1125, 1375, 112_500, 999.7]
    return [*drawn, *whole, *edges, *halves, 0, 0.5, 1000, 1e21, 59.95, 59.949, 3599.5, 3600.5]


@pytest.mark.parametrize(
    ("script", "python"),
    [
        ("count", units.count), ("short", short), ("percent", units.percent), ("bytes", units.size),
        ("macs", units.macs), ("volume", units.volume),
    ],
)  # fmt: skip
def test_a_number_is_written_as_in_a_terminal(script, python):
    given = [value for value in values() if script not in ("percent", "volume") or abs(value) < 1e9]
    found = run(f"{json.dumps(given)}.map((v) => {script}(v))")[0]
    different = [(v, a, python(v)) for v, a in zip(given, found, strict=True) if a != python(v)]
    assert different == []


@pytest.mark.parametrize("unit", ["fraction", "bytes", "MACs", "parameters", "ms", ""])
def test_objectives_are_written_as_in_a_terminal(unit):
    given = [value for value in values() if abs(value) < 1e9]
    found = run(f"{json.dumps(given)}.map((v) => inUnit(v, {json.dumps(unit)}))")[0]
    python = [units.measure(value, unit) for value in given]
    assert [(v, a, b) for v, a, b in zip(given, found, python, strict=True) if a != b] == []


def test_durations_and_means_are_written_as_in_a_terminal():
    given = [abs(value) for value in values() if abs(value) < 1e7]
    seconds, means = run(
        f"{json.dumps(given)}.map(seconds)", f"{json.dumps(given)}.map((v) => withSd(v, v / 8))"
    )
    assert seconds == [units.duration(value) for value in given]
    assert means == [units.percent_with_sd(value, value / 8) for value in given]


def test_a_number_is_read_as_it_is_written():
    texts = ["50000", "50k", "1.5 M", "2e6", "1e-3", ".5", "12.5%", "4.74 kB", "1,250", "1,250,000", "3 g"]
    assert run(f"{json.dumps(texts)}.map(readNumber)")[0] == pytest.approx(
        [50_000, 50_000, 1.5e6, 2e6, 1e-3, 0.5, 0.125, 4740, 1250, 1.25e6, 3e9]
    )
    wrong = [
        "",
        "plenty",
        "1,5",
        "1,50k",
        "-3",
        "1e",
        "5 5",
        "0x10",
        "k",
        "1.2.3",
        "12,34,567",
        "0,350",
        "1,500M",
    ]
    assert run(f"{json.dumps(wrong)}.map((text) => Number.isNaN(readNumber(text)))")[0] == [True] * len(wrong)


def test_what_is_no_number_is_a_dash():
    assert run("count(null)", "percent(undefined)", "bytes(NaN)", "seconds('3')", "macs(null)") == ["–"] * 5


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.97, 1.0), (0.985, 0.9971), (0.5, 1.0), (0.0, 1.0), (0.9712, 0.9745), (0.99987, 0.99999), (0.1, 0.15)],
)
def test_a_tick_of_accuracies_stands_where_it_says(low, high):
    for n in (3, 5, 9):
        ticks, labels = run(
            f"linear({low}, {high}, 0, 1).ticks({n})",
            f"linear({low}, {high}, 0, 1).ticks({n}).map((v, _, all) => percentTicks(v, all))",
        )
        assert [float(label.rstrip("%")) for label in labels] == pytest.approx(
            [100 * tick for tick in ticks], rel=1e-9
        )
        assert len({len(label.partition(".")[2]) for label in labels}) == 1, "digits that line up"


def test_half_a_percent_below_all_is_no_hundred():
    assert run("[0.985, 0.99, 0.995, 1].map((v, _, all) => percentTicks(v, all))")[0] == [
        "98.5%", "99.0%", "99.5%", "100.0%",
    ]  # fmt: skip
    assert run("[0.975, 0.995].map((v, _, all) => percentTicks(v, all))")[0] == ["97.5%", "99.5%"]
    assert run("[0.96, 0.98, 1].map((v, _, all) => percentTicks(v, all))")[0] == ["96%", "98%", "100%"]
    labels = run("logError(0.5, 0.9999, 0, 1, 1e-5).ticks(5).map(percentTick)")[0]
    assert labels[:2] == ["99.99%", "99.97%"]
    assert {"99.9%", "99%", "90%"} <= set(labels), "on an uneven scale each has the digits it needs"


@pytest.mark.parametrize(("low", "high"), [(900, 2e7), (12_300, 12_390), (5e5, 1.1e6), (0.02, 3)])
def test_a_tick_of_costs_stands_where_it_says(low, high):
    ticks, labels = run(
        f"log({low}, {high}, 0, 1).ticks(6)", f"log({low}, {high}, 0, 1).ticks(6).map(countTick)"
    )
    assert ticks
    for tick, label in zip(ticks, labels, strict=True):
        number, _, prefix = label.partition(" ")
        assert math.isclose(float(number) * PREFIXES[prefix], tick, rel_tol=1e-8)


def test_one_epoch_is_one_epoch():
    assert [units.epochs_of(n) for n in (1, 2, 20)] == ["1 epoch", "2 epochs", "20 epochs"]


def test_a_small_hypervolume_is_not_nothing():
    assert [units.volume(v) for v in (0.42134, 0.00123, 0.0000512, 0.0)] == [
        "0.4213",
        "0.0012",
        "5.12e-05",
        "0.0000",
    ]
