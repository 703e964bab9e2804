"""docs/reference/testing.md is run as a user would run it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from naskd import testing

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "testing.md"


@pytest.mark.slow
def test_the_example_passes_and_a_mistake_in_it_is_caught(tmp_path: Path) -> None:
    blocks = re.findall(r'^```python title="(.*?)"\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert [name for name, _ in blocks] == ["my_loss.py", "my_block.py", "test_mine.py"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert "passed" in found.stdout
    loss = tmp_path / "my_loss.py"
    loss.write_text(loss.read_text().replace("apart.abs().mean()", "apart[0].abs().mean()"))
    command[-1:] = ["test_mine.py::TestMyLoss", "-k", "order_of_the_batch"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stdout
    assert "not close" in found.stdout


def test_every_suite_is_on_the_page() -> None:
    assert all(f"`{name}`" in PAGE.read_text() for name in testing.__all__)
