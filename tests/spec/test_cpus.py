"""How many CPUs a process may use."""

import os
from pathlib import Path

import pytest

from naskd.spec import cpus
from naskd.spec.cpus import available_cpus


def test_a_quota_of_the_control_group_or_of_one_above_it_limits_the_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership = tmp_path / "membership"
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)

    def quotas() -> list[float]:
        return sorted(cpus._quotas(tmp_path, membership))

    assert quotas() == []
    membership.write_text("0::/job/step\n")
    (inner / "cpu.max").write_text("max 100000\n")
    assert quotas() == []
    (tmp_path / "job" / "cpu.max").write_text("350000 100000\n")
    assert quotas() == [3.5]
    membership.write_text("3:cpuset:/\n2:cpu,cpuacct:/job\n")
    old = tmp_path / "cpu,cpuacct" / "job"
    old.mkdir(parents=True)
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    assert quotas() == []
    (old / "cpu.cfs_quota_us").write_text("50000\n")
    assert quotas() == [0.5]
    monkeypatch.setattr(cpus, "_quotas", lambda *_: iter([0.5]))
    assert available_cpus() == 1, "half a CPU is still one"
    monkeypatch.undo()
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))
