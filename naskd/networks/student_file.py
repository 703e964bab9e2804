"""A student as one file: weights and everything that is needed to build the network again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import save_file

from naskd.networks.student import Student, build_student
from naskd.nn.projected import ProjectedStudent, Projector, ProjectorShape, ReusedClassifier
from naskd.spec.design import ArchitectureSpec
from naskd.spec.errors import InputError

_ARCHITECTURE = TypeAdapter(ArchitectureSpec)
_PROJECTOR = TypeAdapter(ProjectorShape)
FORMAT = "naskd-student-1"


Deployed = Student | ProjectedStudent
"""What a training leaves: a student, or one that uses its teacher's classifier."""


def save_student(
    path: Path, student: Deployed, architecture: ArchitectureSpec, class_names: tuple[str, ...], **extra: Any
) -> None:
    """Write a ``.safetensors`` file whose metadata holds the design; whole or not at all.

    Args:
        path: Parent folders are made.
        student: On any device.
        architecture: Of the student.
        class_names: In the order of its outputs.
        extra: Anything JSON can hold, such as the seed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    own = student.student if isinstance(student, ProjectedStudent) else student
    assert isinstance(own, Student)
    metadata = {
        "format": FORMAT,
        "architecture": _ARCHITECTURE.dump_json(architecture).decode(),
        "class_names": json.dumps(class_names),
        "mean": json.dumps(own.mean.flatten().tolist()),
        "std": json.dumps(own.std.flatten().tolist()),
        "extra": json.dumps(extra),
    }
    if isinstance(student, ProjectedStudent):
        metadata["projector"] = _PROJECTOR.dump_json(student.projector.shape).decode()
    partial = path.with_name(f".{path.name}.partial")
    save_file(state, partial, metadata=metadata)
    partial.replace(path)


def load_student(path: Path) -> Deployed:
    """The network of a file that :func:`save_student` wrote, in evaluation mode, on the CPU.

    Takes images ``(B, C, H, W)`` in [0, 1] and returns logits ``(B, K)``.

    Raises:
        InputError: The file is missing, was not written by naskd, or names a block that is not registered.
    """
    metadata = student_metadata(path)
    mean = tuple(json.loads(metadata["mean"]))
    bare = build_student(
        _ARCHITECTURE.validate_json(metadata["architecture"]),
        len(mean),
        len(json.loads(metadata["class_names"])),
        mean,
        tuple(json.loads(metadata["std"])),
    )
    student: Deployed = bare
    if "projector" in metadata:
        shape = _PROJECTOR.validate_json(metadata["projector"])
        bare.remove_classifier()
        weight = torch.zeros(shape.n_classes, shape.teacher)
        student = ProjectedStudent(bare, Projector(shape), ReusedClassifier(weight, weight[:, 0]))
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
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path} was not written by naskd: its format is {metadata.get('format')!r}, not {FORMAT!r}"
        )
    return dict(metadata)
