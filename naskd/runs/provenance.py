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
from naskd.spec.identity import METHODS, identity_difference
from naskd.spec.latency import read_profile
from naskd.spec.secrets import kept
from naskd.spec.study import StudySpec
from naskd.study.earlier import IDENTITY as EARLIER_RUNS
from naskd.study.ledger import booked_artifacts
from naskd.study.opening import TEST_HASH
from naskd.study.record import load_ledger
from naskd.trials.context import StudyContext
from naskd.trials.facts import World
from naskd.trials.methods import loose_methods

_LOG = logging.getLogger(__name__)

_WHERE_THERE = ("unlabelled_hash", "modality_hash")
"""Hashes of images that some studies have: those that have none are named as before there could be any."""


def identity_of(spec: StudySpec, world: World) -> dict[str, Any]:
    """All that a run's trials depend on: settings, and by content code, images, their split and teachers.

    It is kept in the ledger when a study is created, and a resume must find it unchanged.

    Raises:
        InputError: A file that the study names cannot be read.
    """
    files = [*spec.space_files, *spec.modules]
    teachers = {recipe.teacher: recipe.artifact_id for recipe in world.facts.teachers()}
    identity = {
        **spec.identity(),
        "files": {name: code_ids(spec.resolve(name)) for name in files},
        **({METHODS: loose} if (loose := loose_methods(map(spec.resolve, files))) else {}),
        "data_hash": world.data_hash,
        "split_hash": world.split_hash,
        "teacher_hash": None if spec.teacher is None else teachers.get(spec.teacher.name),
    }
    for key in _WHERE_THERE:
        if found := getattr(world, key):
            identity[key] = found
    if spec.latency is not None:
        identity["latency_profile"] = read_profile(spec.resolve(spec.latency.profile)).profile_id
    if spec.teachers:
        identity["teacher_hashes"] = teachers
    return dict(json.loads(json.dumps(kept(identity))))


def world_of(context: StudyContext) -> World:
    """What a search on the images of a context runs in."""
    data = context.resources.data
    return World(
        context.designs,
        data.n_classes,
        len(data.train),
        data.data_hash,
        data.split_hash,
        unlabelled_hash=data.unlabelled_hash,
        modality_hash=data.modality_hash,
    )


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
    # What a search has learned from decides nothing of a single training.
    known = {key: value for key, value in known.items() if key != EARLIER_RUNS}
    found = identity_difference(known, identity_of(spec, world_of(context)))
    found += different_weights(context, booked_artifacts(ledger.user_attrs))
    # Those that lie apart may grow after a search: that is said, not refused.
    return found if spec.data.own_test else found + different_test_images(ledger.user_attrs, context)


def different_test_images(user_attrs: Mapping[str, Any], context: StudyContext) -> list[str]:
    """A line where the test images are not those that were there at the search; empty where that is not known.

    Args:
        user_attrs: Of the run's study.
        context: What is there now.
    """
    before, now = user_attrs.get(TEST_HASH, ""), context.resources.test_hash
    if before == now or not (before and now):
        return []
    return [
        f"{TEST_HASH}: {before} -> {now} (the test images are not those that were there at the search, or an earlier "
        "version of naskd left copies of training images among them)"
    ]


def notes_on_test_images(run_dir: Path, context: StudyContext) -> list[str]:
    """What whoever reads test accuracies must know of the images that they are measured on, a sentence each."""
    attrs = load_ledger(context.resources.spec, run_dir).user_attrs
    if different_test_images(attrs, context):
        return [
            "The test images are not those that were there at the search: test accuracies are measured on those "
            "of now. If they were not meant to change, restore them and retrain."
        ]
    if not attrs.get(TEST_HASH):
        _LOG.warning(
            "%s does not say which test images were there at the search: that they are the same now cannot be checked",
            run_dir,
        )
    return []


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
    return {
        **{key: found for key in _WHERE_THERE if (found := getattr(resources.data, key))},
        "naskd": naskd.__version__,
        "data_hash": resources.data.data_hash,
        "split_hash": resources.data.split_hash,
        "test_hash": hash_of(test),
        "teachers": {
            recipe.teacher: str(resources.store.manifest(recipe.artifact_id)["sha256"]) for recipe in there
        },
        "code": _code_of(resources.spec),
    }


def hash_of(images: ImageSet) -> str:
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
    "unlabelled_hash": "unlabelled images",
    "modality_hash": "second modality",
    "test_hash": "test images",
    "teachers": "teacher",
    "code": "code",
}


def different_from_search(made: Mapping[str, Any], run_dir: Path, spec: StudySpec) -> list[str]:
    """In words, what a training was made with that the search had otherwise, or that is otherwise now.

    No image is opened. What cannot be compared is left out.

    Args:
        made: See :func:`made_with`.
        run_dir: Of the search.
        spec: Of the run, with its code where it is now.
    """
    attrs = load_ledger(spec, run_dir).user_attrs
    known: dict[str, Any] = {"naskd": naskd.__version__}
    known |= {key: attrs.get("identity", {}).get(key) for key in ("data_hash", "split_hash", *_WHERE_THERE)}
    if all(path.is_file() for path in spec.code().values()):
        known["code"] = _code_of(spec)
    weights = {
        entry.get("name", "teacher"): entry.get("sha256")
        for entry in booked_artifacts(attrs).values()
        if entry.get("label") == "teacher"
    }
    teachers = made.get("teachers") or {}
    known["teachers"] = {name: weights.get(name) or sha256 for name, sha256 in teachers.items()}
    return [
        _WORDS[key] for key, value in known.items() if value is not None and made.get(key, value) != value
    ]


def _code_of(spec: StudySpec) -> str:
    """Names what the study's code does, of the files that are there."""
    return content_id(sorted(code_id(path) for path in spec.code().values() if path.is_file()))


def different_parts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, the parts in which two results of :func:`made_with` differ."""
    return [word for key, word in _WORDS.items() if before.get(key) != now.get(key)]
