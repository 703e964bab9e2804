"""A student as one file: weights and everything that is needed to build the network again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from naskd.networks.probe import describe_probe, differs
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


def save_student(
    path: Path,
    student: nn.Module,
    class_names: tuple[str, ...],
    shape: tuple[int, int, int] | None = None,
    **extra: Any,
) -> None:
    """Write a ``.safetensors`` file whose metadata holds the design; whole or not at all.

    Args:
        path: Parent folders are made.
        student: A :class:`~naskd.nn.deployed.DeployedNetwork`, on any device.
        class_names: In the order of its outputs.
        shape: ``(C, H, W)`` of its images: what it says of a made-up one is noted, and compared when it is loaded.
        extra: Anything JSON can hold, such as the seed.

    Raises:
        InputError: Nobody could build the network again; the message names its class.
    """
    data = student_bytes(student, class_names, shape, **extra)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def student_bytes(
    student: nn.Module,
    class_names: tuple[str, ...],
    shape: tuple[int, int, int] | None = None,
    **extra: Any,
) -> bytes:
    """The content of such a file, the same for equal students; see :func:`save_student`."""
    metadata = {
        "format": FORMAT,
        "network": json.dumps(as_deployed(student).describe()),
        "class_names": json.dumps(class_names),
        "extra": json.dumps(extra),
    }
    if shape is not None and (probe := describe_probe(student, shape)) is not None:
        metadata["probe"] = json.dumps(probe)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    return _in_order(save(state, metadata))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with the entries of its header in order, which the package draws anew each time."""
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:begin]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # what follows is aligned
    return len(header).to_bytes(8, "little") + header + data[begin:]


def load_student(path: Path) -> nn.Module:
    """The network of a file that :func:`save_student` wrote, in evaluation mode, on the CPU.

    Takes images ``(B, C, H, W)`` in [0, 1] and returns logits ``(B, K)``.

    Raises:
        InputError: The file is missing, was not written by naskd, or names a block that is not registered, or whose
            code is not what it was.
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
    if "probe" in metadata and differs(student, metadata["probe"]):
        raise InputError(
            f"{path} holds a network that says something else here than when it was saved: the code of its blocks has "
            "changed since, or other files register them; load it with the code that trained it"
        )
    return student.eval()


def probe_shape(path: Path) -> tuple[int, int, int] | None:
    """``(C, H, W)`` of the images that a saved student takes; None where an earlier version did not note it."""
    known = student_metadata(path).get("probe")
    return None if known is None else tuple(json.loads(known)["shape"])


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
