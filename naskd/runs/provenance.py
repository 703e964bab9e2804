"""What a run's numbers were made with, by content, and whether that is what is there now."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import naskd
from naskd.data.images import ImageSet
from naskd.runs.moved import CODE
from naskd.spec.code_identity import code_id, code_ids
from naskd.spec.design import content_id
from naskd.spec.errors import InputError
from naskd.spec.identity import identity_difference
from naskd.spec.secrets import kept
from naskd.spec.study import StudySpec
from naskd.study.ledger import booked_artifacts
from naskd.study.record import load_ledger
from naskd.trials.context import StudyContext
from naskd.trials.facts import World

_LOG = logging.getLogger(__name__)


def identity_of(spec: StudySpec, world: World) -> dict[str, Any]:
    """All that a run's trials depend on: settings, and by content code, images, their split and teachers.

    It is kept in the ledger when a study is created, and a resume must find it unchanged.

    Raises:
        InputError: A file that the study names cannot be read.
    """
    files = [spec.space.rpartition(":")[0], *spec.modules]
    teachers = {recipe.teacher: recipe.artifact_id for recipe in world.facts.teachers()}
    identity = {
        **spec.identity(),
        "files": {name: code_ids(spec.resolve(name)) for name in files},
        "data_hash": world.data_hash,
        "split_hash": world.split_hash,
        "teacher_hash": None if spec.teacher is None else teachers.get(spec.teacher.name),
    }
    if spec.teachers:
        identity["teacher_hashes"] = teachers
    return dict(json.loads(json.dumps(kept(identity))))


def world_of(context: StudyContext) -> World:
    """What a search on the images of a context runs in."""
    data = context.resources.data
    return World(context.designs, data.n_classes, len(data.train), data.data_hash, data.split_hash)


def difference(run_dir: Path, context: StudyContext) -> list[str]:
    """How what is there now differs from what a run's search had, a line each; empty where it does not.

    Args:
        run_dir: Whose ledger says what the search had.
        context: What is there now. Its spec is the run's own.
    """
    spec = context.resources.spec
    ledger = load_ledger(spec, run_dir)
    if (known := ledger.user_attrs.get("identity")) is None:
        _LOG.warning(
            "%s does not say what it was searched with: that it is the same now cannot be checked", run_dir
        )
        return []
    found = identity_difference(known, identity_of(spec, world_of(context)))
    return found + different_weights(context, booked_artifacts(ledger.user_attrs))


def different_weights(context: StudyContext, booked: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Stored teachers and assistants that are not those which taught the run's trials: of one recipe, other weights."""
    store, found = context.resources.store, []
    for artifact_id, entry in booked.items():
        before = str(entry.get("sha256", ""))
        now = str(store.manifest(artifact_id)["sha256"]) if before and artifact_id in store else before
        if now != before:
            label = entry.get("label", "teacher")
            found.append(f"{label} {artifact_id}: its weights were {before[:12]}, stored are {now[:12]}")
    return found


def check_unchanged(run_dir: Path, context: StudyContext, what: str) -> None:
    """Refuse what would set numbers beside the search's that were made with something else.

    Args:
        run_dir: Of the search.
        context: What is there now.
        what: Is refused, for the message: ``retraining``.

    Raises:
        InputError: With all that differs, and the ways out.
    """
    if lines := difference(run_dir, context):
        changed = "\n  ".join(lines)
        copies = f"; copies of its code are in {run_dir / CODE}" if (run_dir / CODE).is_dir() else ""
        raise InputError(
            f"{run_dir} was searched with something else than what is there now, so {what} is refused:\n  {changed}\n"
            f"restore what it was{copies}, say where that is with --set base=FOLDER or data.root=FOLDER, or begin a "
            "new search under another name or --out"
        )


def made_with(context: StudyContext, test: ImageSet) -> dict[str, Any]:
    """What a training of now is made with, by content. Two trainings may stand in one mean where this is equal.

    Args:
        context: Whose teachers are stored already.
        test: On which its network is measured.
    """
    resources = context.resources
    there = [recipe for recipe in context.designs.teachers() if recipe.artifact_id in resources.store]
    code = {path: code_id(path) for path in resources.spec.code().values() if path.is_file()}
    return {
        "naskd": naskd.__version__,
        "data_hash": resources.data.data_hash,
        "split_hash": resources.data.split_hash,
        "test_hash": _hash_of(test),
        "teachers": {
            recipe.teacher: str(resources.store.manifest(recipe.artifact_id)["sha256"]) for recipe in there
        },
        "code": content_id(sorted(code.values())),
    }


def _hash_of(images: ImageSet) -> str:
    """Of decoded images and their labels, in their order."""
    content = hashlib.sha256(repr(tuple(images.images.shape)).encode())
    content.update(images.labels.cpu().numpy().astype("<i8").tobytes())
    for image in images.images:
        content.update(image.cpu().numpy().data)
    return content.hexdigest()[:12]


_WORDS = {
    "naskd": "version of naskd",
    "data_hash": "images",
    "split_hash": "split",
    "test_hash": "test images",
    "teachers": "teacher",
    "code": "code",
}


def different_parts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, the parts in which two results of :func:`made_with` differ."""
    return [word for key, word in _WORDS.items() if before.get(key) != now.get(key)]
