"""What a study takes of earlier runs: designs with their curves and results, none of which counts as its own.

Images, teacher and ranges of an earlier run may be others, so that its accuracies are not those of this study. They are
on no front and in no budget: a sampler that wants to may learn from them, and the designs of an earlier front that this
space can express are tried first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from naskd.store.files import digest
from naskd.study.stopping import TrialView

IDENTITY = "earlier_runs"
"""Key of a run's identity: what was read of each, by content. It is not there where a study has none."""
TAKEN = "warm_start"
"""Attribute of a study: what it took of each earlier run, in numbers."""


@dataclass(frozen=True)
class EarlierDesign:
    """A training of an earlier run.

    Args:
        config: The design, as :meth:`~naskd.spec.design.TrialConfig.to_dict` gives it.
        parameters: That led to it there.
        status: ``complete`` or ``stopped``.
        curve: ``val_accuracy`` after each epoch; None where another network was evaluated than the one that leaves.
        metrics: As of its end.
    """

    config: Mapping[str, Any]
    parameters: Mapping[str, Any]
    status: str
    curve: Sequence[float | None]
    metrics: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "config": dict(self.config),
            "parameters": dict(self.parameters),
            "status": self.status,
            "curve": list(self.curve),
            "metrics": dict(self.metrics),
        }


@dataclass(frozen=True)
class EarlierRun:
    """What was read of an earlier run.

    Args:
        name: Its directory, as the study file writes it.
        run_id: Names the run, however far it has got by now.
        designs: Those that were trained, whole or in part, in their order.
        n_val: Images that its accuracies were measured on; 0 where that is not known.
    """

    name: str
    run_id: str
    designs: Sequence[EarlierDesign]
    n_val: int = 0

    @property
    def content(self) -> str:
        """Names what was read."""
        return digest([design.to_dict() for design in self.designs])[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        designs = [design.to_dict() for design in self.designs]
        return {"name": self.name, "run_id": self.run_id, "designs": designs, "n_val": self.n_val}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "EarlierRun":
        """The inverse of :meth:`to_dict`."""
        designs = tuple(EarlierDesign(**one) for one in data["designs"])
        return EarlierRun(str(data["name"]), str(data["run_id"]), designs, int(data.get("n_val", 0)))


@dataclass(frozen=True)
class Source:
    """An earlier run as a study sees it.

    Args:
        name: See :class:`EarlierRun`.
        trainings: Those that are learned from, with their designs as they are settled in this study. Accuracies are the
            earlier run's; costs among the metrics are this study's.
        first: Parameters of designs that are tried first.
        n_designs: Trainings in all.
        left_out: How many are not used, by reason.
        n_val: See :class:`EarlierRun`.
    """

    name: str
    trainings: Sequence[TrialView] = ()
    first: Sequence[Mapping[str, Any]] = ()
    n_designs: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    n_val: int = 0

    def to_dict(self) -> dict[str, Any]:
        """In numbers, for the run record."""
        return {
            "run": self.name,
            "designs": self.n_designs,
            "learned": len(self.trainings),
            "first": len(self.first),
            "left_out": dict(self.left_out),
        }

    def said(self) -> str:
        """In a line: how many designs were taken, how many not, and why."""
        taken = [f"learned from {len(self.trainings)}"] if self.trainings else []
        taken += [f"{len(self.first)} of its front tried first"] if self.first else []
        use = ", ".join(taken) or "none is of use here"
        line = f"warm start from {self.name}: {self.n_designs} designs; {use}"
        if self.left_out:
            why = ", ".join(f"{reason} ({n})" for reason, n in self.left_out.items())
            line += f"; {sum(self.left_out.values())} cannot be used here: {why}"
        return line


@dataclass(frozen=True)
class WarmStart:
    """All that a study takes of earlier runs; by default nothing.

    Args:
        sources: One for each earlier run.
    """

    sources: Sequence[Source] = ()

    @property
    def first(self) -> list[Mapping[str, Any]]:
        """Parameters of designs that are tried first, the runs in turns."""
        queues = [list(source.first) for source in self.sources]
        longest = max(map(len, queues), default=0)
        return [queue[n] for n in range(longest) for queue in queues if n < len(queue)]
