"""The page: whole, closed to the network, deaf to markup in the record; drawn where a browser is."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from records import odd_records, record

from naskd.report import write_html
from naskd.report.html import page
from naskd.study.residuals import MIN_TRIALS, accuracy_residuals

ODD = odd_records()


class Outline(HTMLParser):
    """Tags with their attributes, and the text of each element that holds any."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append((self.tags[-1][0] if self.tags else "", data))


def data_of(text):
    """The JSON of a page as its script reads it."""
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


@pytest.mark.parametrize("name", ODD)
def test_page_loads_nothing(name):
    outline = Outline(page(ODD[name]))
    for tag, attributes in outline.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes)
        assert not any(attribute.startswith("on") for attribute in attributes)
    style = "".join(text for tag, text in outline.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("name", ODD)
def test_policy_lets_only_the_own_script_and_style_run(name):
    text = page(ODD[name])
    outline = Outline(text)
    policy = next(a["content"] for t, a in outline.tags if t == "meta" and "http-equiv" in a)
    for tag in ("script", "style"):
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert len(bodies) == 1
        digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert [t for t, a in outline.tags if t == "script"] == ["script", "script"]


@pytest.mark.parametrize("name", ODD)
def test_every_front_point_is_in_the_page(name):
    source, data = ODD[name], data_of(page(ODD[name]))
    expected = {3} if name == "bare" else {t["number"] for t in source.get("trials", ()) if t.get("on_front")}
    assert set(data["front"]) == expected
    by_number = {trial["number"]: trial for trial in data["trials"]}
    for number in expected:
        original = next(t for t in source["trials"] if t["number"] == number)
        assert by_number[number]["val_accuracy"] == pytest.approx(original["val_accuracy"])
        assert by_number[number]["macs"] == original["macs"]
        assert by_number[number].get("config") == original.get("config")


def test_strings_of_the_record_are_never_markup():
    hostile = ODD["hostile"]
    text = page(hostile)
    assert "<script>document" not in text
    assert "<img" not in text
    assert "<b onmouse" not in text
    assert data_of(text)["study"] == hostile["study"]
    assert data_of(text)["warnings"] == hostile["warnings"]
    # The name says {{script}}, which is no place to put a script.
    assert text.count("{{script}}") == 2


def test_the_script_writes_text_only():
    script = re.search(r"<script>(.*?)</script>", page({}), re.S)[1]
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
    ):
        assert way not in script
    for way in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "sendBeacon"):
        assert way not in script


def test_numbers_survive_the_way_to_the_page():
    """A 64-bit seed is text, since a script would round it; NaN and infinity are null."""
    data = record(3)
    data["trials"][0]["seed"] = 2**62 + 1
    data["trials"][1]["val_accuracy"] = math.nan
    data["trials"][2]["macs"] = math.inf
    trials = data_of(page(data))["trials"]
    assert trials[0]["seed"] == str(2**62 + 1)
    assert trials[1]["val_accuracy"] is None
    assert trials[2]["macs"] is None


def test_curves_keep_their_points():
    trial = data_of(page(record(3)))["trials"][0]
    source = record(3)["trials"][0]["curve"]
    np.testing.assert_allclose(trial["curve"]["val_accuracy"], [p["val_accuracy"] for p in source], rtol=1e-4)
    assert trial["curve"]["epoch"] == list(range(1, 21))


def test_page_is_small_and_made_without_the_time(tmp_path):
    data = record(300, retrained=True)
    write_html(data, tmp_path / "a.html")
    write_html(data, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.html").stat().st_size < 1_500_000
    assert len(page({})) < 140_000


# ---- Residuals


def test_residuals_of_a_line_are_zero():
    """A local line fits accuracy that is linear in log cost exactly, whatever the spacing."""
    costs = 10 ** np.random.default_rng(0).uniform(3, 6, size=40)
    residuals = accuracy_residuals(costs, 0.1 + 0.13 * np.log10(costs))
    np.testing.assert_allclose(residuals, 0, atol=1e-9)


def test_residuals_leave_the_trial_itself_out():
    costs = np.logspace(3, 6, 31)
    accuracies = 0.1 + 0.1 * np.log10(costs)
    accuracies[15] += 0.05
    residuals = accuracy_residuals(costs, accuracies)
    assert residuals[15] == pytest.approx(0.05, abs=1e-9)
    assert np.abs(np.delete(residuals, 15)).max() < 0.03


def test_residuals_of_equal_costs_are_distances_to_the_others_mean():
    accuracies = np.linspace(0.5, 0.9, 20)
    expected = [a - np.delete(accuracies, i).mean() for i, a in enumerate(accuracies)]
    np.testing.assert_allclose(accuracy_residuals([1000] * 20, accuracies), expected, atol=1e-9)


def test_few_trials_have_no_trend():
    assert accuracy_residuals([1000.0] * (MIN_TRIALS - 1), [0.5] * (MIN_TRIALS - 1)) is None
    assert accuracy_residuals([], []) is None


# ---- In a browser

DRAWN = ("hostile", "nothing", "holes", "own_cost", "own_gain", "no_frame")
ODD["no_frame"] = ODD["own_cost"]


@pytest.fixture(scope="module")
def browser():
    """One for all: to start it takes a second."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: what the page's script draws is not checked")
    with Browser() as one:
        yield one


@pytest.fixture(scope="module")
def drawn(browser, tmp_path_factory):
    """The pages as a browser leaves them."""
    folder = tmp_path_factory.mktemp("pages")
    texts = {}
    for name in DRAWN:
        write_html(ODD[name], folder / f"{name}.html")
        # As in a browser too busy to show a frame: no observer is ever called.
        deaf = "window.ResizeObserver = class { observe() {} };" if name == "no_frame" else ""
        browser.open(folder / f"{name}.html", before=deaf)
        texts[name] = browser.html()
        assert browser.errors == []
    return texts


@pytest.mark.parametrize("name", DRAWN)
def test_a_browser_draws_every_point_and_every_section(drawn, name):
    text = drawn[name]
    front = [t for t in ODD[name]["trials"] if t.get("on_front") and math.isfinite(t["val_accuracy"])]
    chart = re.search(r'id="front".*?id="details"', text, re.S)[0]
    plot = re.search(r"<svg[^>]*aria-label=.Accuracy against cost.*?</svg>", chart, re.S)
    assert (plot[0].count('class="front"') if plot else 0) == len(front)
    # The footer is written last: the script has come to its end.
    assert "Where this came from" in text
    assert "What did not finish" in text
    assert "undefined" not in text.split("<script")[0]
    assert ">null" not in text.split("<script")[0]
    assert "NaN" not in text.split("<script")[0]
    assert "[object" not in text.split("<script")[0]


def test_a_browser_tells_stopped_trials_from_those_turned_away(drawn):
    rows = re.findall(r"<tr><td>([^<]*)</td><td class=.num.>(\d+)</td><td>([^<]*)</td>", drawn["own_cost"])
    assert ("stopped early", "1", "stopped by rule 'mine' after epoch 3") in rows
    assert {label for label, _, reason in rows if "stopped by" not in reason} == {"failed", "turned away"}
    counts = ODD["own_cost"]["counts"]
    assert f"1 stopped early, {counts['turned_away']} turned away" in drawn["own_cost"]
    assert " stopped early," not in drawn["own_gain"].split("<script")[0]


def test_a_browser_draws_objectives_as_the_record_describes_them(drawn):
    for name, label, volume, rightwards in (
        ("own_cost", "latency in ms", "validation accuracy × latency", True),
        ("own_gain", "robust margin", "validation accuracy × robust margin", False),
    ):
        text = drawn[name]
        assert f">{label}</text>" in text, "no word of a logarithm, which this axis is not"
        assert f"of {volume}" in text
        # From the best value the line rises towards the worse ones: to the right, or to the left.
        line = re.search(r'class="stairs" d="M([\d.]+)([^"]+)', text)
        steps = [float(x) for x in re.findall(r"H([\d.]+)", line[2])]
        assert len(steps) == sum(bool(t.get("on_front")) for t in ODD[name]["trials"])
        assert steps == sorted(steps, reverse=not rightwards)


def test_a_browser_runs_no_script_of_the_record(drawn):
    head = drawn["hostile"].split("<script")[0]
    title = re.search(r"<title>(.*?)</title>", drawn["hostile"])[1]
    assert title.startswith("&lt;script&gt;")
    assert "<img" not in head
    assert "&lt;script&gt;document.title='owned'&lt;/script&gt;" in head
