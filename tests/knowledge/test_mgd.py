import pytest
import torch
from torch import Tensor, nn

from naskd.knowledge.feature.mgd import Generator, MgdLoss, mgd_loss
from naskd.spec.design import KnowledgeTerm

from .stages import maps, showing, term


def masks(masked: float, *, training: bool = True) -> Tensor:
    """What is shown of 8 samples, 3 channels, 32x32 places."""
    generator = Generator(3, 3, masked).train(training)
    generator.align, generator.generate = nn.Identity(), nn.Identity()
    found: Tensor = generator(torch.ones(8, 3, 32, 32))
    return found


def built(student: Tensor, teacher: Tensor, masked: float = 0.15) -> MgdLoss:
    torch.manual_seed(0)
    term = KnowledgeTerm("mgd", options=(("masked", masked),))
    return MgdLoss(term, showing(student).shapes, showing(teacher).shapes).double()


def test_averages_over_all_elements() -> None:
    """One of 2 * 3 * 4 elements is wrong by 6."""
    told, teacher = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    teacher[1, 2, 0, 1] = 6
    assert mgd_loss(told, teacher).item() == pytest.approx(36 / 24)
    assert mgd_loss(teacher, teacher) == 0


def test_a_generator_by_hand() -> None:
    """Aligned by 2, no mask, then a 3x3 convolution of ones, a ReLU, and a centre of -1: each place is minus the sum of
    twice its surroundings, where that is positive."""
    generator = Generator(1, 1, 0.0)
    centre = torch.zeros(3, 3)
    centre[1, 1] = -1
    with torch.no_grad():
        for layer, weight in (
            (generator.align, 2.0),
            (generator.generate[0], 1.0),
            (generator.generate[2], centre),
        ):
            layer.weight.copy_(torch.as_tensor(weight).expand_as(layer.weight))
            layer.bias.zero_()
    told = generator(torch.tensor([[[[1.0, -5.0, 2.0, 3.0]]]]))
    assert told.flatten().tolist() == [0, 0, 0, -10]


def test_hides_its_share_of_places_and_all_channels_of_them() -> None:
    torch.manual_seed(0)
    shown = masks(0.3)
    assert set(shown.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(shown, shown[:, :1].expand_as(shown))
    assert (1 - shown).mean().item() == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(shown[0], shown[1])


def test_masks_come_from_torchs_generator() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(masks(0.3))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_nothing_is_drawn_outside_of_training() -> None:
    generator = Generator(3, 3, 0.3).eval()
    state = torch.get_rng_state()
    generator(torch.ones(2, 3, 4, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert masks(0.3, training=False).unique().tolist() == pytest.approx([0.7])


def test_without_a_mask_training_is_like_evaluation() -> None:
    student, teacher = showing(maps(2, 3, 4, 4)), showing(maps(2, 5, 4, 4, seed=1))
    nothing, some = (
        built(student.stages[0].tensor, teacher.stages[0].tensor, masked) for masked in (0.0, 0.5)
    )
    assert term(nothing.train(), student, teacher) == term(nothing.eval(), student, teacher)
    assert term(some.train(), student, teacher) != term(some.eval(), student, teacher)


def test_a_hidden_place_is_told_from_its_surroundings() -> None:
    """The teacher is the student, and its maps are smooth: what is hidden can be known."""
    student = torch.nn.functional.interpolate(maps(32, 2, 2, 2), (6, 6), mode="bilinear")
    loss = built(student, student, masked=0.3)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    first = term(loss, showing(student), showing(student)).item()
    for _ in range(60):
        optimizer.zero_grad()
        term(loss, showing(student), showing(student)).backward()
        optimizer.step()
    # with 0 in every hidden place, and all others right, 0.3 of the mean square would be left
    assert (
        term(loss, showing(student), showing(student)).item() < 0.3 * student.square().mean().item() < first
    )


def test_the_larger_grid_is_pooled_first() -> None:
    student, teacher = maps(2, 3, 6, 6), maps(2, 5, 3, 3, seed=1)
    loss = built(student, teacher).eval()
    pooled = torch.nn.functional.adaptive_avg_pool2d(student, 3)
    expected = mgd_loss(loss.adapters[0](pooled), teacher)
    torch.testing.assert_close(term(loss, showing(student), showing(teacher)), expected)
