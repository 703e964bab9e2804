"""What earlier versions wrote, read as if it were written today. No other module knows an old shape."""

import json
from collections.abc import Mapping
from typing import Any

STUDENT_FORMAT_1 = "naskd-student-1"

DISTILLED_STUDENT = {
    "student.": "taught.network.",
    "_deployed.": "taught.deployed.",
    "objective.": "taught.objective.",
}
"""Beginnings of names in the state of a scheme with one student: when the student was the scheme itself, and now."""


def description_of_format_1(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The network of a student's file as today's files describe it; see ``naskd.nn.deployed.Description``."""
    student = {
        "kind": "student",
        "architecture": json.loads(metadata["architecture"]),
        "n_classes": len(json.loads(metadata["class_names"])),
        "mean": json.loads(metadata["mean"]),
        "std": json.loads(metadata["std"]),
    }
    if "projector" not in metadata:
        return student
    return {"kind": "projected", "student": student, "projector": json.loads(metadata["projector"])}


def renamed(names: Mapping[str, str], state: dict[str, Any]) -> None:
    """Rename entries of a state dict in place, by how their names begin."""
    for key in list(state):
        for old, new in names.items():
            if key.startswith(old):
                state[new + key.removeprefix(old)] = state.pop(key)
                break
