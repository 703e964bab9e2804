"""Who answers losses: a frozen network, a bank, and a peer that trains."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from naskd.data.views import ViewedImages, make_views
from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.bank import BankedSource
from naskd.knowledge.base import KnowledgeLoss
from naskd.knowledge.source import OnlineSource, TapsSource
from naskd.networks.student import Student, build_student
from naskd.networks.teachers import Teacher
from naskd.nn.taps import tap_shapes
from naskd.spec.design import ArchitectureSpec, KnowledgeTerm, StageSpec

DESIGN = ArchitectureSpec((StageSpec("basic", 1, 4), StageSpec("basic", 1, 6, stride=2)), stem_width=4)
N = 12


def network(seed: int) -> Student:
    torch.manual_seed(seed)
    return build_student(DESIGN, 1, 10, (0.5,), (0.5,))


@pytest.fixture
def online() -> OnlineSource:
    teacher = Teacher(network(0))
    return OnlineSource(teacher, tap_shapes(teacher, 1, 8), macs=1000)


@pytest.fixture
def bank(online: OnlineSource) -> BankedSource:
    images = torch.randint(256, (N, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    viewed = ViewedImages(images, make_views("none", N, 0, 8))
    return BankedSource(online, lambda index, epoch: viewed.batch(index, epoch)[0], N, 1, 1)


def hint(source: OnlineSource | TapsSource) -> KnowledgeLoss:
    loss: KnowledgeLoss = KNOWLEDGE.load("hint")(KnowledgeTerm("hint"), source.shapes, source.shapes)
    return loss


def test_gradients_reach_images_through_a_fixed_teacher_and_no_answer_to_a_loss_has_any(online, bank) -> None:
    for source in (online, bank):
        before = online.forward_images
        images = torch.rand(4, 1, 8, 8, requires_grad=True)
        source.taps(images).logits.square().sum().backward()
        assert images.grad is not None
        assert images.grad.abs().max() > 0
        assert online.forward_images == before + 4
        (answer,) = source.summaries(images, None, 0, [hint(online)])
        assert not any(tensor.requires_grad for tensor in answer.values())
    assert bank.asked_images == 8
    assert isinstance(online.network, Teacher)
    assert all(p.grad is None for p in online.network.parameters())


def test_a_bank_knows_nothing_of_images_that_are_not_of_the_split(online, bank) -> None:
    loss = hint(online)
    images = torch.rand(4, 1, 8, 8)
    (found,) = bank.summaries(images, None, 0, [loss])
    (wanted,) = online.summaries(images, None, 0, [loss])
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    assert bank.size_bytes == 0
    assert bank.summaries(images, None, 0, []) == []


def test_a_peer_answers_from_the_taps_that_it_was_trained_with() -> None:
    peer = network(1)
    source = TapsSource.beside(peer, 1, 8)
    assert peer.training
    loss = hint(source)
    images = torch.rand(4, 1, 8, 8)
    taps = peer.taps(images)
    elsewhere = torch.zeros(4, 1, 8, 8)
    (found,) = source.of(taps).summaries(elsewhere, None, 0, [loss])
    (wanted,) = (loss.summarise(taps),)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert (source.macs, source.forward_images, source.asked_images) == (0, 0, 0)
    with pytest.raises(ValueError, match=r"give them with TapsSource\.of"):
        source.summaries(images, None, 0, [loss])


class Following(KnowledgeLoss):
    """A loss that would move its teacher."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def summarise(self, teacher: object) -> dict[str, Tensor]:
        return {"logits": teacher.logits * 2}


@pytest.mark.parametrize("detached", [True, False])
def test_a_peer_is_detached_unless_it_is_asked_not_to_be(detached) -> None:
    peer = network(1)
    source = replace(TapsSource.beside(peer, 1, 8), detached=detached)
    (answer,) = source.of(peer.taps(torch.rand(4, 1, 8, 8))).summaries(
        torch.rand(4, 1, 8, 8), None, 0, [Following()]
    )
    assert answer["logits"].requires_grad is not detached


def test_weights_of_a_peer_are_those_of_now_and_copies() -> None:
    peer = network(1)
    source = TapsSource.beside(peer, 1, 8)
    before = source.parts
    with torch.no_grad():
        peer.head.weight += 1
    assert before.head is not None
    assert source.parts.head is not None
    torch.testing.assert_close(source.parts.head[0], before.head[0] + 1)
    assert len(source.parts.norms) == 2
