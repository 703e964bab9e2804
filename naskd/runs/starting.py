"""Everything that can be known before a search begins: looked at by ``check``, and by the search itself.

Each check is a function of a start that yields what is wrong, a line each, or raises an error that says it. A further
check is a further function in :data:`CHECKS`; they are independent, so that all that is wrong is said at once.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from naskd.executors import EXECUTORS
from naskd.loggers import check_loggers
from naskd.runs import earlier
from naskd.runs.directory import checkpoint_root
from naskd.runs.given import objects_of
from naskd.runs.provenance import different_test_images, different_weights, identity_of
from naskd.schemes import SCHEMES
from naskd.spec import begun
from naskd.spec.design import TrialConfig
from naskd.spec.doing import doing
from naskd.spec.errors import USERS, InputError, NaskdError, one_line
from naskd.spec.interrupts import heed
from naskd.spec.loggers import LOGGERS
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.outputs import usable_folder
from naskd.spec.registry import imported
from naskd.spec.secrets import redacted
from naskd.spec.study import StudySpec
from naskd.spec.teachers import TEACHER_SOURCES, called
from naskd.store.checkpoint_file import read_checkpoint
from naskd.store.checkpoints import CheckpointStore
from naskd.study.admission import count_kinds
from naskd.study.earlier import EarlierRun, WarmStart
from naskd.study.opening import difference_to, known_identity, refusal, stored_study
from naskd.study.record import booked_networks
from naskd.study.samplers import build_sampler
from naskd.study.space_sample import (
    SpaceSample,
    check_warm_start,
    methods_of_the_script,
    random_reference_point,
)
from naskd.study.stopping import build_stopping
from naskd.study.storage import database_file, is_there, open_storage
from naskd.study.taking_over import say_warm_start, warm_start
from naskd.trials.facts import DesignFacts
from naskd.trials.teacher_trial import TeacherTrial, log_trials, try_teachers

_LOG = logging.getLogger(__name__)


def as_begun(spec: StudySpec, run_dir: Path) -> StudySpec:
    """A study with what it leaves to the version as its run has it; see :mod:`naskd.spec.begun`.

    A storage that cannot be read counts as one without the run: that it cannot is said by whoever needs it.
    """
    if begun.is_settled(spec):
        return spec
    identity = None
    with contextlib.suppress(NaskdError, OSError):
        if is_there(spec.storage, run_dir):
            identity = known_identity(spec, open_storage(spec.storage, run_dir))
    return begun.as_begun(spec, identity)


class NotOpenedError(Exception):
    """The study could not be opened, which is said elsewhere: what needs it is not looked at."""


@dataclass
class Start:
    """A search that is about to begin.

    Args:
        spec: The study.
        run_dir: Of its run, which need not be there.
        study: An :class:`~naskd.runs.opening.OpenStudy`; None where it cannot be opened.
    """

    spec: StudySpec
    run_dir: Path
    study: Any = field(default=None)
    teachers_fail: bool = field(default=False, init=False)
    """Whether a teacher cannot even be built, so that no design can be looked at."""
    tried: list[TeacherTrial] = field(default_factory=list, init=False)
    """What became of each teacher's trial."""

    @property
    def opened(self) -> Any:
        """The open study.

        Raises:
            NotOpenedError: It cannot be opened.
        """
        if self.study is None:
            raise NotOpenedError
        return self.study

    @cached_property
    def sample(self) -> SpaceSample:
        """Random designs of the space, drawn once for all that look at them."""
        if self.teachers_fail:
            raise NotOpenedError
        found: SpaceSample = self.opened.sample()
        return found

    @cached_property
    def reference_point(self) -> dict[str, float]:
        """Of the hypervolume; see :func:`~naskd.study.space_sample.random_reference_point`."""
        world = self.opened.world
        return random_reference_point(
            self.sample,
            self.spec,
            world.n_classes,
            world.n_train,
            lambda config: _training_macs(config, world.facts),
        )

    @cached_property
    def earlier(self) -> tuple[EarlierRun, ...]:
        """What was read of earlier runs; see :func:`~naskd.runs.earlier.earlier_runs`."""
        return earlier.earlier_runs(self.spec, self.run_dir)

    @cached_property
    def warm(self) -> WarmStart:
        """What is taken of them."""
        if not self.earlier:
            return WarmStart()
        opened = self.opened
        return warm_start(self.earlier, self.spec, opened.space, opened.world.facts, self.sample)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """See :func:`~naskd.runs.provenance.identity_of`; with what was read of earlier runs."""
        return {**identity_of(self.spec, self.opened.world), **earlier.identity(self.earlier)}


Check = Callable[[Start], Iterable[str]]


def _training_macs(config: TrialConfig, facts: DesignFacts) -> float:
    """What training a design takes; 0 where that cannot be computed, of which it will be told as a trial."""
    with contextlib.suppress(*USERS):
        return facts.training_macs(config).whole
    return 0.0


def _teachers(start: Start) -> Iterable[str]:
    """Each is tried, before designs are matched to it."""
    parts = start.opened.parts
    if parts is not None:
        doing("trying the teacher")
    trials = [] if parts is None else try_teachers(parts)
    log_trials(trials)
    start.tried = trials
    start.teachers_fail = not all(trial.built for trial in trials)
    return [problem for trial in trials for problem in trial.problems]


def _states(start: Start) -> Iterable[str]:
    """A teacher that was brought along has no states; what its designs get instead is said, and is no mistake."""
    for name in start.sample.stateless:
        _LOG.warning(
            "the %s was not trained here, so that no state of its training is there: designs that ask for one are "
            "taught by the teacher itself",
            called(name),
        )
    return ()


def _first_designs(start: Start) -> Iterable[str]:
    return check_warm_start(start.opened.space, start.spec, start.sample.parameters)


def _earlier_runs(start: Start) -> Iterable[str]:
    """What is taken of each is said here, to whoever checks and to whoever searches."""
    if start.earlier:
        say_warm_start(start.warm)
    return ()


def _known_elsewhere(start: Start) -> Iterable[str]:
    spec = start.spec
    if not EXECUTORS[spec.execution.executor].elsewhere:
        return
    if objects := objects_of(spec):
        yield (
            f"{', '.join(objects)}: given as Python objects, which the workers of executor "
            f"{spec.execution.executor!r} do not have; take executor 'serial', or files"
        )
    if left := methods_of_the_script(start.sample, spec.objectives):
        yield (
            f"{', '.join(left)}: defined in the script that searches, which the workers of executor "
            f"{spec.execution.executor!r} do not run; move it to a file and name that in the study's modules"
        )


def _reference_point(start: Start) -> Iterable[str]:
    assert start.reference_point
    return ()


def _methods(start: Start) -> Iterator[str]:
    """What the study names is made once, as the search will make it."""
    spec = start.spec

    def loggers() -> None:
        check_loggers(spec.execution.callbacks)
        for name in spec.execution.callbacks:
            LOGGERS.load(name)

    made: tuple[tuple[str, Callable[[], Any]], ...] = (
        (f"sampler {spec.sampler.name!r}", lambda: build_sampler(spec.sampler, spec.seed, 0)),
        (
            f"stopping rule {spec.stopping.name!r}",
            lambda: build_stopping(spec.stopping),
        ),
        ("objectives", lambda: [OBJECTIVES[name] for name in spec.objectives]),
        ("execution.callbacks", loggers),
        (f"executor {spec.execution.executor!r}", lambda: EXECUTORS.load(spec.execution.executor)),
    )
    for what, make in made:
        try:
            make()
        except NaskdError as error:
            yield str(error)
        except USERS as error:  # a user's own may raise anything, and a package may not be there
            yield f"{what} cannot be made: {one_line(error)}"


def _executor(start: Start) -> Iterable[str]:
    able = EXECUTORS[start.spec.execution.executor].able
    if able:
        imported(able)(start.opened.context)
    return ()


def _places(start: Start) -> Iterator[str]:
    for folder in (start.run_dir, start.run_dir.parent / "artifacts", start.run_dir.parent / "cache"):
        try:
            usable_folder(folder)
        except InputError as error:
            yield str(error)


def _checkpoints(start: Start) -> Iterable[str]:
    """A place that is named is tried where something will be kept there, and said to stay empty where nothing will."""
    spec = start.spec
    if (given := spec.execution.checkpoints) is None:
        return ()
    if spec.execution.checkpoint_every or spec.stopping.pauses or _some_train_apart(start.sample):
        checkpoint_store(spec, start.run_dir, spec.name).check()
    else:
        _LOG.warning(
            "execution.checkpoints = %r, but nothing is kept there: execution.checkpoint_every is 0, so that a trial "
            "that is broken off begins again; set it to a number of epochs",
            redacted(given),
        )
    return ()


def _some_train_apart(sample: SpaceSample) -> bool:
    """Whether peers of some design are trainings of their own, which tell each other their weights in checkpoints."""
    taught = [design.distillation for design, _ in sample.designs]
    return any(SCHEMES[one.scheme].trainings(one) > 1 for one in taught)


def _storage(start: Start) -> Iterable[str]:
    """A database that is no file is asked whether it answers; of files it is known already."""
    if "://" in start.spec.storage and database_file(start.spec.storage) is None:
        open_storage(start.spec.storage, start.run_dir)
    return ()


def _run_of_before(start: Start) -> Iterator[str]:
    """A run that is there must be of the same study, unless nothing was trained in it."""
    spec = start.spec
    if not is_there(spec.storage, start.run_dir):
        return
    storage = open_storage(spec.storage, start.run_dir)
    if difference := difference_to(spec, storage, start.identity):
        yield refusal(spec.name, difference)
    elif (parts := start.opened.parts) is not None and (
        lines := different_weights(parts, booked_networks(spec, storage))
    ):
        yield refusal(spec.name, lines)
    elif parts is not None and (study := stored_study(spec, storage)) is not None:
        for line in different_test_images(study.user_attrs, parts):
            then = "measures on those of now" if spec.data.own_test else "will refuse them"
            _LOG.warning("%s; the search does not use them, but naskd retrain %s", line, then)


CHECKS: tuple[Check, ...] = (
    _teachers,
    _methods,
    _places,
    _checkpoints,
    _executor,
    _states,
    _first_designs,
    _earlier_runs,
    _known_elsewhere,
    _reference_point,
    _storage,
    _run_of_before,
)


def _test_images(start: Start) -> Iterable[str]:
    """A search only warns of test images that cannot be read; whoever checks can still mend them."""
    survey = start.opened.survey
    return () if survey is None or not survey.test_problems else survey.all_problems


def _teachers_files(start: Start) -> Iterator[str]:
    """A study that cannot be opened has no teacher to run, yet what its file holds can be read."""
    if start.study is not None:
        return
    for name, teacher in start.spec.teacher_specs().items():
        if teacher.source_name in TEACHER_SOURCES and teacher.holds_state and teacher.checkpoint is not None:
            try:
                read_checkpoint(start.spec.resolve(teacher.checkpoint), teacher.sha256)
            except InputError as error:
                yield f"{called(name)}: {error}"


def _some_design(start: Start) -> Iterable[str]:
    """A space of which nothing can be trained. A search finds out by itself, and says so in its end."""
    if start.sample.designs:
        return
    turned_away = dict(enumerate(start.sample.turned_away))
    counts = ", ".join(f"{kind} ({n})" for kind, n in count_kinds(turned_away).items())
    yield (
        f"none of {start.sample.n_drawn} random designs of {start.spec.space} can be trained: {counts}; "
        f"the first is {start.sample.turned_away[0]}"
    )


BEFORE_A_SEARCH: tuple[Check, ...] = (_test_images, _teachers_files, _some_design)
"""What ``check`` looks at besides."""


def problems(start: Start, checks: Sequence[Check] = CHECKS) -> list[str]:
    """All that is wrong, each thing once."""
    found: list[str] = []
    for check in checks:
        heed()
        with contextlib.suppress(NotOpenedError):
            try:
                found += check(start)
            except NaskdError as error:
                found.append(str(error))
    return list(dict.fromkeys(found))


def checkpoint_store(spec: StudySpec, run_dir: Path, folder: str) -> CheckpointStore:
    """At :func:`~naskd.runs.directory.checkpoint_root`."""
    return CheckpointStore(checkpoint_root(spec, run_dir, folder))
