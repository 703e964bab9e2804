"""A run's page says where its numbers came from."""

from datetime import datetime

import naskd
from naskd.runs.page_facts import page_facts
from naskd.runs.run import open_run


def test_a_record_says_when_on_what_and_with_which_version(tiny_run):
    run = open_run(tiny_run)
    record = run.to_dict(everything=True, with_importance=False)
    images = record["images"]
    assert (images["kind"], images["classes"]) == ("digits", 10)
    assert all(images[part] > 0 for part in ("train", "val", "test"))
    times = record["times"]
    began, ended = (datetime.fromisoformat(times[name]) for name in ("began", "ended"))
    assert 0 <= (ended - began).total_seconds() <= times["seconds"] + 1
    assert 0 < times["trained_seconds"] == sum(trial["wall_seconds"] for trial in record["trials"])
    assert record["environment"]["naskd"] == naskd.__version__


def test_a_page_has_settings_in_words_and_commands_a_shell_takes(tiny_run, tmp_path):
    run = open_run(tiny_run)
    facts = page_facts(run.spec, tmp_path / "my runs", "mysql://me:secret@host/db")
    assert facts["sampler"].startswith(run.spec.sampler.name)
    assert f"trials {run.spec.budget.trials}" in facts["budget"]
    teacher = run.spec.teacher
    assert f"epochs {teacher.training.epochs}" in facts["teachers"][teacher.name]
    assert f"naskd serve '{tmp_path / 'my runs'}'" in facts["commands"]
    assert "secret" not in str(facts)
    assert run.page_record(with_importance=False)["run"] == str(tiny_run)
