"""What a student owes to being taught: the same student with the labels alone, trained as often."""

import io
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console
from small_studies import STUDENT, design, small_context
from typer.testing import CliRunner

from naskd.cli import app
from naskd.networks.student_file import load_student
from naskd.report.plots import draw_front
from naskd.report.retrained_table import retrained_table
from naskd.runs.labels_alone import compared, with_labels_alone
from naskd.runs.results import load_results
from naskd.runs.retrain import Design, Retraining
from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.errors import InputError
from naskd.trials.context import StudyContext

TAUGHT = Design(3, design(KnowledgeTerm("logits", weighting="balanced")), 0.5)
OTHER = Design(5, design(KnowledgeTerm("dist", weighting="balanced")), 0.5)
PLAIN = Design(8, TrialConfig(replace(STUDENT, stem_width=3), design().distillation, design().training), None)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("context"))


def test_the_labels_alone_are_the_same_student_and_training(context: StudyContext) -> None:
    started = replace(TAUGHT.config, training=replace(TAUGHT.config.training, start="teacher"))
    for config in (TAUGHT.config, started):
        alone = with_labels_alone(config, context.designs)
        assert alone.architecture == config.architecture
        assert alone.distillation == DistillationSpec()
        assert alone.training == TAUGHT.config.training
    assert with_labels_alone(PLAIN.config, context.designs) is None, "it has the labels alone already"


def test_where_another_student_leaves_nothing_is_compared(context: StudyContext) -> None:
    early = DistillationSpec(scheme="byot", scheme_options=(("exit", 1),))
    stages = (*STUDENT.stages, replace(STUDENT.stages[-1], width=8))
    config = TrialConfig(replace(STUDENT, stages=stages), early, TAUGHT.config.training)
    whole = replace(config, distillation=DistillationSpec(scheme="byot"))
    assert with_labels_alone(config, context.designs) is None
    assert with_labels_alone(whole, context.designs) is not None


def test_a_gain_by_its_definition() -> None:
    found = compared({"test_accuracies": [0.9, 0.8]}, [{"test_accuracy": 0.7}, {"test_accuracy": 0.6}])
    assert found["gain"] == pytest.approx(0.2)
    # Two samples of variance 0.005 and size 2.
    assert found["gain_standard_error"] == pytest.approx(math.sqrt(0.005 / 2 + 0.005 / 2))
    once = compared({"test_accuracies": [0.9]}, [{"test_accuracy": 0.7}])
    assert (once["test_accuracy_sd"], once["gain_standard_error"]) == (None, None)


def test_each_taught_student_is_trained_alone_as_often(context: StudyContext, tmp_path: Path) -> None:
    said: list[str] = []
    retraining = Retraining(context, tmp_path, 1)
    record = retraining.run([TAUGHT, OTHER, PLAIN], 2, lambda *now: said.append(now[2]), labels_alone=True)
    assert "trial 3 with the labels alone, seed 2 of 2" in said
    assert not any("trial 8 with" in text for text in said)
    rows = {row["number"]: row for row in record["designs"]}
    assert "labels_alone" not in rows[8]
    # Both are the same student: it is trained with the labels alone once for both.
    assert rows[3]["labels_alone"]["test_accuracies"] == rows[5]["labels_alone"]["test_accuracies"]
    trainings = load_results(tmp_path)["trainings"]
    assert len(trainings) == 8
    alone = rows[3]["labels_alone"]
    assert alone["n"] == 2
    assert alone["gain"] == pytest.approx(
        statistics.fmean(rows[3]["test_accuracies"]) - statistics.fmean(alone["test_accuracies"])
    )
    key = retraining.key(Design(3, with_labels_alone(TAUGHT.config, context.designs), None), 0)
    assert trainings[key]["test_accuracy"] == alone["test_accuracies"][0]
    assert load_student(tmp_path / trainings[key]["file"]).spec == STUDENT


def test_where_students_have_no_labels_nothing_is_trained(context: StudyContext, tmp_path: Path) -> None:
    unlabelled = replace(context.resources.data, labels_teach=False)
    resources = replace(context.resources, data=unlabelled)
    with pytest.raises(InputError, match=r"data\.modality\.labels = false"):
        Retraining(StudyContext.of(resources), tmp_path, 1).run([TAUGHT], 1, labels_alone=True)
    assert load_results(tmp_path) == {}


def shown(record: dict) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(retrained_table(record))
    return text.getvalue()


def test_tables_show_it_where_it_is_known() -> None:
    row = {"number": 1, "test_accuracy_mean": 0.8, "test_accuracies": [0.8, 0.8], "macs": 1000, "n": 2}
    alone = compared(row, [{"test_accuracy": 0.7}, {"test_accuracy": 0.72}])
    table = shown({"designs": [{**row, "labels_alone": alone}, row]})
    assert "labels alone" in table
    assert "71.00 ± 1.41%" in table
    assert "+9.00 ± 1.00" in table
    assert "labels alone" not in shown({"designs": [row]})


def test_the_plot_of_the_front_shows_both() -> None:
    row = {"number": 1, "test_accuracy_mean": 0.8, "test_accuracy_sd": 0.01, "macs": 1000}
    alone = {"test_accuracy_mean": 0.7, "test_accuracy_sd": 0.02}
    axes = Figure().add_subplot()
    draw_front({"study": "x", "trials": [], "retrained": {"designs": [{**row, "labels_alone": alone}]}}, axes)
    labels = axes.get_legend_handles_labels()[1]
    assert "labels alone, test" in labels
    low, high = axes.get_ylim()
    assert low < 0.7 < 0.8 < high


def test_the_command_line_asks_for_it(tiny_run_copy: Path) -> None:
    result = CliRunner().invoke(app, ["retrain", str(tiny_run_copy), "--seeds", "1", "--labels-alone"])
    assert result.exit_code == 0, result.output
    rows = load_results(tiny_run_copy)["designs"]
    assert all("labels_alone" in row for row in rows)
    assert "labels alone" in result.stdout
