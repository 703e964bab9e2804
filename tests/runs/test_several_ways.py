"""Trials of one run that were trained on other devices, in other precisions, or with other versions."""

import copy
from pathlib import Path

import pytest

from naskd.runs.run import Run, open_run


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"device": "cuda:0", "precision": "bfloat16"},
            "1 with naskd {0} on cpu in float32; 1 with naskd {0} on cuda in bfloat16.",
        ),
        ({"naskd": "0.0.9"}, "1 with naskd {0} on cpu in float32; 1 with naskd 0.0.9 on cpu in float32."),
        ({"device_name": "another", "host": "elsewhere"}, ""),
    ],
)
def test_a_run_that_went_on_elsewhere_says_so(tiny_run: Path, monkeypatch, change, told) -> None:
    run = open_run(tiny_run)
    record = copy.deepcopy(run._record(everything=True))
    version = record["trials"][0]["environment"]["naskd"]
    record["trials"][1]["environment"] |= change
    monkeypatch.setattr(Run, "_record", lambda *_, **__: record)
    warnings = run.to_dict(everything=True, with_importance=False)["warnings"]
    assert [w.partition("too: ")[2] for w in warnings if "several ways" in w] == [
        told.format(version)
    ] * bool(told)
