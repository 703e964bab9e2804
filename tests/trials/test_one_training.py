"""Designs of one training at work: each has what it would have alone, to the last bit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_studies import STUDENT, by_scheme, execution, given, small_context

from naskd.executors.ray.dispatch import job_from_dict, job_to_dict
from naskd.networks.early_exit import EarlyExit
from naskd.networks.student_file import load_student
from naskd.spec.design import KnowledgeTerm, StageSpec, TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.store.checkpoints import CheckpointStore
from naskd.store.students import StudentStore
from naskd.trials import measures
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult, training_key
from naskd.trials.methods import canonical, seed_of
from naskd.trials.run import start_run
from naskd.trials.steps import run_job, trial_steps


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    folder = tmp_path_factory.mktemp("siblings")
    found = small_context(folder, objectives=("val_accuracy", "macs", "train_macs"))
    return given(found, students=StudentStore(folder / "students"))


def three_stages(*terms: KnowledgeTerm, bits: int = 32, **options: Any) -> TrialConfig:
    stages = tuple(replace(s, bits=bits) for s in (*STUDENT.stages, StageSpec("basic", 1, 8, stride=2)))
    found = replace(by_scheme("byot", *terms, **options), architecture=replace(STUDENT, stages=stages))
    return canonical(found)


def go_on(epoch: int, metrics: object) -> Decision:
    return Decision.CONTINUE


def job_of(config: TrialConfig, context: StudyContext, **changes: Any) -> Job:
    job = Job("0", "trial", config, seed_of(config, 0), 3, siblings=tuple(context.designs.siblings(config)))
    return replace(job, **changes)


@pytest.mark.parametrize("leaves", [0, 1])
def test_each_design_has_what_it_would_have_alone(leaves: int, context: StudyContext) -> None:
    """Accuracies, curve, costs, agreement and weights; what was executed is booked once."""
    config = three_stages(KnowledgeTerm("logits"), exit=leaves)
    job = job_of(config, context)
    run_job(replace(job, siblings=()), context, go_on)  # what the teacher says is remembered from here on
    alone = run_job(replace(job, siblings=()), context, go_on)
    together = run_job(job, context, go_on)
    assert len(together.siblings) == 2
    for sibling in together.siblings:
        own = run_job(replace(job, config=sibling.config, siblings=()), context, go_on)
        assert sibling.result == replace(own, spent_macs=0, wall_seconds=0.0, asked_images=0, bank_bytes={})
        assert sibling.result.teacher_agreement is not None
        assert sibling.result.sha256
    whole = replace(together, siblings=(), spent_macs=0, wall_seconds=0.0)
    assert whole == replace(alone, spent_macs=0, wall_seconds=0.0)
    evaluated = sum(one.result.metrics["macs"] for one in together.siblings)
    assert together.spent_macs - alone.spent_macs == 3 * len(context.resources.data.val) * evaluated
    assert TrialResult.from_dict(json.loads(json.dumps(together.to_dict()))) == together


def test_their_students_are_kept(context: StudyContext) -> None:
    job = job_of(three_stages(), context)
    result = run_job(job, context, go_on)
    store = context.resources.students
    assert isinstance(store, StudentStore)
    images = context.resources.data.val.images.float() / 255
    for sibling in result.siblings:
        path = store.found(training_key(sibling.config.config_id, job.seed), sibling.result.sha256)
        assert path is not None
        network = load_student(path)
        assert isinstance(network, EarlyExit)
        with torch.no_grad():
            right = network(images).argmax(1) == context.resources.data.val.labels
        assert float(right.double().mean()) == pytest.approx(sibling.result.metrics["val_accuracy"])


def test_a_training_that_is_taken_up_again_has_them_whole(context: StudyContext, tmp_path: Path) -> None:
    spec = replace(context.resources.spec, execution=execution(device="cpu", checkpoint_every=1))
    stored = given(context, spec=spec, checkpoints=CheckpointStore(tmp_path))
    job = job_of(three_stages(), context)
    straight = run_job(job, context, go_on)
    steps = trial_steps(job, stored)
    next(steps)
    steps.send(Decision.CONTINUE)
    steps.close()
    epochs: list[int] = []
    found = run_job(job, stored, lambda epoch, metrics: epochs.append(epoch) or Decision.CONTINUE)
    assert epochs == [2, 3]
    assert [one.result for one in found.siblings] == [one.result for one in straight.siblings]
    assert found.spent_macs == straight.spent_macs


def test_one_that_was_not_wanted_from_the_beginning_is_not_told(context: StudyContext) -> None:
    """Half a curve is none."""
    config = three_stages()
    siblings = context.designs.siblings(config)
    first = start_run(config, context, 2, siblings=siblings[:1])[0]
    first.advance(1)
    again = start_run(config, context, 2, siblings=siblings)[0]
    again.load_state_dict(first.state_dict())
    again.advance(3)
    assert [one for one, _ in again.siblings.whole(3)] == siblings[:1]


def test_a_stopped_training_tells_none(context: StudyContext) -> None:
    result = run_job(job_of(three_stages(), context), context, lambda epoch, metrics: Decision.STOP)
    assert (result.status, result.siblings) == ("stopped", ())


def test_of_a_design_that_fails_alone_the_reason_is_told(context: StudyContext, monkeypatch) -> None:
    def whole_alone(trained: measures.Trained) -> float:
        if isinstance(trained.network, EarlyExit):
            raise ValueError("I know no exits")
        return len(trained.curve)

    axis = Objective("wholeness", "wholeness", "maximize", "", "linear", "after", whole_alone)
    monkeypatch.setitem(OBJECTIVES._cards, "wholeness", axis)
    spec = replace(context.resources.spec, objectives=("val_accuracy", "macs", "wholeness"))
    result = run_job(job_of(three_stages(), context), given(context, spec=spec), go_on)
    assert (result.status, result.metrics["wholeness"]) == ("complete", 3)
    assert {one.result.status for one in result.siblings} == {"failed"}
    assert all("I know no exits" in one.result.reason and one.result.error for one in result.siblings)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (three_stages(), (1, 2)),
        (three_stages(exit=2), (0, 1)),
        (three_stages(bits=8), ()),  # exits have no integer form
        (three_stages(KnowledgeTerm("simkd")), ()),  # a loss stays in the student
        (replace(by_scheme("offline"), architecture=STUDENT), ()),
    ],
)
def test_who_has_siblings(config: TrialConfig, names: tuple[int, ...], context: StudyContext) -> None:
    found = context.designs.siblings(canonical(config))
    assert [dict(one.distillation.scheme_options).get("exit", 0) for one in found] == list(names)
    assert {seed_of(one, 0) for one in (config, *found)} == {seed_of(config, 0)}


def test_a_scheme_that_measures_its_student_gives_one_design(context: StudyContext, monkeypatch) -> None:
    monkeypatch.setattr("naskd.schemes.byot.ByotScheme.measured", ("forgetting",))
    with pytest.raises(InputError, match="'byot' measures forgetting and has siblings"):
        context.designs.siblings(three_stages(exit=1))


def test_a_job_with_siblings_crosses_processes(context: StudyContext) -> None:
    job = job_of(three_stages(), context)
    assert job_from_dict(json.loads(json.dumps(job_to_dict(job)))) == job
