"""One recorded training: its curves on validation and test images, and what it cost, in parts."""

import argparse
import dataclasses
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.setting import Setting, study
from naskd.spec.datasets import DataSpec
from naskd.spec.seeds import derive_seed, trial_seed
from naskd.spec.teachers import DEFAULT_NAME
from naskd.store.artifacts import ArtifactStore
from naskd.training.evaluation import accuracy, predict
from naskd.trials.run import TrialRun
from table_parts import space
from table_parts.splits import Parts

TEACHER_TRAINING = dataclasses.replace(space.TRAINING, learning_rate=3e-3)

NETWORKS = "networks"
"""Folder of what others go on with."""

TEST_EVERY = 4
"""Epochs between two looks at the test images: each costs as much as a fifth of an epoch of training."""


def open_place(
    args: argparse.Namespace, parts: Parts, folder: Path, state_epochs: Sequence[int] = ()
) -> Setting:
    """What trainings on these images share, with the teacher trained or found.

    A teacher of more images is trained on them, and stored as if it had been trained on the students'. It is kept in
    ``networks`` as well: whoever copies that beside a table goes on with the same teacher, which another machine would
    not train alike to the last bit.

    Args:
        args: Of the command line: device, threads, epochs of the teacher.
        parts: The images.
        folder: Of the teacher, assistants, and what they said.
        state_epochs: After which the teacher's state is kept too.
    """
    teaching = dataclasses.replace(TEACHER_TRAINING, epochs=args.teacher_epochs)
    # All views, as the published tables were recorded: one that goes on must stay of one kind.
    images = DataSpec("digits", views="all")
    spec = dataclasses.replace(study(args, space.TEACHER, space.EPOCHS, teaching), data=images)
    states = [(DEFAULT_NAME, epoch) for epoch in state_epochs]
    setting = Setting(
        spec,
        folder / "students",
        folder / "bank",
        parts.student,
        foreseen=("logits", "hint"),
        foreseen_states=states,
    )
    setting.compute.apply_threads()
    store = setting.context.resources.store
    wanted = _teacher_and_states(setting)
    kept = ArtifactStore(folder / NETWORKS)
    copy(kept, store, wanted)
    if any(one not in store for one in wanted) and len(parts.teacher.train) != len(parts.student.train):
        larger = Setting(spec, folder / "teacher", None, parts.teacher, foreseen_states=states)
        larger.make()
        for mine, theirs in zip(wanted, _teacher_and_states(larger), strict=True):
            store.save(mine, *larger.context.resources.store.load(theirs))
    setting.make()
    copy(store, kept, wanted)
    return setting


def copy(source: ArtifactStore, target: ArtifactStore, networks: Sequence[str]) -> None:
    """Those of some networks that the source has and the target lacks."""
    for one in networks:
        if one in source and one not in target:
            target.save(one, *source.load(one))


def _teacher_and_states(setting: Setting) -> list[str]:
    prerequisites = setting.context.prerequisites
    return [one.artifact_id for one in (prerequisites.teacher(), *prerequisites.foreseen_states())]


class Recorder:
    """Trains points of the space on the same images with the same teacher.

    Args:
        args: Of the command line: device, threads, epochs of the teacher.
        parts: The images.
        folder: Of the teacher, the assistant, and what they said.
    """

    def __init__(self, args: argparse.Namespace, parts: Parts, folder: Path) -> None:
        self.args, self.parts, self.folder = args, parts, folder
        self.setting = open_place(args, parts, folder)
        self.test = parts.test.to(self.setting.compute.device)

    def prepare(self) -> dict[str, Any]:
        """Have the assistant made, and say what it and the teacher are."""
        context = self.setting.context
        store = context.resources.store
        taught = space.joint(space.Point({**next(space.points(0)), "kd.kind": "assistant"}))
        recipes = context.designs.recipes(taught)
        kept, networks = ArtifactStore(self.folder / NETWORKS), [recipe.artifact_id for recipe in recipes]
        copy(kept, store, networks)
        self.setting.make(taught)
        copy(store, kept, networks)
        made = {recipe.label: store.manifest(recipe.artifact_id) for recipe in recipes}
        return {label: self._of(manifest) for label, manifest in made.items()}

    def _of(self, manifest: dict[str, Any]) -> dict[str, Any]:
        kept = ("val_accuracy", "macs", "n_params", "train_macs", "spent_macs", "wall_seconds")
        return {name: manifest[name] for name in kept}

    def train(self, values: dict[str, Any], replicate: int) -> dict[str, Any]:
        """A row of the table; one that failed has ``error`` in it."""
        config = space.joint(space.Point(values))
        seed = trial_seed(0, config.config_id)
        seed = derive_seed("replicate", seed, replicate) if replicate else seed
        row: dict[str, Any] = {
            "config_id": config.config_id,
            "replicate": replicate,
            "seed": str(seed),
            "values": values,
        }
        began = time.perf_counter()
        try:
            row |= self._trained(self.setting.start(config, seed))
        except ArithmeticError as error:
            row["error"] = "".join(traceback.format_exception_only(error)).strip()
        return {**row, "seconds": time.perf_counter() - began}

    def _trained(self, run: TrialRun) -> dict[str, Any]:
        test: dict[int, float] = {}
        student = teacher = evaluation = 0
        for epoch in range(run.total_epochs):
            _, asked = run._step_macs[run.loop.phase_of(epoch).name]
            n_images = run.loop.images_per_epoch(epoch)
            run.advance(epoch + 1)
            student += round(n_images * run._own_macs(epoch))
            teacher += round(n_images * asked)
            evaluation += len(self.parts.student.val) * run.cost.macs
            if (epoch + 1) % TEST_EVERY == 0 or epoch + 1 == run.total_epochs:
                said = predict(run.scheme.deployed, self.test.images, self.setting.compute)
                test[epoch + 1] = accuracy(said, self.test.labels)
        return {
            **dataclasses.asdict(run.cost),
            "train_macs": run.train_macs,
            "student_macs": student,
            "teacher_macs": teacher,
            "evaluation_macs": evaluation,
            "val_accuracy": [point["val_accuracy"] for point in run.curve],
            "test_epochs": list(test),
            "test_accuracy": list(test.values()),
            "loss": [point["loss"] for point in run.curve],
        }
