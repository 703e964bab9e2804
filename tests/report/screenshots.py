"""Pictures of the pages as readers see them, and what axe-core finds in them.

``python tests/report/screenshots.py OUT AXE`` draws a run's page, one that compares runs and one of a folder of runs,
wide and on a phone, light and dark, into OUT. AXE is axe-core's script; what it calls a violation ends in exit code 1.
"""

import json
import sys
import tempfile
from pathlib import Path

from browser import Browser
from records import record
from test_compare_page import comparison

from naskd.report import compare_html, html, runs_html

SIZES = {"1400": {"width": 1400, "height": 900}, "390": {"width": 390, "height": 844, "phone": True}}
THEMES = ("light", "dark")
STATES = {"digits": "in use", "digits-tpe": "done", "few_labels": "unfinished", "old": "unreadable"}
RUNS = [
    {"path": f"runs/{name}", "name": name, "state": state, "trials": 12, "asked": 60, "best": 0.95, "front": 7,
     "retrained": state == "done", "changed": 1.8e9, "size_bytes": 2_400_000, "ledger": None,
     "problem": "its journal is damaged at line 3" if state == "unreadable" else ""}
    for name, state in STATES.items()
]  # fmt: skip


def pages():
    """Each page's text by its name."""
    run = {**record(120, seed=1, retrained=True), "run": "runs/digits"}
    for design in run["retrained"]["designs"][::2]:
        mean = design["test_accuracy_mean"] - 0.02
        design["labels_alone"] = {"test_accuracy_mean": mean, "test_accuracy_sd": 0.006, "gain": 0.02}
    listed = runs_html.page_data(RUNS, "Runs in /home/me/runs")
    return {
        "run": html.page(run),
        "compare": compare_html.page(comparison()),
        "runs": html.assembled("runs", listed, runs_html.SCRIPTS),
    }


def violations(browser, axe):
    """What axe-core finds in the page as it is, a line each."""
    browser.run(axe + ";0")
    text = browser.run(
        "axe.run(document, {resultTypes: ['violations']}).then((r) => JSON.stringify(r.violations))"
    )
    return [
        f"{found['id']} ({found['impact']}): {found['help']}: {node['target']} {node['html'][:160]}"
        for found in json.loads(text)
        for node in found["nodes"][:3]
    ]


def main(out, axe_path):
    """Draw all, and say what is wrong."""
    folder, axe, wrong = Path(out), Path(axe_path).read_text(), []
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as sources, Browser() as browser:

        def look(name, *, whole=True):
            browser.picture(folder / f"{name}.png", whole=whole)
            wrong.extend(f"{name}: {line}" for line in [*violations(browser, axe), *browser.errors])

        for name, text in pages().items():
            source = Path(sources) / f"{name}.html"
            source.write_text(text, encoding="utf-8")
            for size, metrics in SIZES.items():
                for theme in THEMES:
                    browser.resize(**metrics)
                    browser.theme(theme)
                    browser.open(source)
                    look(f"{name}-{size}-{theme}")
        browser.resize(**SIZES["390"])
        browser.theme("light")
        browser.open(Path(sources) / "run.html")
        browser.click("#designs-on-the-front tbody tr")
        look("details-390-light", whole=False)
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")
    print("\n".join(wrong) or "axe-core found nothing")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
