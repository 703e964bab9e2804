"""The benchmark of found teachers: weights that it left are taken up for what they were made from, and nothing else."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_weights_of_other_classes_are_named_by_what_they_follow_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import found_teachers

    (tmp_path / "others" / "cat").mkdir(parents=True)
    image = tmp_path / "others" / "cat" / "0.jpg"
    image.write_bytes(b"one")
    given = ["--images", "i", "--others", str(tmp_path / "others"), "--out", str(tmp_path / "out")]

    def begun(*more: str) -> str:
        return found_teachers.begun(found_teachers.arguments().parse_args([*given, *more])).name

    first = begun()
    assert begun("--trials", "3", "--epochs", "9") == first, "they are made before all that"
    others = {begun("--other-epochs", "9"), begun("--other-images", "9")}
    image.write_bytes(b"two")
    others.add(begun())
    assert len(others | {first}) == 4
