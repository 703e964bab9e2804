"""DeepInversion: Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz: Dreaming to distill.

CVPR 2020, arXiv 1912.08795, section 3. Images are made out of noise by gradient descent on their pixels: the teacher is
to see a given class in each (cross-entropy), and its BatchNorms are to see the statistics that they remember of the
training images (equation 4). Neighbouring pixels are to agree (equation 3). Then a student learns what the teacher says
of these images.

A share of the epochs makes the images, several batches of them, each with an optimizer of its own; they move once in
each step. What it takes is booked as that phase: a pass of the teacher each way for each image and step. The student
learns in the epochs that are left. Before, it is as random weights are, and a stopping rule must wait for it.

Defaults: ``variation`` 2.5e-5, ``length`` 3e-8, a rate of 0.1 with Adam and temperature 3 follow the paper's CIFAR-10
experiments, which take 2,000 steps. ``statistics`` 1 is the smallest weight there: with 10, and 250 steps on digits,
the teacher did not come to see the given classes.

Differs: images are sigmoids of what is optimised, so that they stay in [0, 1]; the rate falls along a cosine. They are
shifted by up to a 16th of their side before each pass, as on CIFAR-10, and not mirrored: digits are not.
Left out: Adaptive DeepInversion, in which the student competes, since its student is there before the images are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from naskd.knowledge.comparison import soft_divergence
from naskd.knowledge.precision import widened
from naskd.schemes.data_free import DataFreeScheme, check_variety, said_of, variety
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update, recordable
from naskd.spec.errors import InputError
from naskd.spec.sizes import sides

Normed = tuple[_BatchNorm, Tensor]
"""A BatchNorm and what it is given, ``(B, C, ...)``."""


class Canvas(nn.Module):
    """A batch of images ``(B, C, H, W)`` in [0, 1] that are optimised; they begin as noise.

    Args:
        shape: ``(B, C, H, W)``.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.pixels = nn.Parameter(torch.randn(shape))

    def begin_with(self, offset: Tensor, slope: Tensor) -> None:
        """Give the noise a mean and a deviation, see :func:`~naskd.schemes.data_free.likeness`."""
        with torch.no_grad():
            self.pixels.mul_(slope[:, None, None]).add_(offset[:, None, None])

    def forward(self) -> Tensor:
        """The images."""
        return self.pixels.sigmoid()


def statistics_apart(normed: Sequence[Normed]) -> Tensor:
    """``sum_l |mean_l - running_mean_l| + |var_l - running_var_l|`` of channels, at least 0 (equation 4).

    Args:
        normed: BatchNorms with running statistics, and what they are given; variances are those of the batch, over B.
    """
    found = []
    for norm, given in normed:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        values = widened(given).transpose(0, 1).flatten(1)
        found.append(torch.linalg.vector_norm(values.mean(1) - mean))
        found.append(torch.linalg.vector_norm(values.var(1, correction=0) - variance))
    return torch.stack(found).sum()


def total_variation(images: Tensor) -> Tensor:
    """``sum_d |x - x shifted by d|`` over the four directions to a neighbour: across, down and both diagonals.

    Args:
        images: ``(B, C, H, W)``; a norm is that of all differences of the batch.
    """
    pairs = (
        (images[..., :, 1:], images[..., :, :-1]),
        (images[..., 1:, :], images[..., :-1, :]),
        (images[..., 1:, 1:], images[..., :-1, :-1]),
        (images[..., 1:, :-1], images[..., :-1, 1:]),
    )
    return torch.stack([torch.linalg.vector_norm(one - other) for one, other in pairs]).sum()


@contextmanager
def norms_watched(norms: Sequence[_BatchNorm]) -> Iterator[list[Normed]]:
    """Inside, what BatchNorms are given is noted."""
    found: list[Normed] = []

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        found.append((norm, inputs[0]))

    handles = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def remembering_norms(network: nn.Module) -> list[_BatchNorm]:
    """The BatchNorms of a network that remember statistics.

    Raises:
        InputError: It has none.
    """
    found = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not found:
        raise InputError(
            "scheme 'deep_inversion' needs a teacher with BatchNorm, whose statistics say how images look; "
            "this one has none"
        )
    return found


class DeepInversionScheme(DataFreeScheme):
    """Images, and a student that learns from them when they are made."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        if inputs.epochs < 2:
            raise InputError(
                f"scheme 'deep_inversion' needs a training of at least 2 epochs, got {inputs.epochs}"
            )
        network = self.teacher.network
        assert isinstance(network, nn.Module)
        self._norms = tuple(remembering_norms(network))
        self.weights = {name: float(inputs.option(name)) for name in ("statistics", "variation", "length")}
        self.rate = float(inputs.option("image_rate"))
        self.temperature = float(inputs.option("temperature"))
        self.making_epochs = min(
            inputs.epochs - 1, max(1, round(float(inputs.option("share")) * inputs.epochs))
        )
        shape = (inputs.batch_size, inputs.in_channels, *sides(inputs.resolution))
        self.canvases = nn.ModuleList(Canvas(*shape) for _ in range(int(inputs.option("batches"))))
        self.canvases.to(self.device)
        for canvas in self.canvases:
            assert isinstance(canvas, Canvas)
            canvas.begin_with(*self.likeness)

    def phases(self) -> tuple[Phase, ...]:
        """The images are made, and then the student learns."""
        making = Phase(
            name="inversion",
            epochs=self.making_epochs,
            trained={f"images{i}": (canvas,) for i, canvas in enumerate(self.canvases, start=1)},
            step=self._make,
            batches=self.empty_batches,
            steps_per_epoch=self.steps,
            settings={
                f"images{i}": {
                    "optimizer": "adamw",
                    "learning_rate": self.rate,
                    "weight_decay": 0.0,
                    "momentum": 0.9,
                    "schedule": "cosine",
                }
                for i in range(1, len(self.canvases) + 1)
            },
            # Python draws the shifts and counts the teacher's passes, and a recording would do neither.
            repeats=False,
        )
        learning = Phase(
            name="distillation",
            epochs=self.inputs.epochs - self.making_epochs,
            trained={"student": self.taught.trained_in("main")},
            step=self._learn,
            ask=self._ask,
            batches=self._batches,
            steps_per_epoch=self.steps,
            repeats=recordable(self._learn, (self.taught,)),
            after_epoch=partial(check_variety, who="DeepInversion", remedy="take more steps"),
        )
        return making, learning

    # --- making images -----------------------------------------------------------------------------------------------

    def _make(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        n = len(self.canvases)
        for i, canvas in enumerate(self.canvases, start=1):
            loss, terms = self.image_loss(canvas())
            yield Update(f"images{i}", loss, {name: term.detach() / n for name, term in terms.items()})

    def image_loss(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What a batch of images minimises, and its parts before they are weighed; classes take turns.

        Args:
            images: ``(B, C, H, W)``.
        """
        with norms_watched(self._norms) as normed:
            logits = widened(self.teacher.taps(self._shifted(images)).logits)
        targets = torch.arange(len(images), device=images.device) % logits.shape[1]
        terms = {
            "target": F.cross_entropy(logits, targets),
            "statistics": statistics_apart(normed),
            "variation": total_variation(images),
            "length": torch.linalg.vector_norm(images),
        }
        weighed = [terms["target"], *(weight * terms[name] for name, weight in self.weights.items())]
        return torch.stack(weighed).sum(), terms

    def _shifted(self, images: Tensor) -> Tensor:
        """All by the same number of pixels each way; what leaves at one side comes in at the other."""
        most = min(images.shape[-2:]) // 16
        if most == 0:
            return images
        down, across = torch.randint(-most, most + 1, (2,)).tolist()
        return images.roll((down, across), (2, 3))

    # --- learning from them ------------------------------------------------------------------------------------------

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """All images in a new order, again and again."""
        with torch.no_grad():
            images = torch.cat([canvas() for canvas in self.canvases])
        size = self.inputs.batch_size
        per_round = len(self.canvases)
        for step in range(self.steps):
            if step % per_round == 0:
                order = torch.randperm(len(images)).to(images.device)
            place = step % per_round * size
            yield Batch.made(images[order[place : place + size]], epoch)

    def _ask(self, batch: Batch) -> Asked:
        return [{"logits": said_of(self.teacher, batch.images)}]

    def _learn(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        (said,) = asked
        divergence = soft_divergence(self.deployed(batch.images), said["logits"], self.temperature).mean()
        noted = {"divergence": divergence.detach(), **variety(batch.images, said["logits"])}
        yield Update("student", divergence, noted)

    # --- what it costs -----------------------------------------------------------------------------------------------

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """The teacher of all images in a step that makes them, and then the student and the teacher of one batch."""
        if phase.name == "inversion":
            return 0.0, float(len(self.canvases) * self.teacher.macs)
        return float(self.cost.unmerged_macs), float(self.teacher.macs)

    def through_macs(self, batch_size: int, phase: Phase) -> float:
        """From the teacher's answers to the images that are made."""
        return float(len(self.canvases) * self.teacher.macs) if phase.name == "inversion" else 0.0
