"""A study with everything that it names loaded, and what can be asked of it before it searches."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from naskd.data.survey import DataSurvey, say_survey, survey_and_load
from naskd.executors import EXECUTORS
from naskd.loggers import check_loggers
from naskd.runs.estimate import estimate_search
from naskd.spec.errors import InputError, RunError
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.parse import parse_study
from naskd.spec.registry import imported
from naskd.spec.study import RUNS, StudySpec
from naskd.spec.tables import spec_problems
from naskd.spec.userfile import import_file, load_function
from naskd.store.artifacts import ArtifactStore
from naskd.store.checkpoints import check_scheme
from naskd.store.files import sweep
from naskd.study.admission import count_kinds
from naskd.study.space import Space
from naskd.study.space_sample import SpaceSample, check_warm_start, describe_range, sample_space
from naskd.study.storage import journal_bytes, quiet
from naskd.trials.context import StudyContext
from naskd.trials.facts import World
from naskd.trials.resources import Resources, open_resources

STUDY_FILE = "study.json"
LEDGER_BYTES = "ledger_bytes"
"""Beside the study in that file: how long the journal was when a search last began or ended. It only grows."""
SAMPLE = 256
"""Designs drawn to know a space: its cost range and its reference point."""


@dataclasses.dataclass(frozen=True)
class OpenStudy:
    """A study file with everything that it names loaded.

    Args:
        spec: The study.
        space: Proposes designs.
        world: What its search runs in.
        parts: The study's context; None where the executor brings a world of its own.
        survey: What its images are; None likewise.
    """

    spec: StudySpec
    space: Space
    world: World
    parts: StudyContext | None
    survey: DataSurvey | None = None

    @property
    def context(self) -> StudyContext:
        """The study's context.

        Raises:
            InputError: Its executor trains nothing.
        """
        if self.parts is None:
            raise InputError(f"executor {self.spec.execution.executor!r} trains nothing, and loads no images")
        return self.parts

    def sample(self, n: int = SAMPLE) -> SpaceSample:
        """Random designs of the space."""
        return sample_space(self.space, self.spec, self.world.facts.measured, n)

    def given(self, **changes: Any) -> "OpenStudy":
        """The same study with other resources; see :class:`~naskd.trials.resources.Resources`."""
        resources = dataclasses.replace(self.context.resources, **changes)
        return _opened(self.space, StudyContext.of(resources), self.survey)


def open_study(study: str | Path | StudySpec, settings: Sequence[str] = (), runs: Path = RUNS) -> OpenStudy:
    """Parse a study file, import the user's files, load the data.

    Args:
        study: Path of a study file, or a parsed one.
        settings: ``key=value`` overrides, as ``--set`` takes them.
        runs: Folder of all runs; teachers, assistants and decoded images are kept there for all of them.

    Raises:
        InputError: Anything the study file says is wrong; all mistakes at once.
        RunError: The space cannot be used.
    """
    quiet()
    spec = study if isinstance(study, StudySpec) else parse_study(Path(study), settings)
    for module in spec.modules:
        import_file(spec.resolve(module))
    if problems := spec_problems(spec):
        raise InputError(problems)
    check_loggers(spec.execution.callbacks)
    check_scheme(spec.execution.checkpoints or "")
    for name in spec.objectives:
        OBJECTIVES[name]
    space = load_function(spec.space, spec.base)
    if brings := EXECUTORS[spec.execution.executor].brings:
        return OpenStudy(spec, space, imported(brings)(spec), None)
    survey, resources = survey_resources(spec, runs)
    return _opened(space, StudyContext.of(resources), survey)


def survey_resources(spec: StudySpec, runs: Path) -> tuple[DataSurvey, Resources]:
    """Look at all images of a study, say what they are, and load those that a search may see.

    Raises:
        InputError: All that is wrong with the images, or the device is not there.
    """
    survey, data = survey_and_load(spec.data, spec.base, runs / "cache")
    say_survey(survey)
    if data is None:
        raise InputError(survey.all_problems)
    return survey, open_resources(spec, ArtifactStore(runs / "artifacts"), runs / "cache", data=data)


def _opened(space: Space, context: StudyContext, survey: DataSurvey | None) -> OpenStudy:
    data = context.resources.data
    world = World(context.designs, data.n_classes, len(data.train), data.data_hash, data.split_hash)
    return OpenStudy(context.resources.spec, space, world, context, survey)


def check(study: str | Path, settings: Sequence[str] = ()) -> StudySpec:
    """Parse a study file and see whether its space gives designs; nothing is trained.

    Raises:
        InputError: All mistakes of the file.
        RunError: The space raises, or all sampled designs are turned away.
    """
    opened = open_study(study, settings)
    if opened.survey is not None and opened.survey.test_problems:
        raise InputError(opened.survey.all_problems)
    sample = opened.sample()
    if mistakes := check_warm_start(opened.space, opened.spec, sample.parameters):
        raise InputError("\n".join(mistakes))
    if not sample.designs:
        counts = ", ".join(
            f"{kind} ({n})" for kind, n in count_kinds(dict(enumerate(sample.turned_away))).items()
        )
        raise InputError(f"none of {sample.n_drawn} random designs can be trained: {counts}")
    return opened.spec


def describe_space(study: str | Path, settings: Sequence[str] = (), samples: int = 1000) -> dict[str, Any]:
    """Size of a study's space: parameters with ranges, combinations, the range of MACs over a random sample."""
    opened = open_study(study, settings)
    sample = opened.sample(samples)
    macs = sorted(cost.macs for _, cost in sample.designs)
    return {
        "space": opened.spec.space,
        "n_parameters": len(sample.parameters),
        "parameters": [{"name": n, "range": describe_range(d)} for n, d in sample.parameters.items()],
        "log10_size": sample.log10_size,
        "samples": sample.n_drawn,
        "distinct_designs": len(sample.designs),
        "turned_away": count_kinds(dict(enumerate(sample.turned_away))),
        "macs": {
            "min": macs[0] if macs else None,
            "median": macs[len(macs) // 2] if macs else None,
            "max": macs[-1] if macs else None,
        },
    }


def dry_run(
    study: str | Path | StudySpec, settings: Sequence[str] = (), designs: int = 8, **budget: Any
) -> dict[str, Any]:
    """What a search would cost, from a few timed steps; nothing is written but decoded images."""
    opened = open_study(study, settings)
    spec = opened.spec
    given = {k: v for k, v in budget.items() if v is not None}
    spec = dataclasses.replace(spec, budget=dataclasses.replace(spec.budget, **given))
    opened = opened.given(spec=spec)
    sample = opened.sample()
    return {"study": spec.name, **estimate_search(opened.context, [c for c, _ in sample.designs[:designs]])}


def lost_bytes(known: Mapping[str, Any], run_dir: Path) -> int:
    """How much is missing at the end of a run's journal, of what was there when a search last ended.

    Args:
        known: Content of ``study.json``.
        run_dir: Of the run.
    """
    before = int(known.get(LEDGER_BYTES, 0))
    return max(0, before - journal_bytes(known.get("storage", "journal"), run_dir))


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a run directory, cleared of what killed processes left half written; the lock ends with the process."""
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{run_dir} is in use by another naskd process") from None
    try:
        sweep(run_dir, run_dir.parent / "artifacts", run_dir.parent / "cache")
        yield
    finally:
        lock.release()
