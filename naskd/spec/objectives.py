"""What a search makes better: the objectives of a study, and what a study file may say of them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from naskd.spec.errors import InputError
from naskd.spec.registry import Registry, nearest
from naskd.spec.validation import Problem, format_value

Direction = Literal["maximize", "minimize"]
Scale = Literal["linear", "log"]
Known = Literal["before", "after"]

ACCURACY = "val_accuracy"
"""The objective that every study has."""

_TAKEN = """
number state reason config config_id seed wall_seconds spent_macs lost_macs lost_epochs asked_images forward_images
bank_bytes teacher_agreement curve environment error retry_of retried parameters on_front best_val_accuracy replicates
failed_again replicate_of continues continued_by own replicate_mean replicate_sd student taught_by choices n file
files epoch loss ce val_accuracy_search val_accuracy_mean trained_in siblings measures expected expected_accuracy
expected_sd test_accuracy test_accuracy_mean test_accuracy_sd test_accuracies test_balanced_accuracy
test_balanced_accuracy_mean test_seeds test_epochs epochs objectives other_network unused
"""
RESERVED = frozenset(_TAKEN.split())
"""Names that a trial's or a retrained design's entry in the record has for something else."""

_DESCRIBED = ("name", "title", "direction", "unit", "scale", "known")


@dataclass(frozen=True)
class Objective:
    """Something that trials are judged by. It is all that reports, admission and the search know of it.

    Args:
        name: As studies, records and columns say it: letters, digits and ``_``.
        title: For people, such as ``MACs``.
        direction: What better means.
        unit: ``fraction`` (in [0, 1], shown as a percentage), ``MACs``, ``parameters``, ``bit operations``, ``bytes``,
            ``ms``, or any word; empty for a bare number.
        scale: On which hypervolume and axes are measured: ``linear``, or ``log`` for costs that span orders of
            magnitude, which must be positive.
        known: ``before`` a training, from the design and its cost alone, so that designs outside of limits are turned
            away at no cost; or ``after`` it.
        implementation: ``"module:function"``, or the function. Known before: called with a
            :class:`~naskd.trials.measures.Measured`; after: with a :class:`~naskd.trials.measures.Trained`. Returns a
            finite number.
        paper: See :class:`~naskd.spec.registry.Card`.
        reference: ``"module:function"``, or a function, of a
            :class:`~naskd.trials.measures.Outlook`: the value that no design should be worse than, for an objective
            known after training. Empty where there is none; then a study must give its ``reference_point``.
        needs: Key of the study file that it is computed from, such as ``latency.profile``; a study that names the
            objective without its table is refused.

    Raises:
        InputError: One of them is not of these, or the name is taken by another entry of the record.
    """

    name: str
    title: str
    direction: Direction
    unit: str
    scale: Scale
    known: Known
    implementation: str | Callable[..., Any]
    paper: str = ""
    reference: str | Callable[..., Any] = ""
    needs: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*", self.name):
            raise InputError(f"objective {self.name!r}: a name is letters, digits and '_'")
        if self.name in RESERVED:
            raise InputError(f"objective {self.name!r}: records have that name for something else")
        for what, choices in (("direction", Direction), ("scale", Scale), ("known", Known)):
            allowed = get_args(choices)
            if (value := getattr(self, what)) not in allowed:
                raise InputError(
                    f"objective {self.name!r}: {what} is {value!r}; allowed: {', '.join(allowed)}"
                )

    @property
    def maximise(self) -> bool:
        """Whether more is better."""
        return self.direction == "maximize"

    @property
    def sign(self) -> int:
        """What a value is multiplied by so that less is better."""
        return -1 if self.maximise else 1

    def describe(self) -> dict[str, str]:
        """What the record says of it; :func:`described` reads it."""
        return {key: getattr(self, key) for key in _DESCRIBED}


OBJECTIVES: Registry[Objective] = Registry("objective")

OBJECTIVES.register(
    Objective(
        name=ACCURACY,
        title="validation accuracy",
        direction="maximize",
        unit="fraction",
        scale="linear",
        known="after",
        implementation="naskd.trials.measures:val_accuracy",
        reference="naskd.trials.measures:chance",
    )
)
OBJECTIVES.register(
    Objective(
        name="macs",
        title="MACs",
        direction="minimize",
        unit="MACs",
        scale="log",
        known="before",
        implementation="naskd.trials.measures:macs",
    )
)
OBJECTIVES.register(
    Objective(
        name="n_params",
        title="parameters",
        direction="minimize",
        unit="parameters",
        scale="log",
        known="before",
        implementation="naskd.trials.measures:n_params",
    )
)
OBJECTIVES.register(
    Objective(
        name="size_bytes",
        title="size",
        direction="minimize",
        unit="bytes",
        scale="log",
        known="before",
        implementation="naskd.trials.measures:size_bytes",
    )
)
OBJECTIVES.register(
    Objective(
        name="bit_ops",
        title="bit operations",
        direction="minimize",
        unit="bit operations",
        scale="log",
        known="before",
        implementation="naskd.trials.measures:bit_ops",
        paper=(
            "Guo et al.: Single path one-shot neural architecture search with uniform sampling. ECCV 2020, "
            "arXiv 1904.00420"
        ),
    )
)
OBJECTIVES.register(
    Objective(
        name="peak_memory",
        title="peak memory",
        direction="minimize",
        unit="bytes",
        scale="log",
        known="before",
        implementation="naskd.trials.measures:peak_memory",
        paper=(
            "Liberis, Lane: Neural networks on microcontrollers: saving memory at inference via operator reordering. "
            "2019, arXiv 1910.05110"
        ),
    )
)
OBJECTIVES.register(
    Objective(
        name="latency_ms",
        title="latency",
        direction="minimize",
        unit="ms",
        scale="log",
        known="before",
        implementation="naskd.trials.measures:latency_ms",
        paper=(
            "Zhang et al.: nn-Meter: towards accurate latency prediction of deep-learning model inference on diverse "
            "edge devices. MobiSys 2021, doi 10.1145/3458864.3467882"
        ),
        needs="latency.profile",
    )
)
OBJECTIVES.register(
    Objective(
        name="train_macs",
        title="training MACs",
        direction="minimize",
        unit="MACs",
        scale="log",
        known="after",
        implementation="naskd.trials.measures:train_macs",
        reference="naskd.trials.measures:most_train_macs",
    )
)
OBJECTIVES.register(
    Objective(
        name="balanced_accuracy",
        title="balanced validation accuracy",
        direction="maximize",
        unit="fraction",
        scale="linear",
        known="after",
        implementation="naskd.trials.measures:balanced_accuracy",
        paper="Brodersen, Ong, Stephan, Buhmann: The balanced accuracy and its posterior distribution. ICPR 2010",
        reference="naskd.trials.measures:chance",
    )
)
OBJECTIVES.register(
    Objective(
        name="forgetting",
        title="forgetting",
        direction="minimize",
        unit="fraction",
        scale="linear",
        known="after",
        implementation="naskd.trials.measures:forgetting",
        paper="Chaudhry, Dokania, Ajanthan, Torr: Riemannian walk for incremental learning: understanding forgetting "
        "and intransigence. ECCV 2018, arXiv 1801.10112, eq. 3",
        reference="naskd.trials.measures:everything",
    )
)


def described(data: Mapping[str, Any]) -> Objective:
    """The objective that a record describes, whether it is registered here or not; it cannot be computed.

    Args:
        data: As :meth:`Objective.describe` gives it; records of before have name and direction alone.
    """
    name = str(data["name"])
    if name in OBJECTIVES:
        data = {**OBJECTIVES[name].describe(), **data}
    plain = {
        "title": name.replace("_", " "),
        "direction": "minimize",
        "unit": "",
        "scale": "linear",
        "known": "after",
    }
    known = {key: data.get(key) or plain.get(key, "") for key in _DESCRIBED}
    # mypy sees strings where the fields allow some words each.
    return Objective(**known, implementation="")  # type: ignore[arg-type]


def cost_of(objectives: Sequence[Objective]) -> Objective:
    """The objective that reports set against accuracy, and by which designs are the cheapest.

    It is ``macs`` where that is one, else the first that is minimised; without such a one the first beside accuracy.
    """
    others = [objective for objective in objectives if objective.name != ACCURACY]
    costs = [objective for objective in others if not objective.maximise] or others
    return next((objective for objective in costs if objective.name == "macs"), costs[0])


def needs_reference(name: str) -> str:
    """Why a study must give the reference point of an objective; empty when it need not."""
    if name not in OBJECTIVES or OBJECTIVES[name].known == "before" or OBJECTIVES[name].reference:
        return ""
    return (
        f"a number that no design should be worse than: objective {name!r} is known after training alone, so that "
        "none can be derived"
    )


def objective_problems(names: Sequence[str], key: str = "objectives") -> list[Problem]:
    """Names that are not registered. A user's own objectives must be registered first, by the study's `modules`."""
    return [
        Problem(
            f"{key}[{index}]",
            format_value(name),
            f"registered objectives: {', '.join(map(format_value, OBJECTIVES.names()))}",
            _nearest(name, OBJECTIVES.names()),
        )
        for index, name in enumerate(names)
        if name not in OBJECTIVES
    ]


def reference_problems(point: Mapping[str, float], objectives: Sequence[str]) -> list[Problem]:
    """What is wrong with a study's `reference_point`: names, values, and values that are missing."""
    problems = []
    for name, value in point.items():
        key, got = f"reference_point.{name}", format_value(value)
        if name not in OBJECTIVES:
            known = OBJECTIVES.names()
            problems.append(Problem(key, got, f"objectives: {', '.join(known)}", _nearest(name, known)))
        elif name not in objectives:
            problems.append(Problem(key, got, f"objectives of the study: {', '.join(objectives)}"))
        elif OBJECTIVES[name].scale == "log" and value <= 0:
            problems.append(Problem(key, got, "a number above 0, since its scale is logarithmic"))
        elif OBJECTIVES[name].unit == "fraction" and OBJECTIVES[name].maximise and not value < 1:
            problems.append(Problem(key, got, "a fraction below 1, or nothing is better than it"))
    for name in objectives:
        if name not in point and (allowed := needs_reference(name)):
            problems.append(Problem(f"reference_point.{name}", "nothing", allowed))
    return problems


def limit_problems(limits: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the tables ``[limits.max]`` and ``[limits.min]``: names, and what is known too late."""
    before = [objective.name for objective in OBJECTIVES if objective.known == "before"]
    return [
        Problem(
            f"limits.{side}.{name}",
            format_value(value),
            f"objectives known before training: {', '.join(before)}",
            _nearest(name, before),
        )
        for side in ("max", "min")
        for name, value in (limits.get(side) or {}).items()
        if name not in before
    ]


def needed_keys(objectives: Sequence[str], limits: Mapping[str, Any]) -> dict[str, str]:
    """Keys of the study file that objectives and limits are computed from, each with who needs it first.

    Args:
        objectives: Of the study.
        limits: Tables ``max`` and ``min`` of its ``[limits]``.
    """
    named = [*objectives, *(name for side in ("max", "min") for name in limits.get(side) or {})]
    needing = [name for name in named if name in OBJECTIVES and OBJECTIVES[name].needs]
    return {OBJECTIVES[name].needs: name for name in reversed(needing)}


def _nearest(name: str, known: Sequence[str]) -> str:
    return nearest(name, known).removeprefix("; ")
