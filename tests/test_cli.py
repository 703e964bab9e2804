"""The command line: what goes to which stream, exit codes, and that mistakes are said in plain words."""

import csv
import errno
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import write_tiny_study
from forks import Forker
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner, Result

import naskd
from naskd import launch
from naskd.cli import app
from naskd.cli.looking import registries
from naskd.cli.searching import last_failure, refusals_line
from naskd.report import progress as progress_module
from naskd.report.cards import card_facts
from naskd.report.progress import CountProgress, SearchProgress
from naskd.runs import run as api
from naskd.runs.export import ExportError
from naskd.spec.errors import RunError
from naskd.spec.samplers import SAMPLERS
from naskd.study import record
from naskd.study.snapshot import Snapshot

CARDS = [card for registry in registries().values() for card in registry]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="naskd")


def assert_refused(result: Result, code: int, *said: str) -> None:
    """A clear message on standard error and nothing else."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for text in said:
        assert text in result.stderr


# --- starting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["--help", "--version", "search --help", "retrain --help"])
def test_help_imports_nothing_heavy(command: str) -> None:
    # Without pydantic: typer itself imports it where an option has a range.
    code = (
        "import sys\nfrom naskd.cli import app\n"
        f"try: app({command.split()!r})\nexcept SystemExit as end: assert not end.code, end\n"
        "heavy = {'torch', 'optuna', 'ray', 'plotly', 'numpy', 'matplotlib', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_import_naskd_imports_nothing_heavy() -> None:
    code = "import sys, naskd; assert not {'torch', 'optuna', 'ray', 'pydantic', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_search_prepares_its_executor_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from naskd import launch\n"
        "from pathlib import Path\n"
        "from naskd.spec.parse import parse_study\n"
        "from multiprocessing import forkserver\n"
        f"spec = parse_study(Path({str(write_tiny_study(tmp_path))!r}), ['execution.executor=processes'])\n"
        "launch.prepare(spec)\n"
        "assert forkserver._forkserver._forkserver_pid is not None\n"
        "assert not {'torch', 'optuna', 'ray'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_help_takes_less_than_two_fifths_of_a_second() -> None:
    # Processor time and the best of three: what else runs on the machine must not decide.
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "naskd", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.4


def test_version() -> None:
    assert call("--version").stdout == f"naskd {naskd.__version__}\n"


def test_commands_are_the_promised_ones() -> None:
    promised = [
        "search",
        "front",
        "show",
        "best",
        "compare",
        "retrain",
        "export",
        "clone",
        "check",
        "space",
        "methods",
        "init",
        "cache",
        "runs",
        "rm",
        "schema",
        "watch",
        "serve",
        "profile",
        "latency",
    ]
    assert sorted(re.findall(r"^  ([a-z]+)  ", call("--help").stdout, re.MULTILINE)) == sorted(promised)


# --- mistakes -------------------------------------------------------------------------------------------


def test_every_mistake_of_a_study_file_is_listed(tmp_path: Path) -> None:
    study = write_tiny_study(tmp_path)
    study.write_text(study.read_text().replace("epochs = 1\n", "epochs = 0\nsede = 1\n", 1))
    for command in ("check", "search", "space"):
        assert_refused(
            call(command, study), 2, "tiny.toml: 2 problems", "epochs: got 0", "did you mean 'seed'"
        )


def test_missing_study_file(tmp_path: Path) -> None:
    assert_refused(call("check", tmp_path / "nothing.toml"), 2, "nothing.toml", "No such file")


def test_set_overrides_and_is_checked(tmp_path: Path) -> None:
    study = write_tiny_study(tmp_path)
    assert "at most 1234567 trials" in call("check", study, "--set", "budget.trials=1234567").stdout
    assert_refused(
        call("check", study, "--set", "sampler.name=tpee"), 2, "sampler.name", "did you mean 'tpe'"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("search", "x.toml", "--trials", "0"), "--trials"),
        (("search", "x.toml", "--seconds", "0"), "seconds above 0"),
        (("search", "x.toml", "--seconds", "nan"), "seconds above 0"),
        (("best", "x", "--max-macs", "many"), "many is not a count"),
        (("best", "x", "--max-macs", "0.5"), "0.5 is not a count"),
        (("best", "x", "--max-macs", "5MB"), "5MB is not a count"),
        (("best", "x", "--limit", "latency_ms=5kB"), "wanted NAME=VALUE with a number"),
        (("best", "x", "--min-accuracy", "97"), "such as 0.97"),
        (("front", "x", "--json", "--csv"), "--json and --csv"),
        (("retrain", "x", "--seeds", "0"), "--seeds"),
        (("front",), "RUN"),
        (("fornt", "x"), "fornt"),
        (("cache", "--yes"), "--remove"),
        (("cache", "--limit", "much"), "20GiB"),
        (("cache", "--older-than", "30"), "30d"),
        (("cache", "--remove", "everything"), "nothing is called 'everything'"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], said: str) -> None:
    assert_refused(call(*arguments), 2, said)


def test_unknown_executor_names_the_known(tmp_path: Path) -> None:
    result = call("search", write_tiny_study(tmp_path), "--executor", "seriall", "--out", tmp_path / "r")
    assert_refused(result, 2, 'execution.executor: got "seriall"', "did you mean 'serial'")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("command", [("front",), ("show", "0"), ("best",), ("retrain",), ("export", "0")])
def test_no_run(command: tuple[str, ...], tmp_path: Path) -> None:
    name, *rest = command
    assert_refused(call(name, tmp_path, *rest), 2, f"{tmp_path} is no run directory")


def test_resume_of_a_changed_study_is_refused_as_wrong_input(tiny_run_copy: Path) -> None:
    study = tiny_run_copy.parents[1] / "tiny.toml"
    before = (tiny_run_copy / "study.json").read_bytes()
    result = call("search", study, "--out", tiny_run_copy, "--set", "epochs=3")
    assert_refused(result, 2, "cannot be resumed", "epochs: 1 -> 3")
    assert (tiny_run_copy / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device ("),
        (OSError(errno.EACCES, "Permission denied", "/there/file"), "Permission denied (/there/file)"),
        (RunError("the run is in use"), "the run is in use"),
        (ExportError("the models differ"), "the models differ"),
    ],
)
def test_what_fails_while_running_is_one_line(
    raised: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(launch, "search", fail)
    result = call("search", write_tiny_study(tmp_path), "--out", tmp_path / "full")
    assert_refused(result, 1, said)
    assert len(result.stderr.splitlines()) == 1
    if "space" in said:
        assert str(tmp_path / "full") in result.stderr


def test_a_mistake_in_naskd_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(launch, "search", fail)
    result = call("search", write_tiny_study(tmp_path))
    assert isinstance(result.exception, KeyError)


def test_no_complete_trial_is_a_failure(tmp_path: Path) -> None:
    study = write_tiny_study(tmp_path)
    space = tmp_path / "space.py"
    # One epoch at this rate ends in infinities, whatever the seed.
    space.write_text(space.read_text().replace("epochs=1)", 'epochs=1, learning_rate=1e30, optimizer="sgd")'))
    result = call("search", study, "--trials", 1, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "no trial is complete" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("short", "code"), [(True, 1), (False, 0)])
def test_a_search_that_fell_short_says_so_in_its_last_line(
    short: bool, code: int, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = api.open_run(tiny_run)
    run.stop_reason, run.fell_short = "9 designs in a row were turned away: over max_macs (9)", short
    monkeypatch.setattr(launch, "search", lambda *_, **__: run)
    result = call("search", write_tiny_study(tmp_path), "--out", tmp_path / "run")
    assert result.exit_code == code
    assert f"ended: {run.stop_reason}" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert (last == f"error: 2 of 2 trials were trained: {run.stop_reason}") is short


def test_a_search_of_which_trials_failed_says_how_many(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = api.open_run(tiny_run)
    record = run.to_dict(everything=True)
    record["trials"][1] |= {"state": "FAIL", "reason": "it broke", "on_front": False}
    record["trials"][0]["on_front"] = True
    record["counts"] |= {"failed": 1, "complete": 1}
    run.stop_reason = "all 2 trials done"
    monkeypatch.setattr(type(run), "to_dict", lambda *_, **__: record)
    monkeypatch.setattr(launch, "search", lambda *_, **__: run)
    result = call("search", write_tiny_study(tmp_path), "--out", tmp_path / "run")
    assert "ended: all 2 trials done; 1 of 2 trials failed" in result.stderr.splitlines()
    assert "the last that failed: it broke" in result.stderr.splitlines()


def test_students_that_guess_are_not_offered_as_the_best(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = api.open_run(tiny_run)
    record = run._record
    images = {"classes": 4, "val": 320}

    def guessing(*arguments: Any) -> dict[str, Any]:
        found = record(*arguments)
        trials = [{**trial, "val_accuracy": 0.26} for trial in found["trials"]]
        return {**found, "trials": trials, "images": images}

    monkeypatch.setattr(run, "_record", guessing)
    monkeypatch.setattr(launch, "search", lambda *_, **__: run)
    result = call("search", write_tiny_study(tmp_path), "--out", tmp_path / "run")
    said = " ".join(result.stdout.split())
    assert (
        "warning: No student is surely better than guessing: the best names 26.0% of 320 validation images rightly. "
        "Guessing among 4 classes names 25.0%, and by accident the best of" in said
    )
    assert "naskd show" in result.stderr
    assert "naskd best" not in result.stderr
    assert "naskd retrain" not in result.stderr
    images["val"] = 320_000  # of which a point more is no accident
    assert "No student" not in call("search", write_tiny_study(tmp_path), "--out", tmp_path / "run").stdout


# --- searching ------------------------------------------------------------------------------------------


def test_init_then_check_then_space(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "study"
    made = call("init", folder)
    assert made.exit_code == 0
    assert sorted(made.stdout.split()) == sorted(str(path) for path in folder.iterdir())
    assert call("check", folder / "study.toml").exit_code == 0
    shown = call("space", folder / "study.toml", "--samples", 20).stdout
    assert "kd.temperature" in shown
    assert "MACs" in shown


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text("mine")
    assert_refused(call("init", tmp_path), 2, "already holds space.py")
    assert [path.name for path in tmp_path.iterdir()] == ["space.py"]
    assert (tmp_path / "space.py").read_text() == "mine"


def test_dry_run_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("search", write_tiny_study(tmp_path / "s"), "--dry-run", "--trials", 50)
    assert result.exit_code == 0
    first, trial, budget, *_ = result.stdout.splitlines()
    assert first == "What searching tiny would cost; nothing was started"
    assert trial.startswith("a trial: about ")
    assert budget.startswith("the whole budget: 50 trials, about ")
    assert not (tmp_path / "runs" / "tiny").exists()


def test_search_goes_on_and_ends_with_front_and_report(tiny_run_copy: Path) -> None:
    study = tiny_run_copy.parents[1] / "tiny.toml"
    result = call("search", study, "--out", tiny_run_copy, "--trials", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Front of tiny")
    assert "3 of 3 trials" in result.stderr
    assert "ended: all 3 trials done" in result.stderr
    assert str(tiny_run_copy / "report.html") in result.stderr
    told = result.stderr.splitlines()
    assert told[told.index("next:") + 1].startswith("  naskd show ")
    assert "naskd retrain" in result.stderr
    assert "optuna-dashboard" not in result.stderr, "the docs tell of it, once"
    assert re.search(
        r"teacher: \d+% of [\d.]+ k answers from the bank, [\d.]+ \w*MACs saved, bank", result.stderr
    )
    assert max(map(len, result.stdout.splitlines())) <= 120
    assert "\x1b" not in result.output
    assert len(api.open_run(tiny_run_copy).trials()) == 3


@pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 130)])
def test_ctrl_c_once_finishes_the_trial_twice_stops_at_once(
    signals: int, code: int, tmp_path: Path, forker: Forker
) -> None:
    study, run = write_tiny_study(tmp_path), tmp_path / "run"
    shown, said = tmp_path / "shown", tmp_path / "said"
    # Once: in the middle of many short trials. Twice: in the middle of one that would never end.
    epochs = 1 if signals == 1 else 100_000
    argv = ["search", str(study), "--trials", "10000", "--out", str(run), "--set", f"epochs={epochs}"]
    search = forker.start(argv, shown, errors=said)
    if signals == 1:
        _wait_for(run / "journal.log", '"result"')
    else:
        _wait_for(run / "status.json", '"trial 0"')
    os.kill(search, signal.SIGINT)
    if signals == 2:
        _wait_for(said, "Ctrl-C again stops now")
        os.kill(search, signal.SIGINT)
    assert forker.wait(search) == code, said.read_text()
    assert "Ctrl-C again stops now" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert re.search("naskd search .* --trials 10000 .*--set epochs=", said.read_text()), "how to go on"
    states = {trial["state"] for trial in api.open_run(run).trials()}
    if signals == 1:
        assert "Front of tiny" in shown.read_text()
        assert states == {"COMPLETE"}
    else:
        assert states == {"FAIL", "WAITING"}
        assert "what was running is run again by" in said.read_text()


def _wait_for(file: Path, text: str) -> None:
    for _ in range(3000):
        if file.exists() and text in file.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"{file.name} never said {text}")


# --- looking --------------------------------------------------------------------------------------------


def test_front_json_has_the_promised_keys(tiny_run: Path) -> None:
    shown = json.loads(call("front", tiny_run, "--json").stdout)
    assert {
        "study",
        "objectives",
        "reference_point",
        "hypervolume",
        "train_macs",
        "trials",
        "schema_version",
    } <= set(shown)
    macs = [trial["macs"] for trial in shown["trials"]]
    assert macs == sorted(macs)
    for trial in shown["trials"]:
        assert {
            "number",
            "val_accuracy",
            "macs",
            "n_params",
            "config",
            "seed",
            "wall_seconds",
            "train_macs",
        } <= set(trial)
        assert {"architecture", "distillation", "training"} <= set(trial["config"])


def test_front_all_json_has_every_trial_with_its_state(tiny_run: Path) -> None:
    trials = json.loads(call("front", tiny_run, "--json", "--all").stdout)["trials"]
    assert [trial["number"] for trial in trials] == [0, 1]
    assert all(trial["state"] == "COMPLETE" and trial["reason"] == "" for trial in trials)


def test_json_has_no_nan(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.Run, "to_dict", lambda *_: {"trials": [{"curve": ({"loss": float("nan")},)}]})
    assert json.loads(call("front", tiny_run, "--json").stdout) == {"trials": [{"curve": [{"loss": None}]}]}


def test_front_csv(tiny_run: Path) -> None:
    run = api.open_run(tiny_run)
    rows = list(csv.DictReader(io.StringIO(call("front", tiny_run, "--csv").stdout)))
    assert [int(row["number"]) for row in rows] == [trial["number"] for trial in run.front()]
    rows = list(csv.DictReader(io.StringIO(call("front", tiny_run, "--csv", "--all").stdout)))
    assert [row["state"] for row in rows] == ["COMPLETE", "COMPLETE"]


def test_front_table_and_listing(tiny_run: Path) -> None:
    assert call("front", tiny_run).stdout.startswith("Front of tiny")
    listing = call("front", tiny_run, "--all").stdout
    assert listing.count("COMPLETE") == 2
    assert "* " in listing


def test_front_files(tiny_run: Path, tmp_path: Path) -> None:
    result = call("front", tiny_run, "--png", tmp_path / "f.png", "--html", tmp_path / "f.html")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (tmp_path / "f.html").read_text()
    nowhere = tmp_path / "nowhere" / "f.png"
    assert_refused(call("front", tiny_run, "--png", nowhere), 2, str(nowhere))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_full_disk_names_the_file(tiny_run: Path) -> None:
    result = call("front", tiny_run, "--png", "/dev/full")
    assert_refused(result, 1, "No space left on device", "/dev/full")


def test_show(tiny_run: Path) -> None:
    assert call("show", tiny_run, 1).stdout.startswith("Trial 1 of tiny")
    assert json.loads(call("show", tiny_run, 1, "--json").stdout)["number"] == 1
    assert_refused(call("show", tiny_run, 99), 2, "no trial 99", "0 to 1")


def test_a_search_that_turns_most_designs_away_says_why() -> None:
    def trial(state: str, reason: str = "", curve: tuple[int, ...] = ()) -> dict[str, object]:
        return {"state": state, "reason": reason, "curve": list(curve)}

    trained = [trial("COMPLETE", curve=(1,)), trial("PRUNED", "stopped by rule 'mine'", curve=(1,))]
    refused = [
        trial("PRUNED", "macs 20 > max_macs 5"),
        trial("PRUNED", "unknown teacher: the design names 'a'; known: b"),
        trial("PRUNED", "macs 31 > max_macs 5"),
    ]
    assert refusals_line([]) == ""
    assert refusals_line([*trained, *refused[:2]]) == ""
    assert refusals_line([*trained, *refused]) == (
        "turned away: 3 designs, 2 of them as this one: macs 20 > max_macs 5"
    )


def test_a_trial_that_is_run_again_is_no_failure_of_a_search() -> None:
    failed = {"state": "FAIL", "reason": "loss is not finite", "retried": False}
    again = {"state": "FAIL", "reason": "interrupted: run again", "retried": True}
    assert last_failure([again]) == ""
    assert last_failure([failed, again]) == "loss is not finite"


def test_best(tiny_run: Path) -> None:
    front = api.open_run(tiny_run).front()
    cheapest = json.loads(call("best", tiny_run, "--min-accuracy", "0", "--json").stdout)
    assert cheapest["number"] == front[0]["number"]
    finest = json.loads(call("best", tiny_run, "--max-macs", "1e9", "--json").stdout)
    assert finest["number"] == front[-1]["number"]
    assert call("best", tiny_run).stdout.startswith(f"Trial {finest['number']} of tiny")
    assert_refused(call("best", tiny_run, "--max-macs", "1"), 2, "macs <= 1")
    small = json.loads(call("best", tiny_run, "--limit", f"n_params={cheapest['n_params']}", "--json").stdout)
    assert small["n_params"] <= cheapest["n_params"]
    assert_refused(call("best", tiny_run, "--limit", "n_params=few"), 2, "NAME=VALUE with a number")
    assert_refused(call("best", tiny_run, "--limit", "n_param=5"), 2, "did you mean 'n_params'")
    two = ("--limit", "n_params=1e9", "--limit", "macs=1")
    assert_refused(call("best", tiny_run, *two), 2, "macs <= 1 and n_params <= 1000000000;")
    twice = ("--limit", "macs=1", "--limit", "macs=1e9")
    assert_refused(call("best", tiny_run, *twice), 2, "--limit macs=1e9: two limits on macs")
    assert_refused(call("best", tiny_run, *twice[2:], "--max-macs", "1"), 2, "two limits on macs")


@pytest.fixture(scope="module")
def listing() -> str:
    """Of all methods, on a wide terminal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "600")
        return call("methods").stdout


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_methods_show_every_card(card: object, listing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "600")
    name, paper = card.name, card.paper
    assert re.search(rf"^(\S+)? +{name} .*{re.escape(paper)}", listing, re.MULTILINE)
    whole = call("methods", name).stdout
    assert " at 0x" not in whole, "a function is shown by its name"
    assert name in whole
    assert paper in whole
    assert str(card.implementation) in whole


def test_piped_tables_are_neither_narrow_nor_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert 100 < max(map(len, call("methods").stdout.splitlines())) <= 120


@pytest.mark.parametrize("kind", ["scheme", "sampler", "knowledge"])
def test_a_kind_lists_its_methods(kind: str) -> None:
    found = call("methods", kind).stdout
    assert found == call("methods", f"{kind}s").stdout
    cards = {card.name: kind for kind, registry in registries().items() for card in registry}
    assert not cards.keys() & {name for kind in registries() for name in (kind, f"{kind}s")}
    header, *lines = found.splitlines()
    names = [line[header.index("name") :] for line in lines]
    shown = {name.split()[0] for name in names if name[:1].strip()}
    assert shown == {name for name, of in cards.items() if of == kind}


def test_unknown_method_names_the_nearest() -> None:
    assert_refused(call("methods", "logit"), 2, "unknown method 'logit'", "did you mean 'logits'")
    assert_refused(call("methods", "shceme"), 2, "kinds: family, block,", "did you mean 'scheme'")


# --- taking away ----------------------------------------------------------------------------------------


def test_retrain_then_export(tiny_run_copy: Path, tmp_path: Path) -> None:
    result = call("retrain", tiny_run_copy, 0, "--seeds", 2)
    assert result.exit_code == 0, result.output
    assert "2 fresh seeds of 1 epoch each" in result.stdout
    assert "2 of 2 trainings" in result.stderr
    target = tmp_path / "student.safetensors"
    result = call("export", tiny_run_copy, 0, "--out", target)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{target}\n"
    assert naskd.load(target).training is False
    assert_refused(
        call("export", tiny_run_copy, 0, "--format", "onnx", "--out", target), 2, "must end in .onnx"
    )
    assert_refused(call("export", tiny_run_copy, 0, "--format", "onx"), 2, "unknown export format", "'onnx'")
    assert_refused(call("retrain", tiny_run_copy, 7), 2, "no trial 7")


# --- for programs ----------------------------------------------------------------------------------------

WITHOUT_FACTS = {"schema", "init", "export", "clone", "serve"}
"""Commands without --json: one prints JSON anyway, three print paths, and one an address."""


def test_every_command_that_prints_facts_has_json() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    having = {name for name, command in commands.items() if "--json" in str([p.opts for p in command.params])}
    assert set(commands) - having <= WITHOUT_FACTS


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (("front", "RUN"), {"study", "trials", "hypervolume"}),
        (("show", "RUN", 0), {"number", "config"}),
        (("best", "RUN", "--max-macs", "1e9"), {"number", "config"}),
        (("compare", "RUN", "OTHER"), {"runs"}),
        (("runs", "RUN"), [{"path", "state"}]),
        (("rm", "RUN"), [{"path", "removed"}]),
        (("watch", "RUN"), {"study", "trials"}),
        (("cache", "--runs", "RUNS"), {"size_bytes", "entries"}),
        (("methods",), [{"kind", "name", "title", "paper"}]),
        (("methods", "samplers"), [{"kind", "name"}]),
        (("methods", "ehvi"), [{"kind", "name", "options", "implementation"}]),
        (("check", "STUDY"), set()),
        (("space", "STUDY", "--samples", 20), {"n_parameters", "parameters", "macs", "turned_away"}),
        (("search", "STUDY", "--out", "RUN"), {"study", "trials", "hypervolume"}),
        (("search", "STUDY", "--dry-run"), {"study"}),
        (("retrain", "RUN", 0, "--seeds", 1), {"n_test", "seeds", "designs"}),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_json_is_all_that_goes_to_standard_output(
    words: tuple[Any, ...], keys: Any, tiny_run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_run_copy.parents[1])
    shutil.copytree(tiny_run_copy, other := tiny_run_copy.with_name("other"))
    places = {
        "OTHER": other,
        "RUN": tiny_run_copy,
        "RUNS": tiny_run_copy.parent,
        "STUDY": tiny_run_copy.parents[1] / "tiny.toml",
    }
    result = call(*(places.get(word, word) for word in words), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows, wanted = (found, keys[0]) if isinstance(keys, list) else ([found], keys)
    assert rows
    assert all(wanted <= row.keys() for row in rows)


def documented_keys(command: str) -> set[str]:
    """Keys in the table of the reference page whose heading names a command."""
    page = (Path(__file__).parents[1] / "docs/reference/json.md").read_text()
    section = next(part for part in page.split("\n## ")[1:] if f"`{command}" in part.partition("\n")[0])
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall("`([a-z0-9_]+)`", row)}


@pytest.mark.parametrize(
    ("command", "words", "place"),
    [
        ("naskd check STUDY", ("check", "STUDY"), None),
        ("naskd search STUDY --dry-run", ("search", "STUDY", "--dry-run"), None),
        ("naskd space STUDY", ("space", "STUDY", "--samples", 20), None),
        ("naskd rm RUN", ("rm", "RUN"), 0),
        ("naskd cache", ("cache", "--runs", "RUNS"), None),
    ],
)
def test_the_page_on_json_has_all_keys_and_no_others(
    command: str,
    words: tuple[Any, ...],
    place: int | None,
    tiny_run_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tiny_run_copy.parents[1])
    places = {
        "RUN": tiny_run_copy,
        "RUNS": tiny_run_copy.parent,
        "STUDY": tiny_run_copy.parents[1] / "tiny.toml",
    }
    found = json.loads(call(*(places.get(word, word) for word in words), "--json").stdout)
    assert (found if place is None else found[place]).keys() == documented_keys(command)


@pytest.mark.parametrize("registry", registries().values(), ids=list(registries()))
def test_every_card_is_json(registry: Any) -> None:
    for card in registry:
        facts = card_facts("method", card)
        assert json.loads(json.dumps(facts)) == facts
        assert facts["options"].keys() == getattr(card, "options", {}).keys()


# --- progress -------------------------------------------------------------------------------------------


def snapshots(n: int) -> list[Snapshot]:
    return [
        Snapshot(
            complete=i, running=f"trial {i}", epoch=1, epochs=2, seconds=i, fraction=i / n, hypervolume=i / n
        )
        for i in range(1, n + 1)
    ]


def test_plain_progress_is_a_line_now_and_then() -> None:
    out, now = io.StringIO(), [0.0]
    with SearchProgress(Console(file=out, width=200), 100, clock=lambda: now[0]) as progress:
        progress.looked(Snapshot(running="teacher"))
        for snapshot in snapshots(100):
            now[0] = snapshot.seconds
            progress.looked(snapshot)
        progress.looked(Snapshot(complete=100, fraction=1.0, seconds=100))
    lines = out.getvalue().splitlines()
    assert lines[0] == "training the teacher"
    assert "\x1b" not in out.getvalue()
    assert 8 <= len(lines) <= 13
    assert lines[-1].startswith("100 of 100 trials")


def test_off_a_terminal_the_epochs_of_a_teacher_are_said_and_so_is_what_takes_long() -> None:
    out, now = io.StringIO(), [0.0]
    progress = SearchProgress(Console(file=out, width=200), 10, clock=lambda: now[0])
    progress.doing("reading the images")
    for now[0] in (14.0, 16.0, 20.0):
        progress.speak_up()
    for epoch in range(1, 21):
        now[0] += 2.0
        progress.looked(Snapshot(running="teacher", epoch=epoch, epochs=90, seconds=now[0]))
    now[0] += 16.0  # an epoch that takes long
    progress.speak_up()
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["reading the images, 16.0 s gone", "training the teacher"]
    assert lines[2] == "training the teacher, epoch 6 of 90; 32.0 s gone"
    assert 3 <= len(lines[2:]) <= 5, "one in ten seconds"
    assert lines[-1] == "training the teacher, epoch 20 of 90; 1 min 16 s gone"


def test_off_a_terminal_a_first_trial_is_said_before_any_has_ended() -> None:
    progress = SearchProgress(Console(file=(out := io.StringIO()), width=200), 10, clock=lambda: 0.0)
    progress.looked(Snapshot(running="trial 0", epoch=1, epochs=20, seconds=12.0))
    assert out.getvalue() == "training trial 0, epoch 1 of 20; 12.0 s gone\n"


@pytest.mark.usefixtures("whole_laps")
def test_a_check_that_takes_long_says_what_it_is_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress_module, "SILENT_SECONDS", 0.0)
    result = call("check", write_tiny_study(tmp_path))
    assert result.exit_code == 0, result.output
    assert re.search(
        r"^timing a few steps of \d students and the networks that teach them, ", result.stderr, re.M
    )
    assert " gone" not in result.stdout


def test_terminal_progress_says_what_runs_and_what_is_left() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system=None)
    with SearchProgress(console, 10, clock=lambda: 0.0) as progress:
        progress.looked(
            Snapshot(
                complete=3,
                failed=1,
                stopped=1,
                turned_away=2,
                running="trial 6",
                epoch=4,
                epochs=20,
                hypervolume=0.75,
                best_accuracy=0.9722,
                seconds=8.0,
                seconds_left=12.0,
            )
        )
        progress.notice("finishing the running trial")
        console.print(progress.render())
    shown = out.getvalue()
    for text in (
        "5 of 10 trials, 1 stopped early, 1 failed, 2 turned away",
        "hypervolume 0.7500",
        "best 97.22%",
        "8.0 s gone, about 12.0 s left",
        "training trial 6, epoch 4 of 20",
        "finishing the running trial",
    ):
        assert text in shown


def test_progress_says_when_a_search_only_waits_for_other_drivers() -> None:
    waiting = Snapshot(complete=3, seconds=5.0, waiting_for=2)
    out, shown = io.StringIO(), io.StringIO()
    with SearchProgress(Console(file=out, width=200), 10, clock=lambda: 0.0) as progress:
        for snapshot in (waiting, waiting, waiting):
            progress.looked(snapshot)
    assert out.getvalue().count("\n") == 1, "said once"
    assert out.getvalue().startswith("waiting for 2 trials of other drivers")
    console = Console(file=shown, width=100, force_terminal=True, color_system=None)
    with SearchProgress(console, 10, clock=lambda: 0.0) as progress:
        progress.looked(Snapshot(complete=3, seconds=5.0, waiting_for=1))
        console.print(progress.render())
    assert "waiting for 1 trial of other drivers" in shown.getvalue()


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        (
            Snapshot(running="trial 6", epoch=4, epochs=20, others=1),
            "training trial 6, epoch 4 of 20, and one more",
        ),
        (Snapshot(running="teacher", others=3), "training the teacher, and 3 more"),
        (Snapshot(running="teacher", trained=False), "loading the teacher"),
        (Snapshot(others=1), "one training goes on"),
        (Snapshot(others=2), "2 trainings go on"),
        (Snapshot(), "choosing the next design"),
    ],
)
def test_progress_says_how_many_train_at_once(snapshot: Snapshot, said: str) -> None:
    console = Console(file=(out := io.StringIO()), width=100, force_terminal=True, color_system=None)
    progress = SearchProgress(console, 10, clock=lambda: 0.0)
    progress.looked(snapshot)
    console.print(progress.render())
    assert said in [line.strip() for line in out.getvalue().splitlines()]


def test_retraining_progress() -> None:
    out = io.StringIO()
    with CountProgress(Console(file=out, width=200)) as progress:
        progress.observe(0, 2, "trial 1, seed 1 of 2")
        progress.observe(2, 2, "")
    first, last = out.getvalue().splitlines()
    assert "trial 1, seed 1 of 2" in first
    assert last.startswith("2 of 2 trainings")


def test_what_is_printed_does_not_wait_for_importances(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take seconds, and are on the page alone."""
    monkeypatch.setattr(record, "importance", lambda *_: pytest.fail("it was computed"))
    for command in (["front"], ["front", "--all"], ["front", "--csv"], ["show", "0"], ["best"]):
        assert call(command[0], tiny_run, *command[1:]).exit_code == 0


def test_methods_show_those_of_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "mine.py"
    own.write_text(
        "import optuna\n"
        "from naskd.spec.samplers import SAMPLERS, SamplerCard\n"
        'SAMPLERS.register(SamplerCard("cli_own", "drawn by me", "", optuna.samplers.RandomSampler))\n'
    )
    assert call("methods", "cli_own").exit_code == 2
    monkeypatch.setattr(SAMPLERS, "_cards", dict(SAMPLERS._cards))
    shown = call("methods", "cli_own", "--module", str(own))
    assert shown.exit_code == 0
    assert "drawn by me" in shown.stdout
    (tmp_path / "own.py").write_text(
        "import optuna\n"
        "from naskd.spec.samplers import SAMPLERS, SamplerCard\n"
        "class Mine(optuna.samplers.RandomSampler):\n    pass\n"
        'SAMPLERS.register(SamplerCard("cli_mine", "drawn by me", "", Mine))\n'
    )
    shown = call("methods", "cli_mine", "--module", str(tmp_path / "own.py"))
    assert "Mine (own.py:3)" in shown.stdout, "the file, not the name under which it was imported"
    assert_refused(call("methods", "--module", str(tmp_path / "no.py")), 2, "no.py does not exist")
