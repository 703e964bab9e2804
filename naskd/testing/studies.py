"""Studies of digits that train in milliseconds, for tests of what trains."""

import dataclasses
from pathlib import Path
from typing import Any

from naskd.spec.datasets import DataSpec
from naskd.spec.design import (
    ArchitectureSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.study import BudgetSpec, ExecutionSpec, StudySpec
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.resources import open_resources
from naskd.trials.steps import run_job

TRAINING = TrainingSpec(epochs=3, batch_size=32, learning_rate=0.01)
STUDENT = ArchitectureSpec(
    stem_width=4, stages=(StageSpec("basic", 1, 4), StageSpec("basic", 1, 6, stride=2))
)
TEACHER = ArchitectureSpec(
    stem_width=6, stages=(StageSpec("basic", 1, 6), StageSpec("basic", 1, 8, stride=2))
)
ALL_TERMS = tuple(
    KnowledgeTerm(kind, weighting="balanced") for kind in ("attention", "hint", "logits", "rkd")
)


def study(**changes: Any) -> StudySpec:
    """A study of 120 digits with a teacher of one epoch."""
    spec = StudySpec(
        name="small",
        space="space.py:joint",
        data=DataSpec("digits", max_train=120),
        budget=BudgetSpec(trials=2),
        teacher=TeacherSpec(architecture=TEACHER, training=dataclasses.replace(TRAINING, epochs=1)),
        epochs=TRAINING.epochs,
        execution=ExecutionSpec(device="cpu"),
    )
    return dataclasses.replace(spec, **changes)


def design(*terms: KnowledgeTerm, **changes: Any) -> TrialConfig:
    """A design of two stages; `changes` are of its training."""
    return TrialConfig(STUDENT, DistillationSpec(terms=terms), dataclasses.replace(TRAINING, **changes))


def open_context(
    spec: StudySpec, store: ArtifactStore, cache: Path | None = None, **given: Any
) -> StudyContext:
    """The parts of a study in this process."""
    return StudyContext.of(open_resources(spec, store, cache, **given))


def given(context: StudyContext, **changes: Any) -> StudyContext:
    """The same study with other resources."""
    return StudyContext.of(dataclasses.replace(context.resources, **changes))


def make(context: StudyContext, config: TrialConfig | None = None) -> list[TrialResult]:
    """Make what a design needs (None: the teacher), in order."""
    recipes = context.designs.teachers() if config is None else context.designs.recipes(config)
    return [
        run_job(
            Job(recipe.artifact_id, "artifact", config, recipe.seed, 0, requires=recipe.requires),
            context,
            lambda epoch, metrics: Decision.CONTINUE,
        )
        for recipe in recipes
    ]


def small_context(folder: Path, **changes: Any) -> StudyContext:
    """The context of a :func:`study`, its teachers made."""
    context = open_context(study(**changes), ArtifactStore(folder / "artifacts"))
    if context.resources.spec.teacher is not None:
        assert {result.status for result in make(context)} == {"complete"}
    return context
