"""The comparison of counters counts what it says it counts."""

import math
from pathlib import Path

import pytest

from naskd.networks import BLOCKS
from naskd.networks.student import design_cost

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_closed_form_is_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from counters import by_torch, network_of, students

    ours = {name for name in BLOCKS.names() if BLOCKS.is_ours(name)}
    assert {stage.block for spec in students().values() for stage in spec.stages} == ours
    for spec in students().values():
        macs, n_params = by_torch(network_of(spec))
        assert macs == design_cost(spec, 3, 10, 32).macs
        assert math.isnan(n_params)
