"""A student as one file: weights and everything that is needed to build the network again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from naskd.nn.deployed import DEPLOYED, DeployedCard, as_deployed, rebuild
from naskd.spec.compat import STUDENT_FORMAT_1, description_of_format_1
from naskd.spec.errors import InputError

FORMAT = "naskd-student-2"

for _card in (
    DeployedCard("student", "naskd.networks.student:rebuild_student"),
    DeployedCard(
        "projected", "naskd.nn.projected:rebuild_projected", "Chen et al., CVPR 2022, arXiv 2203.14001"
    ),
    DeployedCard("foreign", "naskd.networks.teachers:rebuild_foreign"),
):
    DEPLOYED.register(_card)


def save_student(path: Path, student: nn.Module, class_names: tuple[str, ...], **extra: Any) -> None:
    """Write a ``.safetensors`` file whose metadata holds the design; whole or not at all.

    Args:
        path: Parent folders are made.
        student: A :class:`~naskd.nn.deployed.DeployedNetwork`, on any device.
        class_names: In the order of its outputs.
        extra: Anything JSON can hold, such as the seed.

    Raises:
        InputError: Nobody could build the network again; the message names its class.
    """
    metadata = {
        "format": FORMAT,
        "network": json.dumps(as_deployed(student).describe()),
        "class_names": json.dumps(class_names),
        "extra": json.dumps(extra),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    partial = path.with_name(f".{path.name}.partial")
    save_file(state, partial, metadata=metadata)
    partial.replace(path)


def load_student(path: Path) -> nn.Module:
    """The network of a file that :func:`save_student` wrote, in evaluation mode, on the CPU.

    Takes images ``(B, C, H, W)`` in [0, 1] and returns logits ``(B, K)``.

    Raises:
        InputError: The file is missing, was not written by naskd, or names a block that is not registered.
    """
    metadata = student_metadata(path)
    old = metadata["format"] == STUDENT_FORMAT_1
    student = rebuild(description_of_format_1(metadata) if old else json.loads(metadata["network"]))
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of the design that it names: {error}") from error
    return student.eval()


def student_metadata(path: Path) -> Mapping[str, str]:
    """The text fields of a student's file.

    Raises:
        InputError: See :func:`load_student`.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except Exception as error:  # safetensors raises its own kinds
        raise InputError(f"{path} is no safetensors file: {error}") from error
    if metadata.get("format") not in (FORMAT, STUDENT_FORMAT_1):
        raise InputError(
            f"{path} was not written by naskd: its format is {metadata.get('format')!r}, not {FORMAT!r}"
        )
    return dict(metadata)
