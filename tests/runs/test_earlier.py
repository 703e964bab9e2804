"""Warm start: what is taken of earlier runs, what is said of it, and that none of it counts as the search's own."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import naskd
from naskd.cli import app
from naskd.runs import opening
from naskd.runs.earlier import KEPT, read_earlier
from naskd.runs.opening import check
from naskd.spec.errors import DamagedError, InputError

SPACE = """
import math
from naskd.config import ArchitectureSpec, StageSpec, TrialConfig
from naskd.networks.student import design_cost
from naskd.tables import Recorded, RecordedTable

WIDEST, BLOCKS, WORTH = 64, ("basic", "inverted_residual"), 1.0

def space(trial):
    block = trial.suggest_categorical("block", BLOCKS)
    width = trial.suggest_int("width", 4, WIDEST, step=4)
    return TrialConfig(ArchitectureSpec((StageSpec(block, trial.suggest_int("depth", 1, 4), width),)))

def cost(config):
    return design_cost(config.architecture, 3, 10, 16)

def recorded(config):
    macs = cost(config).macs
    best = 0.05 if config.architecture.stages[0].block == "basic" else 0.0
    accuracy = WORTH * (0.1 * math.log10(macs) - 0.2 + best)
    curve = ({"val_accuracy": accuracy / 2}, {"val_accuracy": accuracy})
    return Recorded(curve, {"val_accuracy": accuracy, **vars(cost(config))}, macs * 100, 2.0)

def table():
    return RecordedTable(recorded, cost, n_val=1000)
"""


def project(folder, name, *, sampler="random", trials=12, warm="", code=SPACE, more=""):
    where = folder / f"{name} files"
    where.mkdir(exist_ok=True)
    (where / "space.py").write_text(code)
    (where / "study.toml").write_text(
        f'name = "{name}"\nspace = "space.py:space"\nepochs = 2\n{warm}\n{more}\n'
        f'[data]\nkind = "digits"\n[sampler]\nname = "{sampler}"\n[budget]\ntrials = {trials}\n'
        '[execution]\nexecutor = "replay"\ntable = "space.py:table"\n'
    )
    return where / "study.toml"


def search(folder, name, **given):
    return naskd.search(project(folder, name, **given), out=folder / name)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """A start looks at fewer random designs, which takes less time."""
    few = opening.OpenStudy.sample
    monkeypatch.setattr(opening.OpenStudy, "sample", lambda self: few(self, 48))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With one earlier run of twelve designs."""
    folder = tmp_path_factory.mktemp("projects")
    search(folder, "before")
    return folder


WARM = 'warm_start = ["../before"]'


def front_of(run):
    return {trial["config_id"] for trial in run.front()}


def test_the_front_of_the_earlier_run_is_tried_first_by_a_sampler_that_does_not_learn(folder):
    before = naskd.open_run(folder / "before")
    run = search(folder, "tpe", sampler="tpe", warm=WARM)
    front = front_of(before)
    first = min(10, len(front))  # startup_trials
    tried = {trial["config_id"] for trial in run.trials()[:first]}
    assert len(tried) == first
    assert tried <= front
    (taken,) = run.to_dict()["warm_start"]
    assert taken == {"run": "../before", "designs": 12, "learned": 0, "first": first, "left_out": {}}


def test_startup_trials_bound_how_many_are_tried_first(folder):
    run = search(folder, "few", sampler='tpe"\nstartup_trials = 2\n#"', warm=WARM)
    tried = [trial["config_id"] for trial in run.trials()[:2]]
    assert run.to_dict()["warm_start"][0]["first"] == 2
    assert set(tried) <= front_of(naskd.open_run(folder / "before"))
    cheap, dear = (trial["macs"] for trial in run.trials()[:2])
    assert cheap < dear


def test_ehvi_learns_from_all_and_none_is_its_own(folder):
    run = search(folder, "ehvi", sampler="ehvi", trials=7, warm=WARM)
    record = run.to_dict(everything=True)
    (taken,) = record["warm_start"]
    assert (taken["learned"], taken["left_out"]) == (12, {})
    assert taken["first"] == 0  # it decides by itself
    assert record["counts"]["complete"] == 7
    assert len(record["trials"]) == 7
    # Accuracies of another world: had one of them been booked, it would be the best.
    good = SPACE.replace('"inverted_residual"), 1.0', '"inverted_residual"), 1.6')
    search(folder, "better", code=good)
    poor = search(folder, "poor", sampler="ehvi", trials=7, warm='warm_start = ["../better"]').to_dict(
        everything=True
    )
    assert max(trial["val_accuracy"] for trial in poor["trials"]) < 0.6
    assert max(trial["val_accuracy"] for trial in naskd.open_run(folder / "better").front()) > 0.6
    assert poor["train_macs"] == sum(trial["spent_macs"] for trial in poor["trials"])


def test_how_many_images_an_earlier_run_was_judged_on_is_read(tiny_run):
    images = naskd.open_run(tiny_run).to_dict()["images"]
    assert read_earlier(tiny_run, "").n_val == images["val"] > 0


def test_epochs_of_another_network_stay_what_they_are(folder):
    """Of a scheme that trains a wider network first, only what its student has shown is learned from."""
    wider = SPACE.replace('{"val_accuracy": accuracy / 2}', '{"val_accuracy": 0.9, "other_network": 1.0}')
    search(folder, "wider", code=wider)
    assert {design.curve[0] for design in read_earlier(folder / "wider", "").designs} == {None}
    run = search(folder, "narrower", sampler="ehvi", trials=5, warm='warm_start = ["../wider"]')
    assert run.to_dict()["warm_start"][0]["learned"] == 12


def test_designs_that_this_space_cannot_express_are_counted_with_the_reason(folder, caplog):
    narrow = SPACE.replace("WIDEST, BLOCKS, WORTH = 64", "WIDEST, BLOCKS, WORTH = 32")
    with caplog.at_level("INFO", logger="naskd.study.taking_over"):
        run = search(folder, "narrow", sampler="tpe", warm=WARM, code=narrow)
    wide = sum(t["parameters"]["width"] > 32 for t in naskd.open_run(folder / "before").trials())
    (taken,) = run.to_dict()["warm_start"]
    assert taken["left_out"] == {"width outside 4 to 32 in steps of 4": wide}
    assert f"12 designs; {taken['first']} of its front tried first; {wide} cannot be used" in caplog.text
    assert all(t["parameters"]["width"] <= 32 for t in run.trials())


def test_a_learner_leaves_out_only_what_no_design_of_its_space_tells_of(folder):
    """Another width is a number like others; a block that the space does not have is not."""
    narrow = SPACE.replace('WORTH = 64, ("basic", "inverted_residual")', 'WORTH = 32, ("basic",)')
    run = search(folder, "one_block", sampler="ehvi", trials=5, warm=WARM, code=narrow)
    others = sum(t["parameters"]["block"] != "basic" for t in naskd.open_run(folder / "before").trials())
    (taken,) = run.to_dict()["warm_start"]
    assert taken["left_out"] == {"another stages.0.block": others}
    assert taken["learned"] == 12 - others


def test_several_runs_share_the_places_and_no_design_is_queued_twice(folder):
    search(folder, "second", code=SPACE.replace("1, 4)", "1, 3)"))
    sampler = 'tpe"\nstartup_trials = 5\n#"'
    run = search(folder, "both", sampler=sampler, warm='warm_start = ["../before", "../second"]')
    one, other = run.to_dict()["warm_start"]
    assert (one["first"], other["first"]) == (3, 2)
    assert len({trial["config_id"] for trial in run.trials()[:5]}) == 5
    assert run.to_dict(everything=True)["counts"]["turned_away"] == 0


def test_a_parameter_that_the_earlier_run_did_not_have_is_named(folder):
    more = SPACE.replace(
        "    return TrialConfig(", "    trial.suggest_int('more', 1, 2)\n    return TrialConfig("
    )
    run = search(folder, "more", sampler="tpe", warm=WARM, code=more)
    assert run.to_dict()["warm_start"][0]["left_out"] == {"it has no parameter more": 12}


@pytest.mark.parametrize(
    ("warm", "says"),
    [
        ('warm_start = ["../nowhere"]', "warm_start[0]: {folder}/nowhere is no run directory"),
        ('warm_start = ["../before files"]', "is no run directory"),
        ('warm_start = ["../before", "../before"]', "warm_start[1]: ../before is given twice"),
        ('warm_start = [{width = 8}, "../gone"]', "warm_start[1]: {folder}/gone is no run directory"),
        ('warm_start = [""]', "a table or the path of a run directory"),
    ],
)
def test_what_is_no_run_is_said_by_check_and_by_the_search(folder, warm, says):
    study = project(folder, "wrong", warm=warm)
    wanted = says.format(folder=folder)
    for attempt in (
        lambda: check(study, out=folder / "wrong"),
        lambda: naskd.search(study, out=folder / "wrong"),
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        assert wanted in str(caught.value).replace("/wrong files/..", "")
    assert not (folder / "wrong").exists()


def test_check_says_what_would_be_taken(folder):
    study = project(folder, "checked", sampler="ehvi", warm=WARM)
    result = CliRunner().invoke(app, ["check", str(study), "--out", str(folder / "checked")])
    assert result.exit_code == 0
    assert "warm start from ../before: 12 designs; learned from 12" in result.output.replace("\n", " ")


def copied(folder, name, **given):
    """A warm-started run of five trials whose earlier run is its own copy."""
    source = folder / f"{name}_source"
    shutil.copytree(folder / "before", source)
    warm = f'warm_start = ["../{name}_source"]'
    search(folder, name, sampler="ehvi", trials=5, warm=warm, **given)
    return source, project(folder, name, sampler="ehvi", trials=7, warm=warm, **given)


def test_a_resume_needs_the_earlier_run_no_more_and_says_that_it_is_gone(folder, caplog):
    source, study = copied(folder, "resumed")
    whole = search(folder, "whole", sampler="ehvi", trials=5, warm=WARM)
    shutil.rmtree(source)
    run = naskd.search(study, out=folder / "resumed")
    assert "cannot be read any more: the search goes on with the 12 designs that it took of it" in caplog.text
    assert len(run.trials()) == 7
    assert [t["config_id"] for t in run.trials()[:5]] == [t["config_id"] for t in whole.trials()]


def test_an_earlier_run_that_went_on_meanwhile_is_said_and_what_was_taken_stays(folder, caplog):
    source, study = copied(folder, "went_on")
    before = json.loads((folder / "went_on" / KEPT).read_text())
    naskd.search(project(folder, "before", trials=15), out=source)
    run = naskd.search(study, out=folder / "went_on")
    project(folder, "before")
    assert "has 15 now: the search goes on with those" in caplog.text
    assert json.loads((folder / "went_on" / KEPT).read_text()) == before
    assert len(run.trials()) == 7


def test_another_earlier_run_or_none_is_another_study(folder):
    search(folder, "other", code=SPACE.replace("1, 4)", "1, 3)"))
    search(folder, "bound", sampler="ehvi", trials=4, warm=WARM)
    for warm in ('warm_start = ["../other"]', "", 'warm_start = ["../before", "../other"]'):
        study = project(folder, "bound", sampler="ehvi", trials=6, warm=warm)
        with pytest.raises(InputError, match="the runs that it learns from are others"):
            naskd.search(study, out=folder / "bound")
        with pytest.raises(InputError, match="the runs that it learns from are others"):
            check(study, out=folder / "bound")
    run = naskd.search(project(folder, "bound", sampler="ehvi", trials=6, warm=WARM), out=folder / "bound")
    assert len(run.trials()) == 6


def test_what_is_kept_is_sealed(folder):
    search(folder, "sealed", sampler="ehvi", trials=4, warm=WARM)
    kept = folder / "sealed" / KEPT
    kept.write_text(kept.read_text().replace('"basic"', '"cisab"', 1))
    study = project(folder, "sealed", sampler="ehvi", trials=6, warm=WARM)
    with pytest.raises((InputError, DamagedError), match=f"{KEPT} is damaged"):
        naskd.search(study, out=folder / "sealed")
    kept.unlink()
    assert len(naskd.search(study, out=folder / "sealed").trials()) == 6


def test_two_searches_of_one_seed_are_the_same(folder):
    one, same = (search(folder, name, sampler="ehvi", trials=8, warm=WARM) for name in ("one", "same"))
    assert [t["parameters"] for t in one.trials()] == [t["parameters"] for t in same.trials()]


def test_a_training_that_was_paused_and_went_on_is_one_design(tmp_path):
    stops = '[stopping]\nname = "mo_asha"\npromote = true'
    run = search(tmp_path, "paused", trials=12, more=stops)
    trials = run.trials()
    assert any(trial["continued_by"] is not None for trial in trials)
    trained = run.to_dict()["counts"]["trained"]
    assert len(read_earlier(run.path, "paused").designs) == trained


def test_a_study_without_earlier_runs_has_no_trace_of_them(folder):
    run = naskd.open_run(folder / "before")
    assert "earlier_runs" not in run.identity()
    assert not (folder / "before" / KEPT).exists()
    assert run.to_dict()["warm_start"] == []
