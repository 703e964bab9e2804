import copy
from pathlib import Path

import pytest
import torch
from by_loops import cross_entropy, divergence
from online_schemes import search, softmax, start
from small_studies import ALL_TERMS, by_scheme, design, small_context
from torch import Tensor, nn

from naskd.schemes.codistillation import CodistillationScheme, burn_in_epochs
from naskd.testing.schemes import batches
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("codistillation"))


def begun(context: StudyContext, epochs: int = 3, **options: object) -> TrialRun:
    config = by_scheme("codistillation", training={"epochs": epochs}, **options)
    return start_run(config, context, seed=2)[0]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items() if isinstance(value, Tensor)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("share", "epochs", "expected"), [(0.2, 10, 2), (0.2, 3, 1), (0.0, 5, 0), (0.9, 2, 1), (0.5, 1, 0)]
)
def test_the_burn_in_is_a_share_and_never_all(share: float, epochs: int, expected: int) -> None:
    assert burn_in_epochs(share, epochs) == expected


@pytest.mark.parametrize("peers", [2, 3])
def test_the_step_by_the_definition(context, peers: int) -> None:
    """Copies of other weights than the networks have by now."""
    scheme = begun(context, peers=peers, weight=0.5, temperature=2.0, burn_in=0.0).scheme.train()
    assert isinstance(scheme, CodistillationScheme)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))  # takes the copies
    with torch.no_grad():
        for student in scheme.cohort.students:
            student.network.head.weight.mul_(-2.0)
    asked = phase.ask(batch)
    (update,) = phase.step(batch, asked)
    with torch.no_grad():
        stale = [copied.network.eval()(batch.images).double().numpy() for copied in scheme.copies]
        own = [student.network(batch.images).double().numpy() for student in scheme.cohort.students]
    total = 0.0
    for image, label in enumerate(batch.labels.tolist()):
        for k in range(peers):
            others = [softmax(stale[other][image], 2.0) for other in range(peers) if other != k]
            apart = divergence(sum(others) / len(others), softmax(own[k][image], 2.0))
            total += cross_entropy(own[k][image], label) + 0.5 * 4 * apart
    assert update.loss.item() == pytest.approx(total / len(batch.labels), rel=1e-4)


def test_until_the_burn_in_is_over_it_is_plain_training(context) -> None:
    """The same bits, and other ones afterwards."""
    run, plain = begun(context, 4, burn_in=0.5), start_run(design(epochs=4), context, seed=2)[0]
    for epoch in (1, 2):
        run.advance(epoch)
        plain.advance(epoch)
        assert same(state(run.scheme.deployed), state(plain.scheme.deployed))
    run.advance(3)
    plain.advance(3)
    assert not same(state(run.scheme.deployed), state(plain.scheme.deployed))


def test_without_weight_it_is_plain_training_to_the_end(context) -> None:
    run, plain = begun(context, weight=0.0), start_run(design(), context, seed=2)[0]
    run.advance(3)
    plain.advance(3)
    assert same(state(run.scheme.deployed), state(plain.scheme.deployed))


def test_copies_are_stale_between_refreshes(context) -> None:
    """With two epochs between them, after a burn-in of one: taken before the second, the fourth and the sixth."""
    run = begun(context, 6, burn_in=0.2, exchange=2)
    scheme = run.scheme
    assert isinstance(scheme, CodistillationScheme)
    networks: list[list[dict[str, Tensor]]] = []
    copies: list[list[dict[str, Tensor]]] = []
    for epoch in range(1, 7):
        networks.append([state(student.network) for student in scheme.cohort.students])
        run.advance(epoch)
        copies.append([state(copied.network) for copied in scheme.copies])
    for epoch, taken in enumerate((0, 1, 1, 3, 3, 5)):
        for found, expected in zip(copies[epoch], networks[taken], strict=True):
            assert same(found, expected), f"in epoch {epoch + 1}"
    for one, other in zip(networks[1], networks[2], strict=True):
        assert not same(one, other), "networks move on"


def test_copies_get_no_gradient_and_are_in_the_state(context) -> None:
    run = begun(context)
    scheme = run.scheme
    assert not any(p.requires_grad for p in scheme.copies.parameters())
    assert "copies.1.network.head.weight" in scheme.state_dict()
    run.advance(3)
    assert not any(module.training for module in scheme.copies.modules() if module is not scheme.copies)
    kept = set(scheme.deployed.parameters())
    assert not kept & {*scheme.copies.parameters(), *scheme.cohort.members[1:].parameters()}


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_it_goes_on_with_the_copies_that_it_had(context, stop: int) -> None:
    """Also between two refreshes, when the networks have moved on."""
    straight, stopped, again = (begun(context, 5, burn_in=0.2, exchange=3) for _ in range(3))
    straight.advance(5)
    stopped.advance(stop)
    again.load_state_dict(copy.deepcopy(stopped.state_dict()))
    again.advance(5)
    assert again.curve == straight.curve
    assert same(state(again.scheme), state(straight.scheme))


def test_networks_and_copies_are_booked(context) -> None:
    run, plain = begun(context, peers=3), start_run(design(), context, seed=2)[0]
    run.advance(1)
    macs, n_val = plain.cost.macs, len(context.resources.data.val)
    assert run.train_macs == 120 * (3 * 3 * macs + 3 * macs) + n_val * macs
    assert run.cost == plain.cost


def test_a_teacher_teaches_all_networks(context) -> None:
    metrics = start(context, "codistillation", *ALL_TERMS).advance(1)
    for term in ALL_TERMS:
        assert {term.kind, f"peer1.{term.kind}"} <= set(metrics)
    assert {"codistillation", "peer1.codistillation"} <= set(metrics)


def test_a_search_chooses_it(tmp_path: Path) -> None:
    trials = search(tmp_path, "codistillation").trials()
    found = {trial["config"]["distillation"]["scheme"] for trial in trials if trial["state"] == "COMPLETE"}
    assert found == {"offline", "codistillation"}
