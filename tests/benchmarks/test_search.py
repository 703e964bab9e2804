"""The recorder of tables and the benchmark of search: each part on a few designs."""

import argparse
import io
import json
import shutil
import sys
import zipfile
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CLASSES, EACH = 4, 24


@pytest.fixture(autouse=True)
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Images of four colours."""
    draw = np.random.default_rng(0)
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for label in range(CLASSES):
            for number in range(EACH):
                pixels = draw.integers(0, 120, (8, 8, 3), dtype=np.uint8)
                pixels[..., label % 3] += np.uint8(60 + 60 * (label // 3))
                content = io.BytesIO()
                Image.fromarray(pixels).save(content, "PNG")
                file.writestr(f"train/{'abcd'[label]}/{number:03}.png", content.getvalue())
    return path


# --- recording -----------------------------------------------------------------------------------------------------


def test_no_image_is_in_two_parts_and_a_teacher_has_those_of_its_students(
    archive: Path, tmp_path: Path
) -> None:
    from table_parts import splits

    images, labels, classes = splits.read(archive, tmp_path / "images.npz")
    parts = splits.cut(images, labels, classes, splits.Splits(student=16, teacher=40, val=20, test=20))

    def names(these: object) -> list[bytes]:
        return [image.numpy().tobytes() for image in these.images]

    student, teacher = set(names(parts.student.train)), set(names(parts.teacher.train))
    val, test = set(names(parts.student.val)), set(names(parts.test))
    assert student < teacher
    assert not teacher & val
    assert not teacher & test
    assert not val & test
    assert [len(student), len(teacher), len(val), len(test)] == [16, 40, 20, 20]
    assert parts.student.train.labels.bincount().tolist() == [4, 4, 4, 4]
    assert parts.teacher.val.labels.bincount().tolist() == [5, 5, 5, 5]
    again = splits.read(archive, tmp_path / "images.npz")
    assert (again[0] == images).all()


def test_more_images_than_there_are_is_said(archive: Path, tmp_path: Path) -> None:
    from table_parts import splits

    read = splits.read(archive, tmp_path / "images.npz")
    with pytest.raises(ValueError, match=r"there are 96"):
        splits.cut(*read, splits.Splits(student=80, teacher=10, val=10, test=10))


def test_the_levels_are_different_designs_and_each_is_a_grid() -> None:
    from table_parts import space
    from table_parts.publishing import n_ways

    points = [values for level in range(len(space.LEVELS)) for values in space.points(level)]
    designs = [space.joint(space.Point(values)) for values in points]
    assert len({design.config_id for design in designs}) == len(points)
    assert len({design.architecture for design in designs}) == 192 >= 150
    assert len(points) == 192 * n_ways()
    assert n_ways() >= 10


def test_images_that_are_kept_decoded_are_those_of_their_archive(archive: Path, tmp_path: Path) -> None:
    from table_parts import splits

    kept = tmp_path / "images.npz"
    images, labels, _ = splits.read(archive, kept)
    content = archive.read_bytes()
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("train/a/more.png", file.read("train/a/000.png"))
    assert len(splits.read(archive, kept)[1]) == len(labels) + 1
    archive.write_bytes(content)
    np.savez(
        kept, images=images[:3], labels=labels[:3], classes=np.asarray(["a"])
    )  # as earlier versions kept them
    assert len(splits.read(archive, kept)[1]) == len(labels)
    archive.unlink()
    assert np.array_equal(splits.read(archive, kept)[0], images), "of what is decoded the archive may be gone"


@pytest.mark.parametrize("prefixed", [False, True])
def test_images_that_were_unpacked_for_other_sizes_are_not_taken(
    archive: Path, tmp_path: Path, prefixed: bool
) -> None:
    """One of them may be a test image now, and a training image of before."""
    from table_parts import splits

    out, names = tmp_path / "out", []
    for _ in range(2):
        splits.unpacked(archive, out, {"train": 16, "test": 8}, flat=("test",), prefixed=True)
        files = {
            part: sorted(p for p in (out / part).rglob("*") if p.is_file()) for part in ("train", "test")
        }
        names.append([file.read_bytes() for some in files.values() for file in some])
        assert [len(some) for some in files.values()] == [16, 8]
        files["train"][0].write_bytes(b"cut off")
    assert names[0] == names[1]
    assert len(set(names[0])) == 24
    assert {file.parent.name for file in files["train"]} == set("abcd")
    with pytest.raises(SystemExit, match="other images"):
        splits.unpacked(archive, out, {"train": 12, "test": 8}, flat=("test",), prefixed=prefixed)


def test_a_recording_goes_on_where_it_stopped_and_becomes_a_table(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import record_table
    from naskd.tables import read_table
    from table_parts import publishing, space

    monkeypatch.setattr(space, "EPOCHS", 1)
    training = space.TRAINING.__class__(**{**vars(space.TRAINING), "epochs": 1, "batch_size": 8})
    monkeypatch.setattr(space, "TRAINING", training)
    monkeypatch.setattr(space, "TEACHER", space.three_stages(8, (1, 1, 1)))
    few = [v for v in space.points(0) if v["width"] == 8 and v["block"] == "basic" and v["stage2.depth"] == 1]
    monkeypatch.setattr(space, "points", lambda level: iter(few[:14]))
    out = tmp_path / "table"
    given = ["--images", str(archive), "--out", str(out), "--student-images", "16", "--teacher-images", "40"]
    given += [
        "--val-images",
        "20",
        "--test-images",
        "20",
        "--teacher-epochs",
        "1",
        "--levels",
        "1",
        "--seeds",
        "1",
    ]
    args = record_table.arguments().parse_args(given)
    out.mkdir()

    def in_this_process(args: argparse.Namespace, tasks: list) -> object:
        recorder = record_table.open_recorder(args)
        return (recorder.train(*task) for task in tasks[: most[0]])

    monkeypatch.setattr(record_table, "trained", in_this_process)
    most = [5]
    record_table.record(args)
    assert len(rows := record_table.read_rows(out / "rows.jsonl")) == 5
    assert publishing.publish(out, rows) == [
        "No table yet: it begins with the first student whose 14 ways were all recorded."
    ]
    with open(out / "rows.jsonl", "a") as file:
        file.write('{"config_id": "cut off by a ki')
    # On another machine, with what was kept beside the rows.
    before = json.loads((out / "recording.json").read_text())["networks"]
    for left_behind in ("students", "teacher", "bank"):
        shutil.rmtree(out / left_behind)
    most[0] = 100
    record_table.record(args)
    assert not (out / "teacher").exists()
    assert json.loads((out / "recording.json").read_text())["networks"] == before
    rows = record_table.read_rows(out / "rows.jsonl")
    assert len({row["config_id"] for row in rows}) == len(rows) == 14
    for row in rows:
        assert row["student_macs"] + row["teacher_macs"] + row["evaluation_macs"] == row["train_macs"]
        assert (row["teacher_macs"] == 0) == (row["values"]["kd.kind"] == "none")
    card = json.loads((out / "recording.json").read_text())
    card["networks"]["teacher"]["val_accuracy"] += 0.05
    (out / "recording.json").write_text(json.dumps(card))
    with pytest.raises(SystemExit, match="a table has one teacher"):
        record_table.record(args)
    lines = publishing.publish(out, rows)
    assert any(line.startswith("| hint |") for line in lines)
    table = read_table(out / "table")
    assert len(table.trainings) == 14
    assert table.card["images"]["classes"] == CLASSES
    assert table.config(few[0]).config_id == rows[0]["config_id"]


# --- searching -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the first two levels with two seeds, made up."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from search_parts import made_up
    finally:
        sys.path.remove(str(BENCHMARKS))
    folder = tmp_path_factory.mktemp("table")
    made_up.write(folder)
    return folder


def arguments(table: Path) -> argparse.Namespace:
    from search_parts.arms import ARMS, named_arm

    arms = {"NSGA-II": ARMS["NSGA-II"], **dict([named_arm("mine=ehvi,front")])}
    return argparse.Namespace(table=table, repetitions=2, jobs=1, module=[], arms=arms)


def test_reach(made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from search_parts import reach

    monkeypatch.setattr(reach, "FULL_TRIALS", 16)
    rows = reach.measure(arguments(made_up), tmp_path)
    assert {row["arm"] for row in rows} == {"NSGA-II", "mine"}
    own = [row["share of NSGA-II"] for row in rows if row["arm"] == "NSGA-II"]
    assert max(own) <= 1.0  # the same search, with the same seed
    assert all(row["curve"][-1] == 1.0 for row in rows if row["arm"] == "NSGA-II")
    assert any(line.startswith("| mine |") for line in reach.table(rows))
    assert json.loads(json.dumps(rows)), "what is kept can be written"


def hand_made(spent: list[float], test_volume: list[float]) -> object:
    from search_parts.replayed import Searched

    names = [f"design {n}" for n in range(len(spent))]
    stopped, values = [False] * len(spent), [(0.5, 1.0)] * len(spent)
    return Searched(
        np.array(spent), np.array(test_volume), np.array(test_volume), names, values, stopped, 1.0
    )


def test_a_curve_says_what_whoever_stops_then_has(made_up: Path) -> None:
    from search_parts.curves import SHARES, anytime

    goal = hand_made([50.0, 100.0], [0.3, 0.4])
    curve = anytime(hand_made([10.0, 20.0, 50.0, 100.0, 130.0], [0.0, 0.2, 0.5, 0.3, 0.6]), goal)
    assert len(curve) == len(SHARES) == 60
    expected = {
        0.0: SHARES < 0.2,
        0.5: (SHARES >= 0.2) & (SHARES < 0.5),
        1.25: (SHARES >= 0.5) & (SHARES < 1),
    }
    for value, these in expected.items():
        assert set(np.array(curve)[these]) == {value}
    assert curve[-1] == 0.75  # a front that looks better to the search may be worse on test images
    assert (
        anytime(hand_made([20.0], [0.2]), goal)[-1] == 0.5
    )  # one that ended before its budget keeps what it has
    assert anytime(hand_made([150.0], [0.4]), goal)[-1] == 0.0


def bench_search(monkeypatch: pytest.MonkeyPatch, table: Path, *arguments: str) -> int:
    import bench_search

    given = ["--table", str(table), "--jobs", "1", "--arms", "NSGA-II", "random", *arguments]
    monkeypatch.setattr(sys, "argv", ["bench_search.py", *given])
    return bench_search.main()


@pytest.mark.parametrize("kept", ["all parts", "repetitions alone"])
def test_a_picture_is_drawn_of_what_was_measured_before(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    from search_parts import reach

    monkeypatch.setattr(reach, "FULL_TRIALS", 12)
    measure = ["--part", "reach", "--repetitions", "2", "--json", str(tmp_path / "reach.json")]
    assert bench_search(monkeypatch, made_up, *measure) == 0
    if kept == "repetitions alone":
        (tmp_path / "reach.json").unlink()

    def measured_again(*args: object) -> None:
        raise AssertionError("it was measured again")

    monkeypatch.setattr(reach, "one", measured_again)
    for name in ("reach.svg", "reach.png"):
        assert bench_search(monkeypatch, made_up, *measure, "--resume", "--plot", str(tmp_path / name)) == 0
    picture = (tmp_path / "reach.svg").read_text()
    for words in ("NSGA-II", "random", "(n = 2), shaded 95 % bootstrap intervals", "log scale"):
        assert words in picture
    with Image.open(tmp_path / "reach.png") as image:
        assert image.size == (1600, 1000)


def test_a_picture_that_cannot_be_drawn_is_refused(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from search_parts import curves

    for arguments, said in (
        (
            ["--part", "warm", "bias", "--plot", str(tmp_path / "a.svg")],
            "the part reach; --part has warm, bias alone",
        ),
        (["--part", "reach", "--plot", str(tmp_path / "a.pdf")], "a picture ends with .svg or .png"),
        (["--part", "reach", "--plot", str(tmp_path / "none" / "a.svg")], "the folder does not exist"),
    ):
        with pytest.raises(SystemExit):
            bench_search(monkeypatch, made_up, *arguments)
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"no curves.*; measure them anew"):
        curves.draw([{"repetition": 0, "arm": "random", "volume": 0.5}], tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


def test_names_of_arms_do_not_cover_each_other() -> None:
    from search_parts.curves import spread

    for heights in ([0.5], [0.1, 0.5, 0.9], [0.0, 0.01, 0.5, 0.5, 0.5, 0.99], [0.99, 1.0, 1.0, 1.0]):
        placed = spread(heights, 0.05)
        assert all(0 <= place <= 1 for place in placed)
        assert all(gap > 0.05 - 1e-9 for gap in np.diff(placed))
    assert spread([0.1, 0.5, 0.9], 0.05) == [0.1, 0.5, 0.9]


def test_stopping(made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from search_parts import stopping

    monkeypatch.setattr(stopping, "TRIALS", 30)
    rows = stopping.measure(arguments(made_up), tmp_path)
    assert all(row["times less"] >= 1 and 0 <= row["wrongly stopped"] <= 1 for row in rows)
    assert {row["rule"] for row in rows} == set(stopping.RULES)
    assert any(line.startswith("| `front` |") for line in stopping.table(rows))


def test_claims(made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from search_parts import claims

    monkeypatch.setattr(claims, "TIMES", (3,))
    rows = claims.measure(arguments(made_up), tmp_path)
    assert {row["ledger"] for row in rows} == set(claims.LEDGERS)
    for row in rows:
        assert row["trials undistilled"] > 0
        assert row["joint"] >= 0
        if row["ledger"] == "everything charged":  # the teacher costs more than all
            assert row["joint"] == row["trials joint"] == 0
    assert len(claims.table(rows)) == 2 + 2


def test_a_bias_of_which_nothing_is_expected_is_told_so() -> None:
    """On a small table a rule may stop so many that too few finish to expect anything."""
    from search_parts import bias

    row = {"arm": "EHVI, front", "seeds": 1, "designs": 4, "test_volume": 0.1, "points": 0.5, "error": 0.7}
    rows = [
        {**row, "repetition": n, "expected points": float("nan"), "expected error": float("nan")}
        for n in range(2)
    ]
    *_, line = bias.table(rows)
    assert "| +0.50 [+0.50, +0.50] | 0.70 | too few trainings finished |  |" in line
    *_, line = bias.table([*rows, {**row, "repetition": 2, "expected points": 0.2, "expected error": 0.3}])
    assert "| +0.20 [-inf, +inf] | 0.30 |" in line


def test_bias_is_smaller_with_a_second_seed(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search_parts import bias

    monkeypatch.setattr(bias, "TRIALS", 80)
    monkeypatch.setattr(bias, "SEARCHERS", ("random",))
    given = arguments(made_up)
    given.repetitions = 6
    rows = bias.measure(given, tmp_path)
    means = [fmean(row["points"] for row in rows if row["seeds"] == seeds) for seeds in (1, 2)]
    assert means[0] > 0.2
    assert means[1] < means[0]
    assert len(bias.table(rows)) == 2 + 2


def test_luck_is_told_apart_and_more_seeds_make_less_of_it(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The made-up table has a standard deviation of one point between seeds, and no luck of images."""
    from naskd.tables import read_table
    from search_parts import luck

    found = luck.luck_of(read_table(made_up))
    assert found.seed == pytest.approx(0.01, rel=0.1)
    assert found.images < 0.003
    monkeypatch.setattr(luck, "SEEDS", (1, 4))
    monkeypatch.setattr(luck, "IMAGES", (1,))
    rows = luck.measure(arguments(made_up), tmp_path)
    one, four = (fmean(row["points"] for row in rows if row["seeds"] == n) for n in (1, 4))
    assert 0 < four < 0.7 * one
    assert all(row["trainings"] == luck.DESIGNS for row in rows if row["seeds"] == 1)
    assert luck.table(rows)


def test_what_was_left_out_is_predicted_better_from_more(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search_parts import predicting

    monkeypatch.setattr(predicting, "SHOWN", (10, 25))
    rows = predicting.measure(arguments(made_up), tmp_path)
    assert {row["model"] for row in rows} == set(predicting.MODELS)
    ours = [row for row in rows if row["model"] == "`ehvi`"]
    few, many = (fmean(row["points"] for row in ours if row["shown"] == n) for n in (10, 25))
    assert many < few
    assert all(0 < row["rank"] <= 1 for row in ours if row["shown"] == 25)
    others = [row for row in rows if row["model"] != "`ehvi`"]
    assert {row["columns"] for row in ours} < {*range(min(row["columns"] for row in others))}
    assert len(predicting.table(rows)) == 2 + 2 * 2


def test_without_noise_a_front_is_as_good_as_it_says() -> None:
    from search_parts.luck import Luck, too_good

    draw = np.random.default_rng(0)
    luck = Luck(draw.random(60), draw.random(60) + 1, seed=0.0, images=0.0, n_val=100)
    assert too_good(luck, 3, 1, draw)[0] == pytest.approx(0.0, abs=1e-12)


def test_luck_of_one_design_alone_is_none_of_choice() -> None:
    """Its mean over many draws is its own: there was nothing to choose from."""
    from search_parts.luck import Luck, too_good

    draw = np.random.default_rng(1)
    luck = Luck(np.array([0.5]), np.array([1.0]), seed=0.01, images=0.01, n_val=100)
    assert abs(fmean(too_good(luck, 1, 1, draw)[0] for _ in range(400))) < 0.002


def test_warm(made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from search_parts import warm

    for name, few in (("EARLIER_TRIALS", 8), ("GOAL_TRIALS", 12), ("SAMPLERS", ("tpe",))):
        monkeypatch.setattr(warm, name, few)
    rows = warm.measure(arguments(made_up), tmp_path)
    assert {row["earlier"] for row in rows} == {"none", "other images", "exchanged"}
    assert len(rows) == 2 * 3
    assert len(warm.table(rows)) == 2 + 2


def test_an_exchanged_earlier_run_has_the_same_accuracies_and_another_order(made_up: Path) -> None:
    from naskd.tables import read_table
    from search_parts import warm
    from search_parts.replayed import world_of

    world = world_of(read_table(made_up), 0)
    own, curved, exchanged = (
        {name: row.metrics["val_accuracy"] for name, row in one.table.items()}
        for one in (
            world,
            warm.other_world(world, 0, "other images"),
            warm.other_world(world, 0, "exchanged"),
        )
    )
    assert sorted(exchanged.values()) == pytest.approx(sorted(own.values()))
    names = list(own)
    related, none = (
        np.corrcoef([own[n] for n in names], [other[n] for n in names])[0, 1] for other in (curved, exchanged)
    )
    assert related > 0.8
    assert abs(none) < 0.2


def test_a_median_says_how_many_did_not_get_there() -> None:
    from search_parts.repeating import median_interval

    assert median_interval([0.2] * 50) == "0.20 [0.20, 0.20]"
    assert median_interval([float("inf")] * 5) == "over 1 [over 1, over 1]"


def test_an_arm_that_names_no_sampler_is_refused() -> None:
    from search_parts.arms import named_arm

    with pytest.raises(SystemExit, match="NAME=SAMPLER"):
        named_arm("mine")


def test_repetitions_are_kept_as_they_come_and_taken_up(made_up: Path, tmp_path: Path) -> None:
    from search_parts import repeating

    asked: list[int] = []

    def one(table: str, seed: int) -> list[dict[str, int]]:
        asked.append(seed)
        if seed == 2 and len(asked) == 3:
            raise KeyboardInterrupt
        return [{"repetition": seed, "square": seed**2}]

    given = arguments(made_up)
    given.repetitions, given.json, given.resume = 4, tmp_path / "search.json", False
    with pytest.raises(KeyboardInterrupt):
        repeating.measured("squares", one, given)
    with (tmp_path / "search.json.squares.jsonl").open("a") as file:
        file.write('\n[{"repetition": 3, "squ')  # killed while it wrote
    given.resume = True
    rows = repeating.measured("squares", one, given)
    assert asked == [0, 1, 2, 2, 3]
    assert [row["square"] for row in rows] == [0, 1, 4, 9]
    given.table = tmp_path / "table"
    shutil.copytree(made_up, given.table)
    given.json = tmp_path / "copied.json"
    given.resume = False
    repeating.measured("squares", one, given)
    given.resume = True
    assert len(repeating.measured("squares", one, given)) == 4
    with (given.table / "trainings.parquet").open("ab") as file:
        file.write(b"more")
    with pytest.raises(SystemExit, match=r"other files: \['table'\]"):
        repeating.measured("squares", one, given)
    given.arms = {}
    with pytest.raises(SystemExit, match="other settings"):
        repeating.measured("squares", one, given)
