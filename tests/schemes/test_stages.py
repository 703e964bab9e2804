"""Losses with a stage before the training proper, through the scheme and the loop that know nothing of them."""

from dataclasses import replace

import pytest
import torch
from small_studies import design, small_context
from torch import nn

from naskd.knowledge import KNOWLEDGE
from naskd.spec.design import KnowledgeTerm, TrialConfig
from naskd.study.admission import problems
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run

TERMS = tuple(card.name for card in KNOWLEDGE if card.initial_stage == "term")
MODULES = tuple(card.name for card in KNOWLEDGE if card.initial_stage == "modules")
every_kind = pytest.mark.parametrize("kind", TERMS + MODULES)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("stages"))


def staged(kind: str, epochs: int = 4, share: float = 0.5, **settings: object) -> TrialConfig:
    term = KnowledgeTerm(kind, options=(("initial_share", share),), **settings)
    return design(term, epochs=epochs)


def start(context: StudyContext, config: TrialConfig) -> TrialRun:
    return start_run(config, context, seed=4)[0]


def copied(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}


def test_there_are_losses_of_both_sorts() -> None:
    assert {"ab", "fsp"} <= set(TERMS)
    assert {"factor", "mhgd"} <= set(MODULES)


@every_kind
@pytest.mark.parametrize(
    ("epochs", "share", "initial"), [(4, 0.5, 2), (20, 0.125, 2), (10, 0.01, 1), (2, 0.9, 1), (3, 0.9, 2)]
)
def test_its_epochs_are_taken_from_the_designs(kind, epochs, share, initial, context) -> None:
    phases = start(context, staged(kind, epochs, share)).scheme.phases()
    assert [(p.name, p.epochs) for p in phases] == [("initial", initial), ("distillation", epochs - initial)]


@pytest.mark.parametrize("kind", TERMS)
def test_a_term_teaches_alone_and_then_no_more(kind, context) -> None:
    run = start(context, staged(kind))
    objective, student = run.scheme.taught.objective, run.scheme.taught.network
    before = copied(student)
    first = run.advance(1)
    assert kind in first
    assert "ce" not in first
    assert not any(name.startswith("head") for name in moved(student, before)), "without labels no classifier"
    assert moved(student, before)
    run.advance(2)
    adapters = copied(objective)
    after = run.advance(3)
    assert kind not in after
    assert "ce" in after
    assert not moved(objective, adapters), "what served the term is done with"


@pytest.mark.parametrize("kind", MODULES)
def test_modules_learn_first_and_the_student_waits(kind, context) -> None:
    run = start(context, staged(kind))
    (loss,) = run.scheme.taught.objective.losses
    student = run.scheme.taught.network
    before = {name: x.clone() for name, x in student.state_dict().items()}
    first = run.advance(1)
    assert f"{kind}.initial" in first
    assert "ce" not in first
    state = student.state_dict()
    assert all(torch.equal(state[name], x) for name, x in before.items()), "BatchNorm's statistics too"
    run.advance(2)
    early = {p for module in loss.initial_modules() for p in module.parameters()}
    frozen = {p: p.detach().clone() for p in early}
    kept = {name: x.clone() for name, x in loss.named_buffers()}
    after = run.advance(4)
    assert {"ce", kind} <= set(after)
    assert all(torch.equal(p, x) for p, x in frozen.items())
    assert all(torch.equal(x, kept[name]) for name, x in loss.named_buffers())
    assert moved(student, {n: before[n] for n, _ in student.named_parameters()})


@every_kind
def test_its_steps_are_booked_as_what_they_are(kind, context) -> None:
    """The student's backward pass where it learns, none of it where it waits; the teacher is asked in both."""
    run = start(context, staged(kind))
    initial, main = run.scheme.phases()
    trained, asked = run.scheme.step_macs(32, initial)
    macs = run.cost.macs
    if kind in TERMS:
        assert trained >= macs
        assert run.scheme.step_macs(32, main) == (macs, 0), "afterwards nobody asks the teacher"
    else:
        assert trained == run.scheme.taught.objective.step_macs(run.scheme.taught.shapes, 32, "initial") > 0
    assert asked == context.sources.online(context.prerequisites.teacher()).macs
    n_val = len(context.resources.data.val) * macs
    run.advance(1)
    n = run.loop.images_per_epoch(0)
    assert run.train_macs == round(n * (3 * trained + asked)) + n_val


@every_kind
def test_a_checkpoint_within_the_stage_goes_on_with_the_same_bits(kind, context, tmp_path) -> None:
    for at in (1, 2, 3):
        run, again = start(context, staged(kind)), start(context, staged(kind))
        run.advance(at)
        torch.save(run.state_dict(), tmp_path / "state")
        again.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
        assert again.advance(4) == run.advance(4)


@pytest.mark.parametrize("kind", TERMS)
def test_a_balanced_term_pulls_as_hard_as_the_labels_would(kind, context) -> None:
    run = start(context, staged(kind, weighting="balanced"))
    assert float(run.scheme.taught.objective.weights[0]) == 1
    run.advance(1)
    assert run.scheme.taught.objective.calibrated == {"initial"}
    assert float(run.scheme.taught.objective.weights[0]) != 1


def test_a_stage_and_a_common_term_share_a_training(context) -> None:
    config = design(KnowledgeTerm("ab"), KnowledgeTerm("logits"), KnowledgeTerm("factor"), epochs=4)
    run = start(context, config)
    first = run.advance(1)
    assert set(first) >= {"ab", "factor.initial"}
    assert "logits" not in first
    after = run.advance(2)
    assert set(after) >= {"ce", "logits", "factor"}
    assert "ab" not in after


@every_kind
def test_what_leaves_no_time_or_no_teaching_is_turned_away(kind, context) -> None:
    assert (
        "at least 2 epochs"
        in problems(context.designs.measured(staged(kind, epochs=1)), context.resources.spec)[0]
    )
    config = staged(kind)
    config = replace(config, distillation=replace(config.distillation, ce_weight=0.0))
    found = problems(context.designs.measured(config), context.resources.spec)
    assert bool(found) is (kind in TERMS)
    assert not found or "nothing teaches" in found[0]


@pytest.mark.parametrize("kind", MODULES)
def test_what_a_stage_does_not_train_is_in_evaluation_mode(kind, context) -> None:
    run = start(context, staged(kind))
    (loss,) = run.scheme.taught.objective.losses
    run.advance(1)
    assert all(module.training for module in loss.initial_modules())
    assert not run.scheme.taught.network.training
    run.advance(3)
    assert not any(module.training for module in loss.initial_modules())
    assert run.scheme.taught.network.training
