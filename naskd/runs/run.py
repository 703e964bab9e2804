"""What the command line does, as Python: search, open a run, look at it, retrain, export, load."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from naskd import report
from naskd.executors import EXECUTORS
from naskd.loggers import build_loggers, check_loggers
from naskd.networks.student_file import load_student
from naskd.runs.choose import choose
from naskd.runs.estimate import estimate_search
from naskd.runs.export import check_export, export_student, format_of
from naskd.runs.retrain import RESULTS_FILE, Design, Retraining
from naskd.spec.datasets import DATASETS
from naskd.spec.design import TrialConfig, content_id
from naskd.spec.errors import InputError, RunError
from naskd.spec.exports import EXPORTS
from naskd.spec.objectives import OBJECTIVES, described
from naskd.spec.parse import parse_study
from naskd.spec.stopping import STOPPING_RULES
from naskd.spec.study import RUNS, StudySpec
from naskd.spec.tables import spec_problems
from naskd.spec.userfile import file_content_id, import_file, load_function
from naskd.store.artifacts import ArtifactStore
from naskd.store.checkpoints import CheckpointStore
from naskd.study.admission import count_kinds
from naskd.study.facts import Space
from naskd.study.leases import renewing
from naskd.study.observer import SnapshotObserver, StudyObserver
from naskd.study.record import load_ledger, run_record
from naskd.study.snapshot import Snapshot
from naskd.study.space_sample import (
    SpaceSample,
    check_warm_start,
    describe_range,
    methods_of_the_script,
    random_reference_point,
    sample_space,
)
from naskd.study.storage import dashboard_target, open_storage, quiet
from naskd.study.study import Study
from naskd.trials.context import StudyContext
from naskd.trials.resources import open_resources

STUDY_FILE = "study.json"
SAMPLE = 256
"""Designs drawn to know a space: its cost range and its reference point."""

load = load_student
"""Load a retrained or exported student (``.safetensors``) as an ``nn.Module`` in evaluation mode."""


@dataclasses.dataclass(frozen=True)
class OpenStudy:
    """A study file with everything that it names loaded."""

    spec: StudySpec
    space: Space
    context: StudyContext

    def sample(self, n: int = SAMPLE) -> SpaceSample:
        """Random designs of the space."""
        return sample_space(self.space, self.spec, self.context.designs.measured, n)

    def given(self, **changes: Any) -> "OpenStudy":
        """The same study with other resources; see :class:`~naskd.trials.resources.Resources`."""
        resources = dataclasses.replace(self.context.resources, **changes)
        return OpenStudy(resources.spec, self.space, StudyContext.of(resources))


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
    for name in spec.objectives:
        OBJECTIVES[name]
    space = load_function(spec.space, spec.base)
    resources = open_resources(spec, ArtifactStore(runs / "artifacts"), runs / "cache")
    return OpenStudy(spec, space, StudyContext.of(resources))


def run_search(
    spec: StudySpec,
    run_dir: Path,
    observe: Callable[[Snapshot], None] = lambda _: None,
    observers: Sequence[StudyObserver] = (),
) -> "Run":
    """Run a study, or go on with it where it stopped; see :func:`naskd.launch.search`."""
    opened = open_study(spec, runs=run_dir.parent)
    sample = opened.sample()
    kinds = {term.kind for design, _ in sample.designs for term in design.distillation.terms}
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
    with _locked(run_dir):
        shown = json.dumps({**spec.to_dict(), "base": str(spec.base)}, indent=1)
        storage = open_storage(spec.storage, run_dir, writing=True)
        data = opened.context.resources.data
        identity = _identity(opened)
        opened = opened.given(checkpoints=_checkpoints(spec, run_dir, identity))
        loggers = build_loggers(spec.execution.callbacks, folder=run_dir, study=spec.name)
        source = Study(
            spec,
            opened.space,
            storage,
            opened.context.designs,
            identity=identity,
            reference_point=random_reference_point(sample, spec, data.n_classes, len(data.train)),
            observers=(SnapshotObserver(observe), *observers, *loggers),
            stopping=STOPPING_RULES.load(spec.stopping.name)(**spec.stopping.settings()),
        )
        partial = run_dir / f".{STUDY_FILE}.partial"
        partial.write_text(shown)
        partial.replace(run_dir / STUDY_FILE)
        shutil.copyfile(spec.resolve(spec.space.rpartition(":")[0]), run_dir / "space.py")
        executor = EXECUTORS.load(spec.execution.executor)(opened.context, run_dir)
        try:
            with renewing(source.renew):
                executor.run(source)
        finally:
            source.release()
    run = Run(run_dir, spec, opened.context)
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
    root = given if "://" in given else str(spec.resolve(given))
    store = CheckpointStore(f"{root.rstrip('/')}/{spec.name}-{content_id(identity)}")
    if spec.execution.checkpoint_every:
        store.check()
    return store


def _identity(opened: OpenStudy) -> dict[str, Any]:
    """What a resume must find unchanged."""
    spec, data = opened.spec, opened.context.resources.data
    files = [spec.space.rpartition(":")[0], *spec.modules]
    teachers = {recipe.teacher: recipe.artifact_id for recipe in opened.context.designs.teachers()}
    identity = {
        **spec.identity(),
        "files": {name: file_content_id(spec.resolve(name)) for name in files},
        "data_hash": data.data_hash,
        "split_hash": data.split_hash,
        "teacher_hash": None if spec.teacher is None else teachers[spec.teacher.name],
    }
    if spec.teachers:
        identity["teacher_hashes"] = teachers
    return dict(json.loads(json.dumps(identity)))


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Hold a run directory; the lock ends with the process."""
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{run_dir} is in use by another naskd process") from None
    try:
        yield
    finally:
        lock.release()


def open_run(path: str | Path) -> "Run":
    """Open a run directory for looking, retraining and exporting.

    Raises:
        InputError: There is no run.
    """
    quiet()
    path = Path(path)
    if not (path / STUDY_FILE).is_file():
        raise InputError(f"{path} is no run directory: it holds no {STUDY_FILE}; naskd search makes one")
    try:
        known = json.loads((path / STUDY_FILE).read_text())
    except ValueError as error:
        raise InputError(
            f"{path / STUDY_FILE} is damaged: {error}; naskd search STUDY.toml writes it anew"
        ) from error
    return Run(path, StudySpec.from_dict(known))


class Run:
    """A run directory: its ledger, its front, and what can be done with it.

    Args:
        path: Of the directory.
        spec: The study.
        context: Loaded data and networks; None loads them when a retraining or an export first needs them.
    """

    def __init__(self, path: Path, spec: StudySpec, context: StudyContext | None = None) -> None:
        self.path = path
        self.spec = spec
        self.stop_reason = ""
        self._context = context

    @property
    def context(self) -> StudyContext:
        """Data and networks of the study."""
        if self._context is None:
            self._import_modules()
            runs = self.path.parent
            resources = open_resources(self.spec, ArtifactStore(runs / "artifacts"), runs / "cache")
            self._context = StudyContext.of(resources)
        return self._context

    def _import_modules(self) -> None:
        for module in self.spec.modules:
            import_file(self.spec.resolve(module))

    def _record(self, everything: bool, with_importance: bool = False) -> dict[str, Any]:
        ledger = load_ledger(self.spec, self.path)
        return run_record(
            ledger, self.spec.objectives, everything=everything, with_importance=with_importance
        )

    @property
    def storage_url(self) -> str:
        """What ``optuna-dashboard`` takes."""
        return dashboard_target(self.spec.storage, self.path)

    def to_dict(self, everything: bool = False, *, with_importance: bool = True) -> dict[str, Any]:
        """The run record (docs/reference/record.md): the front's trials, or with `everything` all trials and extras.

        Args:
            everything: See there.
            with_importance: False leaves out which parameters mattered, which takes seconds.
        """
        record = self._record(everything, with_importance)
        if everything:
            record["warnings"] = self._warnings(record)
            record["retrained"] = self._retrained()
            record["seed"] = self.spec.seed
        return record

    def front(self) -> list[dict[str, Any]]:
        """The trials that no other dominates, cheapest first."""
        return list(self.to_dict()["trials"])

    def trials(self) -> list[dict[str, Any]]:
        """All trials with their states, by number."""
        return list(self._record(everything=True)["trials"])

    def trial(self, number: int) -> dict[str, Any]:
        """One trial.

        Raises:
            InputError: There is none of that number.
        """
        trials = self.trials()
        if not 0 <= number < len(trials):
            raise InputError(f"there is no trial {number}; this run has trials 0 to {len(trials) - 1}")
        return trials[number]

    def best(
        self,
        *,
        max_macs: float | None = None,
        min_accuracy: float | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> dict[str, Any]:
        """The one to take: within limits on costs the most accurate, with a limit on accuracy the cheapest.

        Args:
            max_macs: Multiply-accumulates of one image, at most.
            min_accuracy: On the validation images, at least; a fraction.
            limits: By the name of an objective: at most this where it is minimised, at least where it is maximised.

        Raises:
            InputError: Nothing on the front qualifies; the message says what comes nearest.
        """
        record = self.to_dict()
        given = {"macs": max_macs, "val_accuracy": min_accuracy, **(limits or {})}
        wanted = {name: bound for name, bound in given.items() if bound is not None}
        return dict(choose(record["trials"], [described(o) for o in record["objectives"]], wanted))

    # --- reports -----------------------------------------------------------------------------------------------

    def write_html(self, path: str | Path | None = None) -> Path:
        """One self-contained page; default ``report.html`` in the run directory."""
        target = Path(path) if path is not None else self.path / "report.html"
        report.write_html(self.to_dict(everything=True), target)
        return target

    def write_png(self, path: str | Path) -> Path:
        """A picture of the front."""
        report.write_png(self.to_dict(everything=True, with_importance=False), Path(path))
        return Path(path)

    def front_csv(self) -> str:
        """The front as comma-separated values with a header."""
        return report.front_csv(self.to_dict())

    def _warnings(self, record: Mapping[str, Any]) -> list[str]:
        found = []
        teacher = self.spec.teacher
        if teacher is not None and not teacher.trained_here and teacher.saw in ("unknown", "train+val"):
            found.append(
                "The teacher may have seen the validation images "
                f"(saw = {teacher.saw!r}): accuracies found by the search may be too high. "
                "The test split is sealed all the same."
            )
        data = self.spec.data
        cut = data.root is not None and data.kind in DATASETS and not data.own_test
        if cut and not (teacher is None or teacher.trained_here):
            found.append(
                "The test split was cut from the training folder, which a foreign teacher may have seen."
            )
        return found

    def _retrained(self) -> dict[str, Any] | None:
        path = self.path / RESULTS_FILE
        if not path.exists():
            return None
        record = dict(json.loads(path.read_text()))
        record.pop("trainings", None)
        return record if "designs" in record else None

    # --- taking away -------------------------------------------------------------------------------------------

    def _design(self, trial: Mapping[str, Any]) -> Design:
        if trial["config"] is None or trial["state"] != "COMPLETE":
            raise InputError(
                f"trial {trial['number']} is {trial['state']}, not COMPLETE: there is nothing to train"
                + (f" ({trial['reason']})" if trial["reason"] else "")
            )
        return Design(trial["number"], TrialConfig.from_dict(trial["config"]), trial["val_accuracy"])

    def retrain(
        self,
        trials: Sequence[int] | None = None,
        *,
        seeds: int | None = None,
        epochs: int | None = None,
        observe: Callable[[int, int, str], None] = lambda done, total, what: None,
    ) -> dict[str, Any]:
        """Train designs for the final schedule with fresh seeds, and read the test split.

        Args:
            trials: Numbers; None: the front.
            seeds: Trainings of each design; None: the study file's ``retrain.seeds``.
            epochs: None: the study file's ``retrain.epochs``.
            observe: Called with trainings done, in all, and what comes next.

        Returns:
            Mean and standard deviation of the test accuracy of each design, cheapest first, the front again,
            and the teacher's (docs/reference/record.md). Students are kept in ``retrained/``.

        Raises:
            InputError: A trial does not exist or is not complete.
        """
        chosen = self.front() if trials is None else [self.trial(number) for number in trials]
        self.context.resources.compute.apply_threads()
        retraining = Retraining(self.context, self.path, epochs or self.spec.retrain_epochs)
        with _locked(self.path):
            found = retraining.run(
                [self._design(t) for t in chosen],
                self.spec.retrain.seeds if seeds is None else seeds,
                observe,
            )
        self.write_html()
        return found

    def export(self, trial: int, format: str | None = None, path: str | Path | None = None) -> dict[str, Any]:
        """Write the student of a trial as one file, and compare it with the original on real images.

        The student is that of the design's first retraining; a design that was never retrained is trained now.

        Args:
            trial: Number.
            format: Name of a registered export format; default: what the suffix of `path` names, else ``safetensors``.
            path: Default ``exported/trial<number>.<suffix of the format>`` in the run directory.

        Returns:
            ``path``, ``max_difference``, ``agreement``, ``n_images``, ``size_bytes``.

        Raises:
            ExportError: The exported model differs, or a package is missing.
            InputError: The trial cannot be exported, or `format` and `path` do not go together.
        """
        self._import_modules()
        given = None if path is None else Path(path)
        name = format_of(given) if format is None else format
        target = given or self.path / "exported" / f"trial{trial}{EXPORTS[name].suffix}"
        check_export(name, target)
        design = self._design(self.trial(trial))
        self.context.resources.compute.apply_threads()
        with _locked(self.path):
            source = Retraining(self.context, self.path, self.spec.retrain_epochs).train(design, 0)
        return export_student(source, target, self.context.resources.data.val.images[:256], name)


def check(study: str | Path, settings: Sequence[str] = ()) -> StudySpec:
    """Parse a study file and see whether its space gives designs; nothing is trained.

    Raises:
        InputError: All mistakes of the file.
        RunError: The space raises, or all sampled designs are turned away.
    """
    opened = open_study(study, settings)
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
