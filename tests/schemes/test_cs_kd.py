import math
from pathlib import Path

import pytest
import torch
from by_loops import divergence, mean, softened
from small_studies import by_scheme, design, searched, small_context
from torch import Tensor

from naskd.knowledge.base import Lesson, Mixed
from naskd.nn.cost import count_macs
from naskd.schemes.cs_kd import CsKdScheme, class_wise_loss, partners
from naskd.schemes.scheme import Batch
from naskd.spec.design import KnowledgeTerm
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("cs_kd"))


def start(
    context: StudyContext, *terms: KnowledgeTerm, training: dict[str, object] | None = None, **options: float
) -> tuple[TrialRun, CsKdScheme]:
    run = start_run(by_scheme("cs_kd", *terms, training=training, **options), context, seed=2)[0]
    assert isinstance(run.scheme, CsKdScheme)
    return run, run.scheme


def paired(labels: list[int]) -> Tensor:
    return partners(Lesson(torch.tensor(labels), torch.arange(len(labels))))


def logits(n: int, k: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, k, generator=generator, dtype=torch.float64) * 3


def by_loops(z: list[list[float]], labels: list[int], temperature: float) -> float:
    """Image by image and partner by partner."""
    found = []
    for i, label in enumerate(labels):
        others = [j for j, other in enumerate(labels) if other == label and j != i]
        if others:
            own = softened(z[i], temperature)
            found.append(mean([divergence(softened(z[j], temperature), own) for j in others]))
    return temperature**2 * mean(found) if found else 0.0


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 0, 1], [0, 0], [0, 1, 2], [1, 1, 1, 1], [3]])
def test_the_loss_by_loops(labels, temperature) -> None:
    z = logits(len(labels))
    expected = by_loops(z.tolist(), labels, temperature)
    assert class_wise_loss(z, paired(labels), temperature).item() == pytest.approx(expected, abs=1e-12)


def test_partners_are_all_others_of_the_class() -> None:
    assert paired([0, 1, 0, 0]).nonzero().tolist() == [[0, 2], [0, 3], [2, 0], [2, 3], [3, 0], [3, 2]]


def test_mixed_images_have_partners_of_the_same_two_classes() -> None:
    own, other = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 1, 2, 0])
    found = partners(Lesson(own, torch.arange(4), mixed=Mixed(other, torch.tensor(0.7))))
    assert found.nonzero().tolist() == [[0, 1], [1, 0]]


def test_the_order_of_a_batch_says_nothing() -> None:
    z, labels = logits(6), torch.tensor([0, 1, 0, 2, 0, 1])
    order = torch.tensor([3, 5, 0, 2, 4, 1])
    one = class_wise_loss(z, paired(labels.tolist()), 4.0)
    assert class_wise_loss(z[order], paired(labels[order].tolist()), 4.0).item() == pytest.approx(one.item())


def test_what_a_partner_says_is_fixed() -> None:
    """The gradient is that of each image towards its partners, ``T (p - mean p') / n``, and of nothing towards it."""
    z, labels, t = logits(3).requires_grad_(), [0, 0, 1], 4.0
    class_wise_loss(z, paired(labels), t).backward()
    p = (z.detach() / t).softmax(1)
    torch.testing.assert_close(z.grad, torch.stack([t * (p[0] - p[1]) / 2, t * (p[1] - p[0]) / 2, 0 * p[2]]))


@pytest.mark.parametrize("share", [0.0, 300.0])
def test_it_stays_finite(share) -> None:
    z = (torch.eye(4)[[0, 1, 1, 0]] * share).requires_grad_()
    loss = class_wise_loss(z, paired([0, 0, 1, 1]), 1.0)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_it_is_computed_in_32_bits_under_autocast() -> None:
    z, pairs = logits(8).float(), paired([0, 1] * 4)
    expected = class_wise_loss(z, pairs, 4.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(class_wise_loss(z, pairs, 4.0), expected)


def test_a_step_adds_it(context) -> None:
    _, scheme = start(context, temperature=2.0, weight=0.25)
    (phase,) = scheme.phases()
    index = torch.arange(32)
    images, view = context.images.views("none").batch(index, 0)
    labels = context.resources.data.train.labels[:32]
    (update,) = phase.step(Batch(images, labels, index, view, epoch=0), ())
    own = scheme.deployed(images).double().tolist()
    within = by_loops(own, labels.tolist(), 2.0)
    ce = mean([-math.log(softened(z)[y]) for z, y in zip(own, labels.tolist(), strict=True)])
    assert update.terms["class_wise"].item() == pytest.approx(within, rel=1e-3)
    assert update.loss.item() == pytest.approx(ce + 0.25 * within, rel=1e-5)


def test_without_partners_it_is_plain_training(context) -> None:
    """Of a batch of ten different digits, with the same bits."""
    (run, _), plain = start(context), start_run(design(), context, seed=2)[0]
    labels = context.resources.data.train.labels
    index = torch.stack([(labels == digit).nonzero()[0, 0] for digit in range(10)])
    images, view = context.images.views("none").batch(index, 0)
    given = Batch(images, labels[index], index, view, epoch=0)
    gradients = []
    for found in (run.scheme, plain.scheme):
        (update,) = found.phases()[0].step(given, ())
        update.loss.backward()
        gradients.append((update.loss.item(), [p.grad for p in found.deployed.parameters()]))
    assert gradients[0][0] == gradients[1][0]
    assert all(torch.equal(a, b) for a, b in zip(gradients[0][1], gradients[1][1], strict=True))


def test_at_weight_0_it_is_plain_training(context) -> None:
    (run, scheme), plain = start(context, weight=0.0), start_run(design(), context, seed=2)[0]
    assert run.advance(3)["ce"] == plain.advance(3)["ce"]
    state = plain.scheme.deployed.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in scheme.deployed.state_dict().items())
    assert start(context)[0].advance(3)["ce"] != run.curve[-1]["ce"]


def test_the_means_over_partners_are_booked(context) -> None:
    _, scheme = start(context)
    plain = start_run(design(), context, seed=2)[0].scheme
    (phase,) = scheme.phases()
    more = scheme.step_macs(32, phase)[0] - plain.step_macs(32, plain.phases()[0])[0]
    z = torch.rand(32, 10)
    assert 32 * more == count_macs(lambda: class_wise_loss(z, paired([0, 1] * 16), 4.0)) == 32 * 32 * 11
    assert scheme.cost == plain.cost


def test_a_teacher_and_mixed_images(context) -> None:
    run, _ = start(context, KnowledgeTerm("logits"), training={"mixing": "cutmix"})
    assert {"ce", "logits", "class_wise"} <= set(run.advance(1))


def test_a_search_offers_it(tmp_path: Path) -> None:
    found = searched(tmp_path, "cs_kd")
    taught, plain = found["cs_kd"], found["offline"]
    assert taught["macs"] == plain["macs"]
    assert taught["train_macs"] - plain["train_macs"] == 4 * 120 * 3 * 32 * 11
    assert all(point["class_wise"] > 0 for point in taught["curve"])
