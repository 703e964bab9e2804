"""The table of features: what it says of naskd exists, and what it says of others has a page."""

import importlib
import json
import re
import shlex

import pytest
from typer.main import get_command

from naskd.cli import app
from naskd.runs.run import Run
from naskd.spec.schema import study_schema

from .prose import ROOT

PAGE = (ROOT / "docs" / "reference" / "features.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| \d+ \|", line)
]
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]  # it is a group
SCHEMA = json.dumps(study_schema())


def test_there_are_forty() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 41))
    assert {len(row) for row in ROWS} == {9}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_is_said_of_naskd_exists(row: list[str]) -> None:
    answer, shown = row[2], re.findall(r"`([^`]+)`", row[2])
    assert answer == "no" or (answer.startswith(("yes: ", "in part: ")) and shown)
    for code in shown:
        words = shlex.split(code)
        if words[0] == "naskd":
            command = COMMANDS[words[1]]
            options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert [word for word in words if word.startswith("--") and word not in options] == [], code
        elif code.startswith("naskd."):
            name = code.removeprefix("naskd.")
            naskd = importlib.import_module("naskd")
            assert name in dir(naskd) or importlib.import_module(code)
        elif code.startswith("run."):
            assert callable(getattr(Run, code.removeprefix("run."))), code
        else:
            for key in code.split("."):
                assert f'"{key}": {{' in SCHEMA, code


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_is_said_of_others_names_a_page(row: list[str]) -> None:
    pages = dict(re.findall(r"^(\d+)\. \[.*\]\((https://\S+)\)$", PAGE, re.MULTILINE))
    for cell in row[3:]:
        if cell != "not found":
            assert re.fullmatch(r"(yes|in part)( \[\d+\]\(https://\S+\))+", cell), cell
            for number, address in re.findall(r"\[(\d+)\]\((\S+?)\)", cell):
                assert pages[number] == address
