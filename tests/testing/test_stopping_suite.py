"""The suite of stopping rules passes for ours and fails for rules that are wrong in one way each."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from naskd.spec.stopping import STOPPING_RULES
from naskd.testing import StoppingRuleSuite
from naskd.trials.jobs import Decision

from .broken import assert_caught, registered


class TestCatalogue(StoppingRuleSuite):
    names = STOPPING_RULES.names()


class Good:
    """Stops what is worse than the median of those that came as far."""

    def decide(self, trial, curve, ledger):
        epoch = len(curve)
        others = sorted(t.curve[epoch - 1]["val_accuracy"] for t in ledger.finished if len(t.curve) >= epoch)
        worse = bool(others) and curve[-1]["val_accuracy"] < others[len(others) // 2]
        return Decision.STOP if worse else Decision.CONTINUE


class NeedsOthers(Good):
    def decide(self, trial, curve, ledger):
        best = max(t.curve[0]["val_accuracy"] for t in ledger.finished if t.curve)
        return Decision.STOP if curve[-1]["val_accuracy"] < best else Decision.CONTINUE


class NeedsCurves(Good):
    def decide(self, trial, curve, ledger):
        worse = any(t.curve[-1]["val_accuracy"] > 2 for t in ledger.finished)
        return Decision.STOP if worse else Decision.CONTINUE


class Random(Good):
    def decide(self, trial, curve, ledger):
        Random.asked = getattr(Random, "asked", 0) + 1
        return Decision.STOP if (Random.asked * 2654435761) % 7 < 3 else Decision.CONTINUE


class Counting(Good):
    def __init__(self):
        self.asked = 0

    def decide(self, trial, curve, ledger):
        self.asked += 1
        return Decision.STOP if self.asked % 2 else Decision.CONTINUE


class SaysNothing(Good):
    def decide(self, trial, curve, ledger):
        return None


class Writes(Good):
    def decide(self, trial, curve, ledger):
        ledger.finished[:1] = []
        return Decision.CONTINUE


class NeedsSettings(Good):
    def __init__(self, patience):
        self.patience = patience


BROKEN = (NeedsOthers, NeedsCurves, Random, Counting, SaysNothing, Writes, NeedsSettings)


@pytest.fixture
def cards() -> Iterator[None]:
    card = next(iter(STOPPING_RULES))
    with registered(
        STOPPING_RULES,
        *(replace(card, name=kind.__name__, implementation=kind, options={}) for kind in (Good, *BROKEN)),
    ):
        yield


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        ("NeedsOthers", "test_the_first_trial_of_a_study_is_decided_about"),
        ("NeedsCurves", "test_whatever_is_in_the_ledger_it_decides"),
        ("Random", "test_the_same_trials_are_decided_about_alike"),
        ("Counting", "test_an_epoch_that_is_repeated_is_decided_about_alike"),
        ("SaysNothing", "test_the_first_trial_of_a_study_is_decided_about"),
        ("Writes", "test_the_ledger_is_only_read"),
        ("NeedsSettings", "test_the_card_describes_a_rule"),
    ],
)
@pytest.mark.usefixtures("cards")
def test_a_broken_rule_is_caught(bad: str, check: str) -> None:
    assert_caught(getattr(StoppingRuleSuite(), check), "Good", bad)
