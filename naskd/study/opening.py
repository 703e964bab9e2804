"""Creating a study in its storage, and opening it again: only as what it was."""

import uuid
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.trial import TrialState

from naskd.spec.clock import Clock
from naskd.spec.design import content_id
from naskd.spec.errors import InputError, RunError
from naskd.spec.identity import identity_difference
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.storages import OWN
from naskd.spec.study import StudySpec
from naskd.store.files import SEAL
from naskd.study.drivers import CLAIM_SECONDS
from naskd.study.earlier import TAKEN, WarmStart
from naskd.study.ledger import said_elapsed
from naskd.study.seals import check_study, study_seal
from naskd.study.storage import place_of

SCHEMA_VERSION = 1

TEST_HASH = "test_hash"
"""Beside the identity in a study's attributes: names the test images that were there. No search uses them."""


UNLABELLED, COPIES = "unlabelled", "copies"
"""Likewise: how many unlabelled images there are, and how many were left out."""

CHECKPOINTS = "checkpoints"
"""Likewise: names the folder of the run's checkpoints where a study keeps them in a place of its own."""

IMAGES = "images"
"""Likewise: their kind, how many there are in each part, and of how many classes."""


def open_study(
    spec: StudySpec,
    storage: optuna.storages.BaseStorage,
    identity: Mapping[str, Any],
    reference_point: Mapping[str, float] | None,
    clock: Clock,
    warm: WarmStart,
    checkpoints: str = "",
) -> optuna.Study:
    """Create the study that a storage does not hold, or load the one that it holds.

    Args:
        spec: The study.
        storage: Holds the ledger.
        identity: What a resume must find unchanged.
        reference_point: Of the hypervolume, one value an objective; None where the study must be there.
        clock: While another driver creates the study, it is waited for.
        warm: Designs of earlier runs to try first, after those that the study file gives.
        checkpoints: Of a study that is created, see :data:`CHECKPOINTS`.

    Raises:
        InputError: The storage holds a study of another identity, or an objective is unknown.
        RunError: It holds none, and no reference point is given.
    """
    objectives = [OBJECTIVES[name] for name in spec.objectives]
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=spec.name,
            directions=[objective.direction for objective in objectives],
        )
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=spec.name, storage=storage)
        _await_creation(study, clock)
    known = study.user_attrs.get("identity")
    if known is None:
        if reference_point is None:
            raise RunError(f"the run holds no study named {spec.name!r}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(spec.objectives))
        study.set_user_attr("schema_version", SCHEMA_VERSION)
        study.set_user_attr("reference_point", dict(reference_point))
        # So that whoever looks later need not know a user's own objectives.
        study.set_user_attr("objectives", [objective.describe() for objective in objectives])
        if checkpoints:
            study.set_user_attr(CHECKPOINTS, checkpoints)
        if warm.sources:
            study.set_user_attr(TAKEN, [source.to_dict() for source in warm.sources])
        study.set_user_attr(SEAL, study_seal(study.user_attrs))
        # A study without its identity was never completely created: creating it goes on from there.
        queue = [*spec.first_designs.values(), *warm.first]
        for parameters in queue[len(study.get_trials(deepcopy=False)) :]:
            study.enqueue_trial(dict(parameters), user_attrs={"warm_start": True})
        study.set_user_attr("identity", dict(identity))
        return study
    check_study(study.user_attrs, place_of(study))
    if difference := identity_difference(known, dict(identity)):
        raise InputError(refusal(spec.name, difference))
    return study


def known_identity(spec: StudySpec, storage: optuna.storages.BaseStorage) -> dict[str, Any] | None:
    """The identity of a study as its storage holds it, whatever version wrote it; None where it holds none."""
    study = stored_study(spec, storage)
    found = None if study is None else study.user_attrs.get("identity")
    return None if found is None else dict(found)


def checkpoints_of(spec: StudySpec, storage: optuna.storages.BaseStorage) -> str:
    """The folder of a run's checkpoints in a place that runs share; a new one of a run that is not there.

    The ledger keeps it, so that all drivers of a run know it, wherever they are, and no other run of the same study.
    Runs of earlier versions have theirs by name and identity.
    """
    study = stored_study(spec, storage)
    attrs = {} if study is None else study.user_attrs
    if CHECKPOINTS in attrs:
        return str(attrs[CHECKPOINTS])
    if (identity := attrs.get("identity")) is not None:
        return f"{spec.name}-{content_id(identity)}"
    return f"{spec.name}-{uuid.uuid4().hex[:12]}"


def searched_before(spec: StudySpec, storage: optuna.storages.BaseStorage) -> float:
    """Seconds that earlier sessions of a search took, as its drivers have said; 0 where none has."""
    study = stored_study(spec, storage)
    return 0.0 if study is None else (said_elapsed(study.user_attrs) or 0.0)


def refusal(name: str, difference: Sequence[str]) -> str:
    """Why a run cannot be gone on with, and what to do."""
    lines = "\n  ".join(difference)
    return (
        f"run {name!r} was started differently and cannot be resumed:\n  {lines}\n"
        "undo the change, or start a new run with another name or --out; with this one's folder in its warm_start it "
        "learns from what was trained here"
    )


def difference_to(
    spec: StudySpec, storage: optuna.storages.BaseStorage, identity: Mapping[str, Any]
) -> list[str]:
    """What a resume would be refused for; nothing where there is no study, or one in which nothing was trained."""
    study = stored_study(spec, storage)
    return [] if study is None or not _trained(spec, study) else _difference(study, identity)


def forget_untrained(
    spec: StudySpec, storage: optuna.storages.BaseStorage, identity: Mapping[str, Any]
) -> list[str]:
    """Remove a study of another identity in which nothing was trained, so that it can be created as it is now.

    A first start with a wrong teacher, or with a space of which every training fails, must not bind all later ones.

    Returns:
        How the two differ; empty where nothing was removed.
    """
    study = stored_study(spec, storage)
    difference = [] if study is None or _trained(spec, study) else _difference(study, identity)
    if difference:
        optuna.delete_study(study_name=spec.name, storage=storage)
    return difference


def note_test_images(spec: StudySpec, study: optuna.Study, test_hash: str) -> None:
    """Note which test images there are, so that others are noticed before a retraining measures on them.

    Args:
        spec: The study.
        study: As its storage holds it. Once something is trained in it, what is noted stays as it is.
        test_hash: Names them; empty where they could not be read.
    """
    known = study.user_attrs.get(TEST_HASH)
    if test_hash and test_hash != known and not (known and _trained(spec, study)):
        study.set_user_attr(TEST_HASH, test_hash)


def note_counts(study: optuna.Study, key: str, counts: Mapping[str, int]) -> None:
    """Note how many images there are of a sort.

    Args:
        study: As its storage holds it.
        key: Of the sort: :data:`UNLABELLED` or :data:`COPIES`.
        counts: See :class:`~naskd.data.survey.DataSurvey`; nothing is noted where all are 0, and were before.
    """
    known = study.user_attrs.get(key)
    if (any(counts.values()) or known) and known != dict(counts):
        study.set_user_attr(key, dict(counts))


def note_images(study: optuna.Study, images: Mapping[str, Any]) -> None:
    """Note what images there are, for whoever reads the run later.

    Args:
        study: As its storage holds it.
        images: Of :meth:`~naskd.data.survey.DataSurvey.summary`; empty where they are not known.
    """
    if images and study.user_attrs.get(IMAGES) != dict(images):
        study.set_user_attr(IMAGES, dict(images))


def stored_study(spec: StudySpec, storage: optuna.storages.BaseStorage) -> optuna.Study | None:
    """A study as its storage holds it; None where it holds none."""
    try:
        return optuna.load_study(study_name=spec.name, storage=storage)
    except KeyError:
        return None


def _difference(study: optuna.Study, identity: Mapping[str, Any]) -> list[str]:
    known = study.user_attrs.get("identity")
    return [] if known is None else identity_difference(known, identity)


def _trained(spec: StudySpec, study: optuna.Study) -> bool:
    """Whether a study holds results, or may get some from a driver that lives."""
    shared = spec.storage not in OWN  # else the run's lock says that nobody else is at it
    return any(
        (shared and trial.state is TrialState.RUNNING)
        or trial.user_attrs.get("result", {"status": "failed"})["status"] != "failed"
        for trial in study.get_trials(deepcopy=False)
    )


def _await_creation(study: optuna.Study, clock: Clock) -> None:
    """Let another driver finish creating a study; return at once when it is created, and when nobody does."""
    before: tuple[int, int] | None = None
    while "identity" not in (attrs := study.user_attrs):
        now = len(attrs), len(study.get_trials(deepcopy=False))
        if now == before:
            return
        before = now
        clock.sleep(CLAIM_SECONDS)
