"""Image classifiers that Hugging Face's transformers saved (Wolf et al., EMNLP 2020), from a folder on this machine.

Nothing is fetched, and no code of the folder is run. Normalisation and size are those that its
``preprocessor_config.json`` says.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, K)``."""
        logits: Tensor = self.model(pixel_values=images).logits
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
        mean, std, side = _preprocessing(folder)
        return Bare(Logits(model.float()), mean, std, side or _side(config), classes=known)


def _class_names(config: Any) -> tuple[str, ...]:
    names: Mapping[Any, Any] = config.id2label or {}
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _side(config: Any) -> int | None:
    side = getattr(config, "image_size", None)
    return side if isinstance(side, int) else None


def _preprocessing(folder: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, int | None]:
    """Mean, standard deviation and side that ``preprocessor_config.json`` says; None for what it does not say."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None, None, None
    try:
        said = json.loads(path.read_bytes())
        size = said["crop_size"] if said.get("do_center_crop") and "crop_size" in said else said.get("size")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})") from error
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    mean, std = said.get("image_mean"), said.get("image_std")
    if said.get("do_normalize") is False or mean is None or std is None:
        mean = std = None
    return mean and tuple(map(float, mean)), std and tuple(map(float, std)), int(size) if size else None
