"""Taking a student away: a file in a standard format, compared with the original before it counts as done."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from naskd.networks.student_file import load_student
from naskd.nn.quantized import is_quantized
from naskd.runs.formats.base import ExportFormat, Interface
from naskd.spec.errors import InputError, RunError
from naskd.spec.exports import EXPORTS, ExportCard
from naskd.spec.outputs import writable
from naskd.spec.packages import lacks
from naskd.store.files import folder_beside, replacing

TOLERANCE = 1e-4
"""Largest accepted difference of a logit, relative to the largest logit of the images."""
AGREEMENT = 0.995
"""Share of the images of which an integer model must say the same class as the network of rounded numbers, or one whose
logit there is nearly as large.

Sums in another order, and biases that are integers, may be rounded to the next number of 256. That changes logits by
more than they differ in floating point, and a class where two are nearly equal.
"""
NEARLY = 0.05
"""Share of the largest logit: two nearly equal ones are less apart, and in the mean logits are off by less."""
_MOST_IMAGES = 256
_MOST_VALUES = 2**22
"""Images of a batch that is compared, and the numbers of them: 16 MiB."""


class ExportError(RunError):
    """The exported model does not do what the original does, or a package is missing."""


@dataclass(frozen=True)
class Comparison:
    """What an original and a written file say of the same images.

    Args:
        expected: Logits of the original, ``(N, K)``.
        found: Of the file.
        labels: Of the images, ``(N,)``; None where they are not known.
    """

    expected: Tensor
    found: Tensor
    labels: Tensor | None

    @property
    def max_difference(self) -> float:
        """Of a logit."""
        return float((self.found - self.expected).abs().max())

    @property
    def agreement(self) -> float:
        """Share of the images that get the same class."""
        return float((~self._others).float().mean())

    @property
    def _others(self) -> Tensor:
        """Where the class is another, ``(N,)``."""
        return self.found.argmax(1) != self.expected.argmax(1)

    def right(self, logits: Tensor) -> int | None:
        """Images that logits name right; None without labels."""
        return None if self.labels is None else int((logits.argmax(1) == self.labels).sum())

    def accuracies(self) -> dict[str, float]:
        """``accuracy`` of the file and ``original_accuracy``, fractions; nothing without labels."""
        found, expected = self.right(self.found), self.right(self.expected)
        if found is None or expected is None:
            return {}
        return {"accuracy": found / len(self.found), "original_accuracy": expected / len(self.found)}

    @property
    def same(self) -> bool:
        """Whether logits are equal to :data:`TOLERANCE`: another class can then only be a tie."""
        return self.max_difference <= TOLERANCE * max(1.0, float(self.expected.abs().max()))

    @property
    def same_but_for_rounding(self) -> bool:
        """Whether logits of integers are those of the network of rounded numbers; see :data:`AGREEMENT`.

        And whether as many images are named right, but for those whose two classes nearly tie.
        """
        near = NEARLY * float(self.expected.abs().max())
        said = self.expected.gather(1, self.found.argmax(1, keepdim=True))[:, 0]
        ties = self.expected.max(1).values - said <= near
        found, expected = self.right(self.found), self.right(self.expected)
        gone = 0 if found is None or expected is None else abs(found - expected)
        return (
            float(ties.float().mean()) >= AGREEMENT
            and gone <= int((ties & self._others).sum())
            and float((self.found - self.expected).abs().mean()) <= near
        )


def format_of(path: Path | None) -> str:
    """The format that a file's suffix names, the first that is registered with it; ``safetensors`` by default."""
    if path is None:
        return "safetensors"
    return next((card.name for card in EXPORTS if card.suffix == path.suffix), "safetensors")


def usable(card: ExportCard, what: str) -> ExportCard:
    """The card of a format whose packages are here.

    Args:
        card: Of the format.
        what: Needs them, for the message.

    Raises:
        ExportError: One is not installed.
    """
    if problem := lacks(what, card.packages, card.how_installed):
        raise ExportError(problem)
    return card


def check_export(name: str, target: Path, int8: bool = False) -> ExportCard:
    """The card of a format, when it can be written here. Costs nothing, so that it stands before all training.

    Args:
        name: Of the format.
        target: The file.
        int8: Whether it is to be calibrated.

    Raises:
        InputError: No such format, the target has another suffix, or the format has no integers.
        ExportError: What the format needs is not installed.
    """
    card = EXPORTS[name]
    if target.suffix != card.suffix:
        raise InputError(f"the file of format {name} must end in {card.suffix}, got {target.name!r}")
    if int8 and not card.calibrates:
        able = ", ".join(other.name for other in EXPORTS if other.calibrates)
        raise InputError(f"int8 is for format {able} only, not {name}")
    return usable(card, f"export as {name}")


def check_rounding(card: ExportCard, quantized: bool, int8: bool) -> None:
    """See that a student and a format go together.

    Args:
        card: Of the format.
        quantized: Whether the student is of integers, as it was trained.
        int8: Whether the file is to be calibrated.

    Raises:
        InputError: They do not.
    """
    if quantized and int8:
        raise InputError("the student is of integers already, as it was trained: leave out int8")
    if quantized and not card.rounded:
        able = ", ".join(other.name for other in EXPORTS if other.rounded)
        raise InputError(f"a student of integers cannot leave as {card.name}; allowed: {able}")


def load_exported(path: Path) -> nn.Module:
    """See :func:`naskd.load`."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it, such as {path / 'model.onnx'}")
    cards = [card for card in EXPORTS if card.suffix == path.suffix]
    if not cards and path.suffix in {suffix for card in EXPORTS for suffix in card.beside}:
        raise InputError(f"{path} holds the weights of another file beside it; name that file")
    # Students lie under other names too: whatever is none is refused by what it holds.
    card = usable(cards[0], f"reading {path}") if cards else EXPORTS["safetensors"]
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if missing := [other for suffix in card.beside if not (other := path.with_suffix(suffix)).is_file()]:
        raise InputError(f"{path} needs {', '.join(map(str, missing))} beside it; copy both")
    form: ExportFormat = EXPORTS.load(card.name)()
    return form.load(path)


def export_student(
    source: Path,
    target: Path,
    images: Tensor,
    name: str | None = None,
    labels: Tensor | None = None,
    *,
    calibration: Tensor | None = None,
    max_loss: float | None = None,
) -> dict[str, Any]:
    """Write a student in one of the registered formats, and compare both on real images.

    Args:
        source: A student file of a retraining.
        target: Replaced when it exists, and only by a file that passed; so are those of further suffixes beside it.
        images: ``(N, C, H, W)`` uint8, N at least 2.
        name: Of the format; default: what the target's suffix names.
        labels: Of the images, ``(N,)``, where they are known.
        calibration: Training images, ``(n, C, H, W)`` uint8, at least one: the file then is of 8-bit integers, whose
            activations have the ranges that these images give. Its logits may differ.
        max_loss: Accuracy that the file may lack of the original's, a fraction; None: any.

    Returns:
        ``path``, ``n_images``, ``max_difference`` of the logits, ``agreement`` of the predicted classes
        (fraction), ``size_bytes`` of all files, and with labels ``accuracy`` and ``original_accuracy``: the fraction
        of the images that the file and the original name right. With `calibration` also ``n_calibration`` and
        ``float_size_bytes``, of the file before it.

    Raises:
        ExportError: The two models differ, accuracy is lost, or what the format needs is not installed.
        InputError: The suffix names no format, `source` is no student's file or one that the format does not take,
            there are too few images, or no labels for `max_loss`.
    """
    if name is None and not any(card.suffix == target.suffix for card in EXPORTS):
        known = ", ".join(card.suffix for card in EXPORTS)
        raise InputError(f"cannot tell the format from {target.name!r}; allowed: {known}")
    card = check_export(name or format_of(target), target, calibration is not None)
    if len(images) < 2:
        raise InputError(f"{len(images)} images do not show that a model takes batches; give at least 2")
    if max_loss is not None and labels is None:
        raise InputError("what accuracy is lost is not known without labelled images: leave out max_loss")
    form: Any = EXPORTS.load(card.name)()
    student = load_student(source)
    check_rounding(card, is_quantized(student), calibration is not None)
    channels, height, width = images.shape[1:]
    interface = Interface.of(source, (channels, height, width))
    target.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(writable(target)) as folder:
        made = folder / target.name
        form.write(student, source, made, interface)
        said = compare(student, form.load(made), images, labels)
        if not (said.same or (is_quantized(student) and said.same_but_for_rounding)):
            raise ExportError(
                f"the exported model differs from the original: logits by up to {said.max_difference:.3g}, "
                f"the same class on {said.agreement:.4f} of {len(images)} images"
            )
        more: dict[str, Any] = {}
        if calibration is not None:
            more = {"n_calibration": len(calibration), "float_size_bytes": _bytes_in(folder)}
            form.calibrate(made, made, calibration)
            said = compare(student, form.load(made), images, labels)
            if not bool(said.found.isfinite().all()):
                raise ExportError("the calibrated model says NaN or infinity; export without int8")
        _check_loss(said, max_loss)
        size = _bytes_in(folder)
        _take_places(folder, target)
    return {
        "path": str(target),
        "n_images": len(images),
        "max_difference": said.max_difference,
        "agreement": said.agreement,
        "size_bytes": size,
        **said.accuracies(),
        **more,
    }


def compare(
    student: nn.Module,
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor | None,
) -> Comparison:
    """Ask both about all images, in batches; one image comes alone, so that a frozen batch dimension does not pass.

    Args:
        student: The original, in evaluation mode, on the CPU.
        network: Of the written file.
        images: ``(N, C, H, W)`` uint8, N at least 2.
        labels: See :class:`Comparison`.
    """
    most = max(1, min(_MOST_IMAGES, _MOST_VALUES // math.prod(images.shape[1:])))
    expected, found = [], []
    with torch.no_grad():
        for batch in (images[:1], *torch.split(images[1:], most)):
            inputs = batch.cpu().float() / 255
            expected.append(student(inputs))
            found.append(network(inputs))
    return Comparison(torch.cat(expected), torch.cat(found), None if labels is None else labels.cpu())


def _check_loss(said: Comparison, max_loss: float | None) -> None:
    known = said.accuracies()
    if max_loss is None or known["original_accuracy"] - known["accuracy"] <= max_loss + 1e-9:
        return
    raise ExportError(
        f"the written file names {known['accuracy']:.4f} of {len(said.found)} images right, the original "
        f"{known['original_accuracy']:.4f}: it loses more than max_loss = {max_loss:g}"
    )


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _take_places(folder: Path, target: Path) -> None:
    """Put the files of a folder into that of `target`, which comes last: it names what the others belong to."""
    for made in sorted(folder.iterdir(), key=lambda path: path.name == target.name):
        with replacing(target.with_name(made.name)) as partial:
            os.replace(made, partial)
