import copy
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from by_loops import cross_entropy, divergence
from online_schemes import STUDY, search, softmax, start
from small_studies import ALL_TERMS, by_scheme, design, small_context
from torch import Tensor, nn

import naskd
from naskd.schemes import SCHEMES
from naskd.schemes.codistillation import CodistillationScheme, burn_in_epochs
from naskd.spec.design import TrialConfig
from naskd.study.observer import StudyObserver
from naskd.testing.schemes import batches
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Job
from naskd.trials.run import TrialRun, start_run

APART = """
from naskd.config import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig

def space(trial):
    width = trial.suggest_categorical("width", (4,))
    return TrialConfig(
        ArchitectureSpec((StageSpec("basic", 1, width), StageSpec("basic", 1, 6, stride=2)), stem_width=4),
        DistillationSpec(scheme="codistillation", scheme_options=(("peers_in", "trials"),)),
        TrainingSpec(batch_size=32, learning_rate=0.01),
    )
"""


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


# --- copies of a fixed age -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "lag", "heard_in", "taken_before"),
    [(1, 0, 1, [1, 2, 3, 4, 5, 6]), (1, 2, 3, [1, 2, 3, 4]), (2, 1, 3, [1, 1, 3, 3])],
)
def test_copies_are_as_old_as_the_lag_says(context, every, lag, heard_in, taken_before) -> None:
    """In epochs from 0, after a burn-in of one: where somebody is heard first, and from before which epochs."""
    run = begun(context, 7, burn_in=0.15, exchange=every, lag=lag)
    scheme = run.scheme
    assert isinstance(scheme, CodistillationScheme)
    networks = []
    for epoch in range(7):
        networks.append([state(student.network) for student in scheme.cohort.students])
        run.advance(epoch + 1)
        assert bool(scheme.heard) == (epoch >= heard_in)
        if epoch >= heard_in:
            expected = networks[taken_before[epoch - heard_in]]
            for copied, own in zip(scheme.copies, expected, strict=True):
                assert same(state(copied.network), own), f"in epoch {epoch}"


def test_what_is_told_and_not_heard_yet_is_in_the_state(context) -> None:
    straight, stopped, again = (begun(context, 6, burn_in=0.2, lag=2) for _ in range(3))
    straight.advance(6)
    stopped.advance(3)
    again.load_state_dict(copy.deepcopy(stopped.state_dict()))
    again.advance(6)
    assert again.curve == straight.curve
    assert same(state(again.scheme), state(straight.scheme))


def test_a_lag_by_which_nobody_is_heard_is_refused_before_it_trains(context) -> None:
    def problems(where: str, lag: int) -> list[str]:
        training = {"epochs": 4}
        config = by_scheme("codistillation", training=training, burn_in=0.25, lag=lag, peers_in=where)
        return context.designs.design_problems(config)

    for where in ("one_training", "trials"):
        assert problems(where, lag=2) == []
        (problem,) = problems(where, lag=3)
        assert problem == (
            "with lag = 3 and exchange = 1, peers would first hear each other after 4 of 4 epochs; "
            "allowed: fewer than these"
        )


# --- peers that train apart ----------------------------------------------------------------------------------


def test_designs_of_before_keep_their_names(context) -> None:
    before = by_scheme("codistillation")
    written = by_scheme("codistillation", peers_in="one_training", lag=0)
    canonical = replace(written, distillation=SCHEMES["codistillation"].canonical(written.distillation))
    assert canonical.config_id == before.config_id
    assert by_scheme("codistillation", peers_in="trials").config_id != before.config_id


def test_a_peer_holds_the_gradients_of_one_network(context) -> None:
    """And copies of the others, which have none and no state of an optimizer."""
    config = by_scheme("codistillation", peers=3, peers_in="trials")
    one, together = start_run(config, context, 2, place=1)[0], begun(context, peers=3)
    n_params = one.cost.n_params

    def held(run: TrialRun) -> tuple[int, int, int]:
        run.advance(1)
        optimizers = run.loop.state_dict()["optimizers"].values()
        states = [state for optimizer in optimizers for state in optimizer["state"].values()]
        return (
            sum(p.numel() for p in run.scheme.parameters() if p.grad is not None),
            sum(x.numel() for state in states for x in state.values() if x is not None and x.ndim),
            sum(p.numel() for p in run.scheme.parameters() if not p.requires_grad),
        )

    assert held(one) == (n_params, 2 * n_params, 2 * n_params), "AdamW has two moments"
    assert held(together) == (3 * n_params, 6 * n_params, 3 * n_params)
    assert "val_accuracy" not in one.curve[0], "who stays behind is not evaluated"
    assert one.train_macs == 120 * (3 + 2) * one.cost.macs


@pytest.mark.parametrize(("peers", "same_price"), [(2, True), (3, False)])
def test_its_price_is_that_of_all_peers(context, peers: int, same_price: bool) -> None:
    """Each asks copies of the others: with two it is what one training asks, with more it is more."""

    def price(where: str) -> float:
        config = by_scheme("codistillation", training={"epochs": 5}, peers=peers, peers_in=where)
        return context.designs.training_macs(config).own

    macs, n_val = (
        context.designs.design_cost(by_scheme("codistillation")).macs,
        len(context.resources.data.val),
    )
    assert price("trials") == 5 * (120 * peers * (3 + peers - 1) + n_val) * macs
    assert (price("trials") == price("one_training")) is same_price


def test_a_search_has_one_trial_of_all_peers_and_its_books(tmp_path: Path) -> None:
    """With one worker, and interrupted in the middle: it is what one training of all peers is."""
    (tmp_path / "space.py").write_text(APART)
    text = STUDY.format(scheme="codistillation").replace("epochs = 2", "epochs = 5")
    (tmp_path / "study.toml").write_text(text.replace("trials = 4", "trials = 1"))
    interrupted: list[int] = []

    class Interrupting(StudyObserver):
        def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
            assert job.job_id.isdecimal(), "nobody hears of the others"
            if epoch == 3 and not interrupted:
                interrupted.append(epoch)
                os.kill(os.getpid(), signal.SIGINT)

    study = tmp_path / "study.toml"
    first = naskd.search(study, out=tmp_path / "run", observers=[Interrupting()])
    assert not any(trial["state"] == "COMPLETE" for trial in first.trials())
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*/*"))
    assert {"peer1", "told0", "told1"} < set(kept)
    run = naskd.search(study, out=tmp_path / "run", observers=[Interrupting()])
    (found,) = (trial for trial in run.trials() if trial["state"] == "COMPLETE")
    assert [row["epoch"] for row in found["curve"]] == [1, 2, 3, 4, 5]
    config = TrialConfig.from_dict(found["config"])
    taught = replace(config.distillation, scheme_options=())
    together, _ = start_run(replace(config, distillation=taught), run.context, found["seed"])
    together.advance(5)
    for row, expected in zip(found["curve"], together.curve, strict=True):
        assert {**row, "loss": 0.0} == {**expected, "loss": 0.0, "peer1.loss": row["peer1.loss"]}
    assert (found["train_macs"], found["macs"]) == (together.train_macs, together.cost.macs)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    assert [trial["number"] for trial in run.front()] == [found["number"]]
