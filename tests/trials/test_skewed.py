"""Data whose classes are not equally many: weights of the classes, and accuracy that does not hide the small ones."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_studies import TEACHER, design, make, open_context, small_context, study
from torch.nn import functional as F

import naskd
from naskd.knowledge.base import Lesson, Mixed
from naskd.spec.datasets import DataSpec
from naskd.spec.design import TrainingSpec, TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.study.admission import problems
from naskd.training.class_weights import class_weights
from naskd.training.evaluation import balanced_accuracy
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job

LABELS = torch.tensor([0] * 6 + [1] * 3 + [2])


def test_balanced_weights_give_each_class_the_same_sum():
    found = class_weights("balanced", LABELS, 3)
    # sklearn: n_samples / (n_classes * np.bincount(y))
    torch.testing.assert_close(found, torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    assert class_weights("none", LABELS, 3) is None


def test_of_given_weights_the_proportions_count_and_their_mean_over_the_images_is_1():
    one, other = (class_weights(w, LABELS, 3) for w in ((1.0, 2.0, 8.0), (10.0, 20.0, 80.0)))
    torch.testing.assert_close(one, other)
    assert float(one[LABELS].mean()) == pytest.approx(1)
    assert float(one[2] / one[0]) == pytest.approx(8)
    with pytest.raises(InputError, match="class_weights has 2 numbers, the data 3 classes"):
        class_weights((1.0, 2.0), LABELS, 3)


def test_cross_entropy_is_weighted_by_the_class_of_each_label():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 2])
    weights = torch.tensor([0.5, 1.0, 4.0])
    each = F.cross_entropy(logits, labels, reduction="none")
    lesson = Lesson(labels, torch.arange(4), class_weights=weights)
    torch.testing.assert_close(lesson.label_loss(logits), (each * weights[labels]).mean())
    mixed = replace(lesson, mixed=Mixed(labels.roll(1), torch.tensor(0.3)))
    other = F.cross_entropy(logits, labels.roll(1), reduction="none")
    expected = (0.3 * each * weights[labels] + 0.7 * other * weights[labels.roll(1)]).mean()
    torch.testing.assert_close(mixed.label_loss(logits), expected)
    partly = Lesson(
        torch.tensor([0, -100, 1, -100]), torch.arange(4), partly_labelled=True, class_weights=weights
    )
    shown = F.cross_entropy(logits[[0, 2]], torch.tensor([0, 1]), reduction="none") * weights[:2]
    torch.testing.assert_close(partly.label_loss(logits), shown.mean())


def test_balanced_accuracy_is_the_mean_of_the_classes_that_occur():
    labels, said = torch.tensor([0, 0, 0, 0, 1, 1, 3]), torch.tensor([0, 0, 0, 1, 1, 0, 3])
    assert balanced_accuracy(said, labels) == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert balanced_accuracy(torch.zeros_like(labels), labels) == pytest.approx(1 / 3)


def test_designs_of_before_keep_their_name_and_form():
    plain = TrialConfig(design().architecture, design().distillation, TrainingSpec())
    assert "class_weights" not in json.dumps(plain.to_dict())
    weighted = replace(plain, training=TrainingSpec(class_weights="balanced"))
    given = replace(plain, training=TrainingSpec(class_weights=(1.0, 3.0)))
    assert len({config.config_id for config in (plain, weighted, given)}) == 3
    for config in (weighted, given):
        assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert TrainingSpec(class_weights=(2.0, 2.0)).canonical() == TrainingSpec()
    for alike in ((2.0, 6.0), (0.1, 0.3), (1 / 3, 1.0)):
        assert TrainingSpec(class_weights=alike).canonical() == given.training, "only proportions count"
    far = TrainingSpec(class_weights=(1e-300, 1e300))
    assert far.canonical() == far
    for wrong in ("balance", (1.0,), (1.0, -1.0)):
        with pytest.raises(ValueError, match="class_weights"):
            TrainingSpec(class_weights=wrong)


def skewed(folder: Path) -> DataSpec:
    """The digits 0 and 1 as noise around two patterns that overlap; one in sixteen is a 1."""
    rng = np.random.default_rng(0)
    labels = (np.arange(480) % 16 == 0).astype(np.int64)
    patterns = rng.integers(90, 150, (2, 8, 8))
    images = np.clip(patterns[labels] + rng.normal(0, 60, (480, 8, 8)), 0, 255).astype(np.uint8)
    np.savez(folder / "a.npz", images=images, labels=labels)
    return DataSpec("npz", root=str(folder / "a.npz"), val_fraction=0.4)


def trained(context, **training):
    config = design(**{"epochs": 8, "augmentation": "none", **training})
    result = run_job(Job("0", "trial", config, 1, 8), context, lambda *_: Decision.CONTINUE)
    assert result.status == "complete", result.error
    return result.metrics


def test_weights_find_more_of_a_small_class(tmp_path):
    objectives = ("val_accuracy", "balanced_accuracy", "macs")
    context = small_context(tmp_path, data=skewed(tmp_path), teacher=None, objectives=objectives)
    plain, weighted = trained(context), trained(context, class_weights="balanced")
    assert plain["balanced_accuracy"] < weighted["balanced_accuracy"] - 0.1
    assert plain["val_accuracy"] > 0.9
    assert OBJECTIVES["balanced_accuracy"].known == "after"
    assert trained(context, class_weights=(1.0, 15.0))["balanced_accuracy"] > plain["balanced_accuracy"]


def test_designs_and_teachers_with_weights_of_other_classes_are_turned_away(tmp_path):
    context = small_context(tmp_path)
    found = problems(context.designs.measured(design(class_weights=(1.0, 2.0))), context.resources.spec)
    assert found == [
        "training.class_weights has 2 numbers, the data 10 classes; allowed: one for each, in their order"
    ]


STUDY = """
name = "skewed"
space = "space.py:joint"
epochs = 1
objectives = ["val_accuracy", "balanced_accuracy", "macs"]
[data]
kind = "digits"
max_train = 60
[budget]
trials = 2
[retrain]
seeds = 1
[sampler]
name = "random"
[execution]
device = "cpu"
threads = 1
"""
SPACE = """
from naskd.config import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig
from naskd.spaces import suggest_training

def joint(trial):
    stage = StageSpec("basic", 1, trial.suggest_categorical("width", (4, 5)), stride=2)
    training = suggest_training(trial, TrainingSpec(batch_size=32), class_weights=("none", "balanced"))
    return TrialConfig(ArchitectureSpec((stage,), stem_width=4), DistillationSpec(), training)
"""


def test_a_search_has_it_in_record_page_and_retraining(tmp_path):
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    run = naskd.search(tmp_path / "study.toml", out=tmp_path / "run")
    done = [trial for trial in run.trials() if trial["state"] == "COMPLETE"]
    assert done
    assert all(0 <= trial["balanced_accuracy"] <= 1 for trial in done)
    assert "balanced validation accuracy" in run.write_html(tmp_path / "page.html").read_text()
    found = run.retrain()["designs"]
    assert all(0 <= row["test_balanced_accuracy_mean"] <= 1 for row in found)


def test_a_teacher_that_is_trained_here_may_have_weights(tmp_path):
    teacher = TeacherSpec(architecture=TEACHER, training=TrainingSpec(epochs=1, class_weights="balanced"))
    store = ArtifactStore(tmp_path / "artifacts")
    weighted = open_context(study(teacher=teacher), store)
    plain = open_context(study(teacher=replace(teacher, training=TrainingSpec(epochs=1))), store)
    assert weighted.designs.teachers()[0].artifact_id != plain.designs.teachers()[0].artifact_id
    assert [result.status for result in make(weighted)] == ["complete"]
