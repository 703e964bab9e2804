from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_studies import STUDENT, TEACHER, TRAINING, design, make, open_context, small_context, study

from naskd.schemes import SCHEMES
from naskd.schemes.rco import RcoScheme
from naskd.spec.design import AssistantSpec, KnowledgeTerm, TrialConfig
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.study.admission import problems, settle
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.run import start_run, teacher_run
from naskd.trials.steps import run_job

LOGITS = KnowledgeTerm("logits")
EPOCHS = 8


def routed(*terms: KnowledgeTerm, anchors: int = 4, epochs: int = EPOCHS) -> TrialConfig:
    found = design(*terms, epochs=epochs)
    options = (("anchors", anchors),)
    return replace(found, distillation=replace(found.distillation, scheme="rco", scheme_options=options))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    training = replace(TRAINING, epochs=EPOCHS)
    folder = tmp_path_factory.mktemp("rco")
    return small_context(folder, teacher=TeacherSpec(architecture=TEACHER, training=training))


def test_anchors_are_the_teachers_own_states_at_equal_intervals(context) -> None:
    config = routed(LOGITS)
    recipes = context.designs.recipes(config)
    assert [recipe.epoch for recipe in recipes] == [6, 4, 2, 0], "the latest first, which makes the others"
    results = make(context, config)
    assert [result.status for result in results] == ["complete"] * 4
    run = teacher_run(context, recipes[-1])
    for recipe in sorted(recipes, key=lambda r: r.epoch or EPOCHS):
        run.advance(recipe.epoch or EPOCHS)
        state, _ = context.resources.store.load(recipe.artifact_id)
        for name, value in run.scheme.deployed.state_dict().items():
            assert torch.equal(state[name], value), (recipe.label, name)


def test_the_trajectory_costs_one_training_up_to_its_last_anchor(context, tmp_path: Path) -> None:
    alone = open_context(context.resources.spec, ArtifactStore(tmp_path), data=context.resources.data)
    results = make(alone, routed(LOGITS))
    assert [result.train_macs > 0 for result in results] == [True, False, False, True]
    assert results[0].train_macs == results[3].train_macs * 6 // 8


def test_each_state_teaches_its_part_of_the_training(context) -> None:
    make(context, routed(LOGITS))
    run, supervisor = start_run(routed(LOGITS), context, seed=3)
    scheme = run.scheme
    assert isinstance(scheme, RcoScheme)
    assert [scheme.anchor(epoch) for epoch in range(EPOCHS)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert supervisor == context.prerequisites.teacher()
    asked = []
    for epoch in range(1, EPOCHS + 1):
        before = [source.forward_images for source in scheme.route]
        run.advance(epoch)
        heard = [a > b for a, b in zip([s.forward_images for s in scheme.route], before, strict=True)]
        asked.append(heard.index(True) if any(heard) else None)
    assert asked == [0, 0, 1, 1, 2, 2, 3, 3]


def test_with_one_state_everywhere_it_is_offline_distillation(context) -> None:
    """The route matters through its sources alone: of equal ones, the training has offline's bits."""
    make(context, routed(LOGITS))
    offline, _ = start_run(design(LOGITS, epochs=4), context, seed=3)
    run, _ = start_run(routed(LOGITS, epochs=4), context, seed=3)
    assert isinstance(run.scheme, RcoScheme)
    run.scheme.route = run.scheme.route[-1:] * 4
    assert run.advance(4) == offline.advance(4)
    other, _ = start_run(routed(LOGITS, epochs=4), context, seed=3)
    assert other.advance(4) != offline.curve[-1]


def test_a_trial_is_booked_like_any_other(context) -> None:
    make(context, routed(LOGITS))
    config = routed(LOGITS)
    result = run_job(Job("0", "trial", config, 1, EPOCHS), context, lambda epoch, metrics: Decision.CONTINUE)
    assert result.status == "complete", result.error
    assert result.teacher_agreement is not None


def test_what_cannot_work_is_turned_away(context) -> None:
    assisted = routed(LOGITS)
    chain = (AssistantSpec(STUDENT),)
    assisted = replace(assisted, distillation=replace(assisted.distillation, assistants=chain))
    assert "takes no assistant" in problems(context.designs.measured(assisted), context.resources.spec)[0]
    foreign = replace(
        context.resources.spec, teacher=TeacherSpec(torchvision="resnet18", checkpoint="x.pt", saw="other")
    )
    assert (
        "needs a teacher that naskd trains" in problems(context.designs.measured(routed(LOGITS)), foreign)[0]
    )
    assert (
        "option 'anchors'"
        in problems(context.designs.measured(routed(LOGITS, anchors=1)), context.resources.spec)[0]
    )


def test_a_route_is_one_teachers(context) -> None:
    """Its states are no other teachers: a term of another one, or of several, has nobody to ask."""
    spec = context.resources.spec
    other = replace(spec.teacher_specs()["teacher"], name="other", seed=1)
    two = replace(spec, teachers=(other,))
    opened = open_context(two, ArtifactStore(two.base / "none"), data=context.resources.data)

    def why(*terms: KnowledgeTerm, teachers: tuple[str, ...] = ("teacher", "other")) -> list[str]:
        config = routed(LOGITS)
        taught = replace(config.distillation, terms=terms, teachers=teachers)
        config = settle(replace(config, distillation=taught), two)
        return problems(opened.designs.measured(config), two)

    (found,) = why(LOGITS, KnowledgeTerm("hint", source=1))
    assert "'rco' follows one teacher's own training and takes no other" in found
    for names in (("teacher",), ("teacher", "other")):
        (found,) = why(KnowledgeTerm("ensemble"), teachers=names)
        assert "takes no knowledge of several, such as 'ensemble'" in found
    assert why(replace(LOGITS, source=1)) == [], "the other teacher's route"


def test_without_knowledge_a_route_is_plain_training(context) -> None:
    settled = settle(routed(), context.resources.spec)
    assert settled.distillation.scheme == "offline"
    assert settled.distillation.scheme_options == ()
    default = settle(routed(LOGITS, anchors=SCHEMES["rco"].options["anchors"].default), study())
    assert default.distillation.scheme_options == ()
