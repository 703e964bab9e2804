import math

import pytest
import torch

from naskd.knowledge.response.nkd import nkd_loss

from .responses import random_logits, response, slope

LABELS = torch.tensor([3, 0, 6, 3])
ROWS = torch.arange(4)


def test_three_classes_by_hand() -> None:
    """The teacher says (4, 3, 1) / 8 and the label is the first class; the student says thirds, and halves beside it.

    1/2 ln 3 + gamma ln 2.
    """
    teacher = torch.tensor([[4.0, 3.0, 1.0]]).log()
    found = nkd_loss(torch.zeros(1, 3), teacher, torch.tensor([0]), 1.0, 1.5)
    assert found.item() == pytest.approx(0.5 * math.log(3) + 1.5 * math.log(2), rel=1e-6)


def test_temperature_is_of_the_second_part_alone() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    assert nkd_loss(student, teacher, LABELS, 1.0, 0.0) == nkd_loss(student, teacher, LABELS, 7.0, 0.0)

    def rest(x: torch.Tensor) -> torch.Tensor:
        return nkd_loss(x, teacher, LABELS, 1e5, 1.5) - nkd_loss(x, teacher, LABELS, 1e5, 0.0)

    # with T^2, at high T: gamma (z_s - z_t) / (B (K - 1)) over the other classes, both of zero mean there
    others = torch.ones(4, 7, dtype=torch.bool).index_put((ROWS, LABELS), torch.tensor(False))
    gap = (student - teacher)[others].reshape(4, 6)
    expected = 1.5 * (gap - gap.mean(1, keepdim=True)) / gap.numel()
    torch.testing.assert_close(
        slope(rest, student)[others].reshape(4, 6),
        expected,
        rtol=1e-3,
        atol=1e-4 * expected.abs().max().item(),
    )


def test_label_is_taken_out_of_the_second_part() -> None:
    """Pitfall: ports with a mask that is true everywhere leave it in."""
    student, teacher = random_logits(), random_logits(seed=1)

    def rest(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nkd_loss(x, y, LABELS, 2.0, 1.5) - nkd_loss(x, y, LABELS, 2.0, 0.0)

    assert slope(lambda x: rest(x, teacher), student)[ROWS, LABELS].abs().max() < 1e-15
    moved = teacher.index_put((ROWS, LABELS), torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(rest(student, moved), rest(student, teacher))


def test_agreement_still_pulls_at_the_label() -> None:
    """Pitfall: a cross-entropy, so not 0 at equality; p_t(y) (p_t(y) - 1) is left on the label's own logit."""
    teacher = random_logits()
    assert nkd_loss(teacher, teacher, LABELS, 2.0, 1.5) > 0
    found = slope(lambda x: nkd_loss(x, teacher, LABELS, 2.0, 1.5), teacher)
    sure = teacher.softmax(1)[ROWS, LABELS]
    torch.testing.assert_close(found[ROWS, LABELS], sure * (sure - 1) / 4)


def test_of_two_classes_nothing_is_left_beside_the_label() -> None:
    student, teacher, labels = random_logits(n_classes=2), random_logits(seed=1, n_classes=2), LABELS % 2
    assert nkd_loss(student, teacher, labels, 4.0, 0.0) == nkd_loss(student, teacher, labels, 4.0, 9.0)


def test_is_blind_to_a_constant() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    shift = torch.tensor([[3.0], [-7.0], [0.0], [100.0]], dtype=torch.float64)
    torch.testing.assert_close(
        nkd_loss(student + shift, teacher - shift, LABELS, 2.0, 1.5),
        nkd_loss(student, teacher, LABELS, 2.0, 1.5),
    )


def test_class_uses_its_settings() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    for settings, gamma in (({}, 1.5), ({"gamma": 0.5}, 0.5)):
        output = response("nkd", student, teacher, LABELS, temperature=3.0, **settings)
        torch.testing.assert_close(output.term, nkd_loss(student, teacher, LABELS, 3.0, gamma))
        assert output.label_weights is None
