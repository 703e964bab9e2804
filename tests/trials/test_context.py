"""Teachers and assistants: made once, found again by everybody who means the same, verified when read."""

import dataclasses
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from data.files import write_images
from small_studies import (
    ALL_TERMS,
    STUDENT,
    TEACHER,
    TRAINING,
    by_scheme,
    design,
    given,
    make,
    open_context,
    small_context,
    study,
)

from naskd.networks.teachers import Teacher
from naskd.nn.cost import network_cost
from naskd.nn.merging import is_merged
from naskd.spec.datasets import DataSpec
from naskd.spec.design import ArchitectureSpec, AssistantSpec, KnowledgeTerm, StageSpec, TrialConfig
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.study import ExecutionSpec
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.store.files import file_hash
from naskd.trials import run as trial_module
from naskd.trials.context import StudyContext
from naskd.trials.designs import Designs
from naskd.trials.jobs import Decision, Job
from naskd.trials.measures import objective_value
from naskd.trials.run import start_run
from naskd.trials.steps import run_job

ONE_EPOCH = replace(TRAINING, epochs=1)
LOGITS = KnowledgeTerm("logits")


def context_of(folder: Path, **changes: object) -> StudyContext:
    """A new one, as another process has it; nothing is made."""
    return open_context(study(base=folder, **changes), ArtifactStore(folder / "artifacts"))


def network(context: StudyContext) -> Teacher:
    found = context.sources.online(context.prerequisites.teacher()).network
    assert isinstance(found, Teacher)
    return found


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("somebody trains")

    monkeypatch.setattr(trial_module.TrialRun, "advance", fail)


def logits(context: StudyContext) -> torch.Tensor:
    return network(context)(context.resources.data.val.images[:20].float() / 255)


# --- trained here -------------------------------------------------------------------------------------------------


def test_a_teacher_is_trained_once_and_then_read(tmp_path, monkeypatch) -> None:
    first = small_context(tmp_path)
    manifest = first.resources.store.manifest(first.prerequisites.teacher().artifact_id)
    forbid_training(monkeypatch)
    second = small_context(tmp_path)
    assert second.prerequisites.teacher() == first.prerequisites.teacher()
    assert torch.equal(logits(first), logits(second))
    assert manifest["label"] == "teacher"
    assert manifest["train_macs"] == manifest["spent_macs"] > 0
    assert [point["epoch"] for point in manifest["curve"]] == [1]
    assert manifest["val_accuracy"] == manifest["curve"][-1]["val_accuracy"]
    source = second.sources.online(second.prerequisites.teacher())
    assert (manifest["macs"], manifest["n_params"]) == (
        source.macs,
        sum(p.numel() for p in network(second).parameters()),
    )


def test_the_teacher_is_that_of_its_recipe_whoever_makes_it(tmp_path) -> None:
    """Not of the study's seed, nor of what ran before in the process."""
    one, other = small_context(tmp_path / "a"), small_context(tmp_path / "b", seed=5, name="another")
    assert one.prerequisites.teacher() == other.prerequisites.teacher()
    assert torch.equal(logits(one), logits(other))


def teacher(**changes: object) -> TeacherSpec:
    return replace(TeacherSpec(architecture=TEACHER, training=ONE_EPOCH), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": teacher(seed=1)},
        {"teacher": teacher(training=TRAINING)},
        {"teacher": teacher(architecture=STUDENT)},
        {"data": DataSpec("digits", max_train=110)},
        {"data": DataSpec("digits", max_train=120, split_seed=1)},
        {"data": DataSpec("digits", max_train=120, val_fraction=0.1)},
    ],
    ids=["seed", "training", "architecture", "fewer images", "another split", "another validation"],
)
def test_another_teacher_or_other_data_make_another_id(changes, tmp_path) -> None:
    """A teacher of another split may have seen this one's validation images."""
    assert (
        context_of(tmp_path, **changes).prerequisites.teacher()
        != context_of(tmp_path).prerequisites.teacher()
    )


def test_a_teacher_is_frozen_whatever_is_done_with_it(tmp_path) -> None:
    context = small_context(tmp_path)
    found = network(context)
    assert not any(p.requires_grad for p in found.parameters())
    assert not found.train().training


def test_a_study_without_a_teacher_says_so_when_knowledge_is_wanted(tmp_path) -> None:
    context = context_of(tmp_path, teacher=None)
    assert context.designs.recipes(design()) == []
    with pytest.raises(ValueError, match=r"asks for knowledge, but the study file has no \[teacher\]"):
        context.designs.recipes(design(LOGITS))


# --- brought along ------------------------------------------------------------------------------------------------

BUILDER = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )

def nine():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 9))
"""


def bring(folder: Path, seed: int = 0) -> TeacherSpec:
    """Write a user's teacher: a file that builds it and its weights."""
    (folder / "mine.py").write_text(BUILDER)
    scope: dict[str, object] = {}
    exec(BUILDER, scope)
    torch.manual_seed(seed)
    torch.save({"state_dict": scope["build"]().state_dict(), "epoch": 3}, folder / "mine.pt")
    return TeacherSpec(builder="mine.py:build", checkpoint="mine.pt", mean=(0.3,), std=(0.4,))


def test_a_teacher_that_is_brought_along_is_stored_and_reused(tmp_path, monkeypatch) -> None:
    spec = bring(tmp_path)
    context = context_of(tmp_path, teacher=spec)
    forbid_training(monkeypatch)
    (result,) = make(context)
    assert result.status == "complete", result.reason
    assert result.train_macs == 0
    assert 0 <= result.metrics["val_accuracy"] <= 1
    scope: dict[str, object] = {}
    exec(BUILDER, scope)
    bare = scope["build"]()
    bare.load_state_dict(torch.load(tmp_path / "mine.pt", weights_only=True)["state_dict"])
    images = context.resources.data.val.images[:20].float() / 255
    expected = bare.eval()((images - 0.3) / 0.4)
    torch.testing.assert_close(logits(context), expected.detach())
    again = open_context(context.resources.spec, context.resources.store)
    torch.testing.assert_close(logits(again), expected.detach())


def test_a_student_learns_from_a_teacher_that_was_brought_along(tmp_path) -> None:
    context = context_of(tmp_path, teacher=bring(tmp_path))
    make(context)
    before = {name: value.clone() for name, value in network(context).state_dict().items()}
    run, _ = start_run(design(*ALL_TERMS), context, 1)
    run.advance(2)
    assert all(torch.equal(value, before[name]) for name, value in network(context).state_dict().items())


def test_the_hash_that_the_study_names_is_checked(tmp_path) -> None:
    spec = bring(tmp_path)
    right = file_hash(tmp_path / "mine.pt")
    good = context_of(tmp_path, teacher=replace(spec, sha256=right.upper()))
    assert make(good)[0].status == "complete"
    wrong = context_of(tmp_path, teacher=replace(spec, sha256=hashlib.sha256(b"").hexdigest()))
    with pytest.raises(ValueError, match=f"has SHA-256 {right}, the study expects e3b0c44298fc"):
        wrong.prerequisites.teacher()


def test_a_changed_file_is_another_teacher_and_never_stored_as_the_first(tmp_path) -> None:
    spec = bring(tmp_path, seed=0)
    context = context_of(tmp_path, teacher=spec)
    first = context.prerequisites.teacher()
    bring(tmp_path, seed=1)
    (result,) = make(context)
    assert result.status == "failed"
    assert "not the file that was meant" in result.reason
    assert not context.designs.has_artifact(first.artifact_id)
    assert context_of(tmp_path, teacher=spec).prerequisites.teacher().artifact_id != first.artifact_id


def test_changed_code_is_another_teacher(tmp_path) -> None:
    spec = bring(tmp_path)
    first = context_of(tmp_path, teacher=spec).prerequisites.teacher()
    (tmp_path / "mine.py").write_text(BUILDER + "\n# retouched\n")
    assert context_of(tmp_path, teacher=spec).prerequisites.teacher() == first, "a comment changes nothing"
    (tmp_path / "mine.py").write_text(BUILDER + "\nRETOUCHED = True\n")
    assert context_of(tmp_path, teacher=spec).prerequisites.teacher() != first


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: (folder / "mine.pt").write_bytes(b"hello"), "cannot be read with weights_only=True"),
        (lambda folder: torch.save({"0.weight": torch.zeros(1)}, folder / "mine.pt"), "the checkpoint does not fit"),
        (lambda folder: None, "9 outputs, the study has 10 classes"),
    ],
    ids=["damaged", "of another network", "of other classes"],
)  # fmt: skip
def test_a_teacher_that_does_not_fit_is_a_failure_with_a_reason(change, reason, tmp_path) -> None:
    spec = bring(tmp_path)
    if "outputs" in reason:
        spec = replace(spec, builder="mine.py:nine")
        scope: dict[str, object] = {}
        exec(BUILDER, scope)
        torch.save(scope["nine"]().state_dict(), tmp_path / "mine.pt")
    change(tmp_path)
    context = context_of(tmp_path, teacher=spec)
    (result,) = make(context)
    assert result.status == "failed"
    assert reason in result.reason
    assert not context.designs.has_artifact(context.prerequisites.teacher().artifact_id)


def test_a_checkpoint_that_is_not_there_is_said(tmp_path) -> None:
    context = context_of(tmp_path, teacher=replace(bring(tmp_path), checkpoint="yours.pt"))
    with pytest.raises(ValueError, match=r"teacher\.checkpoint .*yours\.pt does not exist"):
        context.prerequisites.teacher()


def test_a_torchvision_network_is_adapted_trained_and_reused(tmp_path, monkeypatch) -> None:
    write_images(tmp_path / "images", {"cat": 24, "dog": 24}, size=(32, 32))
    settings = {
        "data": DataSpec("image_folder", root="images"),
        "teacher": TeacherSpec(torchvision="resnet18", training=replace(ONE_EPOCH, batch_size=16)),
    }
    context = context_of(tmp_path, **settings)
    (result,) = make(context)
    assert result.status == "complete", result.reason
    assert result.train_macs > 0
    assert (
        result.metrics["n_params"] == 11_177_538
    )  # torchvision's 11,689,512 with a head of 2 for one of 1,000
    said = logits(context)
    assert said.shape == (len(context.resources.data.val.images), 2)
    forbid_training(monkeypatch)
    again = context_of(tmp_path, **settings)
    assert torch.equal(logits(again), said)


# --- branches that are merged ---------------------------------------------------------------------------------------


def test_branches_train_as_they_are_and_teach_and_leave_merged(tmp_path) -> None:
    """Of one architecture for both: passes that train are booked with all branches, those of the teacher without."""
    branched = ArchitectureSpec((StageSpec("rep_vgg", 1, 6), StageSpec("rep_vgg", 1, 8, stride=2)))
    context = context_of(tmp_path, teacher=TeacherSpec(architecture=branched, training=ONE_EPOCH))
    config = replace(design(LOGITS), architecture=branched, training=ONE_EPOCH)
    (made,) = make(context, config)
    assert made.status == "complete", made.reason
    cost = context.designs.design_cost(config)
    assert cost.macs < cost.unmerged_macs
    trained = (3 * 120 + 288) * cost.unmerged_macs
    assert (made.train_macs, made.metrics["macs"]) == (trained, cost.macs)

    source = context.sources.online(context.prerequisites.teacher())
    assert is_merged(network(context))
    assert source.macs == cost.macs
    predicted = context.sources.val_predictions(context.prerequisites.teacher())
    right = (predicted == context.resources.data.val.labels).float().mean()
    assert abs(float(right) - made.metrics["val_accuracy"]) < 0.01

    run, _ = start_run(config, context, 1)
    assert not is_merged(run.scheme.deployed)
    run.advance(1)
    assert run.train_macs == trained + 120 * cost.macs
    assert context.designs.training_macs(config).own == trained
    found = run_job(Job("0", "trial", config, 1, 1), context, lambda epoch, metrics: Decision.CONTINUE)
    assert found.status == "complete", found.reason
    assert found.metrics["macs"] == cost.macs


# --- assistants ---------------------------------------------------------------------------------------------------

LARGE = AssistantSpec(replace(TEACHER, stem_width=5), ONE_EPOCH)
SMALL = AssistantSpec(STUDENT, ONE_EPOCH, terms=(KnowledgeTerm("hint"), LOGITS))


def assisted(*assistants: AssistantSpec, **training: object) -> TrialConfig:
    found = design(LOGITS, **training)
    return replace(found, distillation=replace(found.distillation, assistants=assistants))


def test_a_chain_is_made_from_the_teacher_down(tmp_path) -> None:
    context = context_of(tmp_path)
    config = assisted(LARGE, SMALL)
    recipes = context.designs.recipes(config)
    assert [recipe.label for recipe in recipes] == ["teacher", "assistant", "assistant"]
    ids = [recipe.artifact_id for recipe in recipes]
    assert len(set(ids)) == 3
    assert [recipe.requires for recipe in recipes] == [(), (ids[0],), (ids[1],)]
    results = make(context, config)
    assert [result.status for result in results] == ["complete"] * 3
    assert [context.resources.store.manifest(i)["requires"] for i in ids] == [[], [ids[0]], [ids[1]]]
    assert {"hint", "logits", "ce"} <= set(results[2].curve[0])
    # Asked is the network above: 120 images see it once, the assistant and its regressor (6 to 8 channels, 4x4) thrice.
    above, own = (context.sources.online(recipe).macs for recipe in recipes[1:])
    assert above != context.sources.online(recipes[0]).macs
    assert results[2].train_macs == 120 * (3 * (own + 6 * 8 * 16) + above) + 288 * own

    run, supervisor = start_run(config, context, 1)
    assert supervisor == recipes[-1]
    run.advance(1)
    (source,) = run._sources
    assert (
        source.macs == context.sources.online(recipes[-1]).macs == context.designs.design_cost(design()).macs
    )
    assert run.train_macs < start_and_advance(assisted(), context), (
        "the small assistant is cheaper than the teacher"
    )


def start_and_advance(config: TrialConfig, context: StudyContext) -> int:
    run, _ = start_run(config, context, 1)
    run.advance(1)
    return run.train_macs


def test_an_assistant_learns_from_the_network_above_it(tmp_path) -> None:
    """With knowledge alone and many steps, it comes to say what its parent says."""
    context = small_context(tmp_path)
    training = replace(TRAINING, epochs=30, batch_size=16)
    config = assisted(
        AssistantSpec(TEACHER, training, (KnowledgeTerm("logits", temperature=1.0),), ce_weight=0.0)
    )
    _, result = make(context, config)
    terms = [point["logits"] for point in result.curve]
    assert terms[-1] < 0.2 * terms[0]


def test_an_assistant_is_shared_by_all_that_mean_the_same(tmp_path, monkeypatch) -> None:
    """Whatever else of their design was searched."""
    context = small_context(tmp_path)
    config = assisted(LARGE)
    make(context, config)
    first = context.designs.recipes(config)[-1]
    others = [
        assisted(LARGE, learning_rate=0.5, batch_size=7, epochs=9),
        replace(config, architecture=TEACHER),
        replace(config, distillation=replace(config.distillation, terms=ALL_TERMS, ce_weight=0.1)),
        assisted(LARGE, SMALL),
    ]
    forbid_training(monkeypatch)
    second = context_of(tmp_path, name="another", seed=9, epochs=7)
    for other in others:
        assert second.designs.recipes(other)[1] == first
    assert second.designs.has_artifact(first.artifact_id)
    assert all(result.status == "complete" for result in make(second, config))


@pytest.mark.parametrize(
    "other",
    [
        replace(LARGE, training=TRAINING),
        replace(LARGE, architecture=STUDENT),
        replace(LARGE, ce_weight=0.5),
        replace(LARGE, terms=(KnowledgeTerm("logits", temperature=2.0),)),
    ],
)
def test_another_assistant_is_another(other, tmp_path) -> None:
    context = context_of(tmp_path)
    assert last_id(context, other) != last_id(context, LARGE)


def test_an_assistant_of_another_parent_is_another(tmp_path) -> None:
    context = context_of(tmp_path)
    assert len({last_id(context, *chain) for chain in ((LARGE,), (SMALL, LARGE), (LARGE, LARGE))}) == 3
    other = context_of(tmp_path, teacher=teacher(seed=1))
    assert last_id(context, LARGE) != last_id(other, LARGE)


def last_id(context: StudyContext, *assistants: AssistantSpec) -> str:
    return context.designs.recipes(assisted(*assistants))[-1].artifact_id


def test_without_knowledge_nothing_has_to_be_made(tmp_path) -> None:
    context = context_of(tmp_path)
    config = replace(design(), distillation=replace(design().distillation, assistants=(LARGE,)))
    assert context.designs.recipes(config) == []
    assert start_run(design(), context, 1)[1] is None


def test_an_assistant_whose_training_diverges_is_a_failure_with_a_reason(tmp_path) -> None:
    context = small_context(tmp_path)
    wild = replace(LARGE, training=replace(ONE_EPOCH, optimizer="sgd", learning_rate=1e30, batch_size=16))
    _, result = make(context, assisted(wild))
    assert result.status == "failed"
    assert "non-finite" in result.reason


def test_the_same_assistant_has_the_same_bits_whatever_ran_before(tmp_path) -> None:
    one, other = small_context(tmp_path / "a"), small_context(tmp_path / "b")
    config = assisted(SMALL)
    start_and_advance(design(*ALL_TERMS), other)
    make(one, config)
    make(other, config)
    artifact_id = one.designs.recipes(config)[1].artifact_id
    first, second = one.resources.store.load(artifact_id)[0], other.resources.store.load(artifact_id)[0]
    assert all(torch.equal(first[name], second[name]) for name in first)


# --- what a process shares ----------------------------------------------------------------------------------------


def test_views_are_the_same_for_every_training_on_a_split(tmp_path) -> None:
    one, other = context_of(tmp_path), context_of(tmp_path, seed=3, name="another")
    tables = [context.images.all_views("translate").views.table for context in (one, other)]
    assert torch.equal(*tables)
    assert one.images.views("translate") is one.images.views("translate")
    assert one.images.views("none") is not one.images.views("translate")
    split = context_of(tmp_path, data=DataSpec("digits", max_train=120, split_seed=1))
    assert not torch.equal(tables[0], split.images.all_views("translate").views.table)


def test_networks_and_banks_are_loaded_once(tmp_path) -> None:
    context = small_context(tmp_path)
    recipe = context.prerequisites.teacher()
    assert context.sources.online(recipe) is context.sources.online(recipe)
    assert context.sources.banked(recipe, "none") is context.sources.banked(recipe, "none")
    assert context.sources.banked(recipe, "none") is not context.sources.banked(recipe, "translate")
    said = context.sources.val_predictions(recipe)
    assert said is context.sources.val_predictions(recipe)
    assert torch.equal(said, network(context)(context.resources.data.val.images.float() / 255).argmax(1))


def test_banks_on_disk_are_apart_where_their_bits_may_differ(tmp_path) -> None:
    """Another teacher, split, augmentation or precision has a folder of its own; another study of the same has not."""

    def folder(augmentation: str = "none", name: str = "a", **changes: Any) -> Path:
        context = small_context(tmp_path / name, **changes)
        return (
            given(context, cache=tmp_path)
            .sources.banked(context.prerequisites.teacher(), augmentation)
            .folder
        )

    one = folder()
    assert folder(name="b", seed=5) == one
    split = DataSpec("digits", max_train=120, split_seed=1)
    bfloat16 = ExecutionSpec(device="cpu", precision="bfloat16")
    others = [folder("translate"), folder("resized_crop"), folder(name="c", data=split)]
    others += [folder(execution=bfloat16), folder(execution=ExecutionSpec(device="cpu", threads=2))]
    assert len({one, *others}) == 6
    budgets = ExecutionSpec(device="cpu", bank_bytes=10**6, bank_device_bytes=5, bank_disk_bytes=7)
    assert folder(name="d", execution=budgets) == one, "budgets say what is kept, not what it is"


@pytest.mark.parametrize(("free", "most"), [(2**40, 2**40 // 10), (2**30, 2**30)])
def test_a_device_holds_a_tenth_of_its_free_memory_of_a_bank(
    tmp_path, monkeypatch, free: int, most: int
) -> None:
    context = small_context(tmp_path)
    assert context.resources.bank_device_bytes == 2**30, "on a CPU nothing is copied"
    said = study(execution=ExecutionSpec(device="cpu", bank_device_bytes=5))
    assert replace(context.resources, spec=said).bank_device_bytes == 5
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    elsewhere = replace(context.resources.compute, device=torch.device("cuda"))
    assert replace(context.resources, compute=elsewhere).bank_device_bytes == most


def test_a_teacher_that_sees_images_otherwise_has_a_bank_of_its_own(tmp_path, monkeypatch) -> None:
    """Two recipes may end in one file of weights; and a loss of the user's may be another one today."""
    context = given(small_context(tmp_path), cache=tmp_path)
    recipe, views = context.prerequisites.teacher(), context.images.views("none")
    one = context.sources._bank_folder(recipe, views)
    manifest = context.resources.store.manifest(recipe.artifact_id)
    monkeypatch.setattr(context.resources.store, "manifest", lambda _: manifest)
    assert context.sources._bank_folder(dataclasses.replace(recipe, artifact_id="other"), views) != one
    monkeypatch.setattr(
        context.resources.store, "manifest", lambda _: {**manifest, "sha256": "other weights"}
    )
    assert context.sources._bank_folder(recipe, views) != one
    monkeypatch.undo()

    def opened() -> Path | None:
        other = open_context(context.resources.spec, context.resources.store, tmp_path)
        return other.sources._bank_folder(recipe, views)

    assert opened() == one
    monkeypatch.setattr("naskd.trials.resources.foreign_code", lambda _: ["edited"])
    assert opened() != one
    assert context.sources._bank_folder(recipe, views) == one, (
        "what is edited while a search runs is not what runs"
    )
    monkeypatch.setattr("naskd.trials.resources.foreign_code", lambda _: None)
    assert opened() is None, "what has no file cannot be told apart"
    monkeypatch.undo()
    monkeypatch.setattr("naskd.trials.resources.own_code", lambda: "another naskd")
    assert opened() != one


def test_a_bank_foresees_what_the_study_may_ask_for(tmp_path) -> None:
    """A pass over the images for one kind is a pass for all of them; other kinds are not computed for nothing."""
    context = given(small_context(tmp_path), foreseen=("hint", "rkd"))
    bank = context.sources.banked(context.prerequisites.teacher(), "none")
    assert [loss.settings.kind for loss in bank.foreseen] == ["hint", "rkd"]
    assert len(bank.foreseen[0].pairs) == len(bank.shapes.stages)


def test_a_stand_in_costs_what_the_real_one_costs(tmp_path) -> None:
    context = small_context(tmp_path)
    for recipe in context.designs.recipes(assisted(SMALL)):
        stand_in = context.sources.stand_in(recipe)
        assert stand_in.macs == network_cost(stand_in.network, *context.resources.input_shape).macs
        if recipe.assistant is None:
            assert (stand_in.macs, stand_in.shapes) == (
                context.sources.online(recipe).macs,
                context.sources.online(recipe).shapes,
            )
        else:
            assert stand_in.macs == context.designs.design_cost(design()).macs


def test_a_scheme_is_built_once_for_the_cost_of_equal_designs(tmp_path, monkeypatch) -> None:
    """A small space is drawn from many times over before a search."""
    context, built = context_of(tmp_path), []
    build = Designs._scheme
    monkeypatch.setattr(Designs, "_scheme", lambda self, config: built.append(config) or build(self, config))
    one, equal, other = (by_scheme(scheme, LOGITS) for scheme in ("reskd", "reskd", "residual_kd"))
    costs = [context.designs.design_cost(config) for config in (one, equal, other, one)]
    assert built == [one, other]
    assert costs[0] == costs[1] == costs[3] == build(context.designs, one).cost
    assert costs[2] == build(context.designs, other).cost != costs[0]


@pytest.mark.parametrize("scheme", ["offline", "reskd", "byot", "mutual"])
def test_what_is_executed_is_what_leaves(scheme, tmp_path) -> None:
    context = context_of(tmp_path)
    options = {"exit": 1} if scheme == "byot" else {}
    for terms in ((LOGITS,), (KnowledgeTerm("simkd"),) if scheme == "offline" else (LOGITS,)):
        config = by_scheme(scheme, *terms, **options)
        measured = context.designs.measured(config)
        graph = measured.operators()
        assert sum(step.macs for step in graph.operators) == measured.cost.macs
        assert objective_value(OBJECTIVES["peak_memory"], measured) == graph.peak_bytes
        assert context.designs.measured(config).operators() is graph, "it is looked at once"


def test_only_one_makes_what_many_want(tmp_path) -> None:
    """A second driver that waited for the first finds the artifact made, and trains nothing."""
    context = context_of(tmp_path)
    recipe = context.prerequisites.teacher()
    job = Job(recipe.artifact_id, "artifact", None, recipe.seed, 0)
    epochs: list[int] = []

    def report(epoch: int, metrics: object) -> Decision:
        epochs.append(epoch)
        return Decision.CONTINUE

    first = run_job(job, context, report)
    second = run_job(job, context_of(tmp_path), report)
    assert epochs == [1]
    assert json.dumps(first.metrics) == json.dumps(second.metrics)
    assert first.train_macs == second.train_macs
