"""What every stopping rule must do, whoever registered it."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.spec.stopping import STOPPING_RULES
from naskd.spec.study import StoppingSpec
from naskd.study.stopping import Curve, StoppingRule, TrialView, build_stopping
from naskd.testing.studies import design
from naskd.testing.suite import Suite
from naskd.trials.jobs import Decision

EPOCHS = 6


@dataclass(frozen=True)
class MadeUpLedger:
    """A :class:`~naskd.study.stopping.LedgerView` of given trials."""

    finished: Sequence[TrialView] = ()
    running: Sequence[TrialView] = ()
    objectives: Sequence[Objective] = field(
        default_factory=lambda: [OBJECTIVES[name] for name in ("val_accuracy", "macs")]
    )


def curve(best: float, epochs: int = EPOCHS) -> Curve:
    """A training that comes near an accuracy, never quite steadily."""
    return tuple(
        {"epoch": e, "val_accuracy": best * e / EPOCHS - 0.03 * (e % 2), "loss": 2.0 / e}
        for e in range(1, epochs + 1)
    )


def view(
    number: int,
    points: Curve,
    status: Literal["running", "complete", "failed", "stopped"] = "running",
) -> TrialView:
    """A trial of six epochs with this curve."""
    done = status == "complete"
    metrics = {"macs": 1e6, **({"val_accuracy": points[-1]["val_accuracy"]} if done else {})}
    return TrialView(number, design(epochs=EPOCHS), 100 + number, status, points, metrics, 1000 * len(points))


def busy_ledger(seed: int = 0) -> MadeUpLedger:
    """Trials that are complete, stopped, failed before and after their first epoch, running and just begun."""
    finished = [view(n, curve(0.2 + 0.1 * ((n + seed) % 7)), "complete") for n in range(7)]
    finished += [view(7, curve(0.1, 2), "stopped"), view(8, curve(0.5, 3), "failed"), view(9, (), "failed")]
    return MadeUpLedger(finished, [view(10, curve(0.4, 2)), view(11, ())])


class StoppingRuleSuite(Suite):
    """Tests of stopping rules.

    Example::

        class TestMine(StoppingRuleSuite):
            names = "my_rule"

    They decide about made-up curves of six epochs.

    Attributes:
        options: By name of the rule: what it is made with.
    """

    registry = STOPPING_RULES
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def build(self, name: str) -> StoppingRule:
        """The rule of a new search."""
        given = StoppingSpec(name, tuple(self.options.get(name, {}).items()))
        return build_stopping(given)

    def decisions(self, rule: StoppingRule, ledger: MadeUpLedger, best: float = 0.3) -> list[Decision]:
        """What a rule says after each epoch of a trial, as if nobody obeyed."""
        points = curve(best)
        running = [view(20, points[:epoch]) for epoch in range(1, EPOCHS + 1)]
        return [
            rule.decide(trial, trial.curve, MadeUpLedger(ledger.finished, [*ledger.running, trial]))
            for trial in running
        ]

    def test_the_card_describes_a_rule(self, name: str) -> None:
        """It is made with its defaults too, and its options have allowed ones."""
        card = STOPPING_RULES[name]
        assert card.name == name
        assert card.title
        for option in card.options.values():
            assert option.default is None or not option.problem(option.default)
            assert option.meaning
        build_stopping(StoppingSpec(name))

    def test_the_first_trial_of_a_study_is_decided_about(self, name: str) -> None:
        """Nothing is in the ledger, and nobody else is running."""
        found = self.decisions(self.build(name), MadeUpLedger())
        assert all(isinstance(decision, Decision) for decision in found)

    def test_whatever_is_in_the_ledger_it_decides(self, name: str) -> None:
        """Failed trials without a curve, stopped ones, others that have just begun; good and bad trials."""
        rule = self.build(name)
        for best in (0.0, 0.3, 0.9):
            found = self.decisions(rule, busy_ledger(), best)
            assert all(isinstance(decision, Decision) for decision in found)

    def test_the_same_trials_are_decided_about_alike(self, name: str) -> None:
        """By another process too: a decision follows from what the rule is shown."""
        one, other = (
            [
                decision
                for seed in range(3)
                for decision in self.decisions(self.build(name), busy_ledger(seed))
            ]
            for _ in range(2)
        )
        assert one == other

    def test_an_epoch_that_is_repeated_is_decided_about_alike(self, name: str) -> None:
        """A training that lost its worker repeats epochs since its checkpoint, with the same values."""
        rule, ledger = self.build(name), busy_ledger()
        trial = view(20, curve(0.3, 3))
        given = MadeUpLedger(ledger.finished, [*ledger.running, trial])
        assert rule.decide(trial, trial.curve, given) is rule.decide(trial, trial.curve, given)

    def test_the_ledger_is_only_read(self, name: str) -> None:
        """A rule decides, and changes nothing."""
        ledger = busy_ledger()
        before = copy.deepcopy(ledger)
        self.decisions(self.build(name), ledger)
        assert ledger == before
