"""The page: whole, closed to the network, deaf to markup in the record; drawn where a browser is."""

import base64
import csv
import hashlib
import json
import math
import re
import time
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from records import odd_records, record

from naskd.report.html import assembled, page, write_html
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
    assert "connect-src" not in policy
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


def test_only_a_served_page_asks_for_anything():
    alone, served = (assembled("a", {}, ("numbers.js",), live=live) for live in (False, True))
    assert "connect-src &#x27;self&#x27;" in served
    assert "connect-src" not in alone
    assert "fetch(" in served
    assert "fetch(" not in alone


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
    assert ("What did not finish" in text.split("<script")[0]) == any(
        t["state"] != "COMPLETE" for t in ODD[name]["trials"]
    )
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


# ---- What a reader does


@pytest.fixture(scope="module")
def reader(browser, tmp_path_factory):
    """The page of a retrained run, with reasons that a spreadsheet would compute."""
    source = record(60, seed=1, retrained=True) | {"run": "runs/my-digits"}
    for item in source["trials"]:
        if item["state"] == "FAIL":
            item["reason"] = '=HYPERLINK("http://evil","x"), or more'
    for design in source["retrained"]["designs"]:
        design["labels_alone"] = {"test_accuracy_mean": 0.5, "test_accuracy_sd": 0.01}
    path = tmp_path_factory.mktemp("reader") / "page.html"
    write_html(source, path)

    def begin(**size):
        browser.resize(**{"width": 1400, **size})
        browser.theme("light")
        browser.open(path)
        return source

    yield begin
    browser.resize(1400)


def saved(browser, selector):
    """What a button of the page saves."""
    for old in browser.downloads.iterdir():
        old.unlink()
    browser.click(selector)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        files = [file for file in browser.downloads.iterdir() if file.suffix != ".crdownload"]
        if files and files[0].stat().st_size:
            return files[0]
        time.sleep(0.05)
    raise AssertionError("nothing was saved")


def best_within(source, macs):
    return max(
        (t for t in source["trials"] if t.get("on_front") and t["macs"] <= macs),
        key=lambda t: t["val_accuracy"],
    )


def answer(browser):
    return browser.run("document.querySelector('.answer').innerText")


def test_a_budget_gives_the_design_to_take_and_its_command(reader, browser):
    source = reader()
    first = max((t for t in source["trials"] if t.get("on_front")), key=lambda t: t["val_accuracy"])
    assert f"Take trial {first['number']}:" in answer(browser)
    assert "the most accurate on the front" in browser.run("document.getElementById('details').innerText")
    macs = sorted(t["macs"] for t in source["trials"] if t.get("on_front"))
    middle = (macs[3] + macs[4]) // 2
    browser.run("document.querySelector('.budget input').focus()")
    browser.run(
        f"document.execCommand('selectAll'), document.execCommand('insertText', false, '{middle / 1000}k')"
    )
    browser.key("Enter")
    wanted = best_within(source, middle)
    assert f"Take trial {wanted['number']}:" in answer(browser)
    assert f"naskd export runs/my-digits {wanted['number']} --format onnx" in answer(browser)
    assert f"Trial {wanted['number']}" in browser.run("document.querySelector('#details h2').innerText")
    assert browser.run("document.querySelectorAll('.beyond, .limit').length") == 2


def test_a_budget_of_what_is_no_objective_looks_at_all_designs(browser, tmp_path):
    source = record(20, seed=1, teacher=False)
    designs = [t for t in source["trials"] if t["state"] == "COMPLETE"]
    off = max((t for t in designs if not t["on_front"]), key=lambda t: t["val_accuracy"])
    off["n_params"] = 7
    dear = min(designs, key=lambda t: t["macs"])
    assert dear["on_front"]
    dear["n_params"] = 10**9
    write_html(source, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.run(
        "((s) => { s.value = 'n_params'; s.dispatchEvent(new Event('change', {bubbles: true})); })"
        "([...document.querySelectorAll('#front select')]"
        ".find((s) => [...s.options].some((o) => o.value === 'n_params')))"
    )

    def afford(most):
        browser.run("document.querySelector('.budget input').focus()")
        browser.run(f"document.execCommand('selectAll'), document.execCommand('insertText', false, '{most}')")
        browser.key("Enter")

    afford(10)
    assert f"Take trial {off['number']}:" in answer(browser)
    afford(5)
    assert "No design is within this budget" in answer(browser)
    assert f"The nearest is trial {off['number']}, 7 parameters" in answer(browser)


def test_the_budget_works_by_keyboard(reader, browser):
    source = reader()
    browser.run("document.querySelector('input[type=range]').focus()")
    seen = []
    for key in ["PageDown"] * 6 + ["Home"]:
        browser.key(key)
        seen.append(browser.run("document.querySelector('input[type=range]').getAttribute('aria-valuetext')"))
    limits = [float(re.search(r"at most ([\d.]+)", text)[1]) for text in seen[:-1]]
    assert len(set(limits)) == 6
    assert seen[-1].endswith("no design")
    assert "No design on the front is within this budget" in answer(browser)
    browser.key("End")
    best = best_within(source, math.inf)
    assert f"no limit: trial {best['number']}" in browser.run(
        "document.querySelector('input[type=range]').getAttribute('aria-valuetext')"
    )


def test_a_budget_that_is_no_number_is_said(reader, browser):
    reader()
    browser.run("document.querySelector('.budget input').focus()")
    browser.run("document.execCommand('selectAll'), document.execCommand('insertText', false, 'plenty')")
    browser.key("Enter")
    assert "such as 50000, 50k or 1e6" in browser.run("document.querySelector('.wrong').innerText")
    assert browser.run("document.querySelector('.budget input').getAttribute('aria-invalid')") == "true"


def test_test_accuracies_stand_on_the_front(reader, browser):
    source = reader()
    n = len(source["retrained"]["designs"])
    drawn = "document.querySelectorAll('#front .chart svg .%s').length"
    assert [browser.run(drawn % name) for name in ("test", "test-line", "alone")] == [n, n, n]
    browser.click("#front .bar label:nth-child(2) input")
    assert [browser.run(drawn % name) for name in ("test", "test-line", "alone")] == [0, 0, 0]


def test_shares_are_of_all_choices_though_the_record_has_the_largest_alone(browser, tmp_path):
    shares = {"val_accuracy": {"block": 0.4, "width": 0.2}}
    write_html(record(20, seed=1) | {"importance": shares}, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    told = browser.run("document.querySelector('.imp').parentNode.innerText")
    assert re.findall(r"\d+%", told) == ["40%", "20%", "40%"]
    assert "all others together 40%" in told


def test_a_hypervolume_that_falls_stays_in_its_chart_and_what_is_run_again_has_not_failed(browser, tmp_path):
    source = record(20, seed=1)
    source["progress"] = [
        {"train_macs": 1e9 * n, "trial": n, "hypervolume": v} for n, v in enumerate((0.1, 0.9, 0.3), 1)
    ]
    again = next(t for t in source["trials"] if t["state"] == "FAIL")
    again |= {"retried": True, "reason": "orphaned: its process ended; run again"}
    write_html(source, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    assert browser.errors == []
    heights = browser.run(
        "[...document.querySelectorAll('svg')].filter((s) => s.outerHTML.includes('Hypervolume against compute'))"
        ".flatMap((s) => [...s.querySelectorAll('circle.front')].map((c) => Number(c.getAttribute('cy'))))"
    )
    assert len(heights) == 2
    assert min(heights) > 0
    rows = browser.run(
        "[...document.querySelectorAll('tr')].map((r) => r.textContent).filter((t) => t.includes('orphaned'))"
    )
    assert [row[:9] for row in rows] == ["run again"]


def test_what_is_expected_stands_in_table_and_details_until_test_images_say_more(browser, tmp_path):
    def told(retrained):
        source = record(40, seed=1, retrained=retrained)
        for trial in source["trials"]:
            trial["expected"] = {"mean": 0.8123, "sd": 0.0105}
        write_html(source, tmp_path / "page.html")
        browser.open(tmp_path / "page.html")
        assert browser.errors == []
        table = browser.run("document.querySelector('#designs-on-the-front').innerText")
        return table, browser.run("document.querySelector('.details').innerText")

    table, details = told(retrained=False)
    assert "What is expected takes that luck off" in table
    assert "81.23 ± 1.05%" in table
    assert "expected, luck aside" in details
    assert "expected" not in told(retrained=True)[0]


def test_a_table_is_saved_for_a_spreadsheet_that_computes_none_of_it(reader, browser):
    source = reader()
    file = saved(browser, "#designs-on-the-front .tools button")
    assert file.name == "digits-front.csv"
    rows = list(csv.DictReader(file.open(encoding="utf-8-sig", newline="")))
    front = {t["number"]: t for t in source["trials"] if t.get("on_front")}
    assert {int(row["trial"]) for row in rows} == set(front)
    assert all(float(row["validation"]) == front[int(row["trial"])]["val_accuracy"] for row in rows)
    assert all(row["student (width×depth)"] for row in rows)
    text = saved(browser, "#after-retraining .tools button").read_text(encoding="utf-8-sig")
    tested = {design["number"]: design for design in source["retrained"]["designs"]}
    rows = list(csv.DictReader(text.splitlines()))
    assert {int(row["trial"]) for row in rows} == set(tested)
    for row in rows:
        design = tested[int(row["trial"])]
        change = design["test_accuracy_mean"] - design["val_accuracy_search"]
        assert float(row["change"]) == pytest.approx(change), "a fraction, as all accuracies of a file"
        gain = (design.get("labels_alone") or {}).get("gain")
        assert row["gain"] == ("" if gain is None else str(gain))
    text = saved(browser, "#what-did-not-finish .tools button").read_text(encoding="utf-8-sig")
    reasons = [row["reason of the first"] for row in csv.DictReader(text.splitlines())]
    assert '\'=HYPERLINK("http://evil","x"), or more' in reasons


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_figure_is_saved_in_the_colours_of_its_theme(reader, browser, theme):
    reader()
    browser.theme(theme)
    text = saved(browser, "#front .tools button:nth-child(1)").read_text()
    root = ElementTree.fromstring(text)
    ground = root[0]
    assert ground.get("fill") == {"light": "rgb(255, 255, 255)", "dark": "rgb(26, 32, 39)"}[theme]
    assert "class=" not in text
    assert "var(" not in text
    assert "the same student with the labels alone" in text, "the legend"
    image = saved(browser, "#front .tools button:nth-child(2)").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert int.from_bytes(image[16:20], "big") == 2 * float(root.get("width"))


def test_an_axis_filters_designs_by_keyboard_and_by_dragging(reader, browser):
    reader()
    note = "document.querySelector('.parallel ~ .note').innerText"
    assert "Drag along an axis to filter." in browser.run(note)
    assert "Drawn: 60 of 60 complete designs" in browser.run(note)
    browser.run("document.querySelector('[data-axis=val_accuracy]').focus()")
    browser.key("ArrowDown")
    kept = re.search(r"(\d+) designs pass", browser.run(note))
    assert 0 < int(kept[1]) < 60
    assert browser.run("document.querySelectorAll('.strand.off').length") == 60 - int(kept[1])
    browser.key("Escape")
    assert "pass" not in browser.run(note)
    # What designs do not have stands below an axis.
    axis = "[...document.querySelectorAll('[data-axis]')].find((a) => a.textContent.includes('not used'))"
    browser.run(f"{axis}.scrollIntoView({{block: 'center'}})")
    x, bottom = browser.run(
        f"(() => {{ const b = {axis}.querySelector('.rail').getBoundingClientRect(); return [b.x, b.bottom]; }})()"
    )
    browser.drag((x, bottom + 40), (x, bottom + 12))
    assert browser.run(f"{axis}.getAttribute('aria-valuetext')") == "not used"


def _labels_only_with_a_temperature(known):
    """All choices were asked for; of designs without knowledge nothing had a use for the temperature."""
    source = record(30, seed=3)
    for t in source["trials"][:30]:
        alone = not t["config"]["distillation"]["terms"]
        t["parameters"] |= {"kd.temperature": t["parameters"].get("kd.temperature", 2.0 + t["number"] / 10)}
        t["unused"] = (
            {"design": ["kd.temperature"] if alone else [], "macs": ["kd.temperature"]} if known else None
        )
    alone = sum(not t["config"]["distillation"]["terms"] for t in source["trials"][:30])
    assert 0 < alone < 30
    return source


def test_what_a_design_has_no_use_for_is_not_used(browser, tmp_path):
    shares = {"importance": {"val_accuracy": {"kd.temperature": 1.0}}}
    source = _labels_only_with_a_temperature(known=True) | shares
    write_html(source, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    assert browser.errors == []
    axis = "[...document.querySelectorAll('[data-axis]')].find((a) => a.dataset.axis === 'kd.temperature')"
    assert "not used" in browser.run(f"{axis}.textContent")


def test_of_a_run_of_before_designs_tell_what_they_are_and_nothing_is_said_to_have_mattered(
    browser, tmp_path
):
    source = _labels_only_with_a_temperature(known=False) | {"importance": {}}
    write_html(source, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    assert browser.errors == []
    axes = browser.run("[...document.querySelectorAll('[data-axis]')].map((a) => a.dataset.axis)")
    assert "knowledge" in axes
    assert not {"kd.temperature", "stage1.width"} & set(axes)
    said = browser.run("document.body.innerText")
    assert "trials do not say which choices their designs had a use for" in said


def test_a_young_run_says_how_many_trials_importances_need(browser, tmp_path):
    write_html(record(5, seed=1) | {"importance": {}}, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    assert "Importances need 25 complete trials that differ." in browser.run("document.body.innerText")
    write_html(record(30, seed=1) | {"importance": None}, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    assert "Not computed yet." in browser.run("document.body.innerText")


def test_details_are_a_page_of_their_own_on_a_phone(reader, browser):
    reader(width=390, phone=True)
    is_open = "document.querySelector('dialog').open"
    assert not browser.run(is_open)
    browser.click("#designs-on-the-front tbody tr")
    number = browser.run("location.hash").removeprefix("#trial-")
    assert browser.run(is_open)
    assert f"Trial {number}" in browser.run("document.querySelector('dialog h2').innerText")
    browser.click("dialog button")
    browser.frames()
    assert not browser.run(is_open)
    assert browser.run("location.hash") in ("", "#")
    shown = (
        "[...document.querySelectorAll('#designs-on-the-front th')]"
        ".filter((head) => head.offsetParent).map((head) => head.innerText)"
    )
    assert browser.run(shown) == ["trial", "validation", "MACs", "student (width×depth)"]
    assert browser.run("document.documentElement.scrollWidth") == 390
    beyond = (
        "[...document.querySelectorAll('.chart svg text')].filter((text) => { const t = text.getBoundingClientRect(),"
        " s = text.ownerSVGElement.getBoundingClientRect(); return t.left < s.left - 1 || t.right > s.right + 1;"
        " }).map((text) => text.textContent)"
    )
    assert browser.run(beyond) == []
    assert browser.errors == []
