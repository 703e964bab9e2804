"""A run directory: what it holds, and what can be done with it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from naskd import report
from naskd.networks.student_file import load_student
from naskd.runs.choose import choose
from naskd.runs.export import check_export, export_student, format_of
from naskd.runs.opening import LEDGER_BYTES, STUDY_FILE, locked, lost_bytes, survey_resources
from naskd.runs.retrain import RESULTS_FILE, Design, Retraining, damaged_students, load_results
from naskd.spec.datasets import DATASETS
from naskd.spec.design import TrialConfig
from naskd.spec.errors import DamagedError, InputError
from naskd.spec.exports import EXPORTS
from naskd.spec.objectives import described
from naskd.spec.study import StudySpec
from naskd.spec.userfile import import_file
from naskd.store.files import is_sealed, read_sealed
from naskd.study.record import load_ledger, run_record
from naskd.study.storage import JOURNAL_FILE, dashboard_target, quiet
from naskd.trials.context import StudyContext

load = load_student
"""Load a retrained or exported student (``.safetensors``) as an ``nn.Module`` in evaluation mode."""


def open_run(path: str | Path) -> "Run":
    """Open a run directory for looking, retraining and exporting.

    Raises:
        InputError: There is no run.
    """
    quiet()
    path = Path(path)
    if not (path / STUDY_FILE).is_file():
        raise InputError(f"{path} is no run directory: it holds no {STUDY_FILE}; naskd search makes one")
    known = read_sealed(path / STUDY_FILE, "naskd search STUDY.toml writes it anew")
    if lost := lost_bytes(known, path):
        raise DamagedError(
            f"{path / JOURNAL_FILE} is damaged: its last {lost} bytes are missing; "
            "restore it from a copy, or search again to go on from what is left"
        )
    return Run(path, StudySpec.from_dict({k: v for k, v in known.items() if k != LEDGER_BYTES}))


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
            _, resources = survey_resources(self.spec, self.path.parent)
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
        return found + self._doubts()

    def _doubts(self) -> list[str]:
        """What cannot be relied on of the files of retrainings."""
        retrained = load_results(self.path)
        found = [
            f"{file} is missing or damaged; naskd retrain and naskd export make it again."
            for file in damaged_students(self.path, retrained)
        ]
        if retrained and not is_sealed(self.path / RESULTS_FILE):
            found.append(
                f"{RESULTS_FILE} was written by an earlier version, without a hash: damage to it would not be noticed."
            )
        return found

    def _retrained(self) -> dict[str, Any] | None:
        record = load_results(self.path)
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
        with locked(self.path):
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
        with locked(self.path):
            source = Retraining(self.context, self.path, self.spec.retrain_epochs).train(design, 0)
        return export_student(source, target, self.context.resources.data.val.images[:256], name)
