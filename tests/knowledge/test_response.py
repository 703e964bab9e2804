"""What losses on logits share; its option has a file of its own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from naskd.knowledge.comparison import other_logits, soft_divergence, target_logit
from naskd.knowledge.response.conditional import conditional_loss
from naskd.knowledge.response.dist import dist_loss
from naskd.knowledge.response.dkd import dkd_loss
from naskd.knowledge.response.logit_mse import logit_mse_loss
from naskd.knowledge.response.logits import logits_loss
from naskd.knowledge.response.mlkd import mlkd_loss
from naskd.knowledge.response.nkd import nkd_loss
from naskd.knowledge.response.wsld import wsld_loss

from .responses import random_logits

LABELS = random_logits(seed=1).argmax(1)


def test_label_and_the_others_are_all_classes() -> None:
    logits, labels = (
        torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]),
        torch.tensor([0, 1, 2]),
    )
    assert target_logit(logits, labels).tolist() == [0, 4, 8]
    assert other_logits(logits, labels).tolist() == [[1, 2], [3, 5], [6, 7]]


def test_divergence_is_of_each_sample() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    found = soft_divergence(student, teacher, 4.0)
    each = [logits_loss(student[i : i + 1], teacher[i : i + 1], 4.0) for i in range(4)]
    torch.testing.assert_close(found, torch.stack(each))


@pytest.mark.parametrize(
    "loss",
    [
        lambda s, t: logits_loss(s, t, 2.0),
        logit_mse_loss,
        lambda s, t: conditional_loss(s, t, LABELS, 2.0)[0],
        lambda s, t: dkd_loss(s, t, LABELS, 2.0, 1.0, 8.0),
        lambda s, t: nkd_loss(s, t, LABELS, 2.0, 1.5),
        lambda s, t: dist_loss(s, t, 2.0, 1.0, 1.0),
        lambda s, t: wsld_loss(s, t, LABELS, 2.0),
        mlkd_loss,
    ],
    ids=["logits", "logit_mse", "conditional", "dkd", "nkd", "dist", "wsld", "mlkd"],
)
def test_functions_differentiate_the_student_and_never_the_teacher(
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    student, teacher = random_logits().requires_grad_(), random_logits(seed=1).requires_grad_()
    loss(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 0
    assert teacher.grad is None
