"""The JSON schema of study files takes what is right, and underlines what `naskd check` refuses by itself."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from naskd.cli import app
from naskd.spec.parse import StudyFileError, parse_study
from naskd.spec.samplers import SAMPLERS
from naskd.spec.schema import study_schema

ROOT = Path(__file__).parents[2]
SHIPPED = [*sorted((ROOT / "studies").glob("*.toml")), ROOT / "naskd" / "templates" / "study.toml"]

SMALL = """
name = "small"
space = "space.py:space"
[data]
kind = "digits"
[budget]
trials = 2
"""


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = study_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def mistakes(validator: jsonschema.Draft202012Validator, text: str) -> list[str]:
    return [
        " ".join([".".join(map(str, error.path)), error.message])
        for error in validator.iter_errors(tomllib.loads(text))
    ]


@pytest.mark.parametrize("study", SHIPPED, ids=lambda path: path.stem)
def test_shipped_studies_are_right_and_name_the_schema(
    study: Path, validator: jsonschema.Draft202012Validator
) -> None:
    text = study.read_text()
    assert text.startswith("#:schema study.schema.json\n")
    assert mistakes(validator, text) == []


def test_the_shipped_schema_is_that_of_this_version() -> None:
    """`naskd schema > studies/study.schema.json` writes it anew."""
    assert json.loads((ROOT / "studies" / "study.schema.json").read_text()) == study_schema()


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("epochs = 0", "epochs"),
        ("epochs = 2.5", "epochs"),
        ('epochs = "20"', "epochs"),
        ("epoch = 20", "epoch"),
        ('objectives = ["val_accuracy", "mac"]', "objectives.1"),
        ('sampler = {name = "tpee"}', "sampler.name"),
        ('sampler = {name = "tpe", startup_trials = 0}', "sampler.startup_trials"),
        ('sampler = {name = "tpe", startup = 3}', "startup"),
        ("limits = {max = {latency = 1}}", "latency"),
        ('execution = {callbacks = ["board"]}', "execution.callbacks.0"),
        ('teacher = {architecture = {stages = [{block = "basic", depth = 0, width = 8}]}}', "depth"),
    ],
)
def test_what_check_refuses_is_underlined(
    line: str, where: str, validator: jsonschema.Draft202012Validator, tmp_path: Path
) -> None:
    (tmp_path / "space.py").write_text("def space(trial): ...\n")
    (tmp_path / "study.toml").write_text(f"{line}\n{SMALL}")
    with pytest.raises(StudyFileError):
        parse_study(tmp_path / "study.toml")
    assert mistakes(validator, SMALL) == []
    found = mistakes(validator, f"{line}\n{SMALL}")
    assert found
    assert all(where in mistake for mistake in found)


@pytest.mark.parametrize(
    "line", ["epochs = 2e1", "limits = {max_macs = 4e6}", "warm_start = [{stages = 2}, 'runs/a']"]
)
def test_what_check_takes_is_not_underlined(line: str, validator: jsonschema.Draft202012Validator) -> None:
    assert mistakes(validator, f"{line}\n{SMALL}") == []


def properties(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    tables = {"study": schema, **schema["$defs"]}
    return [
        (f"{name}.{key}", value)
        for name, table in tables.items()
        for key, value in table["properties"].items()
    ]


def test_every_key_is_explained_in_plain_words() -> None:
    for name, value in properties(study_schema()):
        assert value.get("description"), name
        assert "`" not in value["description"], name


def test_options_of_every_card_are_known() -> None:
    known = study_schema()["$defs"]["SamplerSpec"]["properties"]
    assert known["name"]["enum"] == list(SAMPLERS.names())
    assert {option for card in SAMPLERS for option in card.options} <= set(known)


def test_a_study_brings_the_methods_of_its_modules(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text("def space(trial): ...\n")
    (tmp_path / "mine.py").write_text(
        "from naskd.spec.samplers import SAMPLERS, SamplerCard\n"
        "SAMPLERS.register(SamplerCard('of_schema_test', title='t', paper='', implementation=lambda *_: None))\n"
    )
    (tmp_path / "study.toml").write_text(f'modules = ["mine.py"]\n{SMALL}')
    result = CliRunner().invoke(app, ["schema", str(tmp_path / "study.toml")])
    assert result.exit_code == 0, result.output
    assert "of_schema_test" in json.loads(result.stdout)["$defs"]["SamplerSpec"]["properties"]["name"]["enum"]
