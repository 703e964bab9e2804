import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from by_loops import cross_entropy, divergence
from online_schemes import search, softmax, start
from small_studies import ALL_TERMS, STUDENT, design, small_context

from naskd.nn.taps import TapShape, TapShapes
from naskd.schemes.ffl import FflScheme, Fusion, mutual_losses
from naskd.schemes.ramp import sigmoid_ramp
from naskd.testing.schemes import batches
from naskd.training.loop import NonFiniteError
from naskd.trials.context import StudyContext
from naskd.trials.run import start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("ffl"))


def started(context: StudyContext, **options: object) -> FflScheme:
    scheme = start(context, "ffl", **options).scheme
    assert isinstance(scheme, FflScheme)
    return scheme.train()


def shapes(channels: int, grid: tuple[int, int] = (2, 3)) -> TapShapes:
    stages = (TapShape(channels, grid, "map", 1.0),)
    return TapShapes(n_classes=4, stages=stages, pre_activations=stages, n_features=channels)


def drawn(peers: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``(M, 5, 4)`` and fused ones ``(5, 4)``."""
    random = np.random.default_rng(peers)
    return torch.from_numpy(random.normal(0, 3, (peers, 5, 4))), torch.from_numpy(random.normal(0, 3, (5, 4)))


def test_the_fusion_by_the_definition() -> None:
    """Of networks with 2 and 3 channels: each channel with its own 3x3 kernel, then each place with one matrix."""
    torch.manual_seed(1)
    fusion = Fusion([shapes(2), shapes(3)]).double().eval()
    maps = [torch.randn(2, c, 2, 3, dtype=torch.float64) for c in (2, 3)]
    found = fusion(maps).detach().numpy()
    kernels = fusion.depthwise[0].weight.detach().numpy()[:, 0]
    mixing = fusion.pointwise[0].weight.detach().numpy().reshape(2, 5)
    weight, bias = (p.detach().numpy() for p in (fusion.head.weight, fusion.head.bias))
    scale = 1 / np.sqrt(1 + 1e-5)  # of a BatchNorm that has seen nothing
    joined = torch.cat(maps, 1).numpy()
    for image in range(2):
        pooled = np.zeros(2)
        for y in range(2):
            for x in range(3):
                each = np.zeros(5)
                for c in range(5):
                    for dy in (-1, 0, 1):
                        for dx in (-1, 0, 1):
                            if 0 <= y + dy < 2 and 0 <= x + dx < 3:
                                each[c] += kernels[c, dy + 1, dx + 1] * joined[image, c, y + dy, x + dx]
                pooled += np.maximum(mixing @ (each * scale) * scale, 0.0) / 6
        np.testing.assert_allclose(found[image], weight @ pooled + bias, rtol=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("peers", [2, 4])
def test_the_losses_by_the_definition(peers: int, temperature: float) -> None:
    logits, fused = drawn(peers)
    heard, ensemble = np.zeros(peers), 0.0
    for b in range(5):
        target = softmax(fused[b].numpy(), temperature)
        for k in range(peers):
            heard[k] += temperature**2 * divergence(target, softmax(logits[k, b].numpy(), temperature)) / 5
        mean = sum(logits[k, b].numpy() for k in range(peers)) / peers
        ensemble += temperature**2 * divergence(softmax(mean, temperature), target) / 5
    found = mutual_losses(logits, fused, temperature)
    np.testing.assert_allclose(found[0].numpy(), heard, rtol=1e-9)
    assert found[1].item() == pytest.approx(ensemble, rel=1e-9)


def test_whoever_teaches_is_fixed() -> None:
    logits, fused = (x.requires_grad_() for x in drawn())
    heard, ensemble = mutual_losses(logits, fused, 3.0)
    assert torch.autograd.grad(heard.sum(), fused, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(ensemble, logits, allow_unused=True) == (None,)
    heard, ensemble = mutual_losses(logits, fused, 3.0)
    (heard.sum() + ensemble).backward()
    assert logits.grad.abs().max() > 0
    assert fused.grad.abs().max() > 0


def test_who_agree_have_nothing_to_learn() -> None:
    logits = torch.randn(1, 5, 4).expand(2, 5, 4)
    heard, ensemble = mutual_losses(logits, logits[0] + 7.0, 3.0)
    torch.testing.assert_close(heard, torch.zeros(2), atol=1e-5, rtol=0)
    assert ensemble.item() == pytest.approx(0.0, abs=1e-5)


def test_the_step_is_the_sum_of_the_paper(context) -> None:
    scheme = started(context, weight=0.5, ramp=1.0)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    phase.before_epoch(1)  # of three; the batches are of the first
    (update,) = phase.step(batch, phase.ask(batch))
    shown = [student.taps(batch.images) for student in scheme.cohort.students]
    fused = scheme.fusion([taps.stages[-1].tensor for taps in shown]).detach().double().numpy()
    own = [taps.logits.detach().double().numpy() for taps in shown]
    total, ramp = 0.0, sigmoid_ramp(1 / 3, 1.0)
    for image, label in enumerate(batch.labels.tolist()):
        target = softmax(fused[image], 3.0)
        soft = divergence(softmax((own[0][image] + own[1][image]) / 2, 3.0), target)
        soft += sum(divergence(target, softmax(logits[image], 3.0)) for logits in own)
        total += sum(cross_entropy(logits[image], label) for logits in [*own, fused]) + 0.5 * ramp * 9 * soft
    assert update.loss.item() == pytest.approx(total / len(batch.labels), rel=1e-4)


def test_the_fusion_learns_from_labels_and_ensemble_and_not_from_what_it_teaches(context) -> None:
    """With another sub-network's divergence alone the fusion would get the same gradient."""
    scheme = started(context, ramp=0.0)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    phase.before_epoch(0)
    (update,) = phase.step(batch, phase.ask(batch))
    (found,) = torch.autograd.grad(update.loss, scheme.fusion.head.weight)
    shown = [student.taps(batch.images) for student in scheme.cohort.students]
    maps = [taps.stages[-1].tensor for taps in shown]
    fused, mean = scheme.fusion(maps), torch.stack([taps.logits for taps in shown]).mean(0)
    # Gradients of the two terms: p - y, and T (p_f - p_e).
    slope = fused.softmax(1) - torch.nn.functional.one_hot(batch.labels, 10)
    slope = slope + 3 * ((fused / 3).softmax(1) - (mean / 3).softmax(1))
    pooled = scheme.fusion.pointwise(scheme.fusion.depthwise(torch.cat(maps, 1))).mean((2, 3))
    torch.testing.assert_close(found, slope.T @ pooled / len(batch.labels), rtol=1e-3, atol=1e-6)


def test_the_fusion_stays_behind_and_is_booked(context) -> None:
    run, plain = start(context, "ffl"), start_run(design(), context, seed=2)[0]
    run.advance(1)
    macs, n_val = plain.cost.macs, len(context.resources.data.val)
    fusion = (12 * 9 + 12 * 6) * 16 + 6 * 10  # two maps of 6 channels at 4x4
    assert run.train_macs == 120 * 3 * (2 * macs + fusion) + n_val * macs
    assert run.cost == plain.cost
    scheme = run.scheme
    assert scheme.deployed is scheme.cohort.first.network
    kept = set(scheme.deployed.parameters())
    assert not kept & {*scheme.fusion.parameters(), *scheme.cohort.members[1:].parameters()}


def test_wider_peers_are_fused_too(context) -> None:
    run = start(context, "ffl", peers=3, peer_width=2.0)
    width = STUDENT.stages[-1].width
    assert run.scheme.fusion.depthwise[0].weight.shape[0] == width * (1 + 2 + 2)
    assert run.scheme.fusion.head.in_features == width
    run.advance(1)


def test_the_weight_follows_the_ramp_and_is_in_the_state(context) -> None:
    run, seen = start(context, "ffl", ramp=1.0), []
    for epoch in (1, 2, 3):
        run.advance(epoch)
        seen.append(run.scheme.state_dict()["ramp"].item())
    assert seen == pytest.approx([sigmoid_ramp(epoch / 3, 1.0) for epoch in range(3)])


def test_a_teacher_teaches_all_sub_networks(context) -> None:
    metrics = start(context, "ffl", *ALL_TERMS).advance(1)
    for term in ALL_TERMS:
        assert {term.kind, f"peer1.{term.kind}"} <= set(metrics)
    assert {"fusion.ce", "fusion.ensemble", "fused", "peer1.fused"} <= set(metrics)


def test_a_fusion_that_diverges_ends_the_training(context) -> None:
    run = start(context, "ffl")
    with torch.no_grad():
        run.scheme.fusion.head.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match=r"fusion\.ce"):
        run.advance(1)


def test_a_checkpoint_keeps_networks_and_fusion(context) -> None:
    run, again = start(context, "ffl"), start(context, "ffl")
    run.advance(1)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert {"ramp", "fusion.head.weight"} <= set(again.scheme.state_dict())
    assert again.advance(2) == run.advance(2)


def test_a_search_chooses_it(tmp_path: Path) -> None:
    trials = search(tmp_path, "ffl").trials()
    found = {trial["config"]["distillation"]["scheme"] for trial in trials if trial["state"] == "COMPLETE"}
    assert found == {"offline", "ffl"}
