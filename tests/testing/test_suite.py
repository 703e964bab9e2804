"""What a test module that uses a suite meets: its names, its tests, and what is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

from naskd import testing
from naskd.networks import BLOCKS
from naskd.testing import BlockSuite
from naskd.testing.suite import Suite

SUITES = [getattr(testing, name) for name in testing.__all__]


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_says_what_each_of_its_tests_asserts(suite: type[Suite]) -> None:
    tests = [getattr(suite, name) for name in dir(suite) if name.startswith("test_")]
    assert tests
    assert all(test.__doc__ for test in tests)
    assert "Example::" in (suite.__doc__ or "")


def test_names_may_be_one_or_several() -> None:
    assert type("One", (BlockSuite,), {"names": "basic"}).chosen() == ("basic",)
    assert type("All", (BlockSuite,), {"names": BLOCKS.names()}).chosen() == BLOCKS.names()


def test_a_suite_without_names_does_not_pass_silently() -> None:
    with pytest.raises(pytest.UsageError, match=r'Empty tests nothing; write names = "..." in it'):
        type("Empty", (BlockSuite,), {}).chosen()


def test_a_name_that_nobody_registered_is_told_so() -> None:
    with pytest.raises(pytest.UsageError, match="no block named 'nobodys' is registered; import the module"):
        type("Mine", (BlockSuite,), {"names": "nobodys"}).chosen()


def test_without_pytest_one_line_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pytest'] = None; import naskd.testing"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: naskd.testing needs pytest; install it: pip install pytest"
    )
    assert "During handling" not in found.stderr


def test_nothing_of_naskd_needs_it() -> None:
    code = (
        "import sys, naskd.cli, naskd.runs.run, naskd.runs.retrain; "
        "sys.exit('naskd.testing' in sys.modules or 'pytest' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
