"""What data-free schemes share: a student that sees no training image, and a teacher that is asked of made ones.

The labels teach nothing, since made images have none that are true. Validation images judge the student as ever.

Gradients pass through the frozen teacher to the images. What its backward pass costs is in ``through_macs``.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from naskd.data.batches import steps_per_epoch
from naskd.knowledge.precision import widened
from naskd.knowledge.source import KnowledgeSource
from naskd.networks.student import Student
from naskd.nn.taps import device_of
from naskd.schemes.cohort import statistics_kept
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.scheme import Batch, CollapsedError, SchemeInputs
from naskd.spec.errors import InputError
from naskd.spec.sizes import Size, sides

ONE_IMAGE = 1e-3
"""Mean deviation of a pixel over a batch below which all images are one: a quarter of a step of 8 bits."""
ONE_CLASS = 1.05
"""Number of classes below which all images are of one: 1.05 are 99 % of one class and 1 % of another."""


class DataFreeScheme(StudentScheme):
    """A student and the teacher that it is to imitate, by a formula of the scheme.

    Attributes:
        teacher: Whom everybody asks; it is no part of the state.
        taught: The student, with its cost.
        steps: Batches of an epoch: the option ``steps``, or as many as the training split has.

    Raises:
        InputError: No gradient passes through the teacher to its images.
    """

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        (self.teacher,) = inputs.sources
        check_differentiable(self.teacher, inputs.in_channels, inputs.resolution)
        self.taught = DistilledStudent(replace(inputs, sources=()))
        self.device = next(self.taught.parameters()).device
        self.steps = int(inputs.option("steps")) or steps_per_epoch(inputs.n_samples, inputs.batch_size)

    @property
    def likeness(self) -> tuple[Tensor, Tensor]:
        """See :func:`likeness`; from the mean and deviation that the student normalises its images by."""
        network = self.taught.network
        assert isinstance(network, Student)
        return likeness(network.mean.flatten(), network.std.flatten())

    def empty_batches(self, epoch: int) -> Iterator[Batch]:
        """As many as :attr:`steps`, of images without pixels: the step makes those that the networks see."""
        given = self.inputs
        for _ in range(self.steps):
            yield Batch.made(
                torch.empty(given.batch_size, given.in_channels, 0, 0, device=self.device), epoch
            )


def likeness(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers ``a, b`` a channel such that ``sigmoid(a + b n)`` of standard normal ``n`` looks like images do at first.

    Args:
        mean: Of images on the [0, 1] scale, ``(C,)``.
        std: Likewise.

    Returns:
        ``logit(mean)``, and ``std`` over the sigmoid's slope there; means are taken from 0.05 to 0.95.
    """
    mean = mean.clamp(0.05, 0.95)
    return mean.logit(), std / (mean * (1 - mean))


def check_differentiable(teacher: KnowledgeSource, in_channels: int, resolution: Size) -> None:
    """Refuse a teacher that gradients do not pass.

    Raises:
        InputError: What it says of two images does not depend on them, as far as torch knows.
    """
    network = teacher.network
    assert isinstance(network, nn.Module)
    device = device_of(network)
    images = torch.full((2, in_channels, *sides(resolution)), 0.5, device=device, requires_grad=True)
    # Schemes are looked at under the meta device, where what the teacher makes on the way would be.
    with torch.device(device), torch.enable_grad():
        logits = network.taps(images).logits
    if not logits.requires_grad:
        raise InputError(
            f"the teacher, a {type(network).__name__}, lets no gradient pass to its images, and so cannot say how an "
            "image should be; compute its logits with torch, without no_grad, detach or another framework"
        )


@contextmanager
def only_passed(network: nn.Module) -> Iterator[None]:
    """Inside, gradients pass through a network in training and leave nothing at its weights.

    Its BatchNorms use the batch's statistics and keep the running ones.
    """
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        with statistics_kept(network):
            yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def said_of(teacher: KnowledgeSource, images: Tensor) -> Tensor:
    """Logits ``(B, K)`` of a frozen teacher, without gradients; its pass is counted."""
    with torch.no_grad():
        return teacher.taps(images).logits


def variety(images: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """How much made images differ, for the learning curve.

    Args:
        images: ``(B, C, H, W)``.
        logits: Of the teacher, ``(B, K)``.

    Returns:
        ``spread``: mean deviation of a pixel over the batch; ``classes``: ``exp(H(mean_b p))``, from 1 to K.
    """
    shares = widened(logits.detach()).softmax(1).mean(0)
    return {"spread": images.detach().std(0).mean(), "classes": torch.special.entr(shares).sum().exp()}


def check_variety(means: Mapping[str, float], who: str, remedy: str) -> None:
    """Whether images are such that a student can learn from them.

    Args:
        means: Of an epoch, what :func:`variety` noted among them.
        who: Has made them.
        remedy: For the message.

    Raises:
        CollapsedError: They are all the same, or the teacher sees one class in all of them.
    """
    spread, classes = means["spread"], means["classes"]
    if spread < ONE_IMAGE:
        raise CollapsedError(
            f"{who} has collapsed: its images are all the same, a pixel differs by {spread:.1g}; {remedy}"
        )
    if classes < ONE_CLASS:
        raise CollapsedError(
            f"{who} has collapsed: the teacher sees one class in all images ({classes:.3f} classes); {remedy}"
        )
