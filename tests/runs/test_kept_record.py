"""A record that is kept beside its ledger: the same as one that is made anew, and never an old one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import naskd
from naskd.cli import app
from naskd.runs.directory import STUDY_FILE
from naskd.runs.listing import list_runs
from naskd.spec.errors import DamagedError
from naskd.spec.storages import JOURNAL_FILE
from naskd.store.files import read_sealed, write_sealed
from naskd.study import kept
from naskd.study import record as record_module
from naskd.study.kept import KEPT_RECORD, made_of, read_kept
from naskd.study.record import load_ledger

LOOKS = (
    ("front", "RUN"),
    ("front", "RUN", "--json"),
    ("front", "RUN", "--csv"),
    ("front", "RUN", "--all"),
    ("show", "RUN", "0"),
    ("show", "RUN", "1", "--json"),
    ("best", "RUN", "--json"),
    ("runs", "RUN", "--json"),
)


def _kept(run: Path) -> dict | None:
    return read_kept(run, made_of(run, run / STUDY_FILE) or "")


def _look(run: Path, words: tuple[str, ...]) -> str:
    result = CliRunner().invoke(app, [str(run) if word == "RUN" else word for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_each_look_says_the_same_with_and_without_it(
    tiny_run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = naskd.open_run(tiny_run_copy).to_dict(everything=True)
    slow = []
    for words in LOOKS:
        (tiny_run_copy / KEPT_RECORD).unlink(missing_ok=True)
        slow.append(_look(tiny_run_copy, words))
    assert _kept(tiny_run_copy) is not None
    monkeypatch.setattr(record_module, "run_record", None)  # nobody may read the ledger any more
    assert [_look(tiny_run_copy, words) for words in LOOKS] == slow
    again = naskd.open_run(tiny_run_copy).to_dict(everything=True, with_importance=False)
    assert list(again.items()) == [item for item in whole.items() if item[0] not in kept.WEIGHED]


def test_a_search_leaves_it_and_a_look_then_needs_no_database(tiny_run: Path) -> None:
    assert _kept(tiny_run) is not None
    code = (
        "import sys\nfrom naskd.cli import main\n"
        f"sys.argv = ['naskd', 'front', {str(tiny_run)!r}]\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code\n"
        "print({'torch', 'optuna', 'sqlalchemy', 'numpy', 'ray'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_whatever_changes_is_seen_at_once(tiny_run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = naskd.open_run(tiny_run_copy).to_dict(everything=True, with_importance=False)
    assert before["unlabelled"] is None
    load_ledger(naskd.open_run(tiny_run_copy).spec, tiny_run_copy).set_user_attr("unlabelled", {"used": 7})
    assert _kept(tiny_run_copy) is None
    assert naskd.open_run(tiny_run_copy).to_dict()["unlabelled"] == {"used": 7}
    assert _kept(tiny_run_copy)["unlabelled"] == {"used": 7}
    study = read_sealed(tiny_run_copy / STUDY_FILE)
    write_sealed(tiny_run_copy / STUDY_FILE, {**study, "seed": study["seed"] + 1})
    assert _kept(tiny_run_copy) is None
    assert naskd.open_run(tiny_run_copy).to_dict(everything=True)["seed"] == str(study["seed"] + 1)
    assert _kept(tiny_run_copy) is not None
    monkeypatch.setattr(kept, "_code", lambda: "mended")
    assert _kept(tiny_run_copy) is None


def test_a_damaged_ledger_is_told_however_good_the_copy_is(tiny_run_copy: Path) -> None:
    assert _kept(tiny_run_copy) is not None
    journal = tiny_run_copy / JOURNAL_FILE
    whole = journal.read_bytes()
    place = whole.index(b"val_accuracy") + 1
    journal.write_bytes(whole[:place] + b"x" + whole[place + 1 :])
    with pytest.raises(DamagedError, match=r"journal\.log is damaged at line"):
        naskd.open_run(tiny_run_copy).front()


@pytest.mark.parametrize("left", ["", "cut", "flipped", "no JSON"])
def test_a_damaged_copy_is_made_again(tiny_run_copy: Path, left: str) -> None:
    file = tiny_run_copy / KEPT_RECORD
    whole = file.read_bytes()
    made = {"": b"", "cut": whole[:-9], "flipped": whole[:-9] + b"1" + whole[-8:], "no JSON": b"mine"}
    file.write_bytes(made[left])
    assert _kept(tiny_run_copy) is None
    assert [trial["number"] for trial in naskd.open_run(tiny_run_copy).trials()] == [0, 1]
    assert file.read_bytes() == whole


def test_a_run_that_may_only_be_read_is_looked_at_all_the_same(
    tiny_run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny_run_copy / KEPT_RECORD).unlink()

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(kept, "write_whole", refused)
    assert len(naskd.open_run(tiny_run_copy).trials()) == 2
    assert not (tiny_run_copy / KEPT_RECORD).exists()


def test_it_is_no_part_of_what_a_list_says_of_a_run(tiny_run_copy: Path) -> None:
    (tiny_run_copy / KEPT_RECORD).unlink()
    (before,) = list_runs(tiny_run_copy)
    assert (tiny_run_copy / KEPT_RECORD).exists()
    assert list_runs(tiny_run_copy) == [before]


def test_a_record_that_grows_is_not_kept(tmp_path: Path) -> None:
    kept.keep(tmp_path, "of this", {"counts": {"running": 1}})
    assert not (tmp_path / KEPT_RECORD).exists()
    kept.keep(tmp_path, "of this", {"counts": {"running": 0}, "importance": [1]})
    assert json.loads(json.dumps(read_kept(tmp_path, "of this"))) == {"counts": {"running": 0}}
