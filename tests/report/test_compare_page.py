"""The page that compares runs: closed to the network like a run's own, and drawn where a browser is."""

import json
import re

import pytest
from browser import CHROMIUM, Browser

from naskd.report.compare_html import page, page_data, write_html
from naskd.spec.objectives import OBJECTIVES, cost_of

HOSTILE = "<script>document.title='owned'</script>"


def point(trial, macs, accuracy):
    student = "basic 8" if trial else HOSTILE
    return {"val_accuracy": accuracy, "macs": macs, "trial": trial, "student": student, "taught_by": "logits"}


def run(name, arm, volume, front):
    progress = [
        {"train_macs": 10**9 * n, "seconds": 60.0 * n, "hypervolume": volume * n / 3, "trial": n}
        for n in (1, 2, 3)
    ]
    return {
        "name": name, "arm": arm, "seed": 0, "complete": 3, "stopped": 1, "front": front, "hypervolume": volume,
        "best_accuracy": front[-1]["val_accuracy"], "train_macs": 3 * 10**9, "train_macs_with_teachers": 4 * 10**9,
        "seconds": 180.0, "progress": progress, "to_level": progress[1],
    }  # fmt: skip


def comparison():
    """Two runs of one arm and one of another."""
    cheap, dear = [point(0, 1e5, 0.4), point(1, 1e6, 0.6)], [point(2, 2e5, 0.5), point(3, 8e5, 0.7)]
    alone = [point(4, 3e5, 0.55)]
    bands = {"cost": [1e5, 2e5, 8e5, 1e6], "any": [0.4, 0.5, 0.7, 0.7], "median": [0.4, 0.5, 0.7, 0.7],
             "all": [None, 0.4, 0.4, 0.6]}  # fmt: skip
    grown = {"at": [1e9, 2e9, 3e9], "any": [0.4, 0.8, 1.2], "median": [0.4, 0.8, 1.2], "all": [0.3, 0.6, 1.0]}
    single = {"cost": [3e5], "any": [0.55], "median": [0.55], "all": [0.55]}
    volumes = {"any": 1.2, "median": 1.2, "all": 1.0}
    one = {"at": [1e9], "any": [0.3], "median": [0.3], "all": [0.3]}
    return {
        "objectives": [OBJECTIVES[name].describe() for name in ("val_accuracy", "macs")],
        "reference_point": {"val_accuracy": 0.1, "macs": 1e7},
        "level": 0.9,
        "warnings": [HOSTILE],
        "arms": [
            {"name": "study", "runs": ["study-0", "study-1"], "hypervolume": volumes, "attainment": {"macs": bands},
             "progress": {"train_macs": grown, "seconds": grown}},
            {"name": HOSTILE, "runs": [HOSTILE], "hypervolume": dict.fromkeys(volumes, 0.9),
             "attainment": {"macs": single}, "progress": {"train_macs": one, "seconds": one}},
        ],
        "runs": [run("study-0", "study", 1.0, cheap), run("study-1", "study", 1.2, dear),
                 run(HOSTILE, HOSTILE, 0.9, alone)],
    }  # fmt: skip


def test_it_loads_nothing_and_runs_its_own_script_alone():
    text = page(comparison())
    assert re.search(r"default-src &#x27;none&#x27;; script-src &#x27;sha256-", text)
    assert not re.search(r"<(link|img|iframe|object|embed|base|form)\b", text)
    assert len(re.findall(r"<script", text)) == 2
    script = re.search(r"<script>(.*?)</script>", text, re.S)[1]
    for way in (
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
        "XMLHttpRequest",
        "import(",
    ):
        assert way not in script


def test_its_data_are_those_of_the_comparison():
    data = json.loads(re.search(r'id="data">(.*?)</script>', page(comparison()), re.S)[1])
    assert data["runs"][1]["front"] == comparison()["runs"][1]["front"]
    assert data["arms"][0]["attainment"] == comparison()["arms"][0]["attainment"]
    assert data["measures"]["macs"]["scale"] == "log"


@pytest.mark.parametrize(
    "names", [("val_accuracy", "balanced_accuracy", "n_params"), ("val_accuracy", "n_params", "macs")]
)
def test_it_opens_with_the_cost_that_reports_go_by(names):
    axes = [OBJECTIVES[name] for name in names]
    data = page_data({**comparison(), "objectives": [axis.describe() for axis in axes]})
    assert data["costs"][0] == cost_of(axes).name == names[2]
    assert sorted(data["costs"]) == sorted(names[1:])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: what the page's script draws is not checked")
    folder = tmp_path_factory.mktemp("page")
    write_html(comparison(), folder / "page.html")
    with Browser(1400, 2400) as browser:
        browser.open(folder / "page.html")
        assert browser.errors == []
        return browser.html()


def test_a_browser_draws_fronts_bands_and_growth(drawn):
    charts = re.findall(r'<svg[^>]*role="img".*?</svg>', drawn, re.S)
    assert len(charts) == 3
    fronts = charts[0]
    assert fronts.count('class="front marked') == 5
    assert [chart.count('class="band m0"') for chart in charts] == [1, 1, 1]
    assert [chart.count('class="median-line m0"') for chart in charts] == [1, 1, 1]
    # The arm of one run has its line and no band.
    assert fronts.count('class="run-line m1 alone"') == 1
    assert 'class="band m1"' not in drawn
    assert "What is compared" in drawn, "the foot is written last"
    assert "undefined" not in drawn.split("<script")[0]
    assert "NaN" not in drawn.split("<script")[0]


def test_a_browser_runs_no_script_of_a_name(drawn):
    assert "<title>3 runs compared" in drawn
    assert "&lt;script&gt;document.title='owned'&lt;/script&gt;" in drawn.split("<script")[0]
