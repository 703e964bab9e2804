"""What every registered scheme must do; a new one is tested by being registered."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from small_studies import ALL_TERMS, design, small_context
from torch import Tensor, nn

from naskd.data.batches import epoch_batches
from naskd.nn.taps import TappedNetwork
from naskd.schemes import SCHEMES
from naskd.schemes.scheme import Batch, Phase
from naskd.spec.design import TrialConfig
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run

TEACHINGS = {"knowledge": ALL_TERMS, "labels": ()}
CASES = [
    (name, teaching)
    for name in SCHEMES.names()
    for teaching in TEACHINGS
    if teaching == "knowledge" or not SCHEMES[name].needs_teacher
]
every_case = pytest.mark.parametrize(("name", "teaching"), CASES)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("context"))


def config(name: str, teaching: str, **training: object) -> TrialConfig:
    found = design(*TEACHINGS[teaching], **training)
    return replace(found, distillation=replace(found.distillation, scheme=name))


def start(context: StudyContext, name: str, teaching: str, **training: object) -> TrialRun:
    return start_run(config(name, teaching, **training), context, seed=5)[0]


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items() if isinstance(value, Tensor)}


def teacher(context: StudyContext) -> nn.Module:
    network = context.sources.online(context.prerequisites.teacher()).network
    assert isinstance(network, nn.Module)
    return network


def batches(context: StudyContext, phase: Phase) -> Iterator[Batch]:
    """Of a phase's first epoch."""
    if phase.batches is not None:
        yield from phase.batches(0)
        return
    labels = context.resources.data.train.labels
    for index in epoch_batches(len(labels), 32, seed=0, epoch=0, min_batch=phase.min_batch):
        images, view = context.images.views("translate").batch(index, 0)
        yield Batch(images, labels[index], index, view, epoch=0)


@every_case
@pytest.mark.parametrize("epochs", [2, 5, 20])
def test_the_phases_fill_the_schedule(name, teaching, epochs, context) -> None:
    scheme = start(context, name, teaching, epochs=epochs).scheme
    phases = scheme.phases()
    assert sum(phase.epochs for phase in phases) == epochs
    assert all(phase.epochs > 0 and phase.min_batch >= 2 for phase in phases)
    assert len({phase.name for phase in phases}) == len(phases)


@every_case
def test_the_deployed_network_is_a_fresh_one_of_the_design(name, teaching, context) -> None:
    run = start(context, name, teaching)
    deployed = run.scheme.deployed
    assert deployed is run.scheme.deployed
    assert isinstance(deployed, TappedNetwork)
    assert deployed is not teacher(context)
    assert not set(deployed.parameters()) & set(teacher(context).parameters())
    assert any(module is deployed for module in run.scheme.modules())
    assert run.cost == context.designs.design_cost(config(name, teaching))
    assert all(p.requires_grad for p in deployed.parameters())


@every_case
def test_a_checkpoint_holds_what_is_trained_and_no_teacher(name, teaching, context) -> None:
    scheme = start(context, name, teaching).scheme
    frozen = {tensor.data_ptr() for tensor in teacher(context).state_dict().values()}
    state = {key: value for key, value in scheme.state_dict().items() if isinstance(value, Tensor)}
    assert not frozen & {value.data_ptr() for value in state.values()}
    assert not set(teacher(context).modules()) & set(scheme.modules())
    kept = {value.data_ptr() for value in state.values()}
    for phase in scheme.phases():
        for modules in phase.trained.values():
            for module in modules:
                assert {p.data_ptr() for p in module.parameters()} <= kept
    assert {p.data_ptr() for p in scheme.deployed.parameters()} <= kept


@every_case
def test_everything_trainable_is_trained_in_some_phase(name, teaching, context) -> None:
    scheme = start(context, name, teaching).scheme
    trained = {
        parameter
        for phase in scheme.phases()
        for modules in phase.trained.values()
        for module in modules
        for parameter in module.parameters()
    }
    assert {p for p in scheme.parameters() if p.requires_grad} == trained


@every_case
def test_a_step_moves_what_its_optimizer_trains(name, teaching, context) -> None:
    scheme = start(context, name, teaching).scheme
    for phase in scheme.phases():
        scheme.train()
        batch = next(batches(context, phase))
        moved = set()
        for update in phase.step(batch, phase.ask(batch)):
            assert update.loss.ndim == 0
            assert update.loss.isfinite()
            assert update.terms
            assert all(term.ndim == 0 and not term.requires_grad for term in update.terms.values())
            modules = phase.trained[update.optimizer]
            scheme.zero_grad()
            update.loss.backward()
            named = [(n, p) for m in modules for n, p in m.named_parameters()]
            assert named
            for parameter_name, parameter in named:
                assert parameter.grad is not None, parameter_name
                assert parameter.grad.isfinite().all(), parameter_name
            # A bias before a BatchNorm, say, may have none; whole modules may not.
            for module in modules:
                gradients = [p.grad for p in module.parameters()]
                assert not gradients or any(g.abs().max() > 0 for g in gradients)
            moved.add(update.optimizer)
            with torch.no_grad():
                for _, parameter in named:
                    parameter -= 0.01 * parameter.grad
        assert moved == set(phase.trained)
        assert all(p.grad is None for p in teacher(context).parameters())


@every_case
def test_a_training_changes_students_and_adapters_and_never_a_teacher(name, teaching, context) -> None:
    """Parameters and BatchNorm statistics, through a whole trial with its evaluations."""
    frozen = copied(teacher(context))
    run = start(context, name, teaching)
    before = copied(run.scheme)
    run.advance(run.total_epochs)
    after = copied(teacher(context))
    assert all(torch.equal(after[key], frozen[key]) for key in frozen)
    assert not any(module.training for module in teacher(context).modules())
    found = copied(run.scheme)
    trained = {key for key, parameter in run.scheme.named_parameters() if parameter.requires_grad}
    for key in trained:
        assert not torch.equal(found[key], before[key]), f"{key} has not changed"
    assert torch.equal(
        run.scheme.deployed.mean, context.networks.student(config(name, teaching).architecture).mean
    )


@every_case
def test_every_term_has_its_curve(name, teaching, context) -> None:
    run = start(context, name, teaching)
    metrics = run.advance(1)
    assert {"epoch", "val_accuracy", "loss"} <= metrics.keys()
    if teaching == "knowledge":
        assert {term.kind for term in ALL_TERMS} <= metrics.keys()
    assert all(isinstance(value, int | float) for value in metrics.values())


@every_case
def test_a_scheme_is_built_from_torchs_generator_alone(name, teaching, context) -> None:
    one, other = start(context, name, teaching), start(context, name, teaching)
    first, second = copied(one.scheme), copied(other.scheme)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_case
def test_what_a_step_costs_is_said_before_it_is_taken(name, teaching, context) -> None:
    scheme = start(context, name, teaching).scheme
    trained, asked = scheme.step_macs(32, scheme.phases()[-1])
    deployed = context.designs.design_cost(config(name, teaching)).macs
    assert trained >= deployed
    if teaching == "knowledge":
        assert asked >= context.sources.online(context.prerequisites.teacher()).macs
    else:
        assert asked == 0
