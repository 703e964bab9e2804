"""The methods of tests/extension, each in a user's file of its own, pass the suites of their kinds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = Path(__file__).parents[1] / "extension"
TESTS = """
from typing import ClassVar

import mutual
import patch_mlp

from naskd.spec.design import ArchitectureSpec
from naskd.testing import FamilySuite, SchemeSuite


class TestMutual(SchemeSuite):
    names = "mutual"


class TestPatchMlp(FamilySuite):
    names = "patch_mlp"
    architectures: ClassVar = {
        "patch_mlp": [ArchitectureSpec(family="patch_mlp", options=(("depth", 3), ("patch", 4), ("width", 8)))]
    }
"""


@pytest.mark.slow
def test_methods_of_users_files_pass_their_suites(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(TESTS)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(FILES), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    found = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout
