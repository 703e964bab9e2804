"""naskd: joint search of a student network's architecture and of how it is distilled.

Nothing heavy is imported here: torch, optuna and ray take seconds, and are imported by what needs them.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "search": "naskd.launch",
    "open_run": "naskd.api",
    "load": "naskd.api",
    "Run": "naskd.api",
    "TrialConfig": "naskd.config",
    "ArchitectureSpec": "naskd.config",
    "StageSpec": "naskd.config",
    "DistillationSpec": "naskd.config",
    "KnowledgeTerm": "naskd.config",
    "AssistantSpec": "naskd.config",
    "TrainingSpec": "naskd.config",
}

__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'naskd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Naskd(ModuleType):
    """`naskd.search` is the function, though the room behind it has the same name.

    Python binds a package that was imported to its parent: from the first search on, the name would mean the room.
    """

    @property
    def search(self) -> Any:
        return __getattr__("search")

    @search.setter
    def search(self, room: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Naskd
