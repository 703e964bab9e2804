"""What a database says is what was written, or is refused."""

import json
import sqlite3

import pytest
from fake_world import FakeWorld, drive, joint, make_spec, make_study, states

from naskd.spec.errors import DamagedError, RunError
from naskd.spec.storages import SQLITE_FILE
from naskd.study.record import load_ledger, run_record
from naskd.study.storage import open_storage

SPEC = make_spec(3, storage="sqlite", warm_start=({"width": 8, "depth": 1, "rate": 1e-3, "kd.use": True,
                                                   "kd.temperature": 2, "kd.assistant": "a"},))  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    drive(make_study(SPEC, open_storage("sqlite", folder), FakeWorld(), space=joint))
    return folder


@pytest.fixture
def run(searched, tmp_path):
    (tmp_path / SQLITE_FILE).write_bytes((searched / SQLITE_FILE).read_bytes())
    return tmp_path


def _change(run, statement, *values):
    with sqlite3.connect(run / SQLITE_FILE) as database:
        assert database.execute(statement, values).rowcount == 1
    database.close()


def _attribute(run, table, key, change):
    database = sqlite3.connect(run / SQLITE_FILE)
    row, text = database.execute(
        f"SELECT {table}_user_attribute_id, value_json FROM {table}_user_attributes WHERE key LIKE ?", (key,)
    ).fetchone()
    database.close()
    value = change(json.loads(text))
    _change(run, f"UPDATE {table}_user_attributes SET value_json = ? WHERE {table}_user_attribute_id = ?",
            json.dumps(value), row)  # fmt: skip


def _better(result):
    return {**result, "metrics": {**result["metrics"], "val_accuracy": 0.999}}


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: _change(run, "UPDATE trial_values SET value = 0.999 WHERE trial_value_id = 1"),
        lambda run: _change(run, "UPDATE trial_params SET param_value = 2 WHERE param_id = 1"),
        lambda run: _attribute(run, "trial", "result", _better),
        lambda run: _attribute(run, "trial", "config", lambda c: {**c, "training": {"epochs": 7}}),
        lambda run: _attribute(run, "trial", "seed", lambda seed: seed + 1),
        lambda run: _attribute(run, "study", "reference_point", lambda r: {**r, "macs": 2e6}),
        lambda run: _attribute(run, "study", "artifact:%", lambda a: {**a, "spent_macs": 1}),
    ],
)
def test_a_changed_number_is_refused_by_whoever_reads_it(run, damage):
    run_record(load_ledger(SPEC, run), SPEC.objectives)
    damage(run)
    with pytest.raises(DamagedError, match=r"damaged.*restore the storage from a copy"):
        run_record(load_ledger(SPEC, run), SPEC.objectives)
    with pytest.raises(DamagedError, match="damaged"):
        make_study(SPEC, open_storage("sqlite", run), FakeWorld(), space=joint)


def test_what_an_earlier_version_wrote_has_no_hash_and_is_read(run):
    with sqlite3.connect(run / SQLITE_FILE) as database:
        for table in ("trial", "study"):
            database.execute(f"DELETE FROM {table}_user_attributes WHERE key = 'seal'")
    database.close()
    assert states(make_study(SPEC, open_storage("sqlite", run), FakeWorld(), space=joint)) == ["COMPLETE"] * 3


def test_a_database_that_cannot_be_read_is_told_in_one_line(run):
    whole = (run / SQLITE_FILE).read_bytes()
    (run / SQLITE_FILE).write_bytes(whole[:8192] + bytes(len(whole) - 8192))
    with pytest.raises((RunError, ValueError), match=r"database|storage") as caught:
        run_record(load_ledger(SPEC, run), SPEC.objectives)
    assert "\n" not in str(caught.value)
