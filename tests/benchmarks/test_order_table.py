"""The benchmark of orders of compression: what begins when in each arm, who the students are, and what is paired."""

from dataclasses import replace
from pathlib import Path

import pytest

from naskd.networks.student import design_cost
from naskd.schemes.compression_order import parts
from naskd.spec.design import SCRATCH
from naskd.spec.parse import parse_study

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def test_an_arm_begins_its_events_in_its_order() -> None:
    import compression_order as bench

    for arm in bench.ORDERS:
        taught = bench.taught(arm, 0.25)
        after = {name: float(dict(taught.scheme_options).get(name, 0)) for name in bench.EVENTS}
        found = parts(16, after)
        assert [part.epochs for part in found] == [4, 4, 8]
        assert [len(part.done) for part in found] == [1, 2, 3]
        assert found[0].done == {arm.split(", ")[0]}
        assert found[1].done == set(arm.split(", ")[:2])
    assert len(bench.ORDERS) == 6
    for name in bench.EVENTS:
        after = dict(bench.taught(f"{name} later", 0.25).scheme_options)
        assert {key: value for key, value in after.items() if value} == {name: 0.5}


def test_students_are_the_teachers_stages_made_smaller() -> None:
    import compression_order as bench

    teacher = parse_study(ROOT / "studies/digits.toml").teacher
    costs = []
    for share, bits in bench.STUDENTS.values():
        student = bench.derived(teacher.architecture, share, bits)
        assert [s.width * share for s in student.stages] == [s.width for s in teacher.architecture.stages]
        assert {s.bits for s in student.stages} == {bits}
        costs.append(design_cost(student, 1, 10, 8).bit_ops)
    assert costs == sorted(costs, reverse=True)


def test_a_row_says_what_was_trained_and_starts_as_its_arm_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from small_studies import study

    import compression_order as bench
    import schemes
    from harness.setting import Setting
    from naskd.spec.design import ArchitectureSpec, StageSpec, TrainingSpec

    place = schemes.Place()
    spec = study()
    wide = ArchitectureSpec((StageSpec("basic", 1, 16),), stem_width=16, stem_stride=2)
    place.setting = Setting(replace(spec, teacher=replace(spec.teacher, architecture=wide)), tmp_path)
    place.setting.make()
    place.training = TrainingSpec(epochs=4, batch_size=32)
    student = next(iter(bench.STUDENTS))
    begun = []
    start = place.setting.start

    def noting(config, seed):
        begun.append(config.training.start)
        return start(config, seed)

    monkeypatch.setattr(place.setting, "start", noting)
    rows = [
        bench.measured(place, student, arm, 0, 0.25) for arm in (bench.AT_ONCE, "shrink later", bench.FRESH)
    ]
    assert begun == ["teacher", "teacher", SCRATCH]
    assert rows[0]["own_macs"] == rows[2]["own_macs"] < rows[1]["own_macs"], "a wider network costs more"
    assert len({row["macs"] for row in rows}) == 1


def test_the_table_pairs_by_student_and_seed() -> None:
    import compression_order as bench

    rows = [
        {
            "student": student,
            "arm": arm,
            "seed": seed,
            "accuracy": base + seed / 10 + gain,
            "macs": 5,
            "own_macs": macs,
        }
        for student, base in (("a quarter, 8 bits", 0.5), ("an eighth, 4 bits", 0.2))
        for arm, gain, macs in ((bench.AT_ONCE, 0.0, 10), ("shrink later", 0.05, 25))
        for seed in range(2)
    ]
    lines = bench.table([*rows, {**rows[0], "arm": bench.FRESH, "seed": 7}])
    (later,) = (line for line in lines if line.startswith("| shrink later | 0.6"))
    assert later.endswith("| 2.50 |")
    (apart,) = (line for line in lines if line.startswith("| shrink later | +"))
    assert apart.count("+0.0500 [+0.0500, +0.0500]") == 3
    assert not any(line.startswith(f"| {bench.FRESH} | +") for line in lines), "it has no partner"
