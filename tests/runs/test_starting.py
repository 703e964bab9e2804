"""What can be known is looked at before a search begins, by `check` too; a bad start binds nothing."""

import re
import shutil
from pathlib import Path

import pytest
from projects import SPACE, project
from typer.testing import CliRunner

import naskd
from naskd.cli import app
from naskd.runs import opening, search
from naskd.runs.search import forget_ended
from naskd.spec.errors import InputError, NaskdError, RunError
from naskd.spec.storages import JOURNAL_FILE
from naskd.spec.study import StudySpec
from naskd.store.checkpoints import CheckpointStore
from naskd.trials import steps
from naskd.trials.jobs import training_key

USERS = """\
import optuna
from naskd.spec.samplers import SAMPLERS, SamplerCard
from naskd.spec.stopping import STOPPING_RULES, StoppingCard


def raises(**_):
    raise OSError("no model server")


def nothing(**_):
    return None


class Leaves:
    def decide(self, trial, curve, ledger):
        import os

        os._exit(0)


for name, made in (("nothing", nothing), ("leaves", Leaves)):
    if name not in STOPPING_RULES:
        STOPPING_RULES.register(StoppingCard(name=name, title="", paper="", implementation=made))
for registry, card in ((SAMPLERS, SamplerCard), (STOPPING_RULES, StoppingCard)):
    if "raises" not in registry:
        registry.register(card(name="raises", title="", paper="", implementation=raises))
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.py").write_text(USERS)
    (tmp_path / "file").touch()
    few = opening.OpenStudy.sample
    monkeypatch.setattr(opening.OpenStudy, "sample", lambda self: few(self, 8))
    return project(tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            ["execution.executor=processes", "execution.workers=3", "execution.trials_per_device=2"],
            "allows 2",
        ),
        (["execution.checkpoint_every=1", "execution.checkpoints=file/below"], "no folder"),
        (["execution.device=cuda"], "cuda"),
        (["storage=sqlite:////nowhere/at/all.db"], "storage"),
        (["storage=sqlite://"], "storage"),
        (
            ["modules=['blocks.py','users.py']", "sampler.name=raises"],
            "sampler 'raises' cannot be made: OSError: no model server",
        ),
        (
            ["modules=['blocks.py','users.py']", "stopping.name=raises"],
            "stopping rule 'raises' cannot be made",
        ),
        (
            ["modules=['blocks.py','users.py']", "stopping.name=nothing"],
            "stopping rule 'nothing' returned NoneType; it must return a",
        ),
        (["warm_start=[{width=65}]"], "warm_start[0]: width = 65 is outside 4 to 16"),
    ],
)
def test_what_check_says_a_search_says_and_makes_nothing(settings: list[str], says: str, study: Path) -> None:
    said = []
    for act in (
        lambda: opening.check(study, settings),
        lambda: naskd.search(study, settings=settings, out=study.parent / "runs" / "img"),
    ):
        with pytest.raises(NaskdError) as caught:
            act()
        said.append(str(caught.value))
        assert says in said[-1]
        assert not (study.parent / "runs" / "img").exists()
    assert said[0] == said[1]


def test_all_is_said_at_once(study: Path) -> None:
    (study.parent / "space.py").write_text("import nothing_like_it\n" + SPACE)
    settings = [
        "modules=['blocks.py','users.py']",
        "stopping.name=raises",
        "data.root=empty",
    ]
    for name in ("a", "b"):
        (study.parent / "empty" / name).mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        opening.check(study, settings)
    for part in ("space.py", "empty", "stopping rule 'raises'"):
        assert part in str(caught.value)


def test_code_that_leaves_the_process_ends_a_search_with_a_word(study: Path, monkeypatch) -> None:
    monkeypatch.setattr("os._exit", lambda status: pytest.fail("nobody was told"))
    settings = ["modules=['blocks.py','users.py']", "stopping.name=leaves"]
    said = "stopping rule 'leaves' raised SystemExit: os._exit(0)"
    with pytest.raises(NaskdError, match=re.escape(said)):
        naskd.search(study, settings=settings, out=study.parent / "runs" / "a")
    (study.parent / "blocks.py").write_text("import os\nos._exit(0)\n")
    done = CliRunner().invoke(app, ["check", str(study)], prog_name="naskd")
    assert done.exit_code != 0
    assert "os._exit(0)" in done.stderr


def test_who_is_no_observer_is_refused(study: Path) -> None:
    with pytest.raises(InputError, match="observers: got function; each must be a"):
        naskd.search(study, out=study.parent / "runs" / "a", observers=[print_nothing])


def print_nothing(*_: object) -> None:
    """No observer, though it can be called."""


def test_where_no_run_can_be_is_said(study: Path) -> None:
    with pytest.raises(InputError, match="name too long"):
        opening.check(study, out=study.parent / ("a" * 300))
    for out in (study.parent / "file", study.parent / "file" / "below"):
        for act in (
            lambda out=out: opening.check(study, out=out),
            lambda out=out: naskd.search(study, out=out),
        ):
            with pytest.raises(InputError, match=r"is no folder|is a file"):
                act()


def test_check_knows_the_run_that_is_there(tiny_run_copy: Path) -> None:
    study = tiny_run_copy.parents[1] / "tiny.toml"
    before = (tiny_run_copy / JOURNAL_FILE).read_bytes()
    opening.check(study, out=tiny_run_copy)
    with pytest.raises(InputError, match=r"cannot be resumed:\n  seed: 0 -> 3"):
        opening.check(study, ["seed=3"], out=tiny_run_copy)
    assert (tiny_run_copy / JOURNAL_FILE).read_bytes() == before


def test_an_executor_that_cannot_begin_leaves_no_run(study: Path, monkeypatch) -> None:
    out = study.parent / "runs" / "img"

    def run(self, source):
        raise RunError("no such cluster")

    monkeypatch.setattr("naskd.executors.local.serial.SerialExecutor.run", run)
    with pytest.raises(RunError, match="no such cluster"):
        naskd.search(study, out=out)
    assert not out.exists()
    out.mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RunError):
        naskd.search(study, out=out)
    assert (out / "notes.txt").exists()


# --- a bad start --------------------------------------------------------------------------------------------------


def test_a_run_in_which_nothing_was_trained_takes_the_study_as_it_is_now(study: Path, caplog) -> None:
    out = study.parent / "runs" / "img"
    run = naskd.search(
        study, out=out, settings=["budget.seconds=1e-3", "budget.trials=9", "warm_start=[{width=9}]"]
    )
    assert not run.front()
    settings = ["seed=3", "objectives=['val_accuracy','n_params']"]
    opening.check(study, settings, out=out)
    caplog.clear()
    run = naskd.search(study, out=out, trials=1, settings=settings)
    assert "nothing was trained in run 'img', which begins anew with: " in caplog.text
    assert "seed: 0 -> 3" in caplog.text
    assert [trial["state"] for trial in run.trials()] == ["COMPLETE"]
    assert [objective["name"] for objective in run.to_dict()["objectives"]] == ["val_accuracy", "n_params"]
    with pytest.raises(InputError, match="cannot be resumed"):
        naskd.search(study, out=out, trials=2)


def test_trials_that_all_failed_bind_nothing(study: Path, monkeypatch) -> None:
    out = study.parent / "runs" / "img"

    def start_run(*_):
        raise ValueError("a loss with a mistake")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "start_run", start_run)
        run = naskd.search(study, out=out)
    assert [trial["state"] for trial in run.trials()] == ["FAIL"]
    space = study.with_name("space.py")
    space.write_text(space.read_text().replace("16", "12"))
    left = out / "checkpoints" / "0123456789ab-7"
    teachers = out / "checkpoints" / "0123456789ab"
    for folder in (left, teachers):
        folder.mkdir(parents=True)
    run = naskd.search(study, out=out)
    assert [trial["state"] for trial in run.trials()] == ["COMPLETE"]
    assert not left.exists(), "the state of a training of before is of another study"
    assert teachers.exists()


def test_states_of_trainings_of_a_ledger_that_was_removed_are_not_gone_on_with(tiny_run_copy: Path) -> None:
    """They may have seen other images, or another teacher, and have the names of designs of now."""
    folder = tiny_run_copy.parents[1]
    (tiny_run_copy / "journal.log").unlink()
    left = tiny_run_copy / "checkpoints" / "0123456789ab-7"
    teachers = tiny_run_copy / "checkpoints" / "0123456789ab"
    for each in (left, teachers):
        each.mkdir(parents=True)
    naskd.search(folder / "tiny.toml", out=tiny_run_copy, trials=1)
    assert not left.exists()
    assert teachers.exists()


def test_what_ended_a_process_before_the_code_was_mended_fails_no_trial_of_a_run_that_begins_anew(
    study: Path,
) -> None:
    """Its note names the training, which is the same after the mending: the design has not changed."""
    out = study.parent / "runs" / "img"
    (record,) = naskd.search(study, out=out, trials=1).trials()
    key = training_key(record["config_id"], int(record["seed"]))
    for file in ("journal.log", "study.json", ".record"):
        (out / file).unlink(missing_ok=True)
    note = out / "faults" / f"{key}.log"
    note.parent.mkdir()
    note.write_text("Fatal Python error: Segmentation fault\n")
    (trial,) = naskd.search(study, out=out, trials=1).trials()
    assert (trial["state"], trial["reason"]) == ("COMPLETE", "")


def test_a_storage_that_others_use_is_not_begun_anew_under_a_living_trial(study: Path) -> None:
    import optuna

    url = f"sqlite:///{study.parent / 'books.db'}"
    settings = [f"storage={url!r}"]
    out = study.parent / "runs" / "img"
    naskd.search(study, out=out, seconds=1e-3, settings=settings)
    optuna.load_study(study_name="img", storage=url).ask()
    with pytest.raises(InputError, match="seed: 0 -> 3"):
        naskd.search(study, out=out, settings=[*settings, "seed=3"])
    assert len(optuna.load_study(study_name="img", storage=url).trials) == 1


def test_what_a_resume_is_refused_for_is_only_what_changes_something(tiny_run_copy: Path) -> None:
    folder = tiny_run_copy.parents[1]
    (folder / "code").mkdir()
    shutil.move(folder / "space.py", folder / "code" / "my_space.py")
    text = (folder / "code" / "my_space.py").read_text()
    (folder / "code" / "my_space.py").write_text(text.replace("\n", "\r\n") + "# a remark\n")
    settings = ["space=code/../code/my_space.py:joint"]
    assert (
        len(naskd.search(folder / "tiny.toml", out=tiny_run_copy, trials=2, settings=settings).trials()) == 2
    )


def test_a_broken_image_does_not_hide_a_broken_teacher(study: Path) -> None:
    image = next((study.parent / "images").glob("*/*.png"))
    image.write_bytes(image.read_bytes()[:40])
    settings = ["teacher.builder=space.py:joint", "teacher.checkpoint=file"]
    with pytest.raises(InputError) as caught:
        opening.check(study, settings)
    said = str(caught.value)
    assert str(image) in said
    assert "teacher: checkpoint" in said
    assert "is empty" in said


def test_runs_of_one_study_keep_their_checkpoints_apart_where_they_share_a_place(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that begins forgets what no trial of its own needs: paused trials of another one are none of its own."""
    found: list[Path] = []

    def paused(spec: StudySpec, run_dir: Path, *rest: object) -> CheckpointStore:
        store: CheckpointStore = made(spec, run_dir, *rest)
        if run_dir.name == "one":
            store.save("abc-1.0", 1, b"of a paused trial")
            found.append(Path(store.root))
        return store

    made = search.checkpoint_store
    monkeypatch.setattr(search, "checkpoint_store", paused)
    monkeypatch.setattr(search, "forget_ended", lambda *_: None)
    settings, runs = [f"execution.checkpoints={study.parent / 'shared'}"], study.parent / "runs"
    naskd.search(study, out=runs / "one", settings=settings)
    naskd.search(study, out=runs / "one", settings=settings, trials=2)
    assert found[0] == found[1], "it goes on from its own"
    monkeypatch.setattr(search, "forget_ended", forget_ended)
    naskd.search(study, out=runs / "two", settings=settings)
    assert CheckpointStore(found[0]).load("abc-1.0") == b"of a paused trial"


def test_a_place_for_checkpoints_where_none_will_be_kept_is_said(study: Path, caplog) -> None:
    """Who names one takes a search for safe that would begin its trials again."""
    place = f"execution.checkpoints={study.parent / 'kept'}"
    opening.check(study, [place])
    assert [r.getMessage() for r in caplog.records if "nothing is kept there" in r.getMessage()]
    caplog.clear()
    opening.check(study, [place, "execution.checkpoint_every=1"])
    assert not [r.getMessage() for r in caplog.records if "nothing is kept there" in r.getMessage()]


def test_where_peers_tell_each_other_their_weights_is_tried_before_they_are_trained(study: Path) -> None:
    apart = 'DistillationSpec(scheme="codistillation", scheme_options=(("peers_in", "trials"),))'
    (study.parent / "space.py").write_text(SPACE.replace("DistillationSpec()", apart))
    with pytest.raises(InputError, match="checkpoints cannot be kept at"):
        opening.check(study, [f"execution.checkpoints=file://{study.parent}/file/below"])
