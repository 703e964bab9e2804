"""What the guides show can be used as it stands."""

import re
import subprocess
import sys
import tomllib

import pytest

from naskd.spec import tables
from naskd.spec.study import StudySpec

from .prose import PAGES, ROOT

SMALLEST = {"name": "x", "space": "space.py:joint", "data": {"kind": "digits"}, "budget": {"trials": 1}}

CHECK = """
from naskd.spec.objectives import OBJECTIVES

assert OBJECTIVES["kernel_area"].known == "before"
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$",
        (ROOT / page).read_text(),
        flags=re.DOTALL | re.MULTILINE,
    )


@pytest.mark.parametrize(
    "page", [page.relative_to(ROOT).as_posix() for page in PAGES if "```toml" in page.read_text()]
)
def test_tables_of_a_study_file_are_valid(page: str) -> None:
    for block in blocks(page, "toml"):
        data = {**SMALLEST, **tomllib.loads(block)}
        common, options = tables.split_options(data)
        assert not tables.check_options(data, options)
        StudySpec.from_dict(tables.as_spec(common, options))


def test_parts_of_ones_own_work() -> None:
    shown = blocks("docs/guides/own-parts.md", "python")
    # Named as a module is: what stands below a guard would search for minutes.
    code = "\n".join(['__name__ = "guides"', *shown, CHECK])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
