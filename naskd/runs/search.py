"""A search: a study, its ledger, and the executor that does its work."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from naskd.executors import EXECUTORS
from naskd.executors.local.serial import FAULT_FOLDER
from naskd.loggers import build_loggers
from naskd.runs import earlier
from naskd.runs.directory import LEDGER_BYTES, LEDGER_IDENTITY, STUDY_FILE, locked
from naskd.runs.moved import CODE, keep_code, study_record
from naskd.runs.opening import OpenStudy, open_study
from naskd.runs.run import Run
from naskd.runs.starting import Start, as_begun, checkpoint_store, problems
from naskd.runs.status import StatusFile
from naskd.runs.students import STUDENTS, FrontKeeper
from naskd.spec.errors import InputError
from naskd.spec.held import held_function
from naskd.spec.object_identity import source_of
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.secrets import kept
from naskd.spec.storages import JOURNAL_FILE, SQLITE_FILE, journal_bytes, lost_bytes
from naskd.spec.study import StudySpec
from naskd.store.checkpoints import Checkpoints, CheckpointStore
from naskd.store.files import digest, read_sealed, write_sealed, write_whole
from naskd.store.students import StudentStore
from naskd.study.leases import renewing
from naskd.study.observer import SnapshotObserver, StudyObserver
from naskd.study.opening import (
    COPIES,
    UNLABELLED,
    checkpoints_of,
    forget_untrained,
    known_identity,
    note_counts,
    note_images,
    note_test_images,
    searched_before,
)
from naskd.study.record import complete_trainings
from naskd.study.snapshot import Snapshot
from naskd.study.stopping import build_stopping
from naskd.study.storage import open_storage, told_as_errors
from naskd.study.study import Study
from naskd.trials.groups import Groups
from naskd.trials.jobs import Job
from naskd.trials.prerequisites import foreseen_states

_LOG = logging.getLogger(__name__)


@told_as_errors()
def run_search(
    spec: StudySpec,
    run_dir: Path,
    observe: Callable[[Snapshot], None] = lambda _: None,
    observers: Sequence[StudyObserver] = (),
) -> Run:
    """Run a study, or go on with it where it stopped; see :func:`naskd.launch.search`."""
    if strange := [observer for observer in observers if not isinstance(observer, StudyObserver)]:
        raise InputError(
            f"observers: got {type(strange[0]).__name__}; each must be a naskd.study.observer.StudyObserver"
        )
    spec = as_begun(spec, run_dir)
    opened = open_study(spec, runs=run_dir.parent)
    spec = opened.spec
    start = Start(spec, run_dir, opened)
    if found := problems(start):
        raise InputError(found)
    if opened.parts is not None:
        states = foreseen_states([design for design, _ in start.sample.designs], spec)
        opened = opened.given(foreseen=start.sample.kinds, foreseen_states=states)
    begun = _Begun()
    with _gone_unless(begun, run_dir), locked(run_dir):
        _warn_of_loss(run_dir)
        storage = open_storage(spec.storage, run_dir, writing=True)
        if difference := forget_untrained(spec, storage, start.identity):
            _LOG.warning(
                "nothing was trained in run %r, which begins anew with: %s", spec.name, "; ".join(difference)
            )
        if known_identity(spec, storage) is None:
            _forget_trainings(run_dir)  # of a ledger that was removed: they may have seen other images
        earlier.keep(start.earlier, run_dir)
        place = checkpoints_of(spec, storage)
        opened, keeper = _with_stores(opened, run_dir, place, searched_before(spec, storage))
        world = opened.world
        loggers = build_loggers(spec.execution.callbacks, folder=run_dir, study=spec.name)
        status = StatusFile(run_dir, spec.budget.trials)
        source = Study(
            spec,
            opened.space,
            storage,
            world.facts,
            identity=start.identity,
            reference_point=start.reference_point,
            observers=(begun, status, SnapshotObserver(observe), *observers, *loggers, *keeper),
            stopping=build_stopping(spec.stopping),
            clock=world.clock,
            warm=start.warm,
            checkpoints=place,
        )
        if (stored := checkpoints_of(spec, storage)) != place:  # another driver has created it at this moment
            opened, _ = _with_stores(opened, run_dir, stored, searched_before(spec, storage))
        for each in keeper:
            each.begin(complete_trainings(source.optuna_study))
        if opened.parts is not None:
            note_test_images(spec, source.optuna_study, opened.parts.resources.test_hash)
            if opened.survey is not None:
                note_counts(source.optuna_study, UNLABELLED, opened.survey.unlabelled)
                note_counts(source.optuna_study, COPIES, opened.survey.copies)
                note_images(source.optuna_study, opened.survey.summary())
            forget_ended(source, opened.parts.resources.checkpoints)
        ledger_identity = digest(source.optuna_study.user_attrs["identity"])
        _describe(spec, run_dir, ledger_identity)
        work = world.run or EXECUTORS.load(spec.execution.executor)(opened.context, run_dir).run
        jobs = source if opened.parts is None else Groups(source, opened.parts)
        try:
            with renewing(source.renew):
                work(jobs)
            if opened.parts is not None:  # what another driver's trials have left that this one has given up
                forget_ended(source, opened.parts.resources.checkpoints)
        finally:
            source.release()
            _describe_study(spec, run_dir, ledger_identity)
    run = Run(run_dir, spec, opened.parts)
    run.stop_reason, run.fell_short = source.end_reason, source.fell_short
    run.write_html()
    return run


def _with_stores(
    opened: OpenStudy, run_dir: Path, place: str, searched: float
) -> tuple[OpenStudy, tuple[FrontKeeper, ...]]:
    """A study whose trainings leave something in its run directory, and who keeps the students there in order.

    Args:
        opened: The study.
        run_dir: Of its run.
        place: See :func:`checkpoints_of`.
        searched: See :func:`searched_before`.
    """
    if opened.parts is None:
        return opened, ()
    spec, students = opened.spec, StudentStore(run_dir.absolute() / STUDENTS)
    checkpoints = checkpoint_store(spec, run_dir, place)
    objectives = [OBJECTIVES[name] for name in spec.objectives]
    opened = opened.given(checkpoints=checkpoints, students=students, searched=searched)
    return opened, (FrontKeeper(students, objectives),)


def _describe(spec: StudySpec, run_dir: Path, ledger_identity: str) -> None:
    """Write what a run directory says of its study."""
    _describe_study(spec, run_dir, ledger_identity)
    if spec.space_files:
        text = spec.resolve(*spec.space_files).read_bytes()
    else:  # all that is left of it when this process ends; what it refers to may lie elsewhere
        text = source_of(held_function(spec.space)).encode()
    write_whole(run_dir / "space.py", text)
    keep_code(spec, run_dir)


def _describe_study(spec: StudySpec, run_dir: Path, ledger_identity: str) -> None:
    ledger = {
        LEDGER_BYTES: journal_bytes(spec.storage, run_dir),
        LEDGER_IDENTITY: ledger_identity,
    }
    write_sealed(run_dir / STUDY_FILE, {**kept(study_record(spec, run_dir)), **ledger})


def _warn_of_loss(run_dir: Path) -> None:
    """Say that the end of a journal is missing; a damaged ``study.json`` is written anew, and says nothing."""
    with suppress(OSError, ValueError):
        known = read_sealed(run_dir / STUDY_FILE)
        before = int(known.get(LEDGER_BYTES, 0))
        if lost := lost_bytes(before, known.get("storage", "journal"), run_dir):
            _LOG.warning(
                "the last %d bytes of the run's ledger are missing: the search goes on from what is left",
                lost,
            )


def forget_ended(source: Study, checkpoints: Checkpoints | None) -> None:
    """Remove checkpoints of trainings that have ended: a process may be killed before it does."""
    if not isinstance(checkpoints, CheckpointStore):
        return
    for key in checkpoints.kept():
        training, _, paused = key.partition(".")
        config_id, _, seed = training.rpartition("-")
        if paused.isdecimal():
            over = not source.may_go_on(int(paused))
        else:
            over = seed.isdecimal() and source.is_over(config_id, int(seed))
        if over:
            checkpoints.remove(key)


def _forget_trainings(run_dir: Path) -> None:
    """Remove what trainings left under another identity, or under nobody knows which.

    No design must go on from such a state, nor fail for what ended a process when code was another. States of teachers
    stay: they are named by all that they depend on.
    """
    shutil.rmtree(run_dir / FAULT_FOLDER, ignore_errors=True)
    for folder in (run_dir / "checkpoints").glob("*-*"):
        shutil.rmtree(folder, ignore_errors=True)


class _Begun(StudyObserver):
    """Notes whether any job was asked for."""

    def __init__(self) -> None:
        self.any = False

    def asked(self, job: Job) -> None:
        """See :class:`~naskd.study.observer.StudyObserver`."""
        self.any = True


@contextmanager
def _gone_unless(begun: _Begun, run_dir: Path) -> Iterator[None]:
    """Take away a run directory that is made inside, when an error ends it before any work was asked for.

    A cluster that cannot be reached is only found out then.
    """
    there = run_dir.exists()
    try:
        yield
    except BaseException:
        if not (there or begun.any):
            for name in (STUDY_FILE, earlier.KEPT, "space.py", JOURNAL_FILE, SQLITE_FILE, ".lock"):
                (run_dir / name).unlink(missing_ok=True)
            shutil.rmtree(run_dir / CODE, ignore_errors=True)
            with suppress(OSError):  # somebody else's file may be there
                run_dir.rmdir()
        raise
