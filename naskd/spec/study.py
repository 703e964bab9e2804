"""What a study file says, validated and frozen: :class:`StudySpec`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from naskd.spec import compat
from naskd.spec.datasets import NOBODY_SPEAKS, NOBODY_TEACHES, DataSpec
from naskd.spec.design import STRICT, Large, Positive, PositiveInt, TrainingSpec, first_line
from naskd.spec.errors import InputError
from naskd.spec.executors import EXECUTORS
from naskd.spec.held import PATTERN, is_held
from naskd.spec.objectives import ACCURACY
from naskd.spec.option import Configured, Options
from naskd.spec.paths import absolute, url_problem
from naskd.spec.samplers import SAMPLERS
from naskd.spec.stopping import STOPPING_RULES
from naskd.spec.storages import OWN
from naskd.spec.teachers import DEFAULT_NAME, TeacherSpec

RUNS = Path("runs")
"""Folder of all runs, where nothing else is said."""

TAKEN = ("artifacts", "cache")
"""Folders beside the runs, which all of them share: no study has these names."""

MOST_EPOCHS = 10**6

BANK_DISK_BYTES = 2**34
"""For each tensor of maps, where a study does not say: all stages of a ResNet-20's on 50,000 images of CIFAR fit."""


def _check_objectives(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise InputError("objectives must be distinct")
    if ACCURACY not in names:
        raise InputError(f"{ACCURACY!r} must be among the objectives")
    return names


def _check_callbacks(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise InputError("callbacks must be distinct")
    return names


def _check_storage(storage: str) -> str:
    if storage not in OWN and "://" not in storage:
        raise InputError("'journal', 'sqlite' or an Optuna storage URL such as 'sqlite:///study.db'")
    return storage


def _check_checkpoints(place: str) -> str:
    if problem := url_problem(place):
        raise InputError(problem)
    return place


Finite = Annotated[float, Field(allow_inf_nan=False, description="a finite number")]

Count = Annotated[int, Large, Field(ge=1)]
"""A positive whole number that may be written as 2e6."""

Bytes = Annotated[int, Large, Field(ge=0)]
"""A number of bytes that may be written as 2e9."""

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=200,
        description="at most 200 letters, digits, '-', '_' and '.', beginning with a letter or a digit",
    ),
]
Reference = Annotated[
    str,
    Field(
        pattern=rf"^(.+\.py:[A-Za-z_]\w*|{PATTERN})$",
        description="'path/to/file.py:function', relative to the study file",
    ),
]
"""A function of a file, or one that was given in Python; see :mod:`naskd.spec.held`."""

UserFile = Annotated[
    str, Field(pattern=r"^.+\.py$", description="path of a .py file, relative to the study file")
]
Objectives = Annotated[
    tuple[str, ...],
    Field(
        min_length=2,
        max_length=3,
        description=f"two or three distinct names of objectives, {ACCURACY!r} among them",
    ),
    AfterValidator(_check_objectives),
]
Callbacks = Annotated[
    tuple[str, ...],
    Field(description='distinct ones of the registered loggers, such as ["tensorboard"]'),
    AfterValidator(_check_callbacks),
]
Checkpoints = Annotated[
    str,
    Field(description='a folder, or a URL such as "s3://bucket/prefix"'),
    AfterValidator(_check_checkpoints),
]
Storage = Annotated[
    str,
    Field(description="'journal', 'sqlite' or an Optuna storage URL such as 'sqlite:///study.db'"),
    AfterValidator(_check_storage),
]


ProfileFile = Annotated[
    str,
    Field(
        pattern=r"^.+\.json$",
        description="path of a .json file that naskd profile writes, relative to the study file",
    ),
]

FirstDesign = Mapping[str, bool | int | float | str]
"""Values by parameter name."""

EarlierRun = Annotated[str, Field(min_length=1, description="the path of a run directory")]


@dataclass(frozen=True, config=STRICT)
class SamplerSpec(Configured):
    """Who proposes the designs.

    Args:
        name: Of a registered sampler; see :mod:`naskd.spec.samplers`.
        options: Of its card.
    """

    CARDS = SAMPLERS

    name: str = "tpe"
    options: Options = ()


@dataclass(frozen=True, config=STRICT)
class StoppingSpec(Configured):
    """Which trials are stopped before their end.

    Args:
        name: Of a registered stopping rule; see :mod:`naskd.spec.stopping`.
        options: Of its card.
    """

    CARDS = STOPPING_RULES

    name: str = "none"
    options: Options = ()

    @property
    def pauses(self) -> bool:
        """Whether trials may go on after they were stopped."""
        known = self.name in STOPPING_RULES
        return known and STOPPING_RULES[self.name].pauses and bool(self.settings().get("promote", True))


@dataclass(frozen=True, config=STRICT)
class BudgetSpec:
    """When the search ends: at the first of the limits given, of which there must be one.

    Args:
        trials: Trials that were trained, whether they succeeded or not.
        seconds: Wall time of the search, all resumes together.
        train_macs: Multiply-accumulates spent on training.
        max_turned_away: End when this many designs in a row were turned away before training (duplicates, or
            outside the limits): the space has nothing left to offer.
        max_failed: End when this many trials, the first that a search trains, have all failed for one reason. Once
            that is mended, the same command goes on.
        front_seeds: Trainings that each design of the front gets, with a seed each, once half of the budget is used;
            their mean is its accuracy. Each counts as a trial. 1: none is trained twice.
    """

    trials: Count | None = None
    seconds: Positive | None = None
    train_macs: Count | None = None
    max_turned_away: PositiveInt = 200
    max_failed: PositiveInt = 5
    front_seeds: PositiveInt = 1

    def __post_init__(self) -> None:
        if self.trials is None and self.seconds is None and self.train_macs is None:
            raise InputError("a budget needs at least one of trials, seconds and train_macs")


class Limit(NamedTuple):
    """One bound on an objective that is known before training.

    Args:
        key: As the study file says it, below ``[limits]``.
        objective: Its name.
        bound: At most, or at least, this.
        at_most: Which of the two.
    """

    key: str
    objective: str
    bound: float
    at_most: bool


@dataclass(frozen=True, config=STRICT)
class LimitsSpec:
    """Designs outside are turned away before anything is trained, and cost no trial.

    Args:
        max_macs: Multiply-accumulates of one image, at most.
        min_macs: At least; below `max_macs`.
        max_params: Trainable parameters, at most.
        max: By the name of an objective known before training: its value, at most.
        min: At least; below what it is at most.
    """

    max_macs: Count | None = None
    min_macs: Count | None = None
    max_params: Count | None = None
    max: Mapping[str, Finite] = Field(default_factory=dict)
    min: Mapping[str, Finite] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = self.all()
        for low in (limit for limit in limits if not limit.at_most):
            for high in (limit for limit in limits if limit.at_most and limit.objective == low.objective):
                if low.bound >= high.bound:
                    raise InputError(f"{low.key} must be below {high.key}")

    def all(self) -> list[Limit]:
        """Every limit that is given, the short forms first."""
        short = (("max_macs", "macs"), ("min_macs", "macs"), ("max_params", "n_params"))
        limits = [
            Limit(key, name, bound, key.startswith("max"))
            for key, name in short
            if (bound := getattr(self, key)) is not None
        ]
        limits += [Limit(f"max.{name}", name, bound, True) for name, bound in self.max.items()]
        return limits + [Limit(f"min.{name}", name, bound, False) for name, bound in self.min.items()]


@dataclass(frozen=True, config=STRICT)
class LatencySpec:
    """What latencies are predicted by.

    Args:
        profile: A profile file, relative to the study file, that ``naskd profile`` writes. Its content is a part of
            the study.
    """

    profile: ProfileFile


@dataclass(frozen=True, config=STRICT)
class ExecutionSpec(Configured):
    """Where and how trials run.

    Args:
        executor: Name of a registered executor; see :mod:`naskd.spec.executors`.
        device: ``auto`` takes a GPU where there is one.
        threads: Of one trial, on the CPU. Part of the study, since the bits of a result depend on it.
        precision: ``auto`` uses bfloat16 where the hardware gains from it.
        channels_last: Memory layout of feature maps.
        device_data_bytes: Images of more than this stay in the host's memory and are streamed to a GPU; default a
            tenth of its free memory.
        cuda_graphs: On a GPU, record training steps and replay them where that is measured to be faster.
        bank_bytes: What is remembered of a teacher, at most, for each tensor that a loss keeps and over all its views,
            in half precision (twice that where its values do not fit it);
            0 asks the teacher always. Part of the study, since what is remembered is rounded.
        bank_disk_bytes: Maps that are larger than that rest in files alone and in 8 bits, up to this for each tensor
            over all its views. Of a disk, 2 GiB are left to others: where it has no room, the teacher is asked. Part of
            the study, too. Default 16 GiB, and in a run of an earlier version 0: the teacher is asked for such maps.
        bank_device_bytes: Of that, at most so much is held on a GPU; the rest waits in the host's memory and in files.
            Default a tenth of its free memory, and at least 1 GiB.
        checkpoint_every: Epochs between checkpoints of a running trial; 0 writes none.
        checkpoints: Folder or URL (``s3://bucket/prefix``) of the checkpoints; default in the run directory.
        retries: How often a trial is run again when its worker, or the whole search, dies. Not of a native fault of its
            own, such as a segmentation fault, which would come again.
        trial_seconds: Wall time of one trial, at most; default no limit.
        epoch_seconds: Wall time of one epoch of a trial or of a network that trials share, at most; all that comes
            before the first epoch and after the last counts as one.
        start_seconds: How long a worker may take to start, and a teacher to be built.
        space_seconds: How long one call of the search space may take.
        callbacks: Names of registered loggers that follow the trials; see :mod:`naskd.spec.loggers`.
        options: Of the executor's card.
    """

    CARDS = EXECUTORS
    CHOOSER = "executor"

    executor: str = "serial"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1, le=2**12)] = 1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: Literal["auto", True, False] = "auto"
    device_data_bytes: Bytes | None = None
    cuda_graphs: bool = True
    bank_bytes: Bytes = 2**30
    bank_disk_bytes: Bytes | None = None
    bank_device_bytes: Bytes | None = None
    checkpoint_every: Annotated[int, Field(ge=0)] = 0
    checkpoints: Checkpoints | None = None
    retries: Annotated[int, Field(ge=0)] = 3
    trial_seconds: Positive | None = None
    epoch_seconds: Positive = 6 * 3600.0
    start_seconds: Positive = 600.0
    space_seconds: Positive = 60.0
    callbacks: Callbacks = ()
    options: Options = ()

    @property
    def disk_bytes(self) -> int:
        """`bank_disk_bytes`, or its default."""
        return BANK_DISK_BYTES if self.bank_disk_bytes is None else self.bank_disk_bytes


@dataclass(frozen=True, config=STRICT)
class RetrainSpec:
    """How chosen designs are trained for good.

    Args:
        epochs: None takes the study's.
        seeds: Fresh seeds for each design.
    """

    epochs: Annotated[int, Field(ge=1, le=MOST_EPOCHS)] | None = None
    seeds: Annotated[int, Field(ge=1, le=10**4)] = 5


@dataclass(frozen=True, config=STRICT)
class StudyTable:
    """The keys of a study file.

    Args:
        name: The run lives in ``runs/<name>``.
        space: ``"path/to/file.py:function"``, a search space.
        data: The images.
        budget: When the search ends.
        teacher: None where designs are trained without distillation, or by other teachers.
        teachers: Further ones, each with a name of its own.
        seed: Of the sampler and of all trials.
        modules: User files that register methods of any kind, the space's own file too where it does; imported first.
        epochs: The schedule's horizon; overrides the space's.
        objectives: Names of two or three, ``val_accuracy`` among them; see :mod:`naskd.spec.objectives`.
        reference_point: Of the hypervolume, by objective; derived when the study is created where not given.
        storage: ``journal`` or ``sqlite`` inside the run directory, or an Optuna storage URL.
        sampler, stopping, limits, execution, retrain: See their types.
        latency: What the objective and limit ``latency_ms`` are predicted by; without it there is none.
        warm_start: What to begin with. A table is a design to run first: values by parameter name; what is left out is
            sampled. A text is the directory of an earlier run, relative to the study file, to learn from.
    """

    name: Name
    space: Reference
    data: DataSpec
    budget: BudgetSpec
    teacher: TeacherSpec | None = None
    teachers: tuple[TeacherSpec, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    modules: tuple[UserFile, ...] = ()
    epochs: Annotated[int, Field(ge=1, le=MOST_EPOCHS)] = 20
    objectives: Objectives = ("val_accuracy", "macs")
    reference_point: Mapping[str, Finite] | None = None
    storage: Storage = "journal"
    sampler: SamplerSpec = Field(default_factory=SamplerSpec)
    stopping: StoppingSpec = Field(default_factory=StoppingSpec)
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    latency: LatencySpec | None = None
    execution: ExecutionSpec = Field(default_factory=ExecutionSpec)
    retrain: RetrainSpec = Field(default_factory=RetrainSpec)
    warm_start: tuple[FirstDesign | EarlierRun, ...] = ()


@dataclass(frozen=True, config=STRICT)
class StudySpec(StudyTable):
    """Everything that a study file says, validated, and where it stands.

    Args:
        base: Folder of the study file, to which its paths are relative.
        name, space, data, budget, teacher, teachers, seed, modules, epochs, objectives, reference_point, storage:
            See the keys of a study file in docs/reference/study-file.md, as for all that follow.
        sampler, stopping, limits, latency, execution, retrain, warm_start: Likewise.
    """

    base: Path = Field(default=Path(), kw_only=True)

    def __post_init__(self) -> None:
        given = [*([self.teacher] if self.teacher is not None else []), *self.teachers]
        names = [teacher.name for teacher in given]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"teachers need distinct names, got {', '.join(twice)} more than once")
        if self.data.unlabelled is not None and not names:
            raise InputError(f"data.unlabelled {NOBODY_SPEAKS}")
        if self.data.modality is not None and not self.data.modality.labels and not names:
            raise InputError(f"data.modality {NOBODY_TEACHES}")
        outside = sorted(set(self.reference_point or ()) - set(self.objectives))
        if outside:
            raise InputError(f"reference_point names {', '.join(outside)}, which is not among the objectives")

    @property
    def retrain_epochs(self) -> int:
        """Epochs of a final training."""
        return self.retrain.epochs or self.epochs

    def teacher_specs(self) -> dict[str, TeacherSpec]:
        """All teachers by name, that of ``[teacher]`` first."""
        given = [*([self.teacher] if self.teacher is not None else []), *self.teachers]
        return {teacher.name: teacher for teacher in given}

    @property
    def first_designs(self) -> dict[int, FirstDesign]:
        """Designs to run first, by their place in `warm_start`."""
        return {n: given for n, given in enumerate(self.warm_start) if not isinstance(given, str)}

    @property
    def earlier_runs(self) -> tuple[str, ...]:
        """Directories of runs to learn from, as they are written."""
        return tuple(given for given in self.warm_start if isinstance(given, str))

    def resolve(self, path: str | Path) -> Path:
        """A path of the study file as an absolute path."""
        return absolute(path, self.base)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; paths as written, and `base`."""
        return dict(study_type().dump_python(self, mode="json"))

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "StudySpec":
        """The inverse of :meth:`to_dict`, for what was written by this version or an earlier one.

        Names of methods are not checked: whoever registers them may not be imported yet.

        Raises:
            InputError: A key is unknown, missing or out of range.
        """
        try:
            return study_type().validate_python(compat.study(data))
        except ValidationError as error:
            raise InputError(f"no study of this version of naskd: {first_line(error)}") from error

    def identity(self) -> dict[str, Any]:
        """What must be equal for trials of two runs to belong to one study.

        Left out is what changes how much is searched, where, or what comes after: budget, executor,
        checkpoints, callbacks, storage, retraining, and the folder of the file. Device, threads, precision, recorded
        steps and what is banked are part of it, since the bits of a result depend on them. Options stand beside the
        name that they belong to, those at their default left out. Files are not named here: their content counts.
        """
        identity = self.to_dict()
        for key in ("base", "budget", "storage", "retrain", "latency"):
            del identity[key]
        kept = ["device", "threads", "precision", "channels_last"]
        # Left out at their defaults: runs that began before there were such keys can go on.
        for key in ("bank_bytes", "cuda_graphs"):
            kept += [key] if identity["execution"][key] != getattr(ExecutionSpec, key) else []
        identity["execution"] = {key: identity["execution"][key] for key in kept}
        if self.execution.disk_bytes:  # there were none before there was the key
            identity["execution"]["bank_disk_bytes"] = self.execution.disk_bytes
        # Earlier runs are named by what was read of them: see naskd.runs.earlier.
        identity["warm_start"] = [given for given in identity["warm_start"] if not isinstance(given, str)]
        for key in ("max", "min"):
            if not identity["limits"][key]:
                del identity["limits"][key]
        for teacher in ([identity["teacher"]] if identity["teacher"] else []) + identity["teachers"]:
            training = teacher.get("training", {})
            for key in ("mixing", "mixing_alpha"):
                if training.get(key) == getattr(TrainingSpec, key):
                    del training[key]
            if teacher.get("state") is None:
                teacher.pop("state", None)
            for key in ("fine_tune", "head_share"):
                if not teacher.get(key):
                    teacher.pop(key, None)
            teacher.pop("min_accuracy", None)  # asked of it, not what it is
        for teacher in [identity["teacher"]] if identity["teacher"] else []:
            for key, default in (("name", DEFAULT_NAME), ("source", None), ("options", [])):
                if teacher.get(key) == default:
                    del teacher[key]
        if not identity["teachers"]:
            del identity["teachers"]
        # Where the images lie may change; that they are the same images is seen by their hash.
        for key in (
            "root",
            "test_root",
            "unlabelled",
            "download",
            "max_bytes",
            "views",
            "modality",
            "options",
        ):
            del identity["data"][key]
        if self.data.modality is not None:  # runs that began before there was a second one go on without
            identity["data"]["modality"] = self.data.modality.identity()
        # Runs that began before there was a bound had none, and go on without.
        if self.data.most_views is not None:
            identity["data"]["views"] = self.data.most_views
        for key, chosen in (("sampler", self.sampler), ("stopping", self.stopping)):
            identity[key] = {"name": chosen.name, **dict(chosen.options)}
        if self.stopping.name == StoppingSpec.name:
            del identity["stopping"]
        return compat.without_places(identity)

    @property
    def space_files(self) -> tuple[str, ...]:
        """The file of the space, as it is written; none where the space was given in Python."""
        return () if is_held(self.space) else (self.space.rpartition(":")[0],)

    def code(self) -> dict[str, Path]:
        """The user's files of code, by their paths as the study names them: space, modules, builders of teachers."""
        builders = [teacher.builder for teacher in self.teacher_specs().values() if teacher.builder]
        names = [
            *self.space_files,
            *self.modules,
            *(builder.rpartition(":")[0] for builder in builders),
        ]
        return {name: self.resolve(name) for name in names}


@cache
def study_type() -> TypeAdapter[StudySpec]:
    """Reads and writes studies as plain data. It takes a tenth of a second to make."""
    return TypeAdapter(StudySpec)
