import dataclasses
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_studies import TRAINING, design, small_context

from naskd.knowledge.base import LossInputs, TeacherParts
from naskd.knowledge.feature.simkd import SimkdLoss
from naskd.networks.student_file import load_student, save_student
from naskd.nn.cost import network_cost
from naskd.nn.projected import ProjectedStudent
from naskd.runs.export import export_student
from naskd.runs.retrain import Design, Retraining
from naskd.spec.design import ArchitectureSpec, KnowledgeTerm, StageSpec
from naskd.spec.teachers import TeacherSpec
from naskd.testing.taps import given, random_taps, shapes
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.run import TrialRun, start_run
from naskd.trials.steps import run_job

SIMKD = KnowledgeTerm("simkd")
TEACHER = shapes((8, 8), (12, 4))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("simkd"))


@pytest.fixture(scope="module")
def run(context: StudyContext) -> TrialRun:
    """A student of one epoch."""
    found, _ = start_run(design(SIMKD), context, seed=1)
    found.advance(1)
    return found


def test_the_logits_are_the_teachers_classifier_on_the_projected_map() -> None:
    loss = SimkdLoss(SIMKD, shapes((4, 8), (6, 4)), TEACHER, given(TEACHER)).eval()
    student = random_taps(shapes((4, 8), (6, 4)))
    weight, bias = given(TEACHER).parts.head
    projected = loss.projector(student.stages[-1].tensor)
    assert projected.shape == (6, 12, 4, 4)
    found = loss.deployed_taps(student)
    torch.testing.assert_close(found.pooled, projected.mean(dim=(2, 3)))
    torch.testing.assert_close(found.logits, found.pooled @ weight.T + bias)
    assert found.stages is student.stages


def test_a_perfect_projection_has_the_teachers_logits() -> None:
    """Zero loss on the teacher's grid means the teacher's logits: what the method is about."""
    teacher = random_taps(TEACHER)
    weight, bias = given(TEACHER).parts.head
    teacher = replace(teacher, logits=teacher.stages[-1].tensor.mean(dim=(2, 3)) @ weight.T + bias)
    loss = SimkdLoss(SIMKD, TEACHER, TEACHER, given(TEACHER)).eval()
    loss.projector.layers = torch.nn.Identity()
    torch.testing.assert_close(loss.deployed_taps(teacher).logits, teacher.logits)


def test_inner_channels_are_the_teachers_over_the_factor() -> None:
    for factor, inner in ((1, 12), (2, 6), (5, 2), (16, 1)):
        term = KnowledgeTerm("simkd", options=(("factor", factor),))
        assert SimkdLoss(term, shapes((6, 4)), TEACHER, given(TEACHER)).projector.shape.inner == inner


def test_a_classifier_that_reads_something_else_is_refused() -> None:
    head = (torch.zeros(5, 30), torch.zeros(5))
    with pytest.raises(ValueError, match=r"reads 30 features, the stage has 12 channels.*teacher\.taps"):
        SimkdLoss(SIMKD, shapes((6, 4)), TEACHER, LossInputs(TeacherParts(head)))


def test_a_classifier_behind_a_normalisation_is_refused_before_a_trial(tmp_path: Path) -> None:
    """It has as many features as the last stage has channels, and sees others: a perfect projection says nonsense."""
    options = (("depth", 2), ("heads", 2), ("patch", 2), ("width", 16))
    transformer = TeacherSpec(architecture=ArchitectureSpec(family="vit", options=options), training=TRAINING)
    context = small_context(tmp_path, teacher=transformer)
    (why,) = context.designs.design_problems(design(SIMKD))
    assert "this one reads something else of it, after a normalisation, say; 'srrl' teaches" in why
    assert context.designs.design_problems(design(KnowledgeTerm("srrl"))) == []
    teacher = context.sources.stand_in(context.prerequisites.teacher())
    assert teacher.shapes.stages[-1].channels == teacher.parts.head[0].shape[1], "lengths do not tell"


def test_projector_and_classifier_count_and_the_students_own_classifier_does_not(context, run) -> None:
    plain = context.designs.design_cost(design())
    found = context.designs.design_cost(design(SIMKD))
    assert found == run.cost == network_cost(run.scheme.deployed, 1, 8)
    # Student: 6 channels on 4x4, 10 classes. Teacher: 8 channels. Projector 6 -> 4 -> 4 -> 8.
    projector = (6 * 4 + 4 * 4 * 9 + 4 * 8) * 16
    assert found.macs == plain.macs - 6 * 10 + projector + 8 * 10
    weights = 6 * 4 + 4 * 4 * 9 + 4 * 8 + 2 * (4 + 4 + 8)
    assert found.n_params == plain.n_params - (6 * 10 + 10) + weights + (8 * 10 + 10)


def test_the_classifier_stays_the_teachers_while_all_else_learns(context, run) -> None:
    deployed = run.scheme.deployed
    assert isinstance(deployed, ProjectedStudent)
    network = context.sources.online(context.prerequisites.teacher()).network
    assert torch.equal(deployed.classifier.weight, network.head.weight)
    before = {name: p.clone() for name, p in deployed.named_parameters()}
    run.advance(2)
    moved = {name for name, p in deployed.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if not name.startswith("classifier")}


def test_without_labels_a_student_learns_from_the_teacher_alone(context) -> None:
    config = design(SIMKD, epochs=8)
    config = replace(config, distillation=replace(config.distillation, ce_weight=0.0))
    found, _ = start_run(config, context, seed=1)
    curve = [found.advance(epoch)["simkd"] for epoch in range(1, 9)]
    assert curve[-1] < 0.5 * curve[0]


def test_two_that_stay_are_one_too_many(context) -> None:
    twice = design(SIMKD, replace(SIMKD, options=(("factor", 4),)))
    assert "only one kind of knowledge may stay" in context.designs.design_problems(twice)[0]


def test_a_student_is_saved_loaded_and_exported_whole(context, run, tmp_path: Path) -> None:
    deployed = run.scheme.deployed.eval()
    images = context.resources.data.val.images
    save_student(tmp_path / "x.safetensors", deployed, context.resources.data.class_names)
    loaded = load_student(tmp_path / "x.safetensors")
    assert isinstance(loaded, ProjectedStudent)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images.float() / 255), deployed(images.float() / 255))
    formats = ["safetensors"]
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
        formats.append("onnx")
    for format in formats:
        assert export_student(tmp_path / "x.safetensors", tmp_path / f"y.{format}", images)["agreement"] == 1


def test_a_trial_and_its_retraining(context, tmp_path: Path) -> None:
    config = design(SIMKD)
    job = Job("0", "trial", config, 1, config.training.epochs)
    result = run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)
    assert result.status == "complete", result.error
    assert result.metrics["macs"] == context.designs.design_cost(config).macs
    path = Retraining(context, tmp_path, 2).train(Design(0, config, None), 0)
    assert isinstance(load_student(path), ProjectedStudent)


def test_a_student_of_another_grid_is_pooled(context) -> None:
    for side_strides in ((1, 1), (2, 2)):
        stages = tuple(StageSpec("basic", 1, 4, stride=stride) for stride in side_strides)
        config = replace(design(SIMKD), architecture=ArchitectureSpec(stages, stem_width=4))
        found, _ = start_run(config, context, seed=0)
        assert found.cost == context.designs.design_cost(config)
        found.advance(1)
    assert dataclasses.asdict(found.scheme.deployed.projector.shape)["grid"] == (2, 2)


@pytest.mark.parametrize("scheme", ["self_kd", "adversarial", "cs_kd"])
def test_the_projector_runs_as_often_as_the_books_say_whatever_else_wants_the_logits(
    context, scheme: str
) -> None:
    """Twice a step: for the logits of the network that leaves, and for the loss."""
    config = design(SIMKD)
    config = replace(config, distillation=replace(config.distillation, scheme=scheme))
    found, _ = start_run(config, context, seed=1)
    student, projector = found.scheme.taught.network, found.scheme.taught.deployed.projector
    calls = {"projector": 0, "student": 0}

    def count(name: str) -> Any:
        def hook(module: torch.nn.Module, *_: object) -> None:
            calls[name] += module.training

        return hook

    projector.register_forward_hook(count("projector"))
    next(m for m in student.modules() if isinstance(m, torch.nn.BatchNorm2d)).register_forward_hook(
        count("student")
    )
    found.advance(1)
    assert calls["projector"] == 2 * calls["student"] > 0
