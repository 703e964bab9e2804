"""When a trial is stopped before its end: what a rule is asked, and what it may look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.objectives import Objective
from naskd.spec.places import at
from naskd.spec.stopping import STOPPING_RULES
from naskd.spec.study import StoppingSpec
from naskd.trials.jobs import Decision

Curve = Sequence[Mapping[str, float]]
"""One mapping for each finished epoch, in order: ``epoch`` (from 1), ``val_accuracy``, losses.

Where ``other_network`` is among them, the accuracy is of another network than the design's student."""


@dataclass(frozen=True)
class TrialView:
    """A training as a stopping rule sees it.

    Args:
        number: Of its trial.
        config: The design; ``config.training.epochs`` is the horizon of its schedule.
        seed: Of the training.
        status: ``running``, or how it ended.
        curve: So far. Of another driver's trial that runs, as of a few seconds ago.
        metrics: Objectives and costs by name: of a finished one as of its end, of a running one those that are known
            before training.
        train_macs: Of a finished one, as for ``TrialResult``.
        replicate: How many trainings of the same design came before; no rule is asked about those after the first.
        paused: Whether it was stopped and may go on.
        continued: Whether it goes on with a paused one.
        trained_in: Number of the trial whose training gives this design, too; None where it was trained by itself.
    """

    number: int
    config: TrialConfig
    seed: int
    status: Literal["running", "complete", "failed", "stopped"]
    curve: Curve = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    train_macs: int = 0
    replicate: int = 0
    paused: bool = False
    continued: bool = False
    trained_in: int | None = None


class LedgerView(Protocol):
    """All trainings of a study, those of other drivers too; for reading."""

    @property
    def objectives(self) -> Sequence[Objective]:
        """Of the study, in its order."""

    @property
    def finished(self) -> Sequence[TrialView]:
        """Complete, failed and stopped ones, in the order in which this driver heard of their ends.

        A paused one is not among them any more while another trial goes on with it, and afterwards.
        """

    @property
    def running(self) -> Sequence[TrialView]:
        """By number; the one that is decided about is among them."""


def costs_of(objectives: Sequence[Objective]) -> list[Objective]:
    """Objectives that are known before training."""
    return [objective for objective in objectives if objective.known == "before"]


class StoppingRule(Protocol):
    """Decides after each epoch whether a trial goes on.

    A trial that is stopped is PRUNED, and counts for the budget. What was spent on it is booked. So is one that is
    paused; a sampler that proposes its design again has it go on, in a trial of its own that does not count. A rule
    with a method :meth:`Promoting.promote` may want that too.
    """

    def decide(self, trial: TrialView, curve: Curve, ledger: LedgerView) -> Decision:
        """Whether a trial goes on.

        Called once for each finished epoch, the last one too, where stopping means nothing. A training that lost its
        worker repeats epochs since its checkpoint, with the same values. What is raised ends the search.

        Some schemes train another network first, such as a wider one. Such an epoch has ``other_network`` in its row,
        and the rule is not asked before the student is there.

        Args:
            trial: That has finished an epoch.
            curve: Up to and with this epoch, those before a resume included.
            ledger: Everything else.
        """


@runtime_checkable
class Promoting(Protocol):
    """A rule that has paused trials go on; `pauses` on its card, so that their state is kept."""

    def promote(self, ledger: LedgerView) -> int | None:
        """Number of a paused trial of ``ledger.finished`` that is to go on now; None: something new is begun.

        Asked whenever there is room for a trial, and when all trials of the budget were begun. What is raised ends the
        search.
        """


def build_stopping(spec: StoppingSpec) -> StoppingRule:
    """The stopping rule of a study.

    Args:
        spec: Name and options.

    Raises:
        InputError: The name is not registered, or its implementation raises or returns something else than a rule.
    """
    rule = STOPPING_RULES.make(spec.name, **spec.settings())
    if isinstance(rule, type) or not callable(getattr(rule, "decide", None)):
        raise InputError(
            f"stopping rule {spec.name!r} returned {type(rule).__name__}; it must return a "
            f"naskd.study.stopping.StoppingRule, an object with a method decide{at(STOPPING_RULES.load(spec.name))}"
        )
    decides: StoppingRule = rule
    return decides


class NeverStop:
    """Every trial is trained to its end."""

    def decide(self, trial: TrialView, curve: Curve, ledger: LedgerView) -> Decision:
        """See :class:`StoppingRule`."""
        return Decision.CONTINUE
