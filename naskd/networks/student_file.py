"""A student as one file: weights and everything that is needed to build the network again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from naskd.networks.probe import describe_probe, differs
from naskd.nn.deployed import DEPLOYED, DeployedCard, as_deployed, rebuild
from naskd.nn.merging import merged
from naskd.spec.compat import STUDENT_FORMAT_1, STUDENT_FORMAT_2, description_of_format_1
from naskd.spec.errors import DamagedError, InputError, NaskdError, one_line
from naskd.store.files import write_whole

FORMAT = "naskd-student-3"
_HASH = "sha256"
"""Text field with the hash of all the others and of the tensors."""

for _card in (
    DeployedCard("student", "naskd.networks.student:rebuild_student"),
    DeployedCard(
        "projected", "naskd.nn.projected:rebuild_projected", "Chen et al., CVPR 2022, arXiv 2203.14001"
    ),
    DeployedCard("summed", "naskd.nn.corrected:rebuild_summed", "Li et al., TIP 2021, arXiv 2006.04719"),
    DeployedCard("assisted", "naskd.nn.corrected:rebuild_assisted", "Gao et al., 2020, arXiv 2002.09168"),
    DeployedCard(
        "early_exit",
        "naskd.networks.early_exit:rebuild_early_exit",
        "Zhang et al., ICCV 2019, arXiv 1905.08094",
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
    """Write a ``.safetensors`` file whose metadata holds the design and a hash; whole or not at all.

    Args:
        path: Parent folders are made.
        student: A :class:`~naskd.nn.deployed.DeployedNetwork`, on any device. Branches that can be merged are, in the
            file.
        class_names: In the order of its outputs.
        shape: ``(C, H, W)`` of its images: what it says of a made-up one is noted, and compared when it is loaded.
        extra: Anything JSON can hold, such as the seed.

    Raises:
        InputError: Nobody could build the network again; the message names its class.
        OSError: It cannot be written.
    """
    write_whole(path, student_bytes(student, class_names, shape, **extra))


def student_bytes(
    student: nn.Module,
    class_names: tuple[str, ...],
    shape: tuple[int, int, int] | None = None,
    **extra: Any,
) -> bytes:
    """The content of such a file, the same for equal students; see :func:`save_student`."""
    student = merged(student)
    metadata = {
        "format": FORMAT,
        "network": json.dumps(as_deployed(student).describe()),
        "class_names": json.dumps(class_names),
        "extra": json.dumps(extra),
    }
    if shape is not None and (probe := describe_probe(student, shape)) is not None:
        metadata["probe"] = json.dumps(probe)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    return _in_order(save(state, {**metadata, _HASH: _content_hash(metadata, state)}))


def load_student(path: Path) -> nn.Module:
    """The network of a file that :func:`save_student` wrote, in evaluation mode, on the CPU.

    Takes images ``(B, C, H, W)`` in [0, 1] and returns logits ``(B, K)``.

    Raises:
        InputError: The file is missing, was not written by naskd, or names a block that is not registered, or whose
            code is not what it was.
        DamagedError: It is not what was written.
    """
    metadata = student_metadata(path)
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata["format"] == FORMAT:
        plain = {key: value for key, value in metadata.items() if key != _HASH}
        if metadata.get(_HASH) != _content_hash(plain, state):
            raise DamagedError(
                f"{path} is damaged: its content is not what was written; "
                "restore it from a copy, or have naskd retrain or naskd export make it again"
            )
    student = fresh_student(path)
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of the design that it names: {error}") from error
    if "probe" in metadata and differs(student, json.loads(metadata["probe"])):
        raise InputError(
            f"{path} holds a network that says something else here than when it was saved: the code of its blocks has "
            "changed since, or other files register them; load it with the code that trained it"
        )
    return student.eval()


def fresh_student(path: Path) -> nn.Module:
    """The network that a student's file describes, on the CPU, with weights as it is made; the file's are not read.

    Raises:
        InputError: See :func:`load_student`.
        DamagedError: It says no network.
    """
    metadata = student_metadata(path)
    old = metadata["format"] == STUDENT_FORMAT_1
    try:
        return rebuild(description_of_format_1(metadata) if old else json.loads(metadata["network"]))
    except NaskdError:
        raise
    except Exception as error:  # whatever a description raises that is none
        raise DamagedError(
            f"{path} is damaged: it does not say which network it holds ({one_line(error)})"
        ) from error


def class_names(path: Path) -> tuple[str, ...]:
    """Classes of a saved student, in the order of its outputs."""
    return tuple(json.loads(student_metadata(path)["class_names"]))


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
    if metadata.get("format") not in (FORMAT, STUDENT_FORMAT_2, STUDENT_FORMAT_1):
        raise InputError(
            f"{path} was not written by naskd: its format is {metadata.get('format')!r}, not {FORMAT!r}"
        )
    return dict(metadata)


def _in_order(file: bytes) -> bytes:
    """The same safetensors file with its header in one order: else equal students would differ in their bytes."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[start:]


def _content_hash(metadata: Mapping[str, str], state: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a file says: its text fields, and each tensor with its name, type and shape."""
    content = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(state.items()):
        content.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        content.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()
