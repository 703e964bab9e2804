"""docs/reference/testing.md is run as a user would run it."""

import re
from pathlib import Path

from forks import Forker

from naskd import testing

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "testing.md"


RUN = """
import sys
import pytest
sys.path.insert(0, "")
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", {arguments}]))
"""


def test_the_example_passes_and_a_mistake_in_it_is_caught(tmp_path: Path, forker: Forker) -> None:
    blocks = re.findall(r'^```python title="(.*?)"\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert [name for name, _ in blocks] == ["my_loss.py", "my_block.py", "test_mine.py"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    assert "passed" in forker.run(RUN.format(arguments='"test_mine.py"'), tmp_path / "good")
    loss = tmp_path / "my_loss.py"
    loss.write_text(loss.read_text().replace("apart.abs().mean()", "apart[0].abs().mean()"))
    one = RUN.format(arguments='"test_mine.py::TestMyLoss", "-k", "order_of_the_batch"')
    assert forker.wait(forker.begin(one, tmp_path / "bad")) == 1
    assert "not close" in (tmp_path / "bad").read_text()


def test_every_suite_is_on_the_page() -> None:
    assert all(f"`{name}`" in PAGE.read_text() for name in testing.__all__)
