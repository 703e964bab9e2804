import pytest
import torch

from naskd.knowledge.response.logit_mse import logit_mse_loss
from naskd.knowledge.response.logits import logits_loss

from .responses import random_logits, response, slope

LABELS = torch.arange(4)


def test_two_samples_by_hand() -> None:
    """(1 + 4 + 0 + 9) / 4: the mean over samples and classes."""
    student, teacher = torch.tensor([[1.0, 2.0], [5.0, -3.0]]), torch.tensor([[0.0, 4.0], [5.0, 0.0]])
    assert logit_mse_loss(student, teacher).item() == pytest.approx(14 / 4)


def test_is_zero_at_equality_but_not_blind_to_a_constant() -> None:
    """A constant that changes no answer costs its square, unless logits are standardized."""
    teacher = random_logits()
    assert logit_mse_loss(teacher, teacher) == 0
    assert logit_mse_loss(teacher + 3, teacher).item() == pytest.approx(9)
    assert response("logit_mse", teacher + 3, teacher, LABELS).term.item() == pytest.approx(9)
    assert response("logit_mse", teacher + 3, teacher, LABELS, standardize=True).term < 1e-20


def test_is_the_limit_of_distillation_at_high_temperature() -> None:
    """For zero-mean logits KD's gradient tends to (z_s - z_t) / (B K); that of the mean square is twice that."""
    student, teacher = (x - x.mean(1, keepdim=True) for x in (random_logits(), random_logits(seed=1)))
    own = slope(lambda x: logit_mse_loss(x, teacher), student)
    torch.testing.assert_close(own, 2 * (student - teacher) / student.numel())
    limit = slope(lambda x: logits_loss(x, teacher, 1e5), student)
    torch.testing.assert_close(own, 2 * limit, rtol=1e-3, atol=1e-5 * own.abs().max().item())


def test_order_of_classes_does_not_matter() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    order = torch.tensor([3, 1, 0, 6, 2, 5, 4])
    torch.testing.assert_close(
        logit_mse_loss(student[:, order], teacher[:, order]), logit_mse_loss(student, teacher)
    )
