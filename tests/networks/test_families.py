"""Families of networks: the first one, and one that a user brings in a file of his own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY_STUDY
from torch import nn

import naskd
from naskd.networks import BLOCKS, FAMILIES, BlockCard, FamilyCard
from naskd.networks.student import build_student, design_cost, student_shapes
from naskd.networks.student_file import load_student, save_student
from naskd.nn.cost import network_cost
from naskd.nn.taps import TappedNetwork
from naskd.report import summary
from naskd.spec.design import ArchitectureSpec, StageSpec, TrialConfig
from naskd.spec.errors import InputError, UnknownNameError
from naskd.spec.userfile import import_file
from naskd.trials.methods import canonical

FILE = Path(__file__).parents[1] / "extension" / "patch_mlp.py"
STAGES = (StageSpec("basic", 1, 8),)


CARD: FamilyCard = import_file(FILE).CARD


def forget() -> None:
    for kept in (FAMILIES._cards, FAMILIES._origins):
        kept.pop(CARD.name, None)


forget()


@pytest.fixture
def patch_mlp() -> Iterator[FamilyCard]:
    """The card of the user's family, known while a test runs."""
    yield FAMILIES.register(CARD)
    forget()


def mlp(**options: int) -> ArchitectureSpec:
    return ArchitectureSpec(family="patch_mlp", options=tuple(sorted(options.items())))


def build(spec: ArchitectureSpec, channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return build_student(spec, channels, 10, (0.5,) * channels, (0.2,) * channels)


# --- designs ---------------------------------------------------------------------------------------------------


def test_designs_of_the_first_family_are_written_as_they_always_were():
    config = TrialConfig(ArchitectureSpec(STAGES))
    assert set(config.to_dict()["architecture"]) == {"stages", "stem_width", "stem_kernel", "stem_stride"}
    assert TrialConfig.from_dict(config.to_dict()) == config
    same = ArchitectureSpec(STAGES, family="cnn", options=(), stem_pool=False)
    assert config.config_id == TrialConfig(same).config_id == "52d6d011572e"


def test_other_families_survive_json_and_have_names_of_their_own():
    config = TrialConfig(mlp(depth=3))
    assert TrialConfig.from_dict(config.to_dict()) == config
    assert (
        len({c.config_id for c in (config, TrialConfig(mlp()), TrialConfig(ArchitectureSpec(STAGES)))}) == 3
    )


def test_the_first_family_needs_stages():
    with pytest.raises(ValueError, match="family 'cnn' needs stages, at least one"):
        ArchitectureSpec()


@pytest.mark.parametrize("use", [lambda s: build(s), lambda s: design_cost(s, 1, 10, 8)])
def test_an_unknown_family_is_named_with_its_neighbours(use):
    with pytest.raises(UnknownNameError, match=r"unknown network family 'cnm'.*did you mean 'cnn'"):
        use(ArchitectureSpec(family="cnm"))


def test_what_a_card_turns_away_is_not_built(patch_mlp):
    assert patch_mlp.problems(mlp(depth=2)) == []
    for wrong, what in ((mlp(depht=2), "did you mean 'depth'"), (mlp(depth=0), r"in \[1, 32\]")):
        with pytest.raises(InputError, match=what):
            build(wrong)
        with pytest.raises(InputError, match=what):
            design_cost(wrong, 1, 10, 8)


def test_a_card_says_which_fields_mean_something(patch_mlp):
    written = ArchitectureSpec(STAGES, 7, 5, 2, family="patch_mlp", options=(("width", 8), ("depth", 2)))
    assert patch_mlp.canonical(written) == mlp(width=8)
    assert canonical(TrialConfig(written)).architecture == mlp(width=8)
    cnn = ArchitectureSpec(STAGES, 7, 5, 2)
    assert FAMILIES["cnn"].canonical(cnn) == cnn


def test_a_family_that_uses_stages_needs_one():
    card = FamilyCard("staged", "", "", nn.Module, uses_stages=True)
    assert card.problems(ArchitectureSpec(family="staged")) == [
        "network family 'staged' needs at least one stage"
    ]
    assert card.problems(ArchitectureSpec(STAGES, family="staged")) == []


def test_a_class_that_is_no_student_is_refused(monkeypatch):
    monkeypatch.setitem(FAMILIES._cards, "odd", FamilyCard("odd", "", "", nn.Linear))
    with pytest.raises(
        InputError, match=r"'odd' is .*Linear.*no subclass of naskd\.networks\.student\.Student"
    ):
        build(ArchitectureSpec(family="odd"))


def test_a_card_that_miscounts_its_stages_is_told(patch_mlp, monkeypatch):
    monkeypatch.setattr(type(patch_mlp), "n_stages", lambda self, architecture: 1)
    with pytest.raises(InputError, match="shows 2 stages, but its card says n_stages = 1"):
        student_shapes(mlp(), 10, 8)


def test_reports_say_choices_that_not_all_networks_had():
    stages = (
        StageSpec("basic", 1, 8, activation="silu"),
        StageSpec("ghost", 2, 12, stride=2, downsampling="max_pooling"),
    )
    config = TrialConfig(ArchitectureSpec(stages, stem="patches", stem_stride=4, resolution=24)).to_dict()
    assert summary.student(config) == "basic 8×1 silu → ghost 12×2 max pooling patches 4 at 24×24"
    found = summary.choices(config)
    assert found["activation"] == ["own", "silu"]
    assert found["down-sampling"] == ["max_pooling"]
    assert (found["stem"], found["resolution"]) == ("patches", "24")
    plain = summary.choices(TrialConfig(ArchitectureSpec(STAGES)).to_dict())
    assert not {"activation", "down-sampling", "stem", "resolution"} & set(plain)
    vit = ArchitectureSpec(family="vit", options=(("depth", 2),), resolution=16)
    line = "vit patch=4 depth=2 width=96 heads=3 mlp_ratio=4 stages=3 at 16×16"
    assert summary.student(TrialConfig(vit).to_dict()) == line


def test_reports_say_a_network_in_one_line(patch_mlp):
    assert summary.student(TrialConfig(ArchitectureSpec(STAGES)).to_dict()) == "basic 8×1"
    assert summary.student(TrialConfig(mlp(width=8)).to_dict()) == "patch_mlp depth=2 width=8 patch=2"
    assert summary.choices(TrialConfig(mlp()).to_dict())["network family"] == "patch_mlp"
    forget()  # a page is made where the user's file is not there
    assert summary.student(TrialConfig(mlp(width=8)).to_dict()) == "patch_mlp width=8"


# --- networks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (3, 17)])
@pytest.mark.parametrize("options", [{}, {"depth": 4, "width": 6, "patch": 3}])
def test_cost_and_shapes_of_a_users_family_are_counted(patch_mlp, channels, side, options):
    spec = mlp(**options)
    student = build(spec, channels)
    assert design_cost(spec, channels, 10, side) == network_cost(student, channels, side)
    assert isinstance(student, TappedNetwork)
    assert student_shapes(spec, 10, side) == student.taps(torch.rand(2, channels, side, side)).shapes
    assert student.pre_activation_norms() == (None,) * patch_mlp.n_stages(spec)


def test_counting_a_design_leaves_random_numbers_alone(patch_mlp):
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    design_cost(mlp(), 1, 10, 8)
    student_shapes(mlp(), 10, 8)
    assert torch.equal(torch.rand(3), wanted)


def test_a_student_of_a_users_family_is_kept_in_one_file(patch_mlp, tmp_path):
    spec = mlp(depth=3)
    student = build(spec).eval()
    save_student(tmp_path / "x.safetensors", student, tuple("0123456789"))
    loaded = load_student(tmp_path / "x.safetensors")
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded(images), student(images))
    forget()
    with pytest.raises(InputError, match="unknown network family 'patch_mlp'"):
        load_student(tmp_path / "x.safetensors")


SPACE = """
from naskd.spec.design import (
    ArchitectureSpec, AssistantSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig
)


def joint(trial):
    width = trial.suggest_categorical("width", [8, 12])
    kind = trial.suggest_categorical("kind", ["hint", "rkd"])
    network = ArchitectureSpec(family="patch_mlp", options=(("width", width),))
    terms = (KnowledgeTerm("logits"), KnowledgeTerm(kind, pairs="first", weighting="balanced"))
    assistant = AssistantSpec(network, TrainingSpec(epochs=1))
    return TrialConfig(network, DistillationSpec(terms, assistants=(assistant,)), TrainingSpec(epochs=1))
"""


def search(folder: Path, executor: str) -> naskd.Run:
    folder.mkdir()
    (folder / "patch_mlp.py").write_text(FILE.read_text())
    (folder / "space.py").write_text(SPACE)
    study = TINY_STUDY.replace("epochs = 1\n", 'epochs = 1\nmodules = ["patch_mlp.py"]\n', 1)
    (folder / "tiny.toml").write_text(study)
    settings = [f"execution.executor={executor}"] + ["execution.workers=1"] * (executor == "processes")
    settings.append("budget.trials=1")
    return naskd.search(folder / "tiny.toml", out=folder / "run", settings=settings)


def test_a_users_family_is_searched_retrained_and_exported_wherever_it_runs(tmp_path):
    """One file, one registration: workers know it, assistants are made of it, losses match its tokens."""
    found = []
    for executor in ("serial", "processes"):
        try:
            run = search(tmp_path / executor, executor)
            (trial,) = run.trials()
            found.append((trial["state"], trial["val_accuracy"], trial["macs"]))
            if executor == "serial":
                run.export(0, path=tmp_path / "best.safetensors")
                student = load_student(tmp_path / "best.safetensors")
                assert student(torch.rand(2, 1, 8, 8)).shape == (2, 10)
                assert trial["macs"] == network_cost(student, 1, 8).macs
        finally:
            forget()
    assert found[0][0] == "COMPLETE"
    assert found[0] == found[1]


def test_choices_that_change_nothing_are_not_written():
    for card in BLOCKS:
        plain = StageSpec(card.name, 1, 8)
        assert card.canonical(StageSpec(card.name, 1, 8, downsampling="max_pooling")) == plain
        assert card.canonical(StageSpec(card.name, 1, 8, activation=card.activation)) == plain
        other = StageSpec(card.name, 1, 8, stride=2, activation="hardswish", downsampling="max_pooling")
        assert card.canonical(other) == other
    silent = BlockCard("silent", "", "", "", uses_expansion=False, uses_squeeze_excitation=False)
    assert silent.canonical(StageSpec("silent", 1, 8, activation="silu")) == StageSpec("silent", 1, 8)


def test_blocks_write_a_stage_in_one_way():
    for card in BLOCKS:
        found = card.canonical(
            StageSpec(card.name, 2, 8, kernel=5, expansion=3.0, stride=2, squeeze_excitation=True)
        )
        assert found == StageSpec(
            card.name,
            2,
            8,
            kernel=5,
            expansion=3.0 if card.uses_expansion else 1.0,
            stride=2,
            squeeze_excitation=card.uses_squeeze_excitation,
        )
