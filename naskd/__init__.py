"""naskd: joint search of a student network's architecture and of how it is distilled.

Nothing heavy is imported here: torch, optuna and ray take seconds, and are imported by what needs them.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "search": "naskd.launch",
    "open_run": "naskd.runs.run",
    "load": "naskd.runs.run",
    "Run": "naskd.runs.run",
    "TrialConfig": "naskd.spec.design",
    "ArchitectureSpec": "naskd.spec.design",
    "StageSpec": "naskd.spec.design",
    "DistillationSpec": "naskd.spec.design",
    "KnowledgeTerm": "naskd.spec.design",
    "AssistantSpec": "naskd.spec.design",
    "TrainingSpec": "naskd.spec.design",
}

__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'naskd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
