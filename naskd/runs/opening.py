"""A study with everything that it names loaded, and what can be asked of it before it searches."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from naskd.data.survey import DataSurvey, say_survey, survey_and_load
from naskd.executors import EXECUTORS
from naskd.loggers import check_loggers
from naskd.runs.carried import with_found_checkpoints
from naskd.runs.estimate import estimate_search
from naskd.runs.given import objects_of
from naskd.runs.provenance import world_of
from naskd.runs.starting import BEFORE_A_SEARCH, CHECKS, Start, as_begun, problems
from naskd.spec.doing import doing
from naskd.spec.errors import InputError, NaskdError
from naskd.spec.held import held_function, is_held
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.parse import parse_study, parsed_study
from naskd.spec.registry import imported
from naskd.spec.study import RUNS, StudySpec
from naskd.spec.tables import spec_problems
from naskd.spec.userfile import import_file, load_function
from naskd.store.artifacts import ArtifactStore
from naskd.store.checkpoints import check_scheme
from naskd.study.admission import count_kinds
from naskd.study.space import Space, timed
from naskd.study.space_sample import SpaceSample, describe_range, methods_of_the_script, sample_space
from naskd.study.storage import quiet
from naskd.trials.context import StudyContext
from naskd.trials.facts import World
from naskd.trials.resources import Resources, open_resources

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
        doing("drawing random designs")
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
    spec = parsed_study(study, settings)
    for module in spec.modules:
        import_file(spec.resolve(module))
    if problems := spec_problems(spec):
        raise InputError(problems)
    check_loggers(spec.execution.callbacks)
    check_scheme(spec.execution.checkpoints or "")
    for name in spec.objectives:
        OBJECTIVES[name]
    brings = EXECUTORS[spec.execution.executor].brings
    errors: list[NaskdError] = []
    spec = _tried(errors, lambda: with_found_checkpoints(spec)) or spec
    space = _tried(errors, lambda: timed(space_of(spec), spec.execution.space_seconds))
    found = _tried(
        errors,
        lambda: imported(brings)(spec) if brings else survey_resources(spec, runs),
    )
    if errors:
        raise errors[0] if len(errors) == 1 else InputError(errors)
    assert space is not None
    if brings:
        return OpenStudy(spec, space, found, None)
    survey, resources = found
    return _opened(space, StudyContext.of(resources), survey)


def space_of(spec: StudySpec) -> Space:
    """The search space of a study, from its file or as it was given.

    Raises:
        InputError: It is not there.
    """
    found: Space = held_function(spec.space) if is_held(spec.space) else load_function(spec.space, spec.base)
    return found


def _tried(errors: list[NaskdError], make: Callable[[], Any]) -> Any:
    """What is made, or None with what is wrong added to `errors`: one mistake does not hide another."""
    try:
        return make()
    except NaskdError as error:
        errors.append(error)
        return None


def survey_resources(spec: StudySpec, runs: Path) -> tuple[DataSurvey, Resources]:
    """Look at all images of a study, say what they are, and load those that a search may see.

    Raises:
        InputError: All that is wrong with the images, or the device is not there.
    """
    doing("reading the images")
    survey, data = survey_and_load(spec.data, spec.base, runs / "cache")
    say_survey(survey)
    if data is None:
        raise InputError(survey.all_problems)
    store = ArtifactStore(runs / "artifacts")
    return survey, open_resources(spec, store, runs / "cache", data=data, test_hash=survey.test_hash)


def _opened(space: Space, context: StudyContext, survey: DataSurvey | None) -> OpenStudy:
    return OpenStudy(context.resources.spec, space, world_of(context), context, survey)


def check(study: str | Path, settings: Sequence[str] = (), out: Path | None = None) -> StudySpec:
    """See whether a study can be searched: all that a search looks at before it begins; nothing is trained.

    Args:
        study: Path of a study file.
        settings: ``key=value`` overrides, as ``--set`` takes them.
        out: Run directory that the search would have; default ``runs/<name>``. A run that is there must be of the
            same study.

    Raises:
        InputError: All that is wrong, a line each.
    """
    start, found = begin(parse_study(Path(study), settings), out)
    if found:
        raise InputError(found)
    return start.spec


def begin(spec: StudySpec, out: Path | None = None) -> tuple[Start, list[str]]:
    """The start of a study's search, and all that is wrong with it, each thing once.

    Args:
        spec: The study.
        out: As for :func:`check`.
    """
    run_dir = out or RUNS / spec.name
    spec = as_begun(spec, run_dir)
    found, opened = list[str](), None
    try:
        opened = open_study(spec, runs=run_dir.parent)
    except NaskdError as error:
        found.append(str(error))
    start = Start(spec if opened is None else opened.spec, run_dir, opened)
    found += problems(start, (*CHECKS, *BEFORE_A_SEARCH))
    return start, list(dict.fromkeys(found))


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
    study: str | Path | StudySpec,
    settings: Sequence[str] = (),
    designs: int = 8,
    *,
    out: Path | None = None,
    **budget: Any,
) -> dict[str, Any]:
    """What a search would cost, from a few timed steps; nothing is written but decoded images.

    Args:
        study: Path of a study file, or a parsed one.
        settings: ``key=value`` overrides, as ``--set`` takes them.
        designs: That are timed, at least 1.
        out: As for :func:`check`: teachers and assistants that are there beside it are not made again.
        budget: Replaces keys of the study's budget; None keeps its own.

    Raises:
        InputError: See :func:`open_study`; or no design of the space can be trained.
        RunError: Nothing can be timed.
    """
    spec = parsed_study(study, settings)
    run_dir = out or RUNS / spec.name
    opened = open_study(as_begun(spec, run_dir), runs=run_dir.parent)
    spec = opened.spec
    given = {k: v for k, v in budget.items() if v is not None}
    spec = dataclasses.replace(spec, budget=dataclasses.replace(spec.budget, **given))
    opened = opened.given(spec=spec)
    sample = opened.sample()
    opened = opened.given(foreseen=sample.kinds)  # as its search
    # A worker process knows nothing of the script that runs.
    apart = not (methods_of_the_script(sample, spec.objectives) or objects_of(spec))
    drawn = [config for config, _ in sample.designs]
    chosen = drawn[:designs]
    doing(f"timing a few steps of {len(chosen)} students and of the networks that teach them")
    return {"study": spec.name, **estimate_search(opened.context, chosen, sample=drawn, apart=apart)}
