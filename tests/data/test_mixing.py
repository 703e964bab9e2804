"""Mixed images are made of two, and their share says how much of each."""

import numpy as np
import pytest
import torch

from naskd.data.mixing import cutmix, mixup, shares
from naskd.knowledge.base import Lesson, Mixed


def plain(n: int = 4, side: int = 8) -> torch.Tensor:
    """Image i is i everywhere."""
    return torch.arange(n, dtype=torch.float32)[:, None, None, None].expand(n, 3, side, side).contiguous()


def test_mixup_is_the_weighted_sum_with_the_image_before() -> None:
    mixed = mixup(plain(), 0.75)
    assert mixed[:, 0, 0, 0].tolist() == pytest.approx([0.25 * 3, 0.75, 0.75 * 2 + 0.25, 0.75 * 3 + 0.5])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_cutmix_says_how_much_of_each_image_was_kept(share) -> None:
    images = plain()
    for seed in range(50):
        mixed, kept = cutmix(images, share, seed=seed)
        own = (mixed == images).float().mean(dim=(1, 2, 3))
        assert own.tolist() == pytest.approx([kept] * 4)
        other = mixed != images
        assert torch.equal(mixed[other], images.roll(1, 0)[other])
        assert kept >= share - 0.13  # a side is rounded to whole pixels, and the border cuts a box
    assert torch.equal(images, plain())


def test_the_box_is_a_rectangle_that_moves_with_the_seed() -> None:
    places = set()
    for seed in range(30):
        taken = (cutmix(plain(), 0.75, seed=seed)[0] != plain())[1, 0]
        rows, columns = taken.any(1).nonzero().flatten(), taken.any(0).nonzero().flatten()
        assert taken.sum() == len(rows) * len(columns)
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 10


def test_shares_follow_seed_and_epoch_alone_and_have_the_moments_of_beta() -> None:
    assert shares(5, 0.4, seed=1, epoch=2) == shares(5, 0.4, seed=1, epoch=2)
    assert shares(5, 0.4, seed=1, epoch=2) != shares(5, 0.4, seed=2, epoch=2)
    assert shares(5, 0.4, seed=1, epoch=2) != shares(5, 0.4, seed=1, epoch=3)
    drawn = np.array(shares(20_000, 0.4, seed=0, epoch=0))
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)  # of Beta(a, a)


def test_the_label_loss_of_a_mixed_image_is_that_of_the_mixed_label() -> None:
    """Cross-entropy is linear in the target: the share of each label's is that of the soft label."""
    logits, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 3, 2, 2])
    partners, share = torch.tensor([2, 0, 3, 2]), torch.tensor(0.3)
    lesson = Lesson(labels, torch.arange(4), mixed=Mixed(partners, share))
    soft = 0.3 * torch.eye(5, dtype=torch.float64)[labels] + 0.7 * torch.eye(5, dtype=torch.float64)[partners]
    expected = torch.nn.functional.cross_entropy(logits, soft, reduction="none")
    torch.testing.assert_close(lesson.cross_entropy(logits), expected, rtol=1e-6, atol=0)
