"""Costs that the result of a stopped training does not name, and which rules compare all the same."""

from dataclasses import replace

import fake_world
import pytest
from fake_world import FakeWorld, make_spec, make_study, plain
from test_sampling import ALONE, view

from naskd.study.rules.front import FrontRule
from naskd.study.rules.mo_asha import MoAshaRule
from naskd.study.stopping import NeverStop
from naskd.testing.stopping import MadeUpLedger
from naskd.trials.jobs import Decision

COSTS = ("val_accuracy", "size_bytes")


class StoppedWorld(FakeWorld):
    """Trainings that end after an epoch without the cost, as those do that do not come to their end."""

    def stopped(self, job):
        whole = self.work(job)
        return replace(whole, status="stopped", curve=whole.curve[:1])


@pytest.fixture
def told(monkeypatch):
    """A study of which two trials were stopped after their first epoch, the third is told of one, by this rule."""
    monkeypatch.setitem(fake_world.REFERENCE, "size_bytes", 1e6)

    def begin(rule):
        warm = tuple({"width": w, "depth": 1} for w in (1, 2, 3))
        spec = make_spec(3, teacher=None, objectives=COSTS, warm_start=warm)
        study = make_study(spec, world=(world := StoppedWorld()), space=plain, stopping=Stops(rule))
        for _ in range(2):
            job = study.ask()
            assert (
                study.report(job, 1, {"epoch": 1, "val_accuracy": 0.1 * (int(job.job_id) + 1)})
                is Decision.STOP
            )
            study.tell(job, world.stopped(job))
        job = study.ask()
        return study.report(job, 1, {"epoch": 1, "val_accuracy": 0.05}), study._deciding._rule.ledger

    return begin


class Stops(NeverStop):
    """Stops two trials, and then asks a rule."""

    def __init__(self, rule):
        self.rule = rule

    def decide(self, trial, curve, ledger):
        self.ledger = ledger
        return Decision.STOP if trial.number < 2 else self.rule.decide(trial, curve, ledger)


@pytest.mark.parametrize("rule", [MoAshaRule(), FrontRule()])
def test_a_rule_knows_the_costs_of_trainings_that_were_stopped(rule, told):
    decision, ledger = told(rule)
    assert [trial.metrics["size_bytes"] for trial in ledger.finished] == [40, 160]
    # It is the least accurate of three, and the dearest.
    assert decision is (Decision.STOP if isinstance(rule, MoAshaRule) else Decision.CONTINUE)


def test_a_training_without_known_costs_is_not_among_those_of_a_rung():
    nameless = replace(view(0, [0.9], ALONE, "failed", 1e6), metrics={})
    mine = view(1, [0.1], ALONE, "running", 1e6)
    assert MoAshaRule().decide(mine, mine.curve, MadeUpLedger([nameless], [mine])) is Decision.CONTINUE
