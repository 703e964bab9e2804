"""Tables and CSV: what a reader sees and what a script reads back."""

import csv
import io
import json
import math
import subprocess
import sys

import pytest
from matplotlib.figure import Figure
from records import design, odd_records, record
from rich.console import Console

from naskd.report import units
from naskd.report.bank import bank_line
from naskd.report.check_table import check_lines, cost_lines
from naskd.report.frame import to_frame
from naskd.report.front_csv import front_csv
from naskd.report.front_table import front_table
from naskd.report.html import write_html
from naskd.report.methods_table import methods_table
from naskd.report.notebook import front_html, front_text
from naskd.report.plots import draw_front, write_png
from naskd.report.record import other_costs
from naskd.report.retrained_table import retrained_table
from naskd.report.space_table import space_table
from naskd.report.summary import choices, student, taught_by
from naskd.report.trial_table import trial_table
from naskd.report.trials_table import trials_table
from naskd.spec.objectives import OBJECTIVES

ODD = odd_records()


def shown(renderable, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue()


def front_of(data):
    return sorted((t for t in data["trials"] if t.get("on_front")), key=lambda t: t["macs"])


@pytest.mark.parametrize("width", [80, 120, 200])
def test_front_table_keeps_accuracy_and_macs_whole(width):
    data = record(60, retrained=True)
    lines = shown(front_table(data), width).splitlines()
    assert max(map(len, lines)) <= width
    for trial in front_of(data):
        row = next(line for line in lines if line.split()[:1] == [str(trial["number"])])
        assert f"{100 * trial['val_accuracy']:.2f}%" in row
        assert units.count(trial["macs"]) in row
        assert (units.flops(trial["macs"]) in row) == (width >= 120)
    rows = lines[: next(i for i, line in enumerate(lines) if line.startswith("FLOPs ="))]
    order = [line.split()[0] for line in rows if line.split()[:1] and line.split()[0].isdigit()]
    assert order == [str(trial["number"]) for trial in front_of(data)]


def test_front_table_ends_with_the_teacher_and_the_warnings():
    data = record(30)
    data["warnings"] = ["the teacher has seen [bold] validation images"]
    text = shown(front_table(data))
    assert "98.89%" in text
    assert "4.20 M" in text
    assert "FLOPs = 2 × MACs" in text
    assert text.index("the teacher") > max(text.index(f"\n{t['number']:5d}") for t in front_of(data))
    assert text.rstrip().endswith("warning: the teacher has seen [bold] validation images")


def test_replicates_are_shown_as_mean_and_sd():
    data = record(30)
    data["trials"][0] |= {"on_front": True, "replicates": {"n": 3, "mean": 0.9512, "sd": 0.0031}}
    assert "95.12 ± 0.31%" in shown(front_table(data))
    assert "95.12 ± 0.31%" in shown(trial_table(data, 0))


def test_what_several_seeds_have_is_told_from_what_one_has():
    data = record(30)
    data["objectives"].append(OBJECTIVES["balanced_accuracy"].describe())
    for item in data["trials"]:
        item |= {"balanced_accuracy": 0.7}
    mean = {"val_accuracy": 0.9512, "balanced_accuracy": 0.6}
    own = {"val_accuracy": 0.96, "macs": 7, "balanced_accuracy": 0.65}
    data["trials"][0] |= mean | {"own": own, "replicates": {"n": 3, "mean": 0.9512, "sd": 0.0031}}
    assert "65.00%, mean over seeds 60.00%" in shown(trial_table(data, 0), 120)
    assert "over seeds" not in shown(trial_table(data, 1), 120)
    assert shown(trials_table(data), 200).count("(mean over 3 seeds)") == 1
    frame = to_frame(data)
    assert (frame.loc[0, "replicates"], frame.loc[0, "replicate_sd"]) == (3, 0.0031)
    assert frame["replicates"].count() == 1
    assert "replicates" not in to_frame(record(30))


def test_a_training_in_two_parts_took_the_time_of_both():
    data = record(6)
    first, second, sibling = data["trials"][:3]
    first |= {"wall_seconds": 20.0, "state": "PRUNED"}
    second |= {"wall_seconds": 7.0, "continues": first["number"], "train_macs": 5_000_000}
    sibling |= {"wall_seconds": 0.0, "trained_in": second["number"], "train_macs": 5_000_000}
    assert "5.00 MMACs, 27.0 s" in shown(trial_table(data, second["number"]), 120)
    assert "5.00 MMACs, –" in shown(trial_table(data, sibling["number"]), 120)


@pytest.mark.parametrize("name", ODD)
def test_every_record_has_tables_and_csv(name):
    data = ODD[name]
    assert "Front of" in shown(front_table(data))
    assert "Front of" in shown(front_table(data), 140)
    for trial in [*data.get("trials", ())[:10], *data.get("trials", ())[-2:]]:
        assert f"Trial {trial['number']} of" in shown(trial_table(data, trial["number"]))
    for all_trials in (False, True):
        list(csv.DictReader(io.StringIO(front_csv(data, all_trials=all_trials))))


def test_trial_table_shows_the_whole_design_and_the_curve():
    data = record(20)
    trial = next(t for t in data["trials"] if len(t["config"]["distillation"]["terms"]) > 1)
    text = shown(trial_table(data, trial["number"]))
    for stage in trial["config"]["architecture"]["stages"]:
        assert stage["block"] in text
    for term in trial["config"]["distillation"]["terms"]:
        assert term["kind"] in text
        assert f"{term['weight']:.4g}" in text
    for name, value in trial["config"]["training"].items():
        assert name in text
        assert (f"{value:.4g}" if isinstance(value, float) else str(value)) in text
    assert "▁" in text
    assert "█" in text
    assert str(trial["seed"]) in text


BANK = {"asked_images": 1_200_000, "forward_images": 36_000, "saved_macs": 1.3e12, "size_bytes": 12_000_000}


@pytest.mark.parametrize(
    ("bank", "line"),
    [
        (BANK, "97% of 1.20 M answers from the bank, 1.30 TMACs saved, bank 12.0 MB"),
        ({**BANK, "size_bytes": 0}, "97% of 1.20 M answers from the bank, 1.30 TMACs saved"),
        (
            {"asked_images": 100, "forward_images": 120, "saved_macs": -9},
            "0% of 100 answers from the bank, 0 MACs saved",
        ),
        ({**BANK, "asked_images": 0}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_what_the_bank_saved_in_one_line(bank, line):
    assert bank_line({"bank": bank}) == line


def test_trial_table_says_how_much_of_the_teacher_was_remembered():
    data = record(3)
    assert "from the bank" not in shown(trial_table(data, 0))
    data["trials"][0] |= {"asked_images": 2000, "forward_images": 500, "bank_bytes": {"a": 1}}
    assert "75% of 2.00 k answers from the bank" in shown(trial_table(data, 0))
    assert "asked_images" not in shown(trial_table(data, 0))


def test_a_trial_that_guesses_is_said_to():
    data = record(1)
    data["trials"][0]["val_accuracy"] = 0.27
    for images, guesses in (
        ({"classes": 4, "val": 100}, True),
        ({"classes": 4, "val": 9999}, False),
        (None, False),
    ):
        data["images"] = images
        said = "27.00%, not surely better than guessing: 25.00%, and up to 32.00% by accident"
        assert (said in " ".join(shown(trial_table(data, 0)).split())) is guesses


def test_trial_table_of_an_unknown_trial_names_the_range():
    with pytest.raises(ValueError, match="trial 999 is not in this run; its trials: 0 to 26"):
        trial_table(record(20), 999)
    with pytest.raises(ValueError, match="no trials yet"):
        trial_table({}, 0)


def test_csv_reads_back_what_was_written():
    data = record(40, retrained=True)
    data["trials"][0]["reason"] = 'a "quoted", two\nline reason'
    rows = list(csv.DictReader(io.StringIO(front_csv(data))))
    front = front_of(data)
    assert [int(row["number"]) for row in rows] == [trial["number"] for trial in front]
    for row, trial in zip(rows, front, strict=True):
        assert float(row["val_accuracy"]) == trial["val_accuracy"]
        assert (int(row["macs"]), int(row["seed"])) == (trial["macs"], trial["seed"])
        assert json.loads(row["config"]) == trial["config"]
        assert row["test_seeds"] == "5"
    everything = list(csv.DictReader(io.StringIO(front_csv(data, all_trials=True))))
    assert [int(row["number"]) for row in everything] == [trial["number"] for trial in data["trials"]]
    assert everything[0]["reason"] == data["trials"][0]["reason"]
    assert {row["state"] for row in everything} == {"COMPLETE", "FAIL", "PRUNED"}


def test_of_equal_cost_the_better_comes_first():
    trials = [
        {"number": n, "macs": 10, "n_params": 5 - n, "val_accuracy": a} for n, a in enumerate((0.5, 0.7, 0.6))
    ]
    rows = csv.DictReader(io.StringIO(front_csv({"trials": trials})))
    assert [row["number"] for row in rows] == ["1", "2", "0"]


def test_csv_has_a_column_for_an_objective_of_the_user():
    data = record(5)
    data["objectives"].append({"name": "latency_ms", "direction": "minimize"})
    for trial in data["trials"]:
        trial["latency_ms"] = 0.25
    assert next(csv.DictReader(io.StringIO(front_csv(data))))["latency_ms"] == "0.25"


def test_csv_leaves_nan_empty():
    data = {"trials": [{"number": 1, "val_accuracy": math.nan, "macs": 5}]}
    assert next(csv.DictReader(io.StringIO(front_csv(data))))["val_accuracy"] == ""


def test_an_unmarked_record_is_all_front():
    data = record(20, front_only=True)
    for trial in data["trials"]:
        del trial["on_front"]
    assert len(list(csv.DictReader(io.StringIO(front_csv(data))))) == len(data["trials"])


CONFIG = {
    "architecture": {
        "stages": [
            {"block": "basic", "depth": 2, "width": 16},
            {"block": "basic", "depth": 1, "width": 32, "kernel": 5, "squeeze_excitation": True},
            {"block": "bottleneck", "depth": 1, "width": 64, "kernel": 3},
        ]
    },
    "distillation": {
        "terms": [{"kind": "mine", "temperature": 4.0}, {"kind": "yours"}],
        "assistants": [{"architecture": {"stages": []}}],
        "teachers": ["teacher"],
    },
}


def test_the_front_of_an_unmarked_record_is_found_among_the_complete_trials():
    data = record(30, third=True)
    expected = [trial["number"] for trial in front_of(data)]
    for trial in data["trials"]:
        trial.pop("on_front", None)
    assert [int(row["number"]) for row in csv.DictReader(io.StringIO(front_csv(data)))] == expected


def test_summaries():
    assert student(CONFIG) == "basic 16×2 → 32×1 k5 se → bottleneck 64×1"
    assert taught_by(CONFIG) == "mine + yours via assistant"
    assert taught_by({"distillation": {"scheme": "mutual", "terms": []}}) == "mutual: labels only"
    two = {"terms": [{"kind": "mine", "source": 1}], "teachers": ["a", "b"], "assistants": [{}, {}]}
    assert taught_by({"distillation": two}) == "mine from b via 2 assistants"
    # Who hears all of them is not said to hear the first.
    both = {"terms": [{"kind": "ensemble", "temperature": 2.0}], "teachers": ["a", "b"]}
    assert taught_by({"distillation": both}) == "ensemble T2 from a and b"
    assert taught_by({"distillation": both | {"teachers": ["a"]}}) == "ensemble T2"
    assert student(None) == ""
    assert choices(None) == {}
    assert choices(CONFIG)["knowledge"] == ["mine", "yours"]
    assert choices(CONFIG)["assistant"] == "one"


def test_registered_knowledge_shows_the_settings_it_uses():
    from naskd.knowledge import KNOWLEDGE

    for card in KNOWLEDGE:
        term = {"kind": card.name, "temperature": 3.0, "pairs": "all"}
        text = taught_by({"distillation": {"terms": [term]}})
        assert text.startswith(card.name)
        assert ("T3" in text, "(all)" in text) == (card.uses_temperature, card.uses_pairs)


def test_summaries_of_random_designs_name_every_block_and_kind():
    import random

    for seed in range(50):
        config = design(random.Random(seed))
        assert all(stage["block"] in student(config) for stage in config["architecture"]["stages"])
        assert all(term["kind"] in taught_by(config) for term in config["distillation"]["terms"])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (12345, "12.3 k"), (999_499, "999 k"), (999_500, "1.00 M"),
     (4.2e6, "4.20 M"), (1.5e12, "1.50 T"), (0.25, "0.25"), (999.7, "1.00 k"), (None, "–"), (math.nan, "–")],
)  # fmt: skip
def test_counts(value, text):
    assert units.count(value) == text


def test_units():
    assert units.percent(0.97216) == "97.22%"
    assert units.percent_with_sd(0.97216, 0.0031) == "97.22 ± 0.31%"
    assert units.percent_with_sd(0.97216, None) == "97.22%"
    assert units.flops(12_345) == "24.7 k"
    assert (units.macs(500), units.macs(12_345)) == ("500 MACs", "12.3 kMACs")
    assert (units.size(500), units.size(12_345)) == ("500 B", "12.3 kB")
    assert [units.duration(s) for s in (1.24, 200, 7500)] == ["1.2 s", "3 min 20 s", "2 h 5 min"]
    assert [units.count_tick(v) for v in (10_000, 12_350, 100, 1e6, 0.1 + 0.2)] == [
        "10 k", "12.35 k", "100", "1 M", "0.3",
    ]  # fmt: skip
    assert [units.percent_tick(v) for v in (0.985, 0.995, 1.0, 0.9995)] == [
        "98.5%",
        "99.5%",
        "100%",
        "99.95%",
    ]


def test_objectives_are_shown_in_their_units():
    shown_as = {
        ("fraction", 0.97216): "97.22%",
        ("bytes", 12_345): "12.3 kB",
        ("MACs", 12_345): "12.3 k",
        ("ms", 4.2543): "4.25 ms",
        ("ms", 12_345.6): "12,346 ms",
        ("", -0.5): "-0.5",
        ("ms", None): "–",
        ("ms", math.nan): "–",
    }
    assert {key: units.measure(key[1], key[0]) for key in shown_as} == shown_as
    assert units.axis_label("MACs", "MACs") == "MACs (FLOPs = 2 × MACs)"
    assert units.axis_label("latency", "ms") == "latency in ms"
    assert units.axis_label("parameters", "parameters") == "parameters"


@pytest.mark.parametrize(("name", "value"), [("own_cost", "0.86 ms"), ("own_gain", "0.371")])
def test_tables_show_objectives_of_ones_own(name, value):
    data = odd_records()[name]
    title = data["objectives"][1]["title"]
    by = f"{'best' if name == 'own_gain' else 'cheapest'} by {title}"
    for table, told in (
        (front_table(data), (title, value, by)),
        (trials_table(data), (title, value)),
        (trial_table(data, 29), (title, value)),
        (retrained_table(data["retrained"] | {"seeds": 5}, other_costs(data)), (title, value)),
    ):
        text = " ".join(shown(table, 160).split())
        for part in told:
            assert part in text
    rows = list(csv.DictReader(io.StringIO(front_csv(data))))
    assert [float(row["margin" if name == "own_gain" else "latency"]) for row in rows] == sorted(
        (t[data["objectives"][1]["name"]] for t in data["trials"] if t.get("on_front")),
        reverse=name == "own_gain",
    )


def test_what_a_search_would_cost_is_said_in_words_and_no_finer_than_it_is_known():
    cost = {
        "n_timed": 5,
        "trial_seconds": {"min": 12.0, "max": 95.0, "median": 33.3},
        "trial_train_macs": {"min": 1e9, "max": 3e9, "median": 2e9},
        "teacher_seconds": 143.0,
        "assistant_seconds": 0.0,
        "bank_seconds": 4.2,
        "trials": 60,
        "seconds": 147.2 + 30 * 40.0,
        "least_seconds": 600.0,
        "workers": 2,
        "threads": 2,
        "train_macs": 1.5e12,
        "own_train_macs": 2e10,
        "busy": "",
    }
    assert list(cost_lines(cost, 20)) == [
        "a trial: about 40 s (12 s to 1.6 min by design) and 20.0 GMACs of training, 20 epochs, by 5 random students "
        "timed here with 2 threads",
        "the whole budget: 60 trials, 2 at once, about 22 min, or 10 min by the fastest steps (2.4 min to train the "
        "teacher, 4.2 s to note what it says of the images); 1.50 TMACs of training",
    ]
    assert "teachers, of which" in " ".join(cost_lines({**cost, "teachers_timed": False}, 1))


@pytest.mark.parametrize("seconds", [(1.38, 1.3, 1.45), (900.0, 492.0, 3360.0), (5.0, 5.0, 5.0)])
def test_what_a_trial_and_a_budget_take_fit_each_other(seconds: tuple[float, float, float]) -> None:
    mean, least, most = seconds
    cost = {
        "n_timed": 5,
        "trial_seconds": {"min": least, "max": most, "median": 0.9 * mean},
        **dict.fromkeys(("teacher_seconds", "assistant_seconds", "bank_seconds"), 0.0),
        "trials": 10,
        "seconds": 10 * mean,
        "least_seconds": 10 * mean,
        "workers": 1,
        "train_macs": 1e12,
        "own_train_macs": 1e11,
    }
    trial, budget = cost_lines(cost, 20)
    assert f"about {units.about(mean)} " in trial
    assert f"about {units.about(10 * mean)};" in budget
    # Where the range is narrow it is not said: rounded, it would leave out what it is about.
    assert ("by design" in trial) is (most > 1.3 * least)


def test_draws_that_are_no_news_are_said() -> None:
    space = {"drawn": 256, "designs": 215, "turned_away": {}, "example": {}, "macs": {}}
    checked = {"space": space, "built": [], "memory": {}, "cost": {}, "epochs": 1}
    (line,) = check_lines(checked)
    assert line.endswith("turned away: none; drawn a second time: 41")
    (line,) = check_lines({**checked, "space": {**space, "designs": 256}})
    assert line.endswith("turned away: none")


def test_a_space_is_said_in_words_with_what_its_parameters_mean():
    space = {
        "space": "space.py:joint",
        "n_parameters": 3,
        "log10_size": 9.2,
        "samples": 50,
        "distinct_designs": 45,
        "turned_away": {"over max_macs": 5},
        "macs": {"min": 1000, "median": 5e4, "max": 2e6},
        "parameters": [
            {"name": "stage2.block.ghost.expansion", "range": "2.0, 3.0"},
            {"name": "kd.share", "range": "0 to 0.9"},
            {"name": "kd.1.kind", "range": "none, logits"},
            {"name": "kd.2.weight", "range": "0.5 to 2"},
            {"name": "kd.scheme", "range": "offline, mutual"},
            {"name": "my.own", "range": "1 to 2"},
        ],
    }
    text = shown(space_table(space), 120)
    for part in (
        "3 parameters, about 10^9 combinations",
        "50 random designs drawn: 45 distinct ones can be trained; turned away: 5 over max_macs",
        "1.00 kMACs to 2.00 MMACs, half of the designs below 50.0 k",
        "channels inside a ghost block of stage 2, as a multiple",
        "share of the loss that it has, beside the labels",
        "which knowledge is in slot 1",
        "weight of what is in slot 2",
        "how networks train together",
        "my.own",
    ):
        assert part in text, text
    nothing = {**space, "distinct_designs": 0, "macs": {"min": None, "median": None, "max": None}}
    assert "no design that was drawn can be trained, and naskd check says why" in shown(space_table(nothing))


def test_methods_are_listed_in_as_many_columns_as_there_are():
    rows = [{"kind": "knowledge", "name": n, "paper": "Hinton et al., 2015 " * 6} for n in "ab"]
    lines = shown(methods_table(rows)).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("knowledge" in line for line in lines) == 1


@pytest.mark.parametrize("name", ODD)
def test_picture_of_every_record(name, tmp_path):
    write_png(ODD[name], tmp_path / "front.png")
    data = (tmp_path / "front.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 10_000


@pytest.mark.parametrize(("n", "told"), [(1, "1 weaker trial lies below"), (2, "2 weaker trials lie below")])
def test_a_picture_says_what_lies_below_its_axis_and_has_no_legend_of_it(n, told):
    def drawn(accuracies):
        data = record(10, teacher=False)
        data["trials"] = data["trials"][: len(accuracies)]
        for i, (trial, accuracy) in enumerate(zip(data["trials"], accuracies, strict=True)):
            trial.update(state="COMPLETE", val_accuracy=accuracy, macs=1e5 * (i + 1), on_front=i < 2)
        axes = Figure().add_subplot()
        draw_front(data, axes)
        return [text.get_text() for text in axes.texts], axes.get_legend_handles_labels()[1]

    texts, legend = drawn([0.427, 0.448, *[0.396] * n])
    assert texts == [f"{told} the axis"]
    assert legend == ["front, validation"]
    texts, legend = drawn([0.427, 0.448, 0.426])
    assert not texts
    assert "dominated" in legend


def test_pictures_differ_with_the_record(tmp_path):
    pictures = []
    for index, data in enumerate(
        (record(30), record(30), record(30, teacher=False), record(30, retrained=True))
    ):
        write_png(data, tmp_path / f"{index}.png")
        pictures.append((tmp_path / f"{index}.png").read_bytes())
    moved = record(30)
    moved["teacher"]["macs"] /= 2
    write_png(moved, tmp_path / "moved.png")
    assert pictures[0] == pictures[1]
    assert pictures[0] != (tmp_path / "moved.png").read_bytes()
    assert len(set(pictures)) == 3


def test_reports_import_no_engine(tmp_path):
    code = (
        "import sys; from naskd.report import front_csv, front_table, html;"
        "front_csv.front_csv({}); front_table.front_table({}); html.write_html({}, 'x.html');"
        "print([m for m in ('torch', 'optuna', 'ray', 'matplotlib', 'plotly') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert run.stdout == "[]\n"


def test_nothing_is_left_half_written(tmp_path):
    write_html(record(5), tmp_path / "report.html")
    write_html(record(5), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_what_is_expected_stands_beside_what_was_measured_until_test_images_say_more():
    data = record(30)
    chosen = front_of(data)[0]
    chosen["expected"] = {"mean": 0.8123, "sd": 0.0105}
    wide, narrow = shown(front_table(data), 140), shown(front_table(data), 80)
    assert "expected" in wide
    assert "81.23 ± 1.05%" in wide
    assert "expected: of new images" in wide
    assert "81.23%" in narrow
    assert "81.23 ± 1.05%" in shown(trial_table(data, chosen["number"]))
    assert "81.23 ± 1.05% expected" in front_text(data)
    assert "<td>81.23 ± 1.05%</td>" in front_html(data)
    row = next(csv.DictReader(io.StringIO(front_csv(data))))
    assert (row["expected_accuracy"], row["expected_sd"]) == ("0.8123", "0.0105")
    assert to_frame(data)["expected_accuracy"][chosen["number"]] == 0.8123
    assert "expected" not in shown(front_table(record(30)), 140)


def test_what_was_expected_gives_way_to_test_images():
    data = record(40, retrained=True)
    for trial in data["trials"]:
        trial["expected"] = {"mean": 0.8123, "sd": 0.0105}
    text = shown(front_table(data), 140)
    assert "test acc" in text
    assert "expected" not in text
