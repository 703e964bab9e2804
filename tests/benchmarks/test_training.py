"""`benchmarks/training.py --quick`: that every part measures and shows what it says. No time is judged.

The part digits is left out: it does nothing but start searches in processes of their own, each some seconds long.
"""

import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/training.py"
PARTS = ("step", "search", "equal", "views", "features", "throughput", "together", "size", "profile")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What the script kept, and what it printed."""
    kept = tmp_path_factory.mktemp("bench") / "kept.json"
    command = [
        sys.executable, str(SCRIPT), "--quick", "--part", *PARTS, "--json", str(kept), "--threads", "1",
        "--workers", "0", "--pairs", "3",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(kept.read_text()), done.stdout


def rows(run: tuple[dict[str, Any], str], part: str) -> list[dict[str, Any]]:
    return list(run[0]["parts"][part]["rows"])


def test_every_part_has_a_table_of_finite_numbers(run: tuple[dict[str, Any], str]) -> None:
    kept, shown = run
    assert list(kept["parts"]) == list(PARTS)
    for part in PARTS:
        assert f"\n({part}) " in shown
    tables = [line for line in shown.splitlines() if line.startswith("| ")]
    assert len(tables) >= 30
    assert not any("nan" in line or "inf" in line for line in tables)


def test_a_warm_bank_never_asks_and_the_online_teacher_always(run: tuple[dict[str, Any], str]) -> None:
    """Whoever times a bank that does not hold the knowledge times the teacher."""
    timed = [row for row in rows(run, "step") if "seconds" in row]
    assert {row["arm"].split(",")[0] for row in timed} == {"none", "bank", "online"}
    for row in timed:
        assert row["asked"] == (row["images"] if row["arm"].startswith("online") else 0)


def test_macs_of_a_step_are_those_that_were_executed(run: tuple[dict[str, Any], str]) -> None:
    macs = {row["arm"]: row["macs"] / row["images"] for row in rows(run, "step") if "seconds" in row}
    assert macs["bank, logits"] == pytest.approx(macs["none"], rel=1e-3)
    teacher = macs["online, logits"] - macs["bank, logits"]
    assert teacher == macs["online, hint+attention"] - macs["bank, hint+attention"]
    # ResNet-56 has about three times the MACs of ResNet-20, whose step counts threefold.
    assert macs["none"] / 3 * 2.8 < teacher < macs["none"] / 3 * 3.4


def test_both_arms_of_the_search_train_the_same_number_of_trials(run: tuple[dict[str, Any], str]) -> None:
    found = rows(run, "search")
    assert {(row["arm"], row["trials"], len(row["failed"])) for row in found} == {
        ("undistilled", 2, 0),
        ("distilled", 2, 0),
    }
    for row in found:
        assert (row["asked"] > 0) == (row["bank_bytes"] > 0) == (row["arm"] == "distilled")


def test_a_warm_bank_of_features_never_asks_at_real_sizes(run: tuple[dict[str, Any], str]) -> None:
    for row in rows(run, "features"):
        assert row["asked"] == (8 if row["arm"] == "online" else 0)
        assert row["bank_bytes"] > 0


def test_students_of_fewer_views_are_compared_with_those_of_all(run: tuple[dict[str, Any], str]) -> None:
    found = {(row["kind"], row["views"]) for row in rows(run, "views")}
    assert found == {(kind, views) for kind in ("none", "logits", "hint") for views in (0, 4, 8, 16)}


def test_each_arm_of_the_throughput_trains_what_it_says(run: tuple[dict[str, Any], str]) -> None:
    found = rows(run, "throughput")
    arms = {row["arm"] for row in found}
    assert arms - {"torchdistill"} == {"ours", "ours, first", "customary", "ceiling"}
    assert all(0 <= row["val_accuracy"] <= 1 for row in found if row["arm"] != "ceiling")
    assert found[0]["teacher_macs"] / found[0]["student_macs"] == pytest.approx(3, rel=0.15)
    assert all(row["seconds"] > 0 and math.isfinite(row["seconds"]) for row in found)


def test_as_many_trials_run_together_as_the_table_says(run: tuple[dict[str, Any], str]) -> None:
    found = rows(run, "together")
    assert {(row["arm"], row["trials"]) for row in found} == {
        ("customary", 1),
        ("1 at once", 1),
        ("2 at once", 2),
    }
    for row in found:
        assert row["rate"] == pytest.approx(row["trials"] * 48 * 2 / row["seconds"])


def test_equal_pairs_its_arms_by_seed(run: tuple[dict[str, Any], str]) -> None:
    found = rows(run, "equal")
    assert sorted((row["seed"], row["arm"]) for row in found) == [
        (seed, arm) for seed in (0, 1) for arm in ("bank", "online")
    ]
    assert all(row["asked"] == 2 * 64 for row in found if row["arm"] == "online")


def test_the_profile_accounts_for_the_whole_trial(run: tuple[dict[str, Any], str]) -> None:
    found = rows(run, "profile")
    assert sum(row["seconds"] for row in found) == pytest.approx(found[0]["whole"], rel=0.02)
    assert {"convolution", "batch norm", "optimizer"} <= {row["group"] for row in found}


def test_images_are_drawn_equally_from_the_classes_of_a_folder_or_a_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from harness.images import read_images

    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for number in range(12):
            name = f"images/{'cat' if number % 3 else 'dog'}/{number}.png"
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name)
            archive.write(tmp_path / name, name)
    folder = read_images(tmp_path / "images", 6, 2)
    zipped = read_images(tmp_path / "images.zip", 6, 2)
    assert folder.class_names == ("cat", "dog")
    labels = torch.cat([folder.train.labels, folder.val.labels])
    assert labels.bincount().tolist() == [4, 4]
    drawn = torch.cat([folder.train.images, folder.val.images])[:, 0, 0, 0]
    assert torch.equal((drawn % 3 == 0).long(), labels)
    assert len(set(drawn.tolist())) == 8
    assert zipped.data_hash == folder.data_hash
    with pytest.raises(
        ValueError, match=r"6 \+ 4 images need 5 in each of 2 classes, the smallest has 4; ask"
    ):
        read_images(tmp_path / "images", 6, 4)
