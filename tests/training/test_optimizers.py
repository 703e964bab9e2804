"""Learning rates against torch's own schedules, and what an optimizer decays."""

import copy
import io
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from naskd.knowledge import KNOWLEDGE
from naskd.nn.taps import TapShape, TapShapes
from naskd.spec.design import KnowledgeTerm, TrainingSpec
from naskd.training.optimizers import build_optimizer, learning_rate, set_rate

SPEC = TrainingSpec(learning_rate=0.2, weight_decay=0.1, momentum=0.8)
STEPS = 200


def rates(schedule: str) -> list[float]:
    spec = replace(SPEC, schedule=schedule)
    return [learning_rate(spec, step, STEPS) for step in range(STEPS)]


def torchs(make) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=SPEC.learning_rate)
    schedule = make(optimizer)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_cosine_is_torchs() -> None:
    assert rates("cosine") == pytest.approx(torchs(lambda o: CosineAnnealingLR(o, STEPS)), abs=1e-12)


def test_one_cycle_falls_as_torchs_does() -> None:
    """Torch counts ``pct_start * total - 1`` steps of warm-up; the tops are a step apart, and the ends too."""
    expected = torchs(
        lambda o: OneCycleLR(
            o, SPEC.learning_rate, total_steps=STEPS + 1, cycle_momentum=False, final_div_factor=1e9
        )
    )
    top = expected.index(max(expected))
    assert rates("one_cycle")[top + 1 :] == pytest.approx(expected[top + 1 :], abs=0.012 * SPEC.learning_rate)


def test_one_cycle_rises_in_a_line_from_a_25th_to_the_peak() -> None:
    found = rates("one_cycle")
    top = found.index(max(found))
    assert top == round(0.3 * STEPS)
    assert found[0] == pytest.approx(SPEC.learning_rate / 25)
    assert found[top] == pytest.approx(SPEC.learning_rate)
    differences = [b - a for a, b in pairwise(found[: top + 1])]
    assert differences == pytest.approx([differences[0]] * top)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_a_rate_is_positive_at_every_step_and_nearly_zero_at_the_last(schedule, steps) -> None:
    spec = replace(SPEC, schedule=schedule)
    found = [learning_rate(spec, step, steps) for step in range(steps)]
    assert all(0 < rate <= spec.learning_rate * (1 + 1e-12) for rate in found)
    if steps >= 10:
        assert found[-1] < 0.06 * spec.learning_rate
    assert learning_rate(spec, steps, steps) == pytest.approx(0, abs=1e-12)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.ones(()))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_biases_norms_and_scalars_are_not_decayed(name) -> None:
    net = Net()
    optimizer = build_optimizer(replace(SPEC, optimizer=name), [net])
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {n: decay[p] for n, p in net.named_parameters()} == {
        "conv.weight": 0.1,
        "head.weight": 0.1,
        "conv.bias": 0,
        "head.bias": 0,
        "norm.weight": 0,
        "norm.bias": 0,
        "scale": 0,
    }


class Tokens(nn.Module):
    """Names as in timm (``cls_token``, ``pos_embed``), torchvision and transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.ones(1, 1, 6))
        self.pos_embed = nn.Parameter(torch.ones(1, 5, 6))
        self.pos_embedding = nn.Parameter(torch.ones(1, 5, 6))
        self.relative_position_bias_table = nn.Parameter(torch.ones(9, 2))
        self.position_embeddings = nn.Parameter(torch.ones(1, 5, 6))
        self.layer_scale = nn.Parameter(torch.ones(6, 1, 1))
        self.words = nn.Embedding(4, 6)
        self.own = nn.Parameter(torch.ones(2, 3))
        self.mixed = nn.Parameter(torch.ones(2, 3))
        self.attention = nn.MultiheadAttention(6, 1, add_bias_kv=True)
        self.gate = nn.Conv2d(6, 1, 1)
        self.widen = nn.Linear(1, 6, bias=False)

    def no_weight_decay(self) -> set[str]:
        return {"own"}


def test_what_no_layer_multiplies_by_is_not_decayed() -> None:
    net = nn.Sequential(Tokens())
    optimizer = build_optimizer(SPEC, [net])
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name[2:] for name, p in net.named_parameters() if decay[p]} == {
        "mixed",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "gate.weight",
        "widen.weight",
    }


@pytest.mark.parametrize("kind", ["attention", "factor"])
def test_scores_of_pairs_are_not_drawn_to_all_stages_alike(kind) -> None:
    shapes = TapShapes(5, tuple(TapShape(4, (8 >> i, 8 >> i), "map", (i + 1) / 3) for i in range(3)), (), 4)
    shapes = replace(shapes, pre_activations=shapes.stages)
    loss = KNOWLEDGE.load(kind)(KnowledgeTerm(kind, pairs="learned"), shapes, shapes)
    before = loss.scores.detach().clone()
    optimizer = build_optimizer(SPEC, loss.main_modules())
    loss.scores.grad = torch.zeros_like(loss.scores)
    optimizer.step()
    assert before.std() > 0
    assert torch.equal(loss.scores, before)


def test_adamw_decays_apart_from_the_gradient() -> None:
    """Loshchilov & Hutter, 2019: with no gradient, a weight shrinks by the factor ``1 - lr * decay``."""
    net = nn.Linear(3, 2)
    before = net.weight.detach().clone(), net.bias.detach().clone()
    optimizer = build_optimizer(SPEC, [net])
    net.weight.grad, net.bias.grad = torch.zeros(2, 3), torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(net.weight.detach(), before[0] * (1 - 0.2 * 0.1))
    assert torch.equal(net.bias.detach(), before[1])
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sgd_has_nesterovs_momentum(momentum) -> None:
    net = nn.Linear(1, 1, bias=False)
    weight, velocity = float(net.weight.detach()), 0.0
    optimizer = build_optimizer(replace(SPEC, optimizer="sgd", momentum=momentum, weight_decay=0.0), [net])
    for gradient in (1.0, -0.5, 2.0):
        net.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        velocity = momentum * velocity + gradient
        weight -= 0.2 * (gradient + momentum * velocity)
    assert float(net.weight.detach()) == pytest.approx(weight, rel=1e-6)


def test_shared_and_frozen_parameters_are_taken_once_and_not_at_all() -> None:
    net = Net()
    net.conv.requires_grad_(False)
    optimizer = build_optimizer(SPEC, [net, net.head, net])
    found = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(found) == len(set(found)) == 5
    assert not set(net.conv.parameters()) & set(found)


def test_a_rate_that_is_set_is_the_rate_that_is_used() -> None:
    """The loop sets rates; nothing of a schedule is in the optimizer's state."""
    assert math.isclose(build_optimizer(SPEC, [nn.Linear(1, 1)]).param_groups[0]["lr"], SPEC.learning_rate)


@pytest.mark.parametrize(("name", "momentum"), [("adamw", 0.9), ("sgd", 0.9), ("sgd", 0.0)])
def test_what_is_prepared_has_the_bits_of_torchs_own(name, momentum) -> None:
    """With steps in which a parameter gets no gradient, and from a state dict, of either to either."""
    spec = TrainingSpec(optimizer=name, momentum=momentum, weight_decay=0.1, learning_rate=0.05)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(80, 3))
    twin = copy.deepcopy(network)
    ours = build_optimizer(spec, [network])
    plain = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]

    def torchs() -> torch.optim.Optimizer:
        like = build_optimizer(spec, [twin])
        groups = [{k: v for k, v in group.items() if k != "initial_lr"} for group in like.param_groups]
        return plain(groups)

    theirs = torchs()
    assert type(ours) is not plain

    def go(steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            for p, q in zip(network.parameters(), twin.parameters(), strict=True):
                p.grad = torch.randn_like(p)
                q.grad = p.grad.clone()
            if step % 5 == 3:
                network[3].bias.grad = twin[3].bias.grad = None
            for optimizer in (ours, theirs):
                set_rate(optimizer, 0.05 / (1 + step))
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            for p, q in zip(network.parameters(), twin.parameters(), strict=True):
                assert p.grad is None
                assert torch.equal(p, q), step

    go(range(12))
    kept = io.BytesIO()
    torch.save([ours.state_dict(), theirs.state_dict()], kept)
    kept.seek(0)
    own, other = torch.load(kept)
    assert own.keys() == other.keys()
    ours, theirs = build_optimizer(spec, [network]), torchs()
    ours.load_state_dict(other)
    theirs.load_state_dict(own)
    go(range(12, 20))
    go_on = build_optimizer(spec, [network])
    go_on.load_state_dict(ours.state_dict())
    ours = go_on
    go(range(20, 24))


def test_prepared_steps_call_one_kernel_a_group(monkeypatch) -> None:
    network = nn.Linear(3, 2)
    optimizer = build_optimizer(TrainingSpec(optimizer="adamw"), [network])
    calls: list[str] = []
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: calls.append("torch"))
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *_, **__: calls.append("kernel"))
    optimizer.step()
    assert calls == ["kernel", "kernel"]  # weights and biases
    optimizer.step(lambda: 0.0)
    assert calls[2:] == ["torch"], "a closure is torch's to call"
