"""The study file: TOML in, one validated, frozen :class:`StudySpec` out; or all its mistakes at once.

Paths in a study file are relative to the file. Nothing here imports user code: whether a space file
defines the function that is asked for is read from its syntax tree.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from naskd.config import DataSpec, NonNegative, Positive, PositiveInt, TeacherSpec, TrainingSpec
from naskd.registry import nearest
from naskd.userfile import defined_functions, may_define, split_reference
from naskd.validation import Problem, apply_setting, format_value, read_toml, schema_problems

Objective = Literal["val_accuracy", "macs", "n_params", "size_bytes", "train_macs"]
CallbackName = Literal["tensorboard", "mlflow", "wandb"]

DIRECTIONS: Mapping[Objective, Literal["maximize", "minimize"]] = {
    "val_accuracy": "maximize",
    "macs": "minimize",
    "n_params": "minimize",
    "size_bytes": "minimize",
    "train_macs": "minimize",
}
"""What better means for each objective."""

RUNS = Path("runs")
"""Folder of all runs, where nothing else is said."""

_FROZEN = ConfigDict(extra="forbid", validate_default=True)


def _whole(value: Any) -> Any:
    """1e6 is the natural way to write a million; TOML reads it as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_objectives(names: tuple[Objective, ...]) -> tuple[Objective, ...]:
    if len(set(names)) != len(names):
        raise ValueError("objectives must be distinct")
    if "val_accuracy" not in names:
        raise ValueError("'val_accuracy' must be among the objectives")
    return names


def _check_callbacks(names: tuple[CallbackName, ...]) -> tuple[CallbackName, ...]:
    if len(set(names)) != len(names):
        raise ValueError("callbacks must be distinct")
    return names


def _check_storage(storage: str) -> str:
    if storage not in ("journal", "sqlite") and "://" not in storage:
        raise ValueError("'journal', 'sqlite' or an Optuna storage URL such as 'sqlite:///study.db'")
    return storage


Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
"""A positive whole number that may be written as 2e6."""

Bytes = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
"""A number of bytes that may be written as 2e9."""

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="letters, digits, '-', '_' and '.', beginning with a letter or a digit",
    ),
]
Reference = Annotated[
    str,
    Field(
        pattern=r"^.+\.py:[A-Za-z_]\w*$", description="'path/to/file.py:function', relative to the study file"
    ),
]
UserFile = Annotated[
    str, Field(pattern=r"^.+\.py$", description="path of a .py file, relative to the study file")
]
Objectives = Annotated[
    tuple[Objective, ...],
    Field(
        min_length=2,
        max_length=3,
        description="two or three distinct ones of " + ", ".join(DIRECTIONS) + "; 'val_accuracy' among them",
    ),
    AfterValidator(_check_objectives),
]
Callbacks = Annotated[
    tuple[CallbackName, ...],
    Field(description="distinct ones of " + ", ".join(f'"{name}"' for name in get_args(CallbackName))),
    AfterValidator(_check_callbacks),
]
Storage = Annotated[
    str,
    Field(description="'journal', 'sqlite' or an Optuna storage URL such as 'sqlite:///study.db'"),
    AfterValidator(_check_storage),
]


@dataclass(frozen=True, config=_FROZEN)
class SamplerSpec:
    """Who proposes the designs.

    Args:
        name: ``tpe`` (Bergstra et al., NeurIPS 2011; its multi-objective form: Ozaki et al., GECCO 2020),
            ``nsga2`` (Deb et al., IEEE TEVC 2002), ``nsga3`` (Deb & Jain, IEEE TEVC 2014), ``gp`` (Gaussian
            process) or ``random``.
        startup_trials: Random designs before the model speaks, at least 1; ``tpe`` and ``gp`` only.
        population_size: At least 2; ``nsga2`` and ``nsga3`` only.
        multivariate: Model parameters jointly rather than one by one; ``tpe`` only.
    """

    name: Literal["tpe", "nsga2", "nsga3", "gp", "random"] = "tpe"
    startup_trials: PositiveInt = 10
    population_size: Annotated[int, Field(ge=2)] = 20
    multivariate: bool = True


SAMPLER_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "startup_trials": ("tpe", "gp"),
    "population_size": ("nsga2", "nsga3"),
    "multivariate": ("tpe",),
}
"""Which samplers read a setting."""


@dataclass(frozen=True, config=_FROZEN)
class BudgetSpec:
    """When the search ends: at the first of the limits given, of which there must be one.

    Args:
        trials: Trials that were trained, whether they succeeded or not.
        seconds: Wall time of the search, all resumes together.
        train_macs: Multiply-accumulates spent on training.
        max_turned_away: End when this many designs in a row were turned away before training (duplicates, or
            outside the limits): the space has nothing left to offer.
    """

    trials: Count | None = None
    seconds: Positive | None = None
    train_macs: Count | None = None
    max_turned_away: PositiveInt = 200

    def __post_init__(self) -> None:
        if self.trials is None and self.seconds is None and self.train_macs is None:
            raise ValueError("a budget needs at least one of trials, seconds and train_macs")


@dataclass(frozen=True, config=_FROZEN)
class LimitsSpec:
    """Designs outside are turned away before anything is trained, and cost no trial.

    Args:
        max_macs: Multiply-accumulates of one image, at most.
        min_macs: At least; below `max_macs`.
        max_params: Trainable parameters, at most.
    """

    max_macs: Count | None = None
    min_macs: Count | None = None
    max_params: Count | None = None

    def __post_init__(self) -> None:
        if self.max_macs is not None and self.min_macs is not None and self.min_macs >= self.max_macs:
            raise ValueError("min_macs must be below max_macs")


@dataclass(frozen=True, config=_FROZEN)
class ExecutionSpec:
    """Where and how trials run.

    Args:
        executor: Name of a registered executor.
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
        bank_device_bytes: Of that, at most so much is held on a GPU; the rest waits in the host's memory and in files.
        checkpoint_every: Epochs between checkpoints of a running trial; 0 writes none.
        checkpoints: Folder or URL (``s3://bucket/prefix``) of the checkpoints; default in the run directory.
        retries: How often a trial is run again when its worker dies, or alone on a device that was too full for it.
        trials_per_device: Trials at once on one device, each in a process; the CPU is one device. Default 1 on a GPU,
            and on the CPU as many as `threads` go into its cores. ``processes`` only.
        mps: Let students that share a GPU compute at the same time, through NVIDIA's Multi-Process Service where it is
            installed; else they take turns. ``processes`` only.
        address: Of a Ray cluster; default ``RAY_ADDRESS``, or else a cluster of this machine that ends with the search.
        workers: Trials at once, at most; default what the machine or the cluster holds.
        cpus_per_trial: Default `threads`.
        gpus_per_trial: Fractions share a device; default 1 where the cluster has GPUs, else 0.
        callbacks: Loggers that follow the trials: ``tensorboard``, ``mlflow``, ``wandb``.
    """

    executor: str = "serial"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = 1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: Literal["auto", True, False] = "auto"
    device_data_bytes: Annotated[int, Field(ge=0)] | None = None
    cuda_graphs: bool = True
    bank_bytes: Bytes = 2**30
    bank_device_bytes: Bytes = 2**30
    checkpoint_every: Annotated[int, Field(ge=0)] = 0
    checkpoints: str | None = None
    retries: Annotated[int, Field(ge=0)] = 3
    trials_per_device: PositiveInt | None = None
    mps: bool = True
    address: str | None = None
    workers: PositiveInt | None = None
    cpus_per_trial: Positive | None = None
    gpus_per_trial: NonNegative | None = None
    callbacks: Callbacks = ()

    def __post_init__(self) -> None:
        if self.gpus_per_trial is not None and self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(
                "gpus_per_trial must be a whole number or at most 1: a fraction shares one device"
            )


@dataclass(frozen=True, config=_FROZEN)
class RetrainSpec:
    """How chosen designs are trained for good.

    Args:
        epochs: None takes the study's.
        seeds: Fresh seeds for each design.
    """

    epochs: PositiveInt | None = None
    seeds: PositiveInt = 5


@dataclass(frozen=True, config=_FROZEN)
class _StudyTable:
    """The keys of a study file.

    Args:
        name: The run lives in ``runs/<name>``.
        space: ``"path/to/file.py:function"``, a search space.
        data: The images.
        budget: When the search ends.
        teacher: None where designs are trained without distillation.
        seed: Of the sampler and of all trials.
        modules: User files that register blocks, knowledge or schemes; imported first.
        epochs: The schedule's horizon; overrides the space's.
        objectives: Two or three, ``val_accuracy`` among them; see :data:`DIRECTIONS`.
        reference_point: Of the hypervolume, by objective; derived when the study is created where not given.
        storage: ``journal`` or ``sqlite`` inside the run directory, or an Optuna storage URL.
        sampler, limits, execution, retrain: See their types.
        warm_start: Designs to run first: values by parameter name; what is left out is sampled.
    """

    name: Name
    space: Reference
    data: DataSpec
    budget: BudgetSpec
    teacher: TeacherSpec | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    modules: tuple[UserFile, ...] = ()
    epochs: PositiveInt = 20
    objectives: Objectives = ("val_accuracy", "macs")
    reference_point: Mapping[Objective, NonNegative] | None = None
    storage: Storage = "journal"
    sampler: SamplerSpec = Field(default_factory=SamplerSpec)
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    execution: ExecutionSpec = Field(default_factory=ExecutionSpec)
    retrain: RetrainSpec = Field(default_factory=RetrainSpec)
    warm_start: tuple[Mapping[str, bool | int | float | str], ...] = ()


@dataclass(frozen=True, config=_FROZEN)
class StudySpec(_StudyTable):
    """Everything that a study file says, validated, and where it stands.

    Args:
        base: Folder of the study file, to which its paths are relative.
        name, space, data, budget, teacher, seed, modules, epochs, objectives, reference_point, storage:
            See the keys of a study file in docs/study_files.md, as for all that follow.
        sampler, limits, execution, retrain, warm_start: Likewise.
    """

    base: Path = Field(default=Path(), kw_only=True)

    def __post_init__(self) -> None:
        outside = sorted(set(self.reference_point or ()) - set(self.objectives))
        if outside:
            raise ValueError(f"reference_point names {', '.join(outside)}, which is not among the objectives")

    @property
    def retrain_epochs(self) -> int:
        """Epochs of a final training."""
        return self.retrain.epochs or self.epochs

    def resolve(self, path: str | Path) -> Path:
        """A path of the study file as an absolute path."""
        return _absolute(path, self.base)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; paths as written, and `base`."""
        return dict(_STUDY.dump_python(self, mode="json"))

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "StudySpec":
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: A key is unknown, missing or out of range.
        """
        return _STUDY.validate_python(dict(data))

    def identity(self) -> dict[str, Any]:
        """What must be equal for trials of two runs to belong to one study.

        Left out is what changes how much is searched, where, or what comes after: budget, executor,
        checkpoints, callbacks, storage, retraining, and the folder of the file. Device, threads, precision, recorded
        steps and what is banked are part of it, since the bits of a result depend on them.
        """
        identity = self.to_dict()
        for key in ("base", "budget", "storage", "retrain"):
            del identity[key]
        kept = ["device", "threads", "precision", "channels_last"]
        # Left out at their defaults: runs that began before there were such keys can go on.
        for key in ("bank_bytes", "cuda_graphs"):
            kept += [key] if identity["execution"][key] != getattr(ExecutionSpec, key) else []
        identity["execution"] = {key: identity["execution"][key] for key in kept}
        training = (identity["teacher"] or {}).get("training", {})
        for key in ("mixing", "mixing_alpha"):
            if training.get(key) == getattr(TrainingSpec, key):
                del training[key]
        # Where the images lie may change; that they are the same images is seen by their hash.
        for key in ("root", "test_root", "download", "max_bytes"):
            del identity["data"][key]
        return identity


_STUDY = TypeAdapter(StudySpec)


def identity_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each difference of two identities, such as ``epochs: 20 -> 30``; empty when equal."""
    before, after = _flat(old), _flat(new)
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def _flat(value: Any, key: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and (value or not key):
        children: list[tuple[str, Any]] = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list | tuple) and value:
        children = [(str(k), v) for k, v in enumerate(value)]
    else:
        return {key: json.dumps(value, default=str)}
    return {
        path: text
        for name, child in children
        for path, text in _flat(child, f"{key}.{name}" if key else name).items()
    }


class StudyFileError(ValueError):
    """A study file that cannot be used.

    Args:
        path: The file.
        problems: All that is wrong with it, at least one; ``str(error)`` has a line for each.
    """

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{path}: {count}", *(f"  {problem}" for problem in problems)]))


def parse_study(path: Path, settings: Sequence[str] = ()) -> StudySpec:
    """Read and check a study file.

    Args:
        path: The TOML file.
        settings: ``table.key=value`` overrides; the value is TOML, or else a string. Paths among them
            are relative to the study file, as all paths of a study.

    Raises:
        StudyFileError: With every problem found: TOML syntax, unknown keys, wrong types, values out of
            range, combinations that cannot work, files that are missing.
    """
    data = _read(path)
    problems = [problem for setting in settings if (problem := apply_setting(data, setting))]
    base = Path(os.path.abspath(path)).parent
    found, right = schema_problems(_StudyTable, data)
    problems += found
    problems += _combination_problems(right)
    problems += _file_problems(right, base)
    if problems:
        raise StudyFileError(path, list(dict.fromkeys(problems)))
    return _STUDY.validate_python({**data, "base": base})


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_toml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        data = Problem("study file", f"bytes that are not text, at position {error.start}", "TOML in UTF-8")
    except OSError as error:
        data = Problem("study file", f"{path} ({error.strerror})", "the path of a readable TOML file")
    if isinstance(data, Problem):
        raise StudyFileError(path, [data])
    return data


def _combination_problems(data: Mapping[str, Any]) -> list[Problem]:
    """Settings that are right by themselves and mean nothing together; `data` holds right values only."""
    problems = []
    sampler = data.get("sampler", {})
    name = sampler.get("name", SamplerSpec.name)
    for key, samplers in SAMPLER_SETTINGS.items():
        if key in sampler and name not in samplers:
            got = f"{format_value(sampler[key])} with sampler.name = {format_value(name)}"
            problems.append(Problem(f"sampler.{key}", got, f"only with {' or '.join(map(repr, samplers))}"))
    objectives = data.get("objectives", StudySpec.objectives)
    for objective, value in (data.get("reference_point") or {}).items():
        if objective not in objectives:
            got, allowed = format_value(value), f"objectives of the study: {', '.join(objectives)}"
            problems.append(Problem(f"reference_point.{objective}", got, allowed))
    return problems + _teacher_problems(data.get("teacher") or {}, data.get("data") or {})


def _teacher_problems(teacher: Mapping[str, Any], data: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if "architecture" in teacher:
        for key in ("mean", "std", "resolution", "classes", "taps", "saw"):
            if key in teacher:
                allowed = "only for a teacher from builder or torchvision"
                problems.append(Problem(f"teacher.{key}", format_value(teacher[key]), allowed))
    if "training" in teacher and "checkpoint" in teacher:
        allowed = "only for a teacher without checkpoint; this one is trained already"
        problems.append(Problem("teacher.training", format_value(teacher["training"]), allowed))
    channels = {len(teacher[key]) for key in ("mean", "std") if teacher.get(key)}
    if channels - {1, 3} or channels - {data.get("channels", min(channels, default=0))}:
        got = " and ".join(
            f"{key} = {format_value(teacher[key])}" for key in ("mean", "std") if key in teacher
        )
        problems.append(
            Problem("teacher", got, "one mean and one std for each channel of the images, 1 or 3")
        )
    return problems


def _file_problems(data: Mapping[str, Any], base: Path) -> list[Problem]:
    """Files that the study names and that are not there; `data` holds right values only."""
    teacher, images = data.get("teacher") or {}, data.get("data") or {}
    problems = []
    for key, reference in (("space", data.get("space")), ("teacher.builder", teacher.get("builder"))):
        if reference:
            problems += _function_problems(key, reference, base)
    for index, module in enumerate(data.get("modules", ())):
        problems += _missing_file(f"modules[{index}]", module, base)
    if "checkpoint" in teacher:
        problems += _missing_file("teacher.checkpoint", teacher["checkpoint"], base)
    kind, root = images.get("kind"), images.get("root")
    fetched = kind == "cifar10" and images.get("download", False)
    if root and kind in ("cifar10", "image_folder") and not fetched:
        problems += _folder_problems("data.root", root, base, kind)
    if images.get("test_root") and kind == "image_folder":
        problems += _folder_problems("data.test_root", images["test_root"], base, kind)
    return problems


def _function_problems(key: str, reference: str, base: Path) -> list[Problem]:
    file, name = split_reference(reference)
    missing = _missing_file(key, file, base)
    if missing:
        return missing
    path = _absolute(file, base)
    try:
        if may_define(path, name):
            return []
        functions = defined_functions(path)
    except ValueError as error:
        return [Problem(key, format_value(reference), "a file of valid Python", str(error))]
    allowed = f"a function of {path}: {', '.join(functions) or 'it defines none'}"
    return [Problem(key, format_value(reference), allowed, nearest(name, functions).removeprefix("; "))]


def _missing_file(key: str, file: str, base: Path) -> list[Problem]:
    path = _absolute(file, base)
    if path.is_file():
        return []
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = nearest(path.name, beside).removeprefix("; ") or _elsewhere(file, base)
    return [Problem(key, format_value(file), f"an existing file; there is no {path}", hint)]


def _folder_problems(key: str, folder: str, base: Path, kind: str) -> list[Problem]:
    path = _absolute(folder, base)
    got = format_value(folder)
    if kind == "cifar10" and not (path / "cifar-10-batches-py").is_dir():
        allowed = f"the folder that holds cifar-10-batches-py; {path} does not"
        return [Problem(key, got, allowed, _elsewhere(folder, base) or "data.download = true fetches it")]
    if not path.is_dir():
        return [Problem(key, got, f"an existing folder; there is no {path}", _elsewhere(folder, base))]
    if kind == "image_folder" and sum(p.is_dir() for p in path.iterdir()) < 2:
        return [
            Problem(
                key,
                got,
                f"a folder with one folder of images for each of two or more classes; {path} has fewer",
            )
        ]
    return []


def _elsewhere(path: str, base: Path) -> str:
    """Paths are relative to the study file; in a shell, who types one may mean where they are."""
    here = Path(path).absolute()
    if here.exists() and here != _absolute(path, base):
        return f"paths are relative to the study file; did you mean {here}?"
    return ""


def _absolute(path: str | Path, base: Path) -> Path:
    return Path(os.path.abspath(base / Path(path).expanduser()))
