"""A search: a study, its ledger, and the executor that does its work."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from naskd.executors import EXECUTORS
from naskd.loggers import build_loggers
from naskd.runs.opening import LEDGER_BYTES, STUDY_FILE, OpenStudy, locked, lost_bytes, open_study
from naskd.runs.run import Run
from naskd.spec.design import content_id
from naskd.spec.errors import DamagedError, InputError
from naskd.spec.stopping import STOPPING_RULES
from naskd.spec.study import StudySpec
from naskd.spec.userfile import file_content_id
from naskd.store.checkpoints import Checkpoints, CheckpointStore
from naskd.store.files import read_sealed, write_sealed, write_whole
from naskd.study.leases import renewing
from naskd.study.observer import SnapshotObserver, StudyObserver
from naskd.study.opening import known_identity
from naskd.study.snapshot import Snapshot
from naskd.study.space_sample import check_warm_start, methods_of_the_script, random_reference_point
from naskd.study.storage import journal_bytes, open_storage, told_as_errors
from naskd.study.study import Study

_LOG = logging.getLogger(__name__)


@told_as_errors()
def run_search(
    spec: StudySpec,
    run_dir: Path,
    observe: Callable[[Snapshot], None] = lambda _: None,
    observers: Sequence[StudyObserver] = (),
) -> Run:
    """Run a study, or go on with it where it stopped; see :func:`naskd.launch.search`."""
    opened = open_study(spec, runs=run_dir.parent)
    sample = opened.sample()
    kinds = {term.kind for design, _ in sample.designs for term in design.distillation.terms}
    if opened.parts is not None:
        opened = opened.given(foreseen=tuple(sorted(kinds)))
    if mistakes := check_warm_start(opened.space, spec, sample.parameters):
        raise InputError("\n".join(mistakes))
    if EXECUTORS[spec.execution.executor].elsewhere and (
        left := methods_of_the_script(sample, spec.objectives)
    ):
        raise InputError(
            f"{', '.join(left)}: defined in the script that searches, which the workers of executor "
            f"{spec.execution.executor!r} do not run; move it to a file and name that in the study's modules"
        )
    with locked(run_dir):
        _warn_of_loss(run_dir)
        storage = open_storage(spec.storage, run_dir, writing=True)
        identity = _identity(opened)
        if opened.parts is not None:
            # Of a run from before, its checkpoints are where its own identity says.
            named = known_identity(spec, storage) or identity
            opened = opened.given(checkpoints=_checkpoints(spec, run_dir, named))
        world = opened.world
        loggers = build_loggers(spec.execution.callbacks, folder=run_dir, study=spec.name)
        source = Study(
            spec,
            opened.space,
            storage,
            world.facts,
            identity=identity,
            reference_point=random_reference_point(sample, spec, world.n_classes, world.n_train),
            observers=(SnapshotObserver(observe), *observers, *loggers),
            stopping=STOPPING_RULES.load(spec.stopping.name)(**spec.stopping.settings()),
            clock=world.clock,
        )
        if opened.parts is not None:
            forget_ended(source, opened.parts.resources.checkpoints)
        _write_study(spec, run_dir)
        write_whole(run_dir / "space.py", spec.resolve(spec.space.rpartition(":")[0]).read_bytes())
        work = world.run or EXECUTORS.load(spec.execution.executor)(opened.context, run_dir).run
        try:
            with renewing(source.renew):
                work(source)
        finally:
            source.release()
            _write_study(spec, run_dir)
    run = Run(run_dir, spec, opened.parts)
    run.stop_reason = source.end_reason
    run.write_html()
    return run


def _checkpoints(spec: StudySpec, run_dir: Path, identity: Mapping[str, Any]) -> CheckpointStore:
    """In the run directory, or where the study says, apart from those of other studies.

    Raises:
        InputError: Nothing can be kept there.
    """
    given = spec.execution.checkpoints
    if given is None:
        return CheckpointStore(run_dir.absolute() / "checkpoints")
    root, question, options = (given if "://" in given else str(spec.resolve(given))).partition("?")
    store = CheckpointStore(f"{root.rstrip('/')}/{spec.name}-{content_id(identity)}{question}{options}")
    if spec.execution.checkpoint_every:
        store.check()
    return store


def _write_study(spec: StudySpec, run_dir: Path) -> None:
    ledger = {LEDGER_BYTES: journal_bytes(spec.storage, run_dir)}
    write_sealed(run_dir / STUDY_FILE, {**spec.to_dict(), "base": str(spec.base), **ledger})


def _warn_of_loss(run_dir: Path) -> None:
    """Say that the end of a journal is missing; a damaged ``study.json`` is written anew, and says nothing."""
    with suppress(OSError, DamagedError):
        if lost := lost_bytes(read_sealed(run_dir / STUDY_FILE), run_dir):
            _LOG.warning(
                "the last %d bytes of the run's ledger are missing: the search goes on from what is left",
                lost,
            )


def forget_ended(source: Study, checkpoints: Checkpoints | None) -> None:
    """Remove checkpoints of trainings that have ended: a process may be killed before it does."""
    if not isinstance(checkpoints, CheckpointStore):
        return
    for key in checkpoints.kept():
        config_id, _, seed = key.rpartition("-")
        if seed.isdecimal() and source.is_over(config_id, int(seed)):
            checkpoints.remove(key)


def _identity(opened: OpenStudy) -> dict[str, Any]:
    """What a resume must find unchanged."""
    spec, world = opened.spec, opened.world
    files = [spec.space.rpartition(":")[0], *spec.modules]
    teachers = {recipe.teacher: recipe.artifact_id for recipe in world.facts.teachers()}
    identity = {
        **spec.identity(),
        "files": {name: file_content_id(spec.resolve(name)) for name in files},
        "data_hash": world.data_hash,
        "split_hash": world.split_hash,
        "teacher_hash": None if spec.teacher is None else teachers.get(spec.teacher.name),
    }
    if spec.teachers:
        identity["teacher_hashes"] = teachers
    return dict(json.loads(json.dumps(identity)))
