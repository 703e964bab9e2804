"""Tests that every method of a kind must pass: blocks, losses, schemes, samplers, executors, and the rest.

naskd's own methods are tested by these suites, and a user's own can be::

    from naskd.testing import KnowledgeLossSuite

    import my_loss  # registers it


    class TestMine(KnowledgeLossSuite):
        names = "my_loss"

It is all that needs pytest, and nothing of naskd imports it. See ``docs/reference/testing.md``.
"""

import pkgutil

try:
    import pytest
except ModuleNotFoundError:
    raise ModuleNotFoundError("naskd.testing needs pytest; install it: pip install pytest") from None

# A failing assertion then shows its values, as those of a test file do. It must be said before they are imported.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from naskd.testing.blocks import BlockSuite  # noqa: E402
from naskd.testing.data import DataKindSuite  # noqa: E402
from naskd.testing.executors import ExecutorSuite  # noqa: E402
from naskd.testing.families import FamilySuite  # noqa: E402
from naskd.testing.knowledge import KnowledgeLossSuite  # noqa: E402
from naskd.testing.loggers import LoggerSuite  # noqa: E402
from naskd.testing.modalities import ModalitySuite  # noqa: E402
from naskd.testing.objectives import ObjectiveSuite  # noqa: E402
from naskd.testing.samplers import SamplerSuite  # noqa: E402
from naskd.testing.schemes import SchemeSuite  # noqa: E402
from naskd.testing.stopping import StoppingRuleSuite  # noqa: E402
from naskd.testing.teachers import TeacherSourceSuite  # noqa: E402

__all__ = [
    "BlockSuite",
    "DataKindSuite",
    "ExecutorSuite",
    "FamilySuite",
    "KnowledgeLossSuite",
    "LoggerSuite",
    "ModalitySuite",
    "ObjectiveSuite",
    "SamplerSuite",
    "SchemeSuite",
    "StoppingRuleSuite",
    "TeacherSourceSuite",
]
