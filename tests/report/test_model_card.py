"""The model card of a student says what is known of it, and what is not."""

import types
from typing import Any

import pytest

from naskd.report.model_card import model_card
from naskd.runs.card_facts import teacher_source, teachers_of
from naskd.spec.design import (
    ArchitectureSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.teachers import TeacherSpec

FILE = {
    "images": "validation",
    "n_images": 2000,
    "accuracy": 0.91,
    "original_accuracy": 0.91,
    "size_bytes": 2,
}


def facts(**changes: Any) -> dict[str, Any]:
    teacher = {
        "name": "wide",
        "source": "resnet50 of torchvision",
        "license": None,
        "saw": "other",
        "val_accuracy": 0.95,
    }
    data = {"kind": "image_folder", "title": 'flowers: "wild"', "n_classes": 5, "shape": (3, 96, 64)}
    return {
        "name": "flowers-3",
        "study": "flowers",
        "number": 3,
        "license": None,
        "version": "0.1.0",
        "date": "2026-11-30",
        "command": "naskd export flowers 3 --folder out",
        "data": {**data, "n_train": 100, "n_val": 20, "n_unlabelled": 70, "modality": "paired"},
        "teachers": [teacher],
        "config": {
            "distillation": {"terms": [], "ce_weight": 0.5},
            "training": {"epochs": 9, "optimizer": "sgd"},
        },
        "study_seed": 7,
        "training": {"epochs": 4, "test_accuracy": None},
        "retrained": None,
        "val_accuracy": 0.91,
        "macs": 1000,
        "n_params": 10,
        "file": FILE,
        "weights_bytes": 40,
        "latency": {"median_ms": 1.0, "low_ms": 0.5, "high_ms": 2.0, "calls": 50, "processor": "a processor"},
        **changes,
    }


def test_a_student_of_the_search_is_told_apart_from_one_that_was_tested() -> None:
    card = model_card(facts())
    for text in (
        'license: "unknown"',
        'name: "flowers: \\"wild\\""',
        "split: validation",
        "| 2.00 k validation | 91.00% |",
        "Its accuracy is on the validation images, by which a search has chosen it among many: it is too high",
        "100 training and 20 validation images\n",
        "70 images without labels",
        "64x96 pixels, colour",
        "it sees the modality paired",
        "the teacher 'wide': resnet50 of torchvision, 95.00% on the validation images; elsewhere it was trained on "
        "other images; licence: not stated",
        "The licence of a teacher is not stated",
        "taught by: labels only, labels with weight 0.5",
        "training: epochs 4, optimizer sgd",
        "seed of the study 7\n",
    ):
        assert text in card
    assert "test images" not in card.partition("## Limits")[0]


@pytest.mark.parametrize(
    ("accuracy", "says"),
    [(0.9, "1.00 points lower than"), (0.92, "1.00 points higher than"), (0.91, "as high as")],
)
def test_what_rounding_costs_is_said(accuracy: float, says: str) -> None:
    file = {**FILE, "accuracy": accuracy, "n_calibration": 64, "float_size_bytes": 8000, "agreement": 0.97}
    card = model_card(facts(file=file, retrained=None))
    assert f"Its accuracy is {says} the original's, and it gives 97.00% of the images the same class." in card
    assert "2 B (8.00 kB before rounding)" in card


def test_one_training_says_nothing_of_seeds_and_nobody_taught_is_said() -> None:
    retrained = {"n": 1, "test_accuracy_mean": 0.9, "test_accuracy_sd": None}
    card = model_card(facts(retrained=retrained, teachers=[], file={**FILE, "images": "test"}))
    assert "| this design, 1 seed | test | 90.00% |" in card
    assert "It was trained for good once" in card
    assert "Nobody: it learned from labels alone." in card
    assert "licence" not in card
    assert "2000 test images" in card


def test_a_student_that_peers_taught_did_not_learn_from_labels_alone() -> None:
    config = {"distillation": {"terms": [], "scheme": "dml"}, "training": {"epochs": 9}}
    assert "No teacher of the study; it trained with others: dml: labels only." in model_card(
        facts(teachers=[], config=config)
    )


def test_a_teacher_of_the_study_that_a_design_did_not_hear_is_not_on_its_card() -> None:
    architecture = ArchitectureSpec((StageSpec("basic", 1, 4),))
    names = ("teacher", "wide")
    teachers = {name: TeacherSpec(name=name, architecture=architecture) for name in names}
    spec = types.SimpleNamespace(teacher_specs=lambda: teachers)
    plain, taught = DistillationSpec(), DistillationSpec(terms=(KnowledgeTerm("logits"),), teachers=("wide",))
    start = TrainingSpec(start="teacher")
    found = [
        teachers_of(TrialConfig(architecture, distillation, training), spec)
        for distillation, training in ((plain, TrainingSpec()), (taught, TrainingSpec()), (taught, start))
    ]
    assert found == [set(), {"wide"}, {"teacher", "wide"}]


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        (
            {"torchvision": "resnet18", "weights": "V1"},
            "resnet18 of torchvision with weights V1, trained on these",
        ),
        ({"torchvision": "resnet18", "checkpoint": "x.pt"}, "resnet18 of torchvision"),
        ({"builder": "a.py:b", "checkpoint": "x.pt"}, "a network of the study's own code"),
        ({"source": "run"}, "of the source 'run'"),
        ({"architecture": ArchitectureSpec((StageSpec("basic", 1, 8),))}, "a network that naskd trained on"),
    ],
)
def test_where_a_teacher_comes_from_is_said(teacher: dict[str, Any], says: str) -> None:
    assert teacher_source(TeacherSpec(**teacher)).startswith(says)


def test_accuracies_on_other_images_than_before_are_told_apart() -> None:
    assert "are not those of the search" not in model_card(facts())
    said = model_card(facts(file={**FILE, "changed": True}))
    assert "The validation images on which the files were compared are not those of the search" in said
