"""Who must exist before a design trains, and whom its student hears: by name, as its scheme says."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from small_studies import STUDENT, TEACHER, TRAINING, design, make, open_context, study
from torch import nn

from naskd.knowledge import KNOWLEDGE
from naskd.networks import BLOCKS
from naskd.networks.teachers import Bare, TeacherInputs
from naskd.schemes import SCHEMES, SchemeCard
from naskd.schemes.prerequisites import Prerequisites
from naskd.spec.code_identity import code_id
from naskd.spec.datasets import DataSpec
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.errors import InputError, UnknownNameError
from naskd.spec.option import Option
from naskd.spec.study import StudySpec
from naskd.spec.teachers import TEACHER_SOURCES, TeacherSourceCard, TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.store.files import file_hash
from naskd.study.admission import problems, settle
from naskd.trials import prerequisites as module
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.prerequisites import PrerequisiteRecipes
from naskd.trials.run import start_run
from naskd.trials.steps import run_job

ONE_EPOCH = dataclasses.replace(TRAINING, epochs=1)
SMALL = TeacherSpec(architecture=STUDENT, training=ONE_EPOCH, name="small")
LARGE = TeacherSpec(architecture=TEACHER, training=ONE_EPOCH, name="large")
ASSISTANT = AssistantSpec(STUDENT, ONE_EPOCH)


def taught(*terms: KnowledgeTerm, **distillation: Any) -> TrialConfig:
    return dataclasses.replace(design(), distillation=DistillationSpec(terms=terms, **distillation))


def two_teachers(folder: Path, **changes: Any) -> StudyContext:
    spec = study(teacher=None, teachers=(SMALL, LARGE), **changes)
    return open_context(spec, ArtifactStore(folder / "artifacts"))


def why_not(config: TrialConfig, spec: StudySpec, context: StudyContext) -> list[str]:
    settled = settle(config, spec)
    return problems(context.designs.measured(settled), spec)


def test_a_design_is_taught_by_the_teacher_that_it_names(tmp_path) -> None:
    context = two_teachers(tmp_path)
    assert [result.status for result in make(context)] == ["complete"] * 2
    for name in ("small", "large"):
        run, compared = start_run(taught(KnowledgeTerm("logits"), teachers=(name,)), context, 1)
        assert compared is not None
        assert compared == context.prerequisites.teacher(name)
        assert context.resources.store.manifest(compared.artifact_id)["name"] == name
        assert run.scheme.inputs.sources[0].macs == context.sources.stand_in(compared).macs
    assert len({recipe.artifact_id for recipe in context.designs.teachers()}) == 2


def test_two_teachers_of_one_design_are_heard_in_its_order(tmp_path) -> None:
    context = two_teachers(tmp_path)
    logits, hint = KnowledgeTerm("logits"), KnowledgeTerm("hint", source=1)
    both = taught(logits, hint, teachers=("large", "small"), assistants=(ASSISTANT,))
    found = context.prerequisites.of(both)
    assert [(r.label, r.teacher) for r in found.made] == [
        ("teacher", "large"),
        ("assistant", "large"),
        ("teacher", "small"),
    ]
    assert [(r.label, r.teacher) for r in found.heard] == [("assistant", "large"), ("teacher", "small")]
    assert found.compared == found.heard[0]
    assert found.made[1].requires == (found.made[0].artifact_id,)


def test_one_network_is_no_ensemble(tmp_path) -> None:
    """Two teachers of one description have one seed, unless the study gives them others: they say the same."""
    twin = dataclasses.replace(SMALL, name="twin", min_accuracy=0.01)
    other = dataclasses.replace(twin, name="other", seed=1)
    spec = study(teacher=None, teachers=(SMALL, twin, other, LARGE))
    context = open_context(spec, ArtifactStore(tmp_path))
    ids = {name: context.prerequisites.teacher(name).artifact_id for name in spec.teacher_specs()}
    assert ids["small"] == ids["twin"] != ids["other"]
    for names, why in (
        (("small", "large", "twin"), "'small' and 'twin', which are one network"),
        (("large", "large"), "'large' twice"),
    ):
        both = tuple(KnowledgeTerm(kind) for kind in ("ensemble", "logits"))
        assert why_not(taught(*both, teachers=names), spec, context) == [
            f"knowledge 'ensemble' hears several teachers, and the design names {why}; give one another seed"
        ]
    assert why_not(taught(KnowledgeTerm("ensemble"), teachers=("small", "other")), spec, context) == []
    apart = (KnowledgeTerm("logits"), KnowledgeTerm("hint", source=1))
    assert why_not(taught(*apart, teachers=("small", "twin")), spec, context) == []


LOSS = """
from naskd.knowledge.base import KnowledgeOutput
from naskd.knowledge.response.logits import LogitsLoss


class Mine(LogitsLoss):
    def forward(self, student, teacher, lesson):
        return KnowledgeOutput({} * super().forward(student, teacher, lesson).term)
"""


def test_an_assistant_is_another_one_when_the_code_of_its_loss_is(tmp_path, monkeypatch) -> None:
    """Its file is edited between two runs: what the old code has taught is not what the new one would."""
    file = tmp_path / "naskd_test_own_loss.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    card = dataclasses.replace(
        KNOWLEDGE["logits"], name="mine", implementation="naskd_test_own_loss:Mine", options={}
    )
    KNOWLEDGE.register(card)
    try:
        chain = (dataclasses.replace(ASSISTANT, terms=(KnowledgeTerm("mine"),)),)
        given = taught(KnowledgeTerm("logits"), teachers=("small",), assistants=chain)
        found = []
        for factor in (1, 2, 1):
            file.write_text(LOSS.format(factor))
            context = two_teachers(tmp_path)
            found.append(context.prerequisites.of(given).heard[0].artifact_id)
        assert found[0] == found[2] != found[1]
        ours = dataclasses.replace(given.distillation, assistants=(ASSISTANT,))
        plain = dataclasses.replace(given, distillation=ours)
        ids = {two_teachers(tmp_path).prerequisites.of(plain).heard[0].artifact_id for _ in range(2)}
        assert len(ids) == 1
    finally:
        del KNOWLEDGE._cards["mine"]


BLOCK = """
from torch import nn

from naskd.networks.blocks.basic import Basic


class Mine(Basic):
    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std={})
"""


def test_a_network_is_another_one_when_the_code_of_its_blocks_is(tmp_path, monkeypatch) -> None:
    """Its layers are called and shaped as before: a stored one would be read without a word."""
    file = tmp_path / "naskd_test_own_block.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    card = dataclasses.replace(BLOCKS["basic"], name="mine", implementation="naskd_test_own_block:Mine")
    BLOCKS.register(card)
    try:
        own = dataclasses.replace(
            STUDENT, stages=tuple(dataclasses.replace(stage, block="mine") for stage in STUDENT.stages)
        )
        chain = (dataclasses.replace(ASSISTANT, architecture=own),)
        given = taught(KnowledgeTerm("logits"), teachers=("small",), assistants=chain)
        teacher = study(teacher=TeacherSpec(architecture=own, training=ONE_EPOCH))
        found = []
        for spread in (0.1, 0.2, 0.1):
            file.write_text(BLOCK.format(spread))
            ours = open_context(teacher, ArtifactStore(tmp_path / "artifacts"))
            found.append(
                (
                    two_teachers(tmp_path).prerequisites.of(given).heard[0].artifact_id,
                    ours.prerequisites.teacher().artifact_id,
                )
            )
        assert found[0] == found[2]
        assert not set(found[0]) & set(found[1])
    finally:
        del BLOCKS._cards["mine"]


@pytest.mark.parametrize("kept", [1, 2])
def test_what_earlier_versions_have_made_of_own_code_is_not_made_again(tmp_path, monkeypatch, kept) -> None:
    """They named the code of losses alone, or none: a run of theirs goes on with its assistant."""
    named = PrerequisiteRecipes._artifact_id
    asked: list[str] = []
    monkeypatch.setattr(
        PrerequisiteRecipes, "_artifact_id", lambda *given: asked.append(named(*given)) or asked[-1]
    )
    monkeypatch.setattr(module, "foreign_code", lambda given, *_: [str(len(given))] if given else None)
    terms = (KnowledgeTerm("logits"),)
    chain = (dataclasses.replace(ASSISTANT, terms=terms),)
    given = taught(*terms, teachers=("small",), assistants=chain)
    first = two_teachers(tmp_path).prerequisites.of(given).heard[0].artifact_id
    names = asked[asked.index(first) :][:3]
    assert len(set(names)) == 3
    monkeypatch.setattr(ArtifactStore, "__contains__", lambda store, name: name == names[kept])
    assert two_teachers(tmp_path).prerequisites.of(given).heard[0].artifact_id == names[kept]


def test_what_a_teacher_that_comes_trained_has_no_use_for_is_no_part_of_it(tmp_path, monkeypatch) -> None:
    """Neither a seed nor a recipe: an edit of them makes no second network of it, and no second opinion."""
    (tmp_path / "own.py").write_text("def make(): ...\n")
    (tmp_path / "own.pt").write_bytes(b"weights")
    brought = TeacherSpec(builder=f"{tmp_path}/own.py:make", checkpoint=f"{tmp_path}/own.pt", name="a")
    others = (
        dataclasses.replace(brought, name="b", seed=3),
        dataclasses.replace(brought, name="c", training=ONE_EPOCH, saw="other"),
        dataclasses.replace(brought, name="d", fine_tune=True),
        dataclasses.replace(brought, name="e", fine_tune=True, seed=3),
    )
    spec = study(teacher=None, teachers=(brought, *others))

    def ids() -> list[str]:
        known = open_context(spec, ArtifactStore(tmp_path / "artifacts")).prerequisites
        return [known.teacher(name).artifact_id for name in "abcde"]

    found = ids()
    assert found[0] == found[1] == found[2]
    assert len({found[0], *found[3:]}) == 3
    both = tuple(KnowledgeTerm(kind) for kind in ("ensemble", "logits"))
    context = open_context(spec, ArtifactStore(tmp_path / "artifacts"))
    assert why_not(taught(*both, teachers=("a", "b")), spec, context) == [
        "knowledge 'ensemble' hears several teachers, and the design names 'a' and 'b', which are one network; name "
        "another one"
    ]
    assert why_not(taught(*both, teachers=("d", "e")), spec, context) == []
    # A run of before named it by its seed, and goes on with it where it is kept.
    of_before = context.prerequisites._identity(
        others[0], {"checkpoint": file_hash(tmp_path / "own.pt")}, code_id
    )
    kept = context.prerequisites._artifact_id("teacher", of_before)
    monkeypatch.setattr(ArtifactStore, "__contains__", lambda store, name: name == kept)
    assert kept not in found
    assert ids() == [found[0], kept, *found[2:]]


def test_a_teacher_that_the_study_does_not_have_is_told_with_those_it_has(tmp_path) -> None:
    context = two_teachers(tmp_path)
    spec = context.resources.spec
    asked = taught(KnowledgeTerm("logits"), teachers=("larg",))
    with pytest.raises(
        UnknownNameError, match="unknown teacher 'larg'; known: small, large; did you mean 'large'"
    ):
        settle(asked, spec)
    with pytest.raises(UnknownNameError, match="unknown teacher 'teacher'"):
        settle(taught(KnowledgeTerm("logits")), spec)  # the default name means a teacher of that name
    with pytest.raises(UnknownNameError, match="unknown teacher 'larg'"):
        settle(taught(teachers=("larg",)), spec)  # whether it is asked or not
    assert why_not(taught(), spec, context) == [], "labels ask nobody"
    assert why_not(taught(KnowledgeTerm("label_smoothing")), spec, context) == []
    with pytest.raises(InputError, match=r"no teacher 'larg'; known: small, large"):
        context.prerequisites.of(asked)


def test_what_a_teacher_is_called_is_not_what_it_is(tmp_path) -> None:
    """A stored network serves every study that describes it, whatever it is called there."""
    named = two_teachers(tmp_path).prerequisites.teacher("large").artifact_id
    alone = study(teacher=dataclasses.replace(LARGE, name="teacher"))
    assert (
        open_context(alone, ArtifactStore(tmp_path / "artifacts")).prerequisites.teacher().artifact_id
        == named
    )


def test_two_teachers_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="distinct names, got large more than once"):
        study(teacher=LARGE, teachers=(LARGE,))


def test_names_that_nobody_hears_are_left_out_of_a_design(tmp_path) -> None:
    spec = two_teachers(tmp_path).resources.spec
    logits, hint = KnowledgeTerm("logits"), KnowledgeTerm("hint")
    plain = settle(taught(), spec)
    assert settle(taught(teachers=("large",)), spec).config_id == plain.config_id
    one = settle(taught(logits, hint, teachers=("large",)), spec)
    moved = [dataclasses.replace(term, source=1) for term in (logits, hint)]
    assert settle(taught(*moved, teachers=("small", "large")), spec).config_id == one.config_id
    chain = settle(taught(*moved, teachers=("small", "large"), assistants=(ASSISTANT,)), spec)
    assert chain.config_id == one.config_id, "the chain is below a teacher that nobody hears"


def _own_needs(distillation: DistillationSpec, spec: StudySpec) -> Prerequisites:
    return Prerequisites()


@pytest.mark.parametrize("supervisor", ["peers", "self", "none"])
def test_knowledge_between_peers_asks_for_no_teacher(supervisor, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(SCHEMES, "_cards", dict(SCHEMES._cards))
    monkeypatch.setattr(SCHEMES, "_origins", dict(SCHEMES._origins))
    SCHEMES.register(SchemeCard("mine", "t", "p", "nowhere:Nothing", supervisor=supervisor))
    spec = study(teacher=None)
    context = open_context(spec, ArtifactStore(tmp_path))
    config = taught(KnowledgeTerm("logits"), scheme="mine")
    assert why_not(config, spec, context) == []
    assert context.prerequisites.of(settle(config, spec)).made == ()
    with pytest.raises(UnknownNameError, match=r"asks for knowledge, but the study file has no \[teacher\]"):
        settle(taught(KnowledgeTerm("logits")), spec)


class Stripes(nn.Module):
    """A network that knows its classes without training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.fc = nn.Linear(width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).relu().mean((2, 3)))


class StripesSource:
    """A teacher source of a user's."""

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> Bare:
        torch.manual_seed(5)
        return Bare(Stripes(spec.option("width")), mean=(0.5,), std=(0.5,))


@pytest.fixture
def stripes(monkeypatch) -> TeacherSpec:
    monkeypatch.setattr(TEACHER_SOURCES, "_cards", dict(TEACHER_SOURCES._cards))
    monkeypatch.setattr(TEACHER_SOURCES, "_origins", dict(TEACHER_SOURCES._origins))
    TEACHER_SOURCES.register(
        TeacherSourceCard(
            "stripes", "t", "", StripesSource, {"width": Option(4, "channels", 1, 64)}, comes_trained=True
        )
    )
    return TeacherSpec(source="stripes", options=(("width", 6),))


def test_a_teacher_source_of_ones_own_is_one_registration(stripes, tmp_path) -> None:
    context = open_context(study(teacher=stripes), ArtifactStore(tmp_path))
    recipe = context.prerequisites.teacher()
    job = Job(recipe.artifact_id, "artifact", None, recipe.seed, 0)
    made = run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)
    assert (made.status, made.train_macs) == ("complete", 0), made.reason
    torch.manual_seed(5)
    images = context.resources.data.val.images.float() / 255
    wanted = Stripes(6)((images - 0.5) / 0.5)
    network = context.sources.online(recipe).network
    assert torch.allclose(network(images), wanted, atol=1e-6)
    run, _ = start_run(design(KnowledgeTerm("logits")), context, 1)
    assert run.advance(1)["logits"] > 0


def test_another_setting_or_another_source_is_another_teacher(stripes, tmp_path) -> None:
    def id_of(teacher: TeacherSpec) -> str:
        context = open_context(study(teacher=teacher), ArtifactStore(tmp_path))
        return context.prerequisites.teacher(teacher.name).artifact_id

    other = dataclasses.replace(stripes, options=(("width", 8),))
    assert len({id_of(stripes), id_of(other), id_of(LARGE)}) == 3


def test_an_assistant_that_is_shown_fewer_views_is_another(tmp_path) -> None:
    """Where the bound takes nothing away, it is that of before there was one."""

    def ids(views: Any, **training: Any) -> list[str]:
        context = two_teachers(tmp_path, data=DataSpec("digits", max_train=120, views=views))
        spec = AssistantSpec(STUDENT, dataclasses.replace(TRAINING, **training))
        config = taught(KnowledgeTerm("logits"), teachers=("small",), assistants=(spec,))
        return [recipe.artifact_id for recipe in context.prerequisites.of(config).made]

    teacher, everything = ids("all")
    assert ids(2) != [teacher, everything]
    assert ids(2)[0] == teacher, "a teacher sees all"
    assert ids(2)[1] != ids(1)[1] != everything
    assert ids(3) == [teacher, everything], "of three epochs"
    assert ids(2, augmentation="flip") == ids("all", augmentation="flip")
    assert ids(1, augmentation="none") == ids("all", augmentation="none")
