"""The rules that come with naskd, on curves whose outcome is known."""

from dataclasses import replace

import numpy as np
import pytest
from test_sampling import ALONE, rising, view

from naskd.spec.objectives import OBJECTIVES
from naskd.study.rules.front import FrontRule
from naskd.study.rules.mo_asha import MoAshaRule, ranked
from naskd.study.sampling.extrapolation import Extrapolation
from naskd.testing.stopping import MadeUpLedger
from naskd.trials.jobs import Decision


def running(accuracies, macs=1e6, number=99):
    return view(number, accuracies, ALONE, "running", macs)


def decide(rule, trial, finished, others=()):
    return rule.decide(trial, trial.curve, MadeUpLedger(finished, [*others, trial]))


def test_front_stops_what_a_finished_trial_beats_at_no_more_macs():
    finished = rising(30, 0.1, ALONE, noise=0.01)
    assert decide(FrontRule(), running([0.1]), finished) is Decision.STOP


def test_front_lets_the_cheap_end_be():
    """Nobody costs as little, so that whatever it reaches is on the front."""
    finished = rising(30, 0.1, ALONE, noise=0.01)
    assert decide(FrontRule(), running([0.1], macs=9e5), finished) is Decision.CONTINUE


def test_front_lets_go_on_what_may_still_be_the_best():
    finished = rising(30, 0.1, ALONE, noise=0.01)
    best = max(trial.metrics["val_accuracy"] for trial in finished)
    assert decide(FrontRule(), running([best - 0.2]), finished) is Decision.CONTINUE


def test_front_waits_for_curves_to_learn_from():
    assert decide(FrontRule(), running([0.01]), rising(5, 0.1, ALONE)) is Decision.CONTINUE


def test_front_does_not_stop_before_its_first_epoch():
    finished = rising(30, 0.1, ALONE, noise=0.01)
    assert decide(FrontRule(min_epochs=2), running([0.1]), finished) is Decision.CONTINUE
    assert decide(FrontRule(min_epochs=2), running([0.1, 0.12]), finished) is Decision.STOP


def test_front_stops_less_at_a_smaller_risk():
    finished = rising(60, 0.1, ALONE, noise=0.05)
    best = max(trial.metrics["val_accuracy"] for trial in finished)
    starts = np.linspace(best - 0.45, best, 60)
    stopped = [
        sum(decide(FrontRule(risk=risk), running([start]), finished) is Decision.STOP for start in starts)
        for risk in (0.01, 0.1, 0.5)
    ]
    assert stopped[0] < stopped[1] < stopped[2]


def test_front_compares_all_costs():
    """With parameters as a third objective, a trial with fewer of them has no rival."""
    finished = [
        view(t.number, [point["val_accuracy"] for point in t.curve])
        for t in rising(30, 0.1, ALONE, noise=0.01)
    ]
    for trial in finished:
        trial.metrics["n_params"] = 1000
    trial = running([0.1])
    trial.metrics["n_params"] = 900
    axes = [OBJECTIVES[name] for name in ("val_accuracy", "macs", "n_params")]
    ledger = MadeUpLedger(finished, [trial], axes)
    assert FrontRule().decide(trial, trial.curve, ledger) is Decision.CONTINUE
    trial.metrics["n_params"] = 1000
    assert FrontRule().decide(trial, trial.curve, ledger) is Decision.STOP


def test_ranking_takes_fronts_in_turn_and_spreads_within_each():
    """First the best of the first objective, then the farthest; the dominated one last."""
    points = np.array([[0.0, 1.0], [1.0, 0.0], [0.9, 0.05], [0.5, 0.5], [1.0, 1.0]])
    assert ranked(points) == [0, 1, 3, 2, 4]


@pytest.mark.parametrize(("epoch", "is_rung"), [(1, True), (2, False), (3, True), (4, False), (9, True)])
def test_mo_asha_decides_at_its_rungs(epoch, is_rung):
    finished = [view(n, [0.5] * 9, macs=1e5) for n in range(9)]
    found = decide(MoAshaRule(1, 3), running([0.1] * epoch), finished)
    assert found is (Decision.STOP if is_rung else Decision.CONTINUE)


def test_mo_asha_lets_a_third_go_on():
    """Of nine equally cheap trials at the first rung, the best three."""
    others = [view(n, [0.1 * n], ALONE, "stopped") for n in range(8)]
    going_on = [
        accuracy
        for accuracy in (0.05, 0.35, 0.55, 0.75)
        if decide(MoAshaRule(1, 3), running([accuracy]), others) is Decision.CONTINUE
    ]
    assert going_on == [0.55, 0.75]


def test_mo_asha_keeps_the_cheap_end():
    others = [view(n, [0.5 + 0.01 * n], ALONE, "stopped", macs=1e6) for n in range(8)]
    assert decide(MoAshaRule(1, 3), running([0.2], macs=1e5), others) is Decision.CONTINUE


def paused(number, accuracies, macs=1e6):
    return replace(view(number, accuracies, ALONE, "stopped", macs), paused=True)


def test_front_pauses_what_may_yet_turn_out_better_and_stops_the_hopeless():
    finished = rising(30, 0.1, ALONE, noise=0.05)
    best = max(trial.metrics["val_accuracy"] for trial in finished)
    starts = np.linspace(best - 0.9, best, 90)
    found = [decide(FrontRule(), running([start]), finished) for start in starts]
    order = [Decision.STOP, Decision.PAUSE, Decision.CONTINUE]
    assert set(found) == set(order)
    assert [order.index(decision) for decision in found] == sorted(map(order.index, found))
    never = {decide(FrontRule(promote=False), running([start]), finished) for start in starts}
    assert never == {Decision.STOP, Decision.CONTINUE}


def test_front_wants_back_what_has_become_probable():
    """The best of them by its forecast; nobody while all are hopeless."""
    finished = rising(30, 0.1, ALONE, noise=0.01)
    best = max(trial.metrics["val_accuracy"] for trial in finished)
    low, good, better = (paused(n, [best - d]) for n, d in ((90, 0.8), (91, 0.24), (92, 0.2)))
    rule = FrontRule()
    assert rule.promote(MadeUpLedger([*finished, low])) is None
    assert rule.promote(MadeUpLedger([*finished, low, good, better])) == 92
    assert rule.promote(MadeUpLedger([*finished, low, replace(better, paused=False)])) is None
    assert rule.promote(MadeUpLedger([low, good, better])) is None, "nothing to learn from"


def test_mo_asha_wants_back_who_is_among_the_best_later():
    """Of three equally cheap trials one may go on. Of six, two."""
    ledger = [paused(n, [0.1 * n]) for n in (1, 2, 3)]
    rule = MoAshaRule(1, 3, promote=True)
    trial = running([0.25])
    assert decide(MoAshaRule(1, 3, promote=True), trial, ledger) is Decision.PAUSE
    assert rule.promote(MadeUpLedger(ledger)) == 3
    gone_on = [view(9, [0.3, 0.5, 0.6], ALONE, "running")]
    assert rule.promote(MadeUpLedger(ledger[:2], gone_on)) is None, "the place is taken"
    assert rule.promote(MadeUpLedger([*ledger[:2], *(paused(n, [0.01]) for n in (4, 5, 6))], gone_on)) == 2


def test_mo_asha_has_the_higher_rung_go_on_first():
    low = [paused(n, [0.1 * n]) for n in range(1, 7)]
    high = [paused(n, [0.3, 0.3, 0.1 * (n - 9)]) for n in range(10, 13)]
    assert MoAshaRule(1, 3, promote=True).promote(MadeUpLedger([*low, *high])) == 12


def test_front_does_not_pause_again_who_has_been_had_to_go_on():
    """It was weighed with what is left of it; it is stopped when nothing speaks for it any more."""
    finished = rising(30, 0.1, ALONE, noise=0.05)
    best = max(trial.metrics["val_accuracy"] for trial in finished)
    trials = [replace(running([start]), continued=True) for start in np.linspace(best - 0.9, best, 90)]
    found = {decide(FrontRule(), trial, finished) for trial in trials}
    assert found == {Decision.STOP, Decision.CONTINUE}


def of_another(trial, epochs):
    """The same trial, whose first epochs tell of another network than its student."""
    rows = [{**row, "other_network": 1.0} if row["epoch"] <= epochs else row for row in trial.curve]
    return replace(trial, curve=tuple(rows))


def test_front_waits_for_the_student():
    """What is small later is not judged by what is wide now; nor right after, by the step between both."""
    finished = rising(30, 0.1, ALONE, noise=0.01)
    assert decide(FrontRule(), of_another(running([0.1]), 1), finished) is Decision.CONTINUE
    assert decide(FrontRule(), of_another(running([0.9, 0.1]), 1), finished) is Decision.CONTINUE
    assert decide(FrontRule(), running([0.09, 0.1]), finished) is Decision.STOP


@pytest.mark.parametrize("epoch", [1, 2])
def test_how_other_networks_go_on_says_nothing_of_students(epoch):
    plain = rising(30, 0.1, ALONE, noise=0.01)
    wide = [of_another(view(200 + n, [0.9, 0.5, 0.1 + 0.01 * n]), epoch) for n in range(20)]
    one, other, few = Extrapolation(), Extrapolation(), Extrapolation()
    one.learn(plain)
    other.learn([*plain, *wide])
    few.learn(wide)
    trial = running([0.3, 0.4][:epoch])
    expected, found = one.forecast(trial, trial.curve), other.forecast(trial, trial.curve)
    assert (found.mean, found.spread) == pytest.approx((expected.mean, expected.spread), rel=1e-6)
    assert few.forecast(trial, trial.curve) is None


def test_mo_asha_ranks_students_alone():
    """Eight wide networks that are good at the first rung are no rivals of a student, nor judged themselves."""
    others = [of_another(view(n, [0.9], ALONE, "running"), 1) for n in range(8)]
    students = [view(10 + n, [0.1], ALONE, "running") for n in range(2)]
    assert decide(MoAshaRule(1, 3), running([0.2]), [], [*others, *students]) is Decision.CONTINUE
    students = [view(10 + n, [0.5], ALONE, "running") for n in range(8)]
    assert decide(MoAshaRule(1, 3), of_another(running([0.1]), 1), [], students) is Decision.CONTINUE
