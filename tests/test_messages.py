"""What is printed: in any encoding, without what acts on a terminal, in whole numbers, and true when it is copied."""

import csv
import dataclasses
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner, Result

from naskd import launch, open_run
from naskd.cli import app
from naskd.cli.looking import registries
from naskd.cli.printing import PIPED_WIDTH, Visible, print_result, say
from naskd.report.cache_table import cache_table
from naskd.report.cards import card_table
from naskd.report.footer import Footer
from naskd.report.front_csv import front_csv
from naskd.report.front_table import front_table
from naskd.report.html import page_data
from naskd.report.trial_table import trial_table
from naskd.runs.moved import PLACES
from naskd.spec.errors import InputError
from naskd.spec.executors import ExecutorCard
from naskd.spec.exports import EXPORTS
from naskd.spec.loggers import LOGGERS
from naskd.spec.packages import INSTALLED_AS, pip_install
from naskd.spec.study import StudySpec

ROOT = Path(__file__).parents[1]
SEED = 2**62 + 1


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="naskd")


def record(**trial: Any) -> dict[str, Any]:
    """A run of two trials: one on the front, one turned away without a seed."""
    first = {
        "number": 0,
        "state": "COMPLETE",
        "on_front": True,
        "val_accuracy": 0.5,
        "macs": 1000,
        "seed": str(SEED),
    }
    second = {"number": 1, "state": "PRUNED", "on_front": False, "reason": "over max_macs", "seed": ""}
    return {"study": "x", "train_macs": 2**60, "trials": [{**first, **trial}, second]}


# --- streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-16"])
def test_streams_of_any_encoding_take_any_text(encoding: str) -> None:
    code = (
        "from naskd.cli.printing import print_plainly, print_result, say\n"
        "print_plainly()\n"
        "from rich.text import Text\n"
        "print_result(Text('16×2 ← 97 ± 1 · 数 \\udcff'))\n"
        "say('error: no file a\\udcff数')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    shown = done.stdout.decode(encoding)
    assert shown.startswith(("16x2 <- 97 +- 1 |", "16×2"))
    assert "\\xff" in shown
    assert "a\\xff" in done.stderr.decode(encoding)


def test_a_closed_or_full_output_is_one_line_at_most(tiny_run: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m naskd front {shlex.quote(str(tiny_run))}"
    for redirected, said in ((">/dev/full", "No space left on device"), (">&-", "")):
        done = subprocess.run(
            f"{command} {redirected}", shell=True, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == bool(said)
    done = subprocess.run(
        f"{command} --json | head -n 1", shell=True, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


# --- looking ------------------------------------------------------------------------------------------------


def test_a_run_is_looked_at_without_torch(tiny_run: Path, tmp_path: Path) -> None:
    commands = [
        ["front", str(tiny_run)], ["front", str(tiny_run), "--all"], ["front", str(tiny_run), "--csv"],
        ["front", str(tiny_run), "--html", str(tmp_path / "page.html")], ["show", str(tiny_run), "0"],
        ["best", str(tiny_run), "--max-macs", "100M"], ["methods", "processes"],
    ]  # fmt: skip
    code = (
        "import sys\nfrom naskd.cli import app\n"
        f"for words in {commands!r}:\n"
        "    app(words, standalone_mode=False)\n"
        "    heavy = {'torch', 'ray', 'matplotlib', 'sklearn', 'torchvision'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_numbers_are_given_as_they_are_printed(tiny_run: Path) -> None:
    run = open_run(tiny_run)
    most = max(trial["macs"] for trial in run.front())
    assert run.best(max_macs="100M") == run.best(max_macs=1e8) == run.best(limits={"macs": "100 MMACs"})
    assert call("best", tiny_run, "--max-macs", "100M", "--json").exit_code == 0
    assert call("best", tiny_run, "--limit", "macs=0.1G", "--json").exit_code == 0
    assert run.best(max_macs=most)["macs"] <= most
    for wrong in (
        {"max_macs": "many"}, {"max_macs": float("nan")}, {"max_macs": True}, {"max_macs": [1]}, {"max_macs": 10**400},
        {"min_accuracy": 90}, {"min_accuracy": "x"}, {"limits": "macs"}, {"limits": {1: 2}},
    ):  # fmt: skip
        with pytest.raises(InputError):
            run.best(**wrong)
    for wrong in ("0", 0.0, None, True, -1, 99):
        with pytest.raises(InputError, match="trial"):
            run.trial(wrong)


@pytest.mark.parametrize(
    "given",
    [{"trials": 0}, {"trials": 1.5}, {"seconds": -1}, {"seconds": float("nan")}, {"out": "/dev/null"}],
)
def test_a_wrong_limit_of_a_search_is_an_input_error(given: dict[str, Any], tiny_run: Path) -> None:
    with pytest.raises(InputError):
        launch.search(tiny_run.parents[1] / "tiny.toml", **given)


# --- seeds --------------------------------------------------------------------------------------------------


def test_a_seed_keeps_its_64_bits_in_pandas_and_json(tiny_run: Path) -> None:
    for trials in (
        open_run(tiny_run).trials(),
        json.loads(call("front", tiny_run, "--json", "--all").stdout)["trials"],
    ):
        assert all(isinstance(trial["seed"], str) and int(trial["seed"]) > 0 for trial in trials)
    for rows in (
        pd.DataFrame(record()["trials"]),
        pd.read_csv(io.StringIO(front_csv(record(), all_trials=True))),
        pd.read_csv(io.StringIO(front_csv(record()))),
        pd.read_json(io.StringIO(json.dumps(record()["trials"]))),
    ):
        assert int(rows["seed"][0]) == SEED
    shown = page_data(record(seed=SEED))
    assert shown["trials"][0]["seed"] == str(SEED), "of a record of an earlier version, too"
    assert isinstance(shown["train_macs"], float), "a count that is as large stays a number"


# --- tables -------------------------------------------------------------------------------------------------


def text_of(result: Any, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(result)
    return console.file.getvalue()


def test_a_footer_breaks_between_its_facts_only() -> None:
    facts = ["FLOPs = 2 × MACs, one image", "hypervolume 0.1150", "search spent 1.79 GMACs", "20 trials"]
    for width in (30, 50, 64, 200):
        lines = [line.strip() for line in text_of(Footer(facts), width).splitlines()]
        assert [fact for line in lines for fact in line.split(" · ")] == facts
        assert max(map(len, lines)) <= width
    for table in (cache_table([], "Kept"), front_table({**record(), "hypervolume": 0.25})):
        assert re.search(r"0 entries, 0 B|search spent 1\.15 EMACs", text_of(table, 40))


def test_a_piped_table_has_no_blanks_at_the_ends_of_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(front_table(record()))
    lines = capsys.readouterr().out.splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert max(map(len, lines)) < PIPED_WIDTH


@pytest.mark.parametrize(
    "card", [card for registry in registries().values() for card in registry], ids=lambda c: c.name
)
def test_a_card_shows_no_address(card: Any) -> None:
    shown = text_of(card_table("method", card), 200)
    assert not re.search(r"0x[0-9a-f]{6}|<(function|lambda|object|bound|built-in)|:_|functools", shown)


def test_a_card_of_anybody_shows_no_address() -> None:
    card = ExecutorCard("own", "t", "", "m:C", prepare=lambda: None, check=Footer(["x"])._text, brings=print)
    assert not re.search(r"0x|<|_text", text_of(card_table("executor", card), 200))


# --- text of others -----------------------------------------------------------------------------------------

HOSTILE = "\x1b[2Jpostgresql://u:s3kr1t@h/db\x07\u202e"


def test_text_of_others_acts_on_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from naskd.report.trials_table import trials_table

    odd = record(reason=HOSTILE, error=HOSTILE)
    for table in (
        trials_table(odd),
        trial_table(odd, 0),
        front_table({**odd, "warnings": [HOSTILE]}),
    ):
        print_result(table)
        assert "\x1b" not in text_of(Visible(table), 100)
    say(HOSTILE)
    shown = "".join(capsys.readouterr())
    assert "\\x1b[2J" in shown
    for hidden in ("\x1b", "\x07", "\u202e", "s3kr1t"):
        assert hidden not in shown


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "\r=1", HOSTILE])
def test_no_cell_of_a_csv_is_a_formula(text: str) -> None:
    table = front_csv(record(reason=text, val_accuracy=-0.5), all_trials=True)
    row = next(csv.DictReader(io.StringIO(table)))
    assert not row["reason"].startswith(("=", "+", "-", "@", "\t", "\r", " ", "\x1b"))
    assert "s3kr1t" not in row["reason"]
    assert row["val_accuracy"] == "-0.5", "a number is a number"


# --- remedies -----------------------------------------------------------------------------------------------


def printed_commands() -> Iterator[tuple[str, str]]:
    """Every `naskd COMMAND ...` that code, page or templates show, with its file."""
    files = [
        *(ROOT / "naskd").rglob("*.py"),
        *(ROOT / "naskd").rglob("*.js"),
        *(ROOT / "naskd" / "templates").iterdir(),
    ]
    for file in files:
        if file.is_file():
            for found in re.findall(r"\bnaskd ((?:[a-z]+)(?: [^\s`'\";,)(#\\]+)*)", file.read_text()):
                yield str(file.relative_to(ROOT)), found


def test_commands_that_are_shown_exist_with_their_options() -> None:
    commands = get_command(app).commands
    seen = 0
    for file, shown in printed_commands():
        name, *words = shown.split()
        if name not in commands:
            continue  # prose: "naskd process", "naskd makes ..."
        seen += 1
        known = {option for parameter in commands[name].params for option in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, (file, shown)
    assert seen > 10


def installable() -> set[str]:
    """The packages that naskd and its extras install, and drivers of databases that users choose themselves."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    return {_name_of(line) for line in lines} | {"psycopg2-binary", "mysqlclient"}


def _name_of(requirement: str) -> str:
    return re.split(r"[\[<>=~!]", requirement.strip("'\""))[0]


def test_packages_that_are_told_to_install_are_those_of_the_extras() -> None:
    cards = [card for registry in registries().values() for card in registry]
    # One that wants an environment of its own says so in place of a command.
    own = {card.name for card in EXPORTS if card.how_installed}
    told = {package for card in cards if card.name not in own for package in getattr(card, "packages", ())}
    commands = [pip_install([package.partition(".")[0]]) for package in told]
    commands += [pip_install([package]) for package in INSTALLED_AS]
    commands += [f"pip install {card.install}" for card in LOGGERS if card.install]
    for file in (ROOT / "naskd").rglob("*.py"):
        commands += re.findall(r"pip install [a-z][\w\- ]*\b", file.read_text())
    packages = [_name_of(name) for command in commands for name in command.split()[2:]]
    assert {"ray", "pyarrow", "onnx", "timm", "mlflow"} <= set(packages)
    assert set(packages) <= installable() | {"is", "knows"}, "the words of a docstring"


def test_settings_that_are_told_are_keys() -> None:
    keys = {field.name for field in dataclasses.fields(StudySpec)}
    for file in (ROOT / "naskd").rglob("*.py"):
        for key in re.findall(r"--set ([a-z_.]+)=", file.read_text()):
            assert key in PLACES or key.partition(".")[0] in keys, (file, key)


def test_nothing_tells_to_install_what_no_index_has() -> None:
    for file in [*(ROOT / "naskd").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        assert not re.search(r"pip install\s+['\"]?naskd\b", file.read_text()), file
        if file.suffix == ".py":
            assert "naskd[" not in file.read_text(), file


# --- where nothing can be written, and nothing is -------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"]])
def test_help_on_a_full_disk_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "naskd", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    code = f"import os; os.rmdir({str(tmp_path)!r}); from naskd.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "methods"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: the folder that naskd was started in is gone; change to one that is there\n"
