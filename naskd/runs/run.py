"""A run directory: what it holds, and what can be done with it.

Torch is imported by what trains or loads a network, so that a run is looked at at once.
"""

import numbers
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naskd.runs.choose import choose, needs_all
from naskd.runs.directory import LEDGER_BYTES, LEDGER_IDENTITY, RESULTS_FILE, STUDY_FILE, checkpoint_root
from naskd.runs.moved import check_places, located
from naskd.runs.results import doubts, guessed, load_results, of_trials, several_ways
from naskd.spec.datasets import DATASETS
from naskd.spec.errors import DamagedError, InputError
from naskd.spec.objectives import described
from naskd.spec.storages import JOURNAL_FILE, dashboard_target, lost_bytes
from naskd.spec.study import StudySpec
from naskd.spec.teachers import called, leak
from naskd.spec.userfile import import_file
from naskd.store.files import digest, read_sealed
from naskd.study.kept import front_alone, keep, made_of, read_kept

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from torch import nn

    from naskd.study.record import OptunaStudy
    from naskd.trials.context import StudyContext


def load(path: str | Path) -> "nn.Module":
    """Load a retrained or exported student in evaluation mode: images ``(B, C, H, W)`` in [0, 1] to logits ``(B, K)``.

    A ``.safetensors`` file becomes the network itself, with its weights. A file of another format is run by the library
    that the format is for, on the CPU, and has no weights to train. Both have ``labels``, a tuple of the class names in
    the order of the logits, and ``preprocessing``, which says in plain JSON types how an image becomes an input. Of a
    student that an early version of naskd saved, that is None.

    Args:
        path: Of a ``.safetensors``, ``.onnx``, ``.pt2``, ``.xml``, ``.pte`` or ``.tflite`` file, or of a registered
            format's.

    Raises:
        InputError: naskd has not written it, or it is damaged.
        ExportError: What reads the format is not installed.
    """
    from naskd.runs.export import load_exported

    return load_exported(Path(path))


def open_run(path: str | Path, settings: Sequence[str] = (), **objects: Any) -> "Run":
    """Open a run directory for looking, retraining and exporting.

    Args:
        path: Of the directory, wherever it is now.
        settings: ``key=value``, for files of the study that are elsewhere now and are not found:
            ``data.root=/new/images``. Keys are those of :data:`naskd.runs.moved.PLACES`.
        objects: ``space``, ``data``, ``teacher`` or ``teachers``, as :func:`naskd.search` was given them: of a run that
            another process searched with Python objects. What only looks needs none.

    Raises:
        InputError: There is no run, a setting is about something else than a place, or an object is not the run's.
    """
    path = Path(path)
    if not os.path.isfile(path / STUDY_FILE):
        raise InputError(f"{path} is no run directory: it holds no {STUDY_FILE}; naskd search makes one")
    way_out = "naskd search STUDY.toml writes it anew"
    known = read_sealed(path / STUDY_FILE, way_out)
    if not {"name", "space"} <= set(known):  # which every version has written
        raise DamagedError(f"{path / STUDY_FILE} is damaged: it says no study; {way_out}")
    if lost := lost_bytes(int(known.pop(LEDGER_BYTES, 0)), known.get("storage", "journal"), path):
        raise DamagedError(
            f"{path / JOURNAL_FILE} is damaged: its last {lost} bytes are missing, of which "
            f"{STUDY_FILE} tells; restore the journal from a copy, or search again to go on from what is left"
        )
    ledger_identity = known.pop(LEDGER_IDENTITY, "")
    run = Run(path, located(known, path, settings))
    if objects:
        from naskd.runs.given import check_given

        check_given(run.spec, objects)
    run.ledger_identity = ledger_identity
    return run


def numbered(trials: Sequence[dict[str, Any]], number: int) -> dict[str, Any]:
    """The trial of a number, of all trials of a run.

    Raises:
        InputError: There is none.
    """
    if isinstance(number, bool) or not isinstance(number, numbers.Integral):
        raise InputError(f"trial {number!r}: the number of a trial is a whole number, such as 0")
    if not 0 <= number < len(trials):
        raise InputError(f"there is no trial {number}; this run has trials 0 to {len(trials) - 1}")
    return trials[int(number)]


class Front(list[dict[str, Any]]):
    """The trials of a front, cheapest first, each as :meth:`Run.trial` gives it.

    Args:
        record: A run record of the front.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        super().__init__(record["trials"])
        self._record = record

    def __repr__(self) -> str:
        from naskd.report.notebook import front_text

        return front_text(self._record)

    def _repr_html_(self) -> str:
        from naskd.report.notebook import front_html

        return front_html(self._record)


class Run:
    """A run directory: its ledger, its front, and what can be done with it.

    Args:
        path: Of the directory.
        spec: The study.
        context: Loaded data and networks; None loads them when a retraining or an export first needs them.
    """

    def __init__(self, path: Path, spec: StudySpec, context: "StudyContext | None" = None) -> None:
        self.path = path
        self.spec = spec
        self.stop_reason = ""
        """Why the search that gave this run has ended; empty for one that was stopped, or opened."""
        self.fell_short = False
        """Whether it ended with less than what was asked: its budget, or all designs of its space."""
        self.ledger_identity = ""
        """Hash of the identity that its ledger must have; empty where that is not known."""
        self._context = context
        self._read: tuple[object, OptunaStudy] | None = None

    @property
    def context(self) -> "StudyContext":
        """Data and networks of the study."""
        if self._context is None:
            from naskd.runs.opening import survey_resources
            from naskd.trials.context import StudyContext

            check_places(self.spec, self.path)
            self._import_modules()
            _, resources = survey_resources(self.spec, self.path.parent)
            self._context = StudyContext.of(resources)
        return self._context

    def _import_modules(self) -> None:
        """The modules, and the space too: it may register what its designs are made of."""
        for module in (*self.spec.modules, *self.spec.space_files):
            import_file(self.spec.resolve(module))

    def _ledger(self) -> "OptunaStudy":
        """As it is now: a journal is read again when it has changed, which takes most of the time of a look."""
        from naskd.study.record import load_ledger
        from naskd.study.storage import quiet

        quiet()
        stamp = None
        if self.spec.storage == "journal" and os.path.isfile(journal := self.path / JOURNAL_FILE):
            status = os.stat(journal)
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._read is None or stamp is None or self._read[0] != stamp:
            self._read = stamp, load_ledger(self.spec, self.path)
        return self._read[1]

    def _record(self, everything: bool, with_importance: bool = False) -> dict[str, Any]:
        """The record of the ledger as it is now; one that was kept of the same ledger is the same."""
        with_importance = everything and with_importance
        state = made_of(self.path, self.path / STUDY_FILE) if self.spec.storage == "journal" else None
        record = None
        if state is not None and self._read is None and not with_importance:
            record = read_kept(self.path, state)
        if record is None:
            record = self._made_record(with_importance)
            if state is not None and state == made_of(self.path, self.path / STUDY_FILE):
                keep(self.path, state, record)
        return record if everything else front_alone(record)

    def _made_record(self, with_importance: bool) -> dict[str, Any]:
        from naskd.study.record import run_record
        from naskd.study.storage import place_of

        ledger = self._ledger()
        if self.ledger_identity not in ("", digest(ledger.user_attrs.get("identity"))):
            raise DamagedError(
                f"{self.path / STUDY_FILE} and {place_of(ledger)} are of different runs; restore from a copy the one "
                f"that is another's, or search again, which writes {STUDY_FILE} anew"
            )
        return run_record(ledger, self.spec.objectives, with_importance=with_importance)

    def identity(self) -> dict[str, Any]:
        """What a resume must find unchanged: hashes of images, split, files and settings."""
        return dict(self._ledger().user_attrs.get("identity") or {})

    @property
    def storage_url(self) -> str:
        """What ``optuna-dashboard`` takes."""
        return dashboard_target(self.spec.storage, self.path)

    @property
    def checkpoints_elsewhere(self) -> str:
        """Folder or URL of the run's checkpoints where that is outside of its directory; empty where none can be there.

        Raises:
            InputError: Its search has not begun.
        """
        if self.spec.execution.checkpoints is None:
            return ""
        attrs = self._ledger().user_attrs
        root = checkpoint_root(self.spec, self.path, str(attrs.get("checkpoints", f"{self.spec.name}-*")))
        return root if "://" in root or os.path.isdir(root) else ""

    def to_dict(self, everything: bool = False, *, with_importance: bool = True) -> dict[str, Any]:
        """The run record (docs/reference/record.md): the front's trials, or with `everything` all trials and extras.

        Args:
            everything: See there.
            with_importance: False leaves out which parameters mattered, which takes seconds.
        """
        record = self._record(everything, with_importance)
        if everything:
            record["warnings"] = self._warnings(record)
            record["retrained"], strange = self._retrained(record["trials"])
            if strange:
                record["warnings"].append(strange)
            record["seed"] = str(self.spec.seed)
        return record

    def __repr__(self) -> str:
        return f"<naskd run {self.spec.name!r} in {str(self.path)!r}>"

    def _repr_html_(self) -> str:
        from naskd.report.notebook import run_html

        return run_html(self.to_dict(), str(self.path))

    @property
    def study(self) -> "OptunaStudy":
        """The study for Optuna's own plots and tables: a copy in memory, whatever is done with it.

        Validation accuracies by epoch are its trials' intermediate values, which Optuna itself does not keep where
        there are several objectives.
        """
        from naskd.study.record import with_curves

        return with_curves(self._ledger())

    def front(self) -> "Front":
        """The trials that no other dominates, cheapest first: a list, which a notebook shows as a table."""
        return Front(self.to_dict())

    def trials(self) -> list[dict[str, Any]]:
        """All trials with their states, by number."""
        return list(self._record(everything=True)["trials"])

    def trial(self, number: int) -> dict[str, Any]:
        """One trial.

        Raises:
            InputError: There is none of that number.
        """
        return numbered(self.trials(), number)

    def best(
        self,
        *,
        max_macs: float | str | None = None,
        min_accuracy: float | str | None = None,
        limits: Mapping[str, float | str] | None = None,
    ) -> dict[str, Any]:
        """The one to take: within limits on costs the most accurate, with a limit on accuracy the cheapest.

        Args:
            max_macs: Multiply-accumulates of one image, at most; a number, or text such as ``"100k"``.
            min_accuracy: On the validation images, at least; a fraction.
            limits: By the name of an objective: at most this where it is minimised, at least where it is maximised.
                With one that is none of the study's it need not be on the front.

        Raises:
            InputError: Nothing qualifies; the message says what comes nearest. Or something has two limits.
        """
        if limits is not None and not isinstance(limits, Mapping):
            raise InputError(f"limits is {limits!r}; it must be a mapping of names to numbers")
        record = self.to_dict()
        alone = {"macs": max_macs, "val_accuracy": min_accuracy}
        if twice := [name for name, bound in alone.items() if bound is not None and name in (limits or {})]:
            raise InputError(f"two limits on {' and on '.join(twice)}; give one of each")
        given = {**alone, **(limits or {})}
        wanted = {name: bound for name, bound in given.items() if bound is not None}
        objectives, trials = [described(o) for o in record["objectives"]], record["trials"]
        if needs_all(objectives, wanted):
            trials = [t for t in self.trials() if t["state"] == "COMPLETE" and t["replicate_of"] is None]
        return dict(choose(trials, objectives, wanted))

    # --- tables and plots ----------------------------------------------------------------------------------------

    def to_pandas(self) -> "pandas.DataFrame":
        """All trials as a table, by number; see :func:`naskd.report.frame.to_frame` for its columns."""
        from naskd.report.frame import to_frame

        return to_frame(self.to_dict(everything=True, with_importance=False))

    def plot_front(self, ax: "Axes | None" = None) -> "Axes":
        """Accuracy against cost: the front, dominated trials, the teacher, retrained designs.

        Args:
            ax: Axes of matplotlib to draw on; default: those of a new figure.
        """
        from naskd.report.plots import draw_front

        return self._plotted(draw_front, ax, with_importance=False)

    def plot_curves(self, ax: "Axes | None" = None) -> "Axes":
        """Validation accuracy by epoch of each trial, those of the front in front. `ax` as for :meth:`plot_front`."""
        from naskd.report.plots import draw_curves

        return self._plotted(draw_curves, ax, with_importance=False)

    def plot_importance(self, ax: "Axes | None" = None) -> "Axes":
        """Which parameters mattered for each objective. `ax` as for :meth:`plot_front`."""
        from naskd.report.plots import draw_importance

        return self._plotted(draw_importance, ax, with_importance=True)

    def _plotted(self, draw: Callable[[Any, Any], None], ax: "Axes | None", with_importance: bool) -> "Axes":
        record = self.to_dict(everything=True, with_importance=with_importance)
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots(figsize=(8, 5), layout="constrained")
        draw(record, ax)
        return ax

    # --- reports -----------------------------------------------------------------------------------------------

    def write_html(self, path: str | Path | None = None) -> Path:
        """One self-contained page; default ``report.html`` in the run directory."""
        from naskd.report.html import write_html

        target = Path(path) if path is not None else self.path / "report.html"
        write_html(self.page_record(), target)
        return target

    def page_record(self, *, with_importance: bool = True) -> dict[str, Any]:
        """What the page is made of: the record of all trials, what the search was, and the commands for this run.

        Args:
            with_importance: See :meth:`to_dict`.
        """
        from naskd.runs.page_facts import page_facts

        return {
            **self.to_dict(everything=True, with_importance=with_importance),
            # As a shell takes it from the folder that this process is in.
            "run": shlex.quote(str(self.path)),
            "provenance": page_facts(self.spec, self.path, self.storage_url),
        }

    def write_png(self, path: str | Path) -> Path:
        """A picture of the front."""
        from naskd.report.plots import write_png

        write_png(self.to_dict(everything=True, with_importance=False), Path(path))
        return Path(path)

    def front_csv(self) -> str:
        """The front as comma-separated values with a header."""
        from naskd.report.front_csv import front_csv

        return front_csv(self.to_dict())

    def _warnings(self, record: Mapping[str, Any]) -> list[str]:
        found = [
            f"{called(teacher['name'])}: {warning}"
            for teacher in record["teachers"]
            for warning in teacher.get("warnings", ())
        ]
        data = self.spec.data
        # Of a kind of data that a module of the study registers, it is not known here.
        own_test = data.kind not in DATASETS or data.own_test
        found += [
            f"{called(teacher.name)}: {doubt}"
            for teacher in self.spec.teacher_specs().values()
            if (doubt := leak(teacher, own_test))
        ]
        complete = (trial["environment"] for trial in record["trials"] if trial["state"] == "COMPLETE")
        return [*guessed(record), *found, *several_ways(complete, "Trials"), *doubts(self.path)]

    def _retrained(self, trials: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any] | None, str]:
        """What final trainings say of the run's trials; and a sentence where they say it of others."""
        record, left_out = of_trials(load_results(self.path, self.spec.seed), trials)
        record.pop("trainings", None)
        if "designs" not in record:
            return None, ""
        if not left_out:
            return record, ""
        numbers = ", ".join(map(str, left_out))
        return record if record["designs"] or record.get("earlier") else None, (
            f"{RESULTS_FILE} tells of other designs than this run has under the numbers {numbers}: their test "
            "accuracies are not shown. Was the ledger replaced? Retrain what you compare."
        )

    # --- taking away -------------------------------------------------------------------------------------------

    def retrain(
        self,
        trials: Sequence[int] | None = None,
        *,
        seeds: int | None = None,
        epochs: int | None = None,
        observe: Callable[[int, int, str], None] = lambda done, total, what: None,
        labels_alone: bool = False,
    ) -> dict[str, Any]:
        """Train designs for the final schedule with fresh seeds, and read the test split.

        Args:
            trials: Numbers, each once; None: the front.
            seeds: Trainings of each design; None: the study file's ``retrain.seeds``.
            epochs: None: the study file's ``retrain.epochs``.
            observe: Called with trainings done, in all, and what comes next.
            labels_alone: Also train each student that is taught with the labels alone, as often: what does it owe to
                being taught?

        Returns:
            Mean and standard deviation of the test accuracy of each design, cheapest first, the front again,
            and the teacher's (docs/reference/record.md). Students are kept in ``retrained/``.

        Raises:
            InputError: A trial does not exist or is not complete, or data, split, teacher or code are not what the
                search had.
        """
        from naskd.runs.taking import retrain_trials

        # One that is named twice is one row, as of the front.
        chosen = self.front() if trials is None else [self.trial(number) for number in dict.fromkeys(trials)]
        seeds = self.spec.retrain.seeds if seeds is None else seeds
        epochs = self.spec.retrain_epochs if epochs is None else epochs
        for name, value in (("seeds", seeds), ("epochs", epochs)):
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise InputError(f"{name} is {value!r}; it must be a whole number, at least 1")
        found = retrain_trials(self, chosen, int(seeds), int(epochs), observe, labels_alone)
        self.write_html()
        return found

    def export(
        self,
        trial: int,
        format: str | None = None,
        path: str | Path | None = None,
        *,
        folder: str | Path | None = None,
        int8: bool = False,
        calibration: int | None = None,
        max_loss: float | None = None,
        license: str | None = None,
    ) -> dict[str, Any]:
        """Write the student of a trial as a file or a folder, and compare it with the original on real images.

        The student is that whose test accuracy is shown, of the first seed of the design's last retraining; else the
        one that the search has kept. A design of which there is neither is trained now, which is refused where data,
        split, teacher or code are not the search's. It is compared on all test images, and one that was never retrained
        on all validation images.

        Args:
            trial: Number.
            format: Name of a registered export format; default: what the suffix of `path` names, else ``safetensors``.
            path: Default ``exported/trial<number>.<suffix of the format>`` in the run directory.
            folder: Write a folder in the layout of a Hugging Face repository instead: ``model.onnx``,
                ``model.safetensors``, labels, preprocessing, a script that needs ONNX Runtime alone, and a model card.
            int8: Round the file to 8-bit integers after the training; ``onnx`` and `folder` alone.
            calibration: Training images whose activations give the ranges of the integers; default 512.
            max_loss: Accuracy that the file may lack of the original's, a fraction; default: any.
            license: Of the student, such as ``apache-2.0``, for the model card of `folder`; default ``unknown``.

        Returns:
            ``path``, ``max_difference``, ``agreement``, ``n_images``, ``size_bytes``; ``images``: ``test``,
            ``validation``, or ``made-up`` where the study's are gone; ``accuracy`` of the written file and
            ``original_accuracy`` on them; with `int8` also ``n_calibration`` and ``float_size_bytes``; `origin`:
            ``retrained``, ``search`` or ``trained``; and ``training``: its ``epochs`` and ``test_accuracy``, None of a
            student of the search; of another one also ``replicate`` (from 1) and ``seed``.

        Raises:
            ExportError: The exported model differs, loses more than `max_loss`, or a package is missing.
            InputError: The trial cannot be exported, or arguments do not go together.
        """
        from naskd.runs.taking import CALIBRATION, Wanted, export_trial

        wanted = Wanted(
            format,
            None if path is None else Path(path),
            None if folder is None else Path(folder),
            int8,
            CALIBRATION if calibration is None else calibration,
            max_loss,
            license,
        )
        return export_trial(self, trial, wanted)
