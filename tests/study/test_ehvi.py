"""The sampler that knows costs, on a made-up world whose best designs are known."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage

from naskd.executors.local.replay import ReplayExecutor, ReplayFacts
from naskd.networks.student import design_cost
from naskd.spec.clock import FakeClock
from naskd.spec.datasets import DataSpec
from naskd.spec.design import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrialConfig
from naskd.spec.stopping import STOPPING_RULES
from naskd.spec.study import BudgetSpec, SamplerSpec, StoppingSpec, StudySpec
from naskd.spec.tables import spec_problems
from naskd.spec.teachers import TeacherSpec
from naskd.study.ledger import CONTINUES
from naskd.study.prices import Price
from naskd.study.sampling.ehvi import EhviSampler
from naskd.study.search_view import Candidate
from naskd.study.stopping import NeverStop, TrialView
from naskd.study.study import Study
from naskd.tables import Recorded
from naskd.trials.facts import TrainingMacs
from naskd.trials.jobs import Decision, TrialResult

EPOCHS = 6
BLOCKS = {"basic": 0.0, "inverted_residual": 0.06, "depthwise_separable": -0.04}
KINDS = {"none": 0.0, "logits": 0.02, "hint": 0.08, "attention": -0.03}
REFERENCE = {"val_accuracy": 0.1, "macs": 1e7}


def joint(trial):
    """2,880 designs."""
    block = trial.suggest_categorical("block", tuple(BLOCKS))
    width = trial.suggest_int("width", 4, 48, step=4)
    depth = trial.suggest_int("depth", 1, 5)
    kind = trial.suggest_categorical("kind", tuple(KINDS))
    temperature = trial.suggest_categorical("temperature", (2.0, 4.0, 8.0))
    terms = () if kind == "none" else (KnowledgeTerm(kind),)
    if kind == "logits":
        terms = (KnowledgeTerm(kind, temperature=temperature),)
    stages = (
        StageSpec(block, depth, width, expansion=2.0),
        StageSpec(block, 1, 2 * width, stride=2, expansion=2.0),
    )
    return TrialConfig(ArchitectureSpec(stages, stem_width=8), DistillationSpec(terms))


def cost(config):
    return design_cost(config.architecture, 3, 10, 16)


def recorded(config):
    macs = cost(config).macs
    kind = config.distillation.terms[0].kind if config.distillation.terms else "none"
    final = 0.3 + 0.1 * math.log10(macs / 1e4) + KINDS[kind] + BLOCKS[config.architecture.stages[0].block]
    curve = tuple({"val_accuracy": final * (1 - math.exp(-1.5 * e))} for e in range(1, EPOCHS + 1))
    curve = (*curve[:-1], {"val_accuracy": final})
    bank = ({"teacher": 10**8},) if config.distillation.terms else ()
    return Recorded(curve, {"val_accuracy": final, **vars(cost(config))}, 100 * macs, 1.0, bank)


def search(
    sampler,
    budget,
    *,
    seed=0,
    workers=1,
    stopping="none",
    objectives=("val_accuracy", "macs"),
    space=joint,
    storage=None,
    rule=None,
):
    spec = StudySpec(
        name="made-up", space="space.py:joint", data=DataSpec("digits"), seed=seed, epochs=EPOCHS, budget=budget,
        sampler=SamplerSpec(sampler), stopping=StoppingSpec(stopping), objectives=objectives,
        teacher=TeacherSpec(architecture=ArchitectureSpec((StageSpec("basic", 1, 8),))),
    )  # fmt: skip
    clock = FakeClock()
    facts = ReplayFacts(cost, recorded, resolution=16, n_val=1000)
    reference = {"val_accuracy": 0.1, "macs": 1e7, "n_params": 1e6}
    study = Study(
        spec, space, storage or InMemoryStorage(), facts, identity={},
        reference_point={name: reference[name] for name in objectives},
        stopping=rule or STOPPING_RULES.load(stopping)(), clock=clock,
    )  # fmt: skip
    ReplayExecutor(recorded, clock, workers).run(study)
    return study


def trained(study):
    return [trial for trial in study.optuna_study.trials if "result" in trial.user_attrs]


def test_it_needs_a_small_part_of_the_training_of_random_search():
    budget = BudgetSpec(train_macs=int(2e10))
    informed, drawn = (search(name, budget) for name in ("ehvi", "random"))
    assert informed.hypervolume() > drawn.hypervolume()
    soon = search("ehvi", BudgetSpec(train_macs=int(1e10)))
    assert soon.hypervolume() > drawn.hypervolume()


def test_the_same_seed_proposes_the_same_and_another_seed_others():
    one, same, other = (
        [trial.params for trial in trained(search("ehvi", BudgetSpec(trials=16), seed=seed))]
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other


def test_no_design_is_proposed_twice():
    study = search("ehvi", BudgetSpec(trials=40))
    assert len(study.optuna_study.trials) == 40


def test_workers_at_once_are_given_different_designs():
    study = search("ehvi", BudgetSpec(trials=40), workers=8)
    assert len({trial.user_attrs["config_id"] for trial in trained(study)}) == 40
    assert len(study.optuna_study.trials) == 40


def test_it_learns_from_stopped_trials_and_from_running_ones():
    study = search("ehvi", BudgetSpec(trials=60), workers=4, stopping="front")
    assert study._ledger.stopped >= 3
    best = max(t.user_attrs["result"]["metrics"]["val_accuracy"] for t in trained(study))
    assert best > 0.6


def test_three_objectives():
    study = search("ehvi", BudgetSpec(trials=25), objectives=("val_accuracy", "macs", "n_params"))
    assert len(trained(study)) == 25


def test_a_space_that_is_exhausted_ends():
    def small(trial):
        stage = StageSpec("basic", trial.suggest_int("depth", 1, 3), 8 * trial.suggest_int("width", 1, 5))
        return TrialConfig(ArchitectureSpec((stage,)))

    study = search("ehvi", BudgetSpec(trials=100), space=small)
    assert len(trained(study)) == 15


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_search_goes_on_where_few_designs_are_left(left):
    """Of fifteen; what differs among them is known from those of before."""

    def small(trial):
        stage = StageSpec("basic", trial.suggest_int("depth", 1, 3), 8 * trial.suggest_int("width", 1, 5))
        return TrialConfig(ArchitectureSpec((stage,)))

    storage = InMemoryStorage()
    search("random", BudgetSpec(trials=15 - left), space=small, storage=storage)
    assert len(trained(search("ehvi", BudgetSpec(trials=100), space=small, storage=storage))) == 15


def test_a_space_with_parameters_of_parameters():
    """A variation that the space would ask another parameter of is no candidate."""

    def nested(trial):
        kind = trial.suggest_categorical("kind", ("none", "logits"))
        heat = trial.suggest_float("temperature", 1.0, 8.0) if kind == "logits" else 4.0
        terms = (KnowledgeTerm("logits", temperature=heat),) if kind == "logits" else ()
        width = trial.suggest_int("width", 4, 48, step=4)
        return TrialConfig(ArchitectureSpec((StageSpec("basic", 1, width),)), DistillationSpec(terms))

    study = search("ehvi", BudgetSpec(trials=20), space=nested)
    assert len(trained(study)) == 20


def by_teacher(config):
    """One teacher for students of basic blocks, and another for all others."""
    return f"of {config.architecture.stages[0].block == 'basic'}"


def proposed(needs, price, trials, startup, budget=None, seed=0, names=lambda config: "made once"):
    """Whether each of the first designs needs what costs `price` once."""

    def dear(config):
        found = recorded(config)
        return Recorded(
            found.curve,
            found.metrics,
            found.train_macs,
            1.0,
            ({names(config): price},) if needs(config) else (),
        )

    spec = StudySpec(
        name="made-up", space="space.py:joint", data=DataSpec("digits"), epochs=EPOCHS, seed=seed,
        budget=budget or BudgetSpec(train_macs=int(1e12)),
        sampler=SamplerSpec("ehvi", (("startup_trials", startup),)),
        teacher=TeacherSpec(architecture=ArchitectureSpec((StageSpec("basic", 1, 8),))),
    )  # fmt: skip
    study = Study(
        spec, joint, InMemoryStorage(), ReplayFacts(cost, dear, resolution=16, n_val=1000), identity={},
        reference_point=REFERENCE, clock=FakeClock(),
    )  # fmt: skip
    needing = []
    for _ in range(trials):
        job = study.ask()
        needing.append(needs(job.config))
        found = dear(job.config)
        curve = tuple({"epoch": e, **point} for e, point in enumerate(found.curve, start=1))
        study.tell(job, TrialResult("complete", job.seed, metrics=found.metrics, curve=curve))
    return needing


def is_taught(config):
    return bool(config.distillation.terms)


def is_hinted(config):
    """The best kind of all, and a quarter of the designs."""
    return KnowledgeTerm("hint") in config.distillation.terms


def test_what_nobody_has_paid_is_part_of_the_price():
    """The bank costs as much as many trainings of small students: these come first, and taught ones then."""
    dear, cheap = (proposed(is_taught, price, 12, startup=1) for price in (10**13, 1))
    assert sum(dear[2:]) < sum(cheap[2:])


def test_what_costs_more_than_the_search_is_not_made_for_the_best_designs_at_its_end():
    """It is as dear as a hundred trainings of middling students."""
    price, trials = 100 * int(1e8), BudgetSpec(trials=20)
    assert not any(proposed(is_hinted, price, 20, 10, trials))
    assert sum(proposed(is_hinted, 1, 20, 10, trials)) > 5
    assert any(proposed(is_taught, price, 10, 10, trials)), "three quarters of the designs share it"


def test_who_was_stopped_early_has_filled_a_part_of_the_bank():
    """The rest is still to be paid, by whoever needs it; what is there before the first epoch is not."""
    chosen = {"block": "basic", "width": 8, "depth": 1, "kind": "hint", "temperature": 4.0}
    config = joint(optuna.trial.FixedTrial(chosen))
    price = Price({}, TrainingMacs(10.0, {"bank": 800.0, "assistant": 50.0}, spans={"bank": (1, 4)}))
    view = SimpleNamespace(prices=SimpleNamespace(of=lambda config: price), most_macs=math.inf)

    def left(*begun):
        _, shared = EhviSampler(0)._prices([Candidate({}, config, price)], np.zeros(1), begun, view)
        return shared[0]

    def trial(status, epochs):
        return TrialView(0, config, 0, status, ({"val_accuracy": 0.5},) * epochs)

    assert left() == 850
    assert [left(trial("stopped", epochs)) for epochs in (1, 2, 4, 6)] == [600, 400, 0, 0]
    assert left(trial("complete", 8)) == left(trial("running", 0)) == 0
    assert left(trial("stopped", 2), trial("stopped", 1)) == 400, "the same views"


@pytest.mark.parametrize("seed", range(4))
def test_students_are_taught_from_the_first_trials_however_dear_the_first_pass_of_a_teacher_is(seed):
    """It is as dear as a hundred thousand trainings, and three quarters of the designs need it."""
    told = proposed(is_taught, 10**13, 8, startup=8, budget=BudgetSpec(trials=40), seed=seed)
    assert sum(told) >= 4
    several = proposed(is_taught, 10**13, 8, 8, BudgetSpec(trials=40), seed=seed, names=by_teacher)
    assert sum(several) >= 4, "each of two teachers is asked by fewer than a half"


def test_without_a_study_it_draws_at_random():
    study = optuna.create_study(sampler=EhviSampler(0), directions=["maximize", "minimize"])
    study.optimize(
        lambda trial: (trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)), n_trials=12
    )
    assert len({trial.params["x"] for trial in study.trials}) == 12


@pytest.mark.parametrize(
    ("sampler", "stopping"), [("ehvi", "none"), ("random", "front"), ("random", "mo_asha")]
)
def test_objectives_that_only_training_tells_are_refused(sampler, stopping):
    spec = StudySpec(
        name="made-up", space="space.py:joint", data=DataSpec("digits"), budget=BudgetSpec(trials=5),
        sampler=SamplerSpec(sampler), stopping=StoppingSpec(stopping),
        objectives=("val_accuracy", "macs", "train_macs"),
    )  # fmt: skip
    assert any("train_macs" in problem for problem in spec_problems(spec))


def test_a_running_trial_of_which_nothing_is_forecast_counts_as_what_it_promises(monkeypatch):
    """In its last epoch no finished curve says how it goes on; else others are proposed that promise the same."""
    front, there = EhviSampler._front, []

    def seen(self, view, observed, begun):
        there.append({trial.number for trial, *_ in observed} | {trial.number for trial in begun})
        return front(self, view, observed, begun)

    monkeypatch.setattr(EhviSampler, "_front", seen)
    study = search("ehvi", BudgetSpec(trials=14))
    study.spec = replace(study.spec, budget=BudgetSpec(trials=20))
    job = study.ask()
    for epoch, point in enumerate(recorded(job.config).curve, start=1):
        study.report(job, epoch, {"epoch": epoch, **point})
    study.ask()
    assert int(job.job_id) in there[-1]


def test_what_is_left_of_a_paused_training_has_its_share_of_the_price():
    """A teacher that answers from memory is in a trial's ``train_macs``, five times what its student takes, and not in
    the price: half of the epochs leave half of that."""
    asked = []

    class Priced(ReplayFacts):
        def training_macs(self, design):
            own = super().training_macs(design).own
            return TrainingMacs(own, {}, 6 * own)

    class Notes(EhviSampler):
        def _prices(self, candidates, paid, begun, view):
            own, shared = super()._prices(candidates, paid, begun, view)
            rows = zip(candidates, own, paid, strict=True)
            asked.extend((c.price.training.own, mine) for c, mine, done in rows if done)
            return own, shared

    class Heard(Recorded):
        def macs_until(self, epoch):
            return 6 * super().macs_until(epoch)

    def heard(design):
        return Heard(**vars(recorded(design)))

    spec = StudySpec(
        name="made-up", space="space.py:joint", data=DataSpec("digits"), epochs=EPOCHS, budget=BudgetSpec(trials=30),
        sampler=SamplerSpec("ehvi"), teacher=TeacherSpec(architecture=ArchitectureSpec((StageSpec("basic", 1, 8),))),
    )  # fmt: skip
    clock, facts = FakeClock(), Priced(cost, heard, resolution=16, n_val=1000)
    study = Study(
        spec, joint, InMemoryStorage(), facts, identity={}, reference_point=REFERENCE, stopping=Halves(), clock=clock
    )  # fmt: skip
    sampler = Notes(0)
    sampler.attach(study._asking._view)
    study.optuna_study.sampler = study._asking._sampler = sampler
    study._asking._sampler_from = None
    ReplayExecutor(heard, clock).run(study)
    assert asked
    for own, left in asked:
        assert left == pytest.approx(own / 2)


class Halves(NeverStop):
    """Pauses every trial in the middle, once there is something to compare with."""

    def decide(self, trial, curve, ledger):
        middle = len(curve) == EPOCHS // 2 and sum(t.status == "complete" for t in ledger.finished) >= 12
        return Decision.PAUSE if middle else Decision.CONTINUE


def test_what_is_paused_goes_on_where_that_promises_more_than_something_new():
    """It costs the rest of its training alone, and each epoch is paid once."""
    study = search("ehvi", BudgetSpec(trials=50), rule=Halves())
    going_on = [t for t in trained(study) if CONTINUES in t.user_attrs]
    assert going_on
    assert all(t.user_attrs["result"]["status"] == "complete" for t in going_on)
    by_number = {t.number: t for t in trained(study)}
    assert sum(CONTINUES not in t.user_attrs for t in by_number.values()) == 50
    for trial in going_on:
        before = by_number[trial.user_attrs[CONTINUES]].user_attrs["result"]
        result = trial.user_attrs["result"]
        assert before["paused"]
        assert [point["epoch"] for point in result["curve"]] == [1, 2, 3, 4, 5, 6]
        assert result["train_macs"] - result["spent_macs"] == before["train_macs"], "its own part alone"
    # Not all of them: those that promise least stay where they are.
    paused = [t for t in by_number.values() if t.user_attrs["result"]["paused"]]
    assert len(going_on) < len(paused)
