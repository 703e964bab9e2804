"""The methods of tests/extension, each in a user's file of its own, pass the suites of their kinds."""

from pathlib import Path

from forks import Forker

FILES = Path(__file__).parents[1] / "extension"
TESTS = """
from typing import ClassVar

import block
import data
import logger
import loss
import numpy as np
import objectives
import patch_mlp
import rule
import sampler
import teacher
import two_peers

from naskd.spec.datasets import DataSpec
from naskd.spec.design import ArchitectureSpec
from naskd.testing import (
    BlockSuite,
    DataKindSuite,
    FamilySuite,
    KnowledgeLossSuite,
    LoggerSuite,
    ObjectiveSuite,
    SamplerSuite,
    SchemeSuite,
    StoppingRuleSuite,
    TeacherSourceSuite,
)


class TestGated(BlockSuite):
    names = "gated"


class TestDirection(KnowledgeLossSuite):
    names = "direction"


class TestTwoPeers(SchemeSuite):
    names = "two_peers"


class TestHalton(SamplerSuite):
    names = "halton"


class TestFloor(StoppingRuleSuite):
    names = "floor"


class TestObjectives(ObjectiveSuite):
    names = ("energy", "calibration_error")


class TestArrays(DataKindSuite):
    names = "arrays"

    def spec(self, name, folder):
        generator = np.random.default_rng(0)
        for part in ("train", "test"):
            images = generator.integers(0, 256, (40, 12, 12), dtype=np.uint8)
            np.savez(folder / f"{part}.npz", images=images, labels=np.arange(40) % 4)
        return DataSpec(name, options=(("file", "train.npz"), ("test_file", "test.npz")))


class TestPlain(TeacherSourceSuite):
    names = "plain"


class TestLines(LoggerSuite):
    names = "lines"


class TestPatchMlp(FamilySuite):
    names = "patch_mlp"
    architectures: ClassVar = {
        "patch_mlp": [ArchitectureSpec(family="patch_mlp", options=(("depth", 3), ("patch", 4), ("width", 8)))]
    }
"""


def test_methods_of_users_files_pass_their_suites(tmp_path: Path, forker: Forker) -> None:
    (tmp_path / "test_mine.py").write_text(TESTS)
    code = f"""
import sys
import pytest
sys.path[:0] = [{str(FILES)!r}, {str(FILES / "user_files")!r}]
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "test_mine.py"]))
"""
    assert " passed" in forker.run(code, tmp_path / "log")
