"""A run's study as a study file: with keys changed, and with its files where they are."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from naskd.cli import app
from naskd.runs.clone import clone_study, seen_from
from naskd.runs.run import open_run
from naskd.spec.errors import InputError
from naskd.spec.parse import parse_study
from naskd.spec.study import StudySpec, study_type
from naskd.spec.tables import as_spec, as_tables, split_options


def test_a_clone_is_the_runs_study_with_what_was_set(tiny_run_copy: Path) -> None:
    done = CliRunner().invoke(app, ["clone", str(tiny_run_copy), "--set", "epochs=3", "--set", "seed=5"])
    assert done.exit_code == 0, done.output
    made = tiny_run_copy.parents[1] / "tiny-2.toml"
    assert done.stdout == f"{made}\n"
    assert done.stderr == f"next: naskd search {made}\n"
    before, now = open_run(tiny_run_copy).spec, parse_study(made)
    assert (now.name, now.epochs, now.seed) == ("tiny-2", 3, 5)
    assert now.identity() == {**before.identity(), "name": "tiny-2", "epochs": 3, "seed": 5}
    assert made.read_text().startswith("# The study of the run tiny\n# with epochs=3\n# with seed=5\n")
    assert clone_study(tiny_run_copy)[0].name == "tiny-3.toml"
    lines, _ = clone_study(tiny_run_copy, settings=["teacher.license=one\ntwo"])
    assert parse_study(lines).teacher.license == "one\ntwo"


def test_a_clone_keeps_what_the_file_says_and_why(tiny_run_copy: Path, tmp_path: Path) -> None:
    file = tiny_run_copy.parents[1] / "tiny.toml"
    text = file.read_text()
    assert "[budget]\n" in text
    file.write_text(
        "#:schema study.schema.json\n# Two trials, to see whether it works.\n\n"
        + text.replace("[budget]\n", "# When it ends.\n[budget]\nmax_failed = 5  # the default, # and said\n")
    )
    made = clone_study(tiny_run_copy, settings=["seed=5"])[0]
    now = made.read_text()
    assert now.startswith(
        "#:schema study.schema.json\n# The study of the run tiny\n# with seed=5\n\n"
        "# Two trials, to see whether it works.\n\nname = "
    )
    assert "\n# When it ends.\n[budget]\nmax_failed = 5  # the default, # and said\n" in now
    assert parse_study(made).seed == 5
    elsewhere = clone_study(tiny_run_copy, tmp_path / "other")[0].read_text()
    assert "# When it ends.\n[budget]\n" in elsewhere
    assert "#:schema" not in elsewhere
    file.write_text(file.read_text().replace("max_failed = 5", "max_failed = 9"))
    assert "max_failed" not in clone_study(tiny_run_copy)[0].read_text(), "the run's own counts"
    file.write_text("\ufeff" + file.read_text(), encoding="utf-8")
    assert "When it ends" in clone_study(tiny_run_copy)[0].read_text(), "as editors of Windows write it"
    file.write_text("name = ")
    assert "When it ends" not in clone_study(tiny_run_copy)[0].read_text()


def test_a_clone_elsewhere_finds_the_files(tiny_run_copy: Path, tmp_path: Path) -> None:
    made, changed = clone_study(tiny_run_copy, tmp_path / "a" / "b", ["name=other"])
    assert made == tmp_path / "a" / "b" / "other.toml"
    assert changed == []
    space = tiny_run_copy.parents[1] / "space.py"
    assert parse_study(made).code() == {"../../tiny/space.py": space}
    space.write_text(space.read_text() + "\nMORE = 1\n")
    assert clone_study(tiny_run_copy, tmp_path / "c")[1] == ["space.py"]


def test_what_cannot_be_cloned_writes_nothing(tiny_run_copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    for settings, says in (
        (["epocs=3"], "did you mean 'epochs'"),
        (["execution.executor=nope"], "executor: got"),
        (["name=tiny", "data.kind=image_folder"], "data"),
    ):
        with pytest.raises(InputError, match=says):
            clone_study(tiny_run_copy, out, settings)
    assert not out.exists()
    with pytest.raises(InputError, match=r"tiny\.toml is there already: give another name"):
        clone_study(tiny_run_copy, None, ["name=tiny"])
    with pytest.raises(InputError, match="is no run directory"):
        clone_study(tmp_path)


EVERY_PATH: dict[str, Any] = {
    "name": "paths",
    "space": "sub/space.py:joint",
    "modules": ["mine.py", "/abs/mine.py"],
    "data": {
        "kind": "image_folder",
        "root": "train",
        "test_root": "~/test",
        "modality": {"name": "paired", "root": "second", "test_root": "second_test"},
    },
    "budget": {"trials": 1},
    "teacher": {"builder": "teacher.py:build", "checkpoint": "teacher.pt"},
    "teachers": [
        {"name": "run", "source": "run", "run": "runs/old"},
        {"name": "folder", "source": "transformers", "model": "net"},
        {"name": "zoo", "source": "timm", "model": "resnet18"},
    ],
    "latency": {"profile": "phone.json"},
    "execution": {"executor": "replay", "table": "table.py:made", "checkpoints": "s3://bucket/x"},
    "warm_start": ["runs/earlier", {"width": 4}],
}


def test_every_path_leads_where_it_did() -> None:
    common, options = split_options(EVERY_PATH)
    spec: StudySpec = study_type().validate_python({**as_spec(common, options), "base": "/project/studies"})
    tables = seen_from(Path("/project/other"), spec)
    assert tables == {
        **EVERY_PATH,
        "space": "../studies/sub/space.py:joint",
        "modules": ["../studies/mine.py", "/abs/mine.py"],
        "data": {
            "kind": "image_folder",
            "root": "../studies/train",
            "test_root": "~/test",
            "modality": {
                "name": "paired",
                "root": "../studies/second",
                "test_root": "../studies/second_test",
            },
        },
        "teacher": {"builder": "../studies/teacher.py:build", "checkpoint": "../studies/teacher.pt"},
        "teachers": [
            {"name": "run", "source": "run", "run": "../studies/runs/old"},
            {"name": "folder", "source": "transformers", "model": "../studies/net"},
            {"name": "zoo", "source": "timm", "model": "resnet18"},
        ],
        "latency": {"profile": "../studies/phone.json"},
        "execution": {
            "executor": "replay",
            "table": "../studies/table.py:made",
            "checkpoints": "s3://bucket/x",
        },
        "warm_start": ["../studies/runs/earlier", {"width": 4}],
    }
    assert seen_from(Path("/project/studies"), spec) == EVERY_PATH


@pytest.mark.parametrize("study", sorted((Path(__file__).parents[2] / "studies").glob("*.toml")), ids=str)
def test_shipped_studies_are_what_is_written_of_them(study: Path) -> None:
    from naskd.spec.toml import write_toml

    missing = ("data.root", "data.unlabelled", "teacher.checkpoint")
    spec = parse_study(study, lacking=missing)
    tables = as_tables(spec)
    del tables["base"]
    assert tomllib.loads(write_toml(tables)) == tables
    common, options = split_options(tomllib.loads(write_toml(tables)))
    assert study_type().validate_python({**as_spec(common, options), "base": spec.base}) == spec


def test_any_text_and_number_is_written_as_it_is() -> None:
    from naskd.spec.toml import write_toml

    data = {
        "text": 'a "quoted" \\ line\nand \t tab \x7f é',
        "a key": 1e-7,
        "numbers": [1, 2.5, -3e30, True],
        "empty": [],
        "table": {"of": {"tables": {"x.y": "z"}}, "list": [{"a": 1}, {"b": [{"c": False}]}]},
        "rows": [{"a": 1, "t": {"b": 2}}, {"a": 3}],
    }
    assert tomllib.loads(write_toml(data)) == data
