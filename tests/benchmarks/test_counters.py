"""The comparison of counters counts what it says it counts."""

import math
from pathlib import Path

import pytest

from naskd.networks.student import build_student, design_cost

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_closed_form_is_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from counters import by_torch, students

    assert len(students()) == 6
    for spec in students().values():
        network = build_student(spec, 3, 10, (0.5,) * 3, (0.25,) * 3).eval()
        macs, n_params = by_torch(network)
        assert macs == design_cost(spec, 3, 10, 32).macs
        assert math.isnan(n_params)
