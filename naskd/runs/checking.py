"""What ``naskd check`` says of a study: all that is wrong with it, what its space gives, what its search would cost.

Beyond what every search looks at before it begins (:mod:`naskd.runs.starting`), a few students of the space are built,
shown an image, and trained for a few steps.
"""

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from naskd.runs.estimate import (
    TIMING_SECONDS,
    TooSlowError,
    busy_said,
    estimate_search,
    teachers_timing_macs,
    timing_macs,
)
from naskd.runs.opening import begin
from naskd.runs.starting import NotOpenedError, Start
from naskd.runs.timing import STEP_SECONDS, seconds_by_threads
from naskd.spec.design import Cost, TrialConfig
from naskd.spec.doing import doing
from naskd.spec.errors import USERS, NaskdError, one_line
from naskd.spec.parse import parse_study
from naskd.spec.study import StudySpec
from naskd.study.admission import count_kinds, reason_kind
from naskd.study.space_sample import SpaceSample

TIMED = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the MACs of the designs that were drawn: those that are timed. Each stands for as many of them."""
QUANTILES = (0.0, *TIMED, 1.0)
"""Those that are built, the smallest and the largest among them."""
SHOWN_FILES = 20
WORTH = 0.9
"""Of the seconds with fewer threads that more of them may take to be worth it."""
TIMING_MACS = {"cpu": 1e11, "cuda": 1e13}
"""Multiply-accumulates of all timing together, at most: about ten seconds of a slow processor."""


@dataclass(frozen=True)
class Checked:
    """What was found.

    Args:
        spec: The study.
        problems: Why its search would not begin or not end well, a line each; empty where all is in order.
        data: See :meth:`~naskd.data.survey.DataSurvey.to_dict`; empty where the images could not be looked at.
        teachers: Of each its ``name``, its accuracy in words as ``measured``, its ``warnings`` and its ``problems``.
        space: Of the random draws ``drawn``, ``designs`` that can be trained and are distinct, how many of each kind
            were ``turned_away``, an ``example`` of each kind, and the ``macs`` of the designs (``min``, ``median``,
            ``max``); empty where none could be drawn.
        built: Of each student that was built its ``config_id``, ``macs`` and ``n_params``, and whether it was
            ``timed``.
        cost: See :func:`~naskd.runs.estimate.estimate_search`, with ``teachers_timed``; empty where nothing was timed.
        steps: Seconds of a step of the student of middle size by the number of threads, where several were tried: on a
            busy machine those of the study and one.
        disk: Bytes of what is remembered of teachers: of the whole ``bank``, estimated, or None where nothing was
            timed; and the bounds of the study, of each ``bank_tensor`` and of each larger ``bank_map``.
        memory: Bytes of the ``images`` as they are held, and of this ``process`` at its peak.
    """

    spec: StudySpec
    problems: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    teachers: tuple[dict[str, Any], ...] = ()
    space: dict[str, Any] = field(default_factory=dict)
    built: tuple[dict[str, Any], ...] = ()
    cost: dict[str, Any] = field(default_factory=dict)
    steps: dict[int, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    disk: dict[str, int | None] = field(default_factory=dict)

    @property
    def shown_problems(self) -> list[str]:
        """The problems for people: of files that cannot be read the first twenty, and how many more there are."""
        files = [line for line in self.problems if _of_a_file(line)]
        hidden = set(files[SHOWN_FILES:])
        lines = [line for line in self.problems if line not in hidden]
        more = f"and {len(hidden)} more images cannot be read; naskd check --json lists all"
        return [*lines, more] if hidden else lines

    @property
    def unreadable(self) -> bool:
        """Whether a problem is a file that cannot be read."""
        return any(map(_of_a_file, self.problems))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        budget = self.spec.budget
        return {
            "study": self.spec.name,
            "in_order": not self.problems,
            "problems": list(self.problems),
            "epochs": self.spec.epochs,
            "budget": {
                "trials": budget.trials,
                "seconds": budget.seconds,
                "train_macs": budget.train_macs,
            },
            "data": self.data,
            "teachers": list(self.teachers),
            "space": self.space,
            "built": list(self.built),
            "cost": self.cost,
            "memory": self.memory,
            "disk": self.disk,
            "steps": {str(threads): seconds for threads, seconds in self.steps.items()},
            "threads_that_help": threads_that_help(self.steps) if self.steps else None,
        }


def examine(study: str | Path, settings: Sequence[str] = (), out: Path | None = None) -> Checked:
    """Look at everything that can be known of a study before its search; no network is trained to the end.

    Args:
        study: Path of a study file.
        settings: ``key=value`` overrides, as ``--set`` takes them.
        out: As for :func:`~naskd.runs.opening.check`.

    Raises:
        InputError: The study file itself is wrong, so that nothing else can be looked at.
    """
    start, problems = begin(parse_study(Path(study), settings), out)
    survey = None if start.study is None else start.opened.survey
    found: dict[str, Any] = {
        "data": {} if survey is None else survey.to_dict(),
        "teachers": tuple(
            {
                "name": t.name,
                "measured": t.accuracy,
                "warnings": [w for w in (*t.warnings, t.leak) if w],
                "problems": t.problems,
            }
            for t in start.tried
        ),
    }
    try:
        sample = start.sample
    except (NotOpenedError, NaskdError):  # said among the problems
        return Checked(start.spec, _lines(problems), **found)
    found["space"] = _of_space(sample)
    if start.opened.parts is not None and sample.designs:
        doing("building students")
        built, failed = _built(start, spread(sample, QUANTILES))
        problems += failed
        found["built"] = built
        given = start.opened.context.resources.compute
        if not problems and given.threads > 1 and given.device.type == "cpu" and busy_said():
            found["steps"] = _steps(start, sample, (1, given.threads))
        start.study = start.opened.given(foreseen=sample.kinds)  # as its search: they fill the bank, too
        used = start.opened.context.resources.compute.threads
        if not problems and found.get("steps", {}).get(used, 0.0) <= STEP_SECONDS:
            found["cost"] = _cost(start, sample, built, problems)
        images = start.opened.context.resources.data
        execution = start.spec.execution
        found["disk"] = {
            "bank": round(found["cost"]["bank_bytes"]) if found.get("cost") else None,
            "bank_tensor": execution.bank_bytes if sample.kinds else 0,
            "bank_map": execution.disk_bytes if sample.kinds else 0,
        }
        found["memory"] = {"images": images.n_bytes, "process": _peak_bytes()}
    return Checked(start.spec, _lines(problems), **found)


def _lines(problems: Sequence[str]) -> tuple[str, ...]:
    return tuple(line for problem in dict.fromkeys(problems) for line in problem.splitlines())


def _of_a_file(line: str) -> bool:
    return line.startswith("the image ") and " cannot be read " in line


def _of_space(sample: SpaceSample) -> dict[str, Any]:
    macs = sorted(cost.macs for _, cost in sample.designs)
    return {
        "drawn": sample.n_drawn,
        "designs": len(macs),
        "turned_away": count_kinds(dict(enumerate(sample.turned_away))),
        "example": {reason_kind(reason): reason for reason in reversed(sample.turned_away)},
        "macs": {"min": macs[0], "median": macs[len(macs) // 2], "max": macs[-1]} if macs else {},
    }


def spread(sample: SpaceSample, quantiles: Sequence[float]) -> list[tuple[TrialConfig, Cost]]:
    """The designs at some quantiles of MACs, in that order."""
    designs = sorted(sample.designs, key=lambda design: (design[1].macs, design[0].config_id))
    places = dict.fromkeys(round(quantile * (len(designs) - 1)) for quantile in quantiles)
    return [designs[place] for place in places]


def _built(
    start: Start, designs: Sequence[tuple[TrialConfig, Cost]]
) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """Build each student and show it an image; what is built, and what cannot be."""
    context, built, failed = start.opened.context, list[dict[str, Any]](), list[str]()
    resources = context.resources
    image = resources.data.val.images[:1].to(resources.compute.device)
    for config, cost in designs:
        try:
            with resources.compute.drawing(0), torch.no_grad(), resources.compute.autocast():
                logits = context.networks.student(config.architecture).eval()(image.float() / 255)
            wanted = (1, resources.data.n_classes)
            if tuple(logits.shape) != wanted:
                raise ValueError(f"its logits are {tuple(logits.shape)}, not {wanted}")
            if not bool(logits.isfinite().all()):
                raise ValueError("its logits are not finite before any training")
        except USERS as error:  # a user's block may raise anything; the answer names the design
            failed.append(
                f"design {config.config_id} of {start.spec.space} cannot be built and run: {one_line(error)}"
            )
            continue
        built.append(
            {"config_id": config.config_id, "macs": cost.macs, "n_params": cost.n_params, "timed": False}
        )
    return tuple(built), failed


def threads_that_help(steps: Mapping[int, float]) -> int:
    """The fewest that are not clearly slower than the best: a thread more also waits where something else runs.

    Args:
        steps: Seconds by the number of threads.
    """
    return min(number for number, seconds in steps.items() if WORTH * seconds <= min(steps.values()))


def _steps(start: Start, sample: SpaceSample, threads: Sequence[int]) -> dict[int, float]:
    """Seconds of a step of the student of middle size by the number of threads; empty where it cannot be timed."""
    doing(f"timing a few steps with {' and '.join(map(str, threads))} threads")
    design, _ = spread(sample, (0.5,))[0]
    try:
        return seconds_by_threads(start.opened.context, design, threads)
    except USERS:  # the design cannot be trained, which is said where its cost is timed
        return {}


def _cost(
    start: Start, sample: SpaceSample, built: Sequence[dict[str, Any]], problems: list[str]
) -> dict[str, Any]:
    """Time as many students as a few seconds allow, from the smallest on; nothing where one alone would take longer."""
    context, left = start.opened.context, 0.0
    most = TIMING_MACS.get(context.resources.compute.device.type, TIMING_MACS["cuda"])
    chosen, beyond = list[TrialConfig](), list[TrialConfig]()
    for config, cost in spread(sample, TIMED):
        left += timing_macs(context, config, cost.unmerged_macs)
        (chosen if left <= most else beyond).append(config)
    if not chosen:
        return {}
    teachers = teachers_timing_macs(context) <= most
    what = f"{len(chosen)} students" + (" and the networks that teach them" if teachers else "")
    doing(f"timing a few steps of {what}")
    try:
        found = estimate_search(
            context,
            chosen,
            beyond=beyond,
            sample=[design for design, _ in sample.designs],
            teachers=teachers,
            said=problems.append,
            step_seconds=STEP_SECONDS,
            timing_seconds=TIMING_SECONDS,
        )
    except TooSlowError:
        return {}
    except NaskdError as error:
        problems.append(str(error))
        return {}
    timed = {config.config_id for config in chosen[: found["n_timed"]]}
    for student in built:
        student["timed"] = student["config_id"] in timed
    return {**found, "teachers_timed": teachers}


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
