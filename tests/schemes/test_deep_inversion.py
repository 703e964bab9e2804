import math

import numpy as np
import pytest
import torch
from online_schemes import start
from small_studies import by_scheme, small_context
from torch import Tensor, nn

from naskd.schemes.deep_inversion import (
    Canvas,
    DeepInversionScheme,
    norms_watched,
    remembering_norms,
    statistics_apart,
    total_variation,
)
from naskd.spec.errors import InputError
from naskd.testing.schemes import batches, copied, equal, teacher_of
from naskd.trials.context import StudyContext


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("deep_inversion"))


def scheme_of(context: StudyContext, **options: object) -> DeepInversionScheme:
    scheme = start(context, "deep_inversion", **options).scheme
    assert isinstance(scheme, DeepInversionScheme)
    return scheme


def apart_by_loops(norm: nn.BatchNorm2d, given: np.ndarray) -> float:
    means, variances = [], []
    for c in range(given.shape[1]):
        values = [value for image in given for value in image[c].ravel()]
        mean = sum(values) / len(values)
        means.append(mean - norm.running_mean[c].item())
        variances.append(sum((v - mean) ** 2 for v in values) / len(values) - norm.running_var[c].item())
    return math.sqrt(sum(m**2 for m in means)) + math.sqrt(sum(v**2 for v in variances))


def variation_by_loops(images: np.ndarray) -> float:
    """Squares of the differences to four neighbours, each direction's summed and rooted."""
    _, _, height, width = images.shape
    total = 0.0
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        squares = 0.0
        for i in range(height - down):
            for j in range(max(0, -across), width - max(0, across)):
                squares += ((images[:, :, i + down, j + across] - images[:, :, i, j]) ** 2).sum()
        total += math.sqrt(squares)
    return total


def norm_of(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels).double()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def test_the_distance_of_statistics_by_the_definition() -> None:
    torch.manual_seed(0)
    normed = [(norm_of(c), torch.randn(5, c, 3, 2, dtype=torch.float64)) for c in (2, 4)]
    expected = sum(apart_by_loops(norm, given.numpy()) for norm, given in normed)
    assert statistics_apart(normed).item() == pytest.approx(expected, rel=1e-12)


def test_images_that_have_the_statistics_are_not_apart() -> None:
    given = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    norm = norm_of(3)
    norm.running_mean.copy_(given.mean((0, 2, 3)))
    norm.running_var.copy_(given.var((0, 2, 3), correction=0))
    assert statistics_apart([(norm, given)]).item() == pytest.approx(0, abs=1e-12)


def test_the_variation_by_the_definition() -> None:
    images = np.random.default_rng(0).random((3, 2, 4, 5))
    assert total_variation(torch.from_numpy(images)).item() == pytest.approx(
        variation_by_loops(images), rel=1e-12
    )
    assert total_variation(torch.full((2, 1, 3, 3), 0.7)).item() == 0


def test_all_norms_of_the_teacher_are_watched_and_left_alone(context) -> None:
    """In the order of the pass, as often as it goes through them; afterwards nobody watches."""
    teacher = teacher_of(context)
    norms, before = remembering_norms(teacher), copied(teacher)
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in teacher.modules()) > 4
    with norms_watched(norms) as normed:
        teacher(torch.rand(4, 1, 8, 8))
        assert {id(norm) for norm, _ in normed} == {id(norm) for norm in norms}
    teacher(torch.rand(4, 1, 8, 8))
    assert len(normed) == len(norms)
    assert equal(copied(teacher), before)


def test_the_loss_is_the_sum_of_the_paper(context) -> None:
    weights = {"statistics": 3.0, "variation": 0.02, "length": 0.5}
    scheme, teacher = scheme_of(context, batches=1, **weights), teacher_of(context)
    images = scheme.canvases[0]()
    with torch.no_grad(), norms_watched(remembering_norms(teacher)) as normed:
        logits = teacher(images).double().numpy()
    loss, terms = scheme.image_loss(images)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = -sum(math.log(shares[i, i % 10]) for i in range(32)) / 32
    statistics = sum(apart_by_loops(norm, given.double().numpy()) for norm, given in normed)
    pixels = images.detach().double().numpy()
    variation, length = variation_by_loops(pixels), math.sqrt((pixels**2).sum())
    expected = target + 3 * statistics + 0.02 * variation + 0.5 * length
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert terms["target"].item() == pytest.approx(target, rel=1e-4)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_images_come_to_be_what_the_teacher_remembers(context) -> None:
    """And the student, which is as it was, learns from them in the epochs that are left."""
    run = start(context, "deep_inversion", batches=2, steps=30, training={"epochs": 5}, share=0.6)
    scheme = run.scheme
    assert isinstance(scheme, DeepInversionScheme)
    student, noise = copied(scheme.deployed), scheme.canvases[0]().detach()
    first, last = run.advance(1), run.advance(3)
    assert last["statistics"] < first["statistics"]
    assert last["loss"] < first["loss"]
    assert equal(copied(scheme.deployed), student)
    made = scheme.canvases[0]().detach()
    assert not torch.equal(made, noise)
    assert 0 <= made.min() < made.max() <= 1
    before, after = run.advance(4), run.advance(5)
    assert torch.equal(scheme.canvases[0]().detach(), made)
    assert after["divergence"] < before["divergence"]


def test_every_image_is_shown_once_before_any_is_shown_again(context) -> None:
    scheme = scheme_of(context, batches=3, steps=6)
    _, learning = scheme.phases()
    shown = torch.cat([batch.images for batch in batches(context, learning)])
    made = torch.cat([canvas() for canvas in scheme.canvases]).detach()
    assert shown.shape == (6 * 32, 1, 8, 8)
    for part in (shown[:96], shown[96:]):
        assert not torch.equal(part, made)
        assert torch.equal(part.flatten(1).sum(1).sort().values, made.flatten(1).sum(1).sort().values)


def test_images_are_shifted_by_a_16th_at_most(context) -> None:
    scheme = scheme_of(context, batches=1)
    small, large = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 33, 33)
    assert scheme._shifted(small) is small
    torch.manual_seed(0)
    moves = {(i, j): large.roll((i, j), (2, 3)) for i in range(-2, 3) for j in range(-2, 3)}
    seen = set()
    for _ in range(200):
        shifted = scheme._shifted(large)
        seen.add(next(move for move, image in moves.items() if torch.equal(shifted, image)))
    assert len(seen) == 25


@pytest.mark.parametrize(
    ("epochs", "share", "expected"), [(2, 0.5, 1), (10, 0.3, 3), (10, 0.99, 9), (10, 0.01, 1)]
)
def test_a_share_of_the_epochs_makes_the_images(epochs: int, share: float, expected: int, context) -> None:
    scheme = scheme_of(context, training={"epochs": epochs}, share=share, batches=1)
    assert [phase.epochs for phase in scheme.phases()] == [expected, epochs - expected]


def test_one_epoch_is_too_few(context) -> None:
    config = by_scheme("deep_inversion", training={"epochs": 1})
    assert context.designs.design_problems(config) == [
        "scheme 'deep_inversion' needs a training of at least 2 epochs, got 1"
    ]


class WithoutNorms(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


def test_a_teacher_without_batchnorm_is_refused() -> None:
    forgetful = nn.Sequential(WithoutNorms(), nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(InputError, match="needs a teacher with BatchNorm"):
        remembering_norms(forgetful)


def test_noise_has_the_brightness_it_is_given() -> None:
    canvas = Canvas(64, 2, 8, 8)
    canvas.begin_with(torch.tensor([-1.0, 2.0]), torch.tensor([0.5, 0.1]))
    found = canvas.pixels.detach()
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.tensor([-1.0, 2.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3)), torch.tensor([0.5, 0.1]), atol=0.05, rtol=0)
