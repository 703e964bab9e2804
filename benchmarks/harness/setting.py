"""What is measured: networks, and the study's own objects around them.

The one place that knows how naskd makes what trials share: benchmarks ask a :class:`Setting`.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from naskd.data.images import SearchData
from naskd.knowledge.source import OnlineSource
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
from naskd.store.checkpoints import CheckpointStore
from naskd.study.storage import open_storage
from naskd.study.study import Study
from naskd.training.compute import Compute
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.resources import open_resources
from naskd.trials.run import TrialRun, start_run
from naskd.trials.steps import run_job

ROOT = Path(__file__).resolve().parents[2]
LOGITS = (KnowledgeTerm("logits", weighting="balanced"),)
MAPS = (
    KnowledgeTerm("hint", weighting="balanced", pairs="last"),
    KnowledgeTerm("attention", weighting="balanced", pairs="all"),
)
TEACHINGS = {"logits": LOGITS, "hint+attention": MAPS, "all three": (*LOGITS, *MAPS)}
REFERENCE = {"val_accuracy": 0.0, "macs": 1e9}


def resnet(depth: int, width: int = 16, stem_stride: int = 1) -> ArchitectureSpec:
    """Three stages of basic blocks, as ResNets for CIFAR-10 have: depth 3 is ResNet-20, depth 9 ResNet-56."""
    stages = tuple(StageSpec("basic", depth, width * 2**i, stride=2 if i else 1) for i in range(3))
    return ArchitectureSpec(stages, stem_width=width, stem_stride=stem_stride)


def execution(args: argparse.Namespace) -> ExecutionSpec:
    """Device and threads, and what ``--execution KEY=VALUE`` says."""
    given: dict[str, Any] = {"device": args.device, "threads": args.threads}
    for setting in args.execution:
        key, _, value = setting.partition("=")
        try:
            given[key] = json.loads(value)
        except json.JSONDecodeError:
            given[key] = value
    return ExecutionSpec(**given)


def resolve(args: argparse.Namespace) -> Compute:
    """Of a context of these arguments, where there is none yet."""
    spec = execution(args)
    return Compute.resolve(spec.device, spec.precision, spec.channels_last, spec.threads)


def study(
    args: argparse.Namespace,
    teacher: ArchitectureSpec,
    epochs: int,
    teaching: TrainingSpec,
    budget: BudgetSpec | None = None,
    **more: Any,
) -> StudySpec:
    """A study of given images.

    Args:
        args: Of the command line.
        teacher: Trained as `teaching` says.
        epochs: Of the longest training, which says how many columns a bank may have.
        teaching: See `teacher`.
        budget: Default one trial.
        more: Further fields.
    """
    return StudySpec(
        name="bench",
        space="space.py:joint",
        data=DataSpec("digits"),  # the images are given to the context
        budget=budget or BudgetSpec(trials=1),
        teacher=TeacherSpec(architecture=teacher, training=teaching),
        epochs=epochs,
        execution=execution(args),
        **more,
    )


def open_study(
    spec: StudySpec,
    space: Callable[[Any], TrialConfig],
    folder: Path,
    resources: Any,
    *,
    storage: Any = "journal",
    reference_point: dict[str, float] = REFERENCE,
) -> Study:
    """A study in `folder`.

    Args:
        spec: The study.
        space: Of designs.
        folder: Of its storage.
        resources: What the study asks of designs: those of a setting, or made-up ones.
        storage: Kind of storage, or one that is open.
        reference_point: Of hypervolumes.
    """
    if isinstance(storage, str):
        storage = open_storage(storage, folder, writing=True)
    return Study(spec, space, storage, resources, identity={}, reference_point=reference_point)


class Setting:
    """What the trials of a study share: data, teacher, compute, stores.

    Args:
        spec: The study.
        folder: Of artifacts, and of checkpoints where there are.
        cache: Folder of banks; None keeps them in memory.
        data: Images; None reads those of the study.
        foreseen: Kinds of knowledge that trials will ask for.
        checkpoints: Whether trials write any.
        foreseen_states: States that the teacher's training keeps on its way, by name and epoch.
    """

    def __init__(
        self,
        spec: StudySpec,
        folder: Path,
        cache: Path | None = None,
        data: SearchData | None = None,
        foreseen: Sequence[str] = (),
        *,
        checkpoints: bool = False,
        foreseen_states: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.spec = spec
        store = ArtifactStore(folder / "artifacts")
        left = CheckpointStore(folder / "checkpoints") if checkpoints else None
        self.context = StudyContext.of(
            open_resources(
                spec,
                store,
                cache,
                data=data,
                checkpoints=left,
                foreseen=tuple(foreseen),
                foreseen_states=tuple(foreseen_states),
            )
        )

    @property
    def compute(self) -> Compute:
        return self.context.resources.compute

    @property
    def data(self) -> SearchData:
        """On the device."""
        return self.context.resources.data

    # --- artifacts

    def make(self, config: TrialConfig | None = None) -> None:
        """Train what a design needs and is not stored yet; None: the teacher.

        Raises:
            RuntimeError: A training failed.
        """
        designs = self.context.designs
        for recipe in designs.teachers() if config is None else designs.recipes(config):
            if not designs.has_artifact(recipe.artifact_id):
                job = Job(recipe.artifact_id, "artifact", config, recipe.seed, 0, requires=recipe.requires)
                self._done(job)

    @property
    def teacher_accuracy(self) -> float:
        """On the validation images."""
        recipe = self.context.prerequisites.teacher()
        return float(self.context.resources.store.manifest(recipe.artifact_id)["val_accuracy"])

    @property
    def teacher_macs(self) -> int:
        """Of one image."""
        return self._online().macs

    @property
    def asked_images(self) -> int:
        """Images that the teacher was really run on so far."""
        return self._online().forward_images

    def teacher(self) -> nn.Module:
        """A new copy of the trained teacher."""
        recipe = self.context.prerequisites.teacher()
        state = self.context.resources.store.load(recipe.artifact_id)[0]
        return self.context.networks.frozen(recipe, state)

    def student(self, architecture: ArchitectureSpec) -> nn.Module:
        """A new student."""
        return self.context.networks.student(architecture)

    def _online(self) -> OnlineSource:
        return self.context.sources.online(self.context.prerequisites.teacher())

    # --- trainings

    def start(self, config: TrialConfig, seed: int) -> TrialRun:
        """The training of a design as a study runs it."""
        return start_run(config, self.context, seed)[0]

    def run(
        self,
        student: ArchitectureSpec,
        terms: tuple[KnowledgeTerm, ...],
        training: TrainingSpec,
        seed: int = 0,
        *,
        online: bool = False,
    ) -> TrialRun:
        """The training of a student; `online` asks the teacher at every step instead of the bank."""
        config = TrialConfig(student, DistillationSpec(terms=terms).canonical(), training)
        if not online:
            return self.start(config, seed)
        return TrialRun(
            config.distillation,
            training,
            lambda: self.student(student),
            self.context,
            seed,
            self.context.images.views(training.augmentation),
            (self._online(),),
            architecture=student,
        )

    def warm(
        self, student: ArchitectureSpec, terms: tuple[KnowledgeTerm, ...], training: TrainingSpec
    ) -> None:
        """Fill the bank: a column is filled whole by the first step of any trial that meets its epoch."""
        run = self.run(student, terms, training)
        for _ in range(training.epochs):
            run.loop.run_epoch(max_steps=1)

    def trial(self, config: TrialConfig, seed: int) -> TrialResult:
        """A whole trial, as an executor's worker does it.

        Raises:
            RuntimeError: It failed.
        """
        return self._done(Job("0", "trial", config, seed, config.training.epochs))

    def _done(self, job: Job) -> TrialResult:
        result = run_job(job, self.context, lambda epoch, metrics: Decision.CONTINUE)
        if result.status != "complete":
            raise RuntimeError(f"the {job.kind} was not made: {result.reason}\n{result.error}")
        return result


def open_setting(spec: StudySpec, data: SearchData, folder: Path, cache: Path | None) -> Setting:
    """A setting whose teacher is trained and stored in `folder`, and whose threads this process has."""
    setting = Setting(spec, folder, cache, data)
    setting.compute.apply_threads()
    setting.make()
    return setting
