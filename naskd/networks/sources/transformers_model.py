"""Image classifiers that Hugging Face's transformers saved (Wolf et al., EMNLP 2020), from a folder on this machine.

Nothing is fetched, and no code of the folder is run. Normalisation and size are those that its
``preprocessor_config.json`` says.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from naskd.networks.teachers import Bare, TeacherInputs
from naskd.spec.errors import InputError, one_line
from naskd.spec.paths import absolute
from naskd.spec.study import StudySpec
from naskd.spec.teachers import TeacherSpec

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the file of weights, the first that is there."""


def weights_file(spec: StudySpec, teacher: TeacherSpec) -> Path:
    """The file of weights in a teacher's folder, as the study file would write it.

    Raises:
        InputError: The folder is none that ``save_pretrained`` wrote, or its weights are in several files.
    """
    name = teacher.option("model")
    folder = absolute(name, spec.base)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"model = {name!r} is no folder that save_pretrained wrote: there is no {folder / 'config.json'}"
        )
    for file in WEIGHTS:
        if (folder / file).is_file():
            return Path(name) / file
        if (folder / f"{file}.index.json").is_file():
            raise InputError(
                f"{folder} has its weights in several files; save it with max_shard_size='100GB'"
            )
    raise InputError(f"{folder} has neither {' nor '.join(WEIGHTS)}")


class Logits(nn.Module):
    """The logits of a classifier of transformers.

    Args:
        model: Takes ``pixel_values``.
        reversed_channels: Whether it wants blue, green and red, in this order.
    """

    def __init__(self, model: nn.Module, reversed_channels: bool = False) -> None:
        super().__init__()
        self.model = model
        self.reversed_channels = reversed_channels

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, K)``."""
        given = images.flip(1) if self.reversed_channels else images
        logits: Tensor = self.model(pixel_values=given).logits
        return logits


class TransformersSource:
    """A model for image classification, as its ``config.json`` says; where it is fine-tuned, of the study's classes."""

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> Bare:
        """See :class:`~naskd.networks.teachers.TeacherSource`."""
        try:
            from transformers import AutoConfig, AutoModelForImageClassification
        except ImportError as error:
            raise InputError(
                f"source = 'transformers' needs transformers: pip install transformers ({error})"
            ) from error
        folder = absolute(spec.option("model"), given.base)
        here = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(folder, **here)
            names = _class_names(config)
            if spec.fine_tune:
                config.num_labels = given.n_classes
            if fresh:
                # It knows how names of weights have changed between its versions.
                model = AutoModelForImageClassification.from_pretrained(
                    folder, config=config, ignore_mismatched_sizes=spec.fine_tune, **here
                )
            else:
                model = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
        except Exception as error:  # transformers raises errors of many kinds
            raise InputError(
                f"{folder} holds no image classifier of transformers ({one_line(error)})"
            ) from error
        known = names if not spec.fine_tune and sorted(names) == sorted(given.class_names) else None
        said = _preprocessing(folder)
        network = Logits(model.float(), said.reverses_channels)
        mean, std = said.mean, said.std
        if said.reverses_channels and mean is not None and std is not None:
            mean, std = mean[::-1], std[::-1]  # transformers normalises what is reversed already
        return Bare(network, mean, std, said.side or _side(config), classes=known)


def _class_names(config: Any) -> tuple[str, ...]:
    names: Mapping[Any, Any] = config.id2label or {}
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _side(config: Any) -> int | None:
    side = getattr(config, "image_size", None)
    return side if isinstance(side, int) else None


class _Preprocessing(NamedTuple):
    """What a ``preprocessor_config.json`` says that is done to an image in [0, 1]; None for nothing."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    side: int | None = None
    reverses_channels: bool = False


def _preprocessing(folder: Path) -> _Preprocessing:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return _Preprocessing()
    try:
        said = json.loads(path.read_bytes())
        resized = said.get("size") if said.get("do_resize") is not False else None
        size = said["crop_size"] if said.get("do_center_crop") and "crop_size" in said else resized
        if isinstance(size, dict):
            size = size.get("height") or size.get("shortest_edge")
        mean, std = _normalisation(said)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})") from error
    reverses = bool(said.get("do_flip_channel_order"))
    return _Preprocessing(mean, std, int(size) if size else None, reverses)


def _normalisation(said: Mapping[str, Any]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """All that is done to the values of an image, as one `mean` and `std` on the [0, 1] scale; None for nothing.

    transformers scales bytes by ``rescale_factor``, takes 1 off where ``rescale_offset`` says so, and normalises what
    that gives; ``include_top`` of EfficientNet divides by the deviation once more.
    """
    mean, std = said.get("image_mean"), said.get("image_std")
    if said.get("do_normalize") is False or mean is None or std is None:
        mean, std = (0.0,), (1.0,)
    elif not isinstance(mean, list):
        mean, std = (mean,), (std,)
    rescales = said.get("do_rescale") is not False
    given = float(said.get("rescale_factor", 1 / 255))
    # Configurations hold 1 / 255 in as many digits as they please.
    scale = (1.0 if math.isclose(given, 1 / 255, rel_tol=1e-3) else 255 * given) if rescales else 255.0
    offset = 1.0 if rescales and said.get("rescale_offset") else 0.0
    again = 2 if said.get("include_top") else 1
    means = tuple((float(value) + offset) / scale for value in mean)
    deviations = tuple(float(value) ** again / scale for value in std)
    return (None, None) if set(means) == {0.0} and set(deviations) == {1.0} else (means, deviations)
