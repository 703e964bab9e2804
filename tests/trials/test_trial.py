"""One training: the same bits whatever happened before, honest books, and every failure as data."""

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_studies import (
    ALL_TERMS,
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
from torch import Tensor

from naskd.knowledge import KNOWLEDGE, KnowledgeCard
from naskd.knowledge.base import KnowledgeLoss, KnowledgeOutput, Lesson, Summary
from naskd.nn.taps import Taps
from naskd.schemes import SCHEMES
from naskd.schemes.offline import OfflineScheme
from naskd.schemes.scheme import CollapsedError, Phase
from naskd.spec.datasets import DataSpec
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.spec.option import OptionValue
from naskd.spec.study import ExecutionSpec
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.store.checkpoints import CheckpointStore
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.making import artifact_steps
from naskd.trials.outcome import checkpoint_key
from naskd.trials.run import TrialRun, start_run, teacher_run
from naskd.trials.steps import run_job, trial_steps

TAUGHT = design(*ALL_TERMS)
PLAIN = design()
INTEGERS = replace(
    TAUGHT,
    architecture=replace(
        TAUGHT.architecture,
        stages=tuple(replace(stage, bits=4) for stage in TAUGHT.architecture.stages),
    ),
)
N, N_VAL, EPOCHS = 120, 288, TRAINING.epochs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a context; its store has the teacher."""
    found = tmp_path_factory.mktemp("context")
    small_context(found)
    return found


@pytest.fixture(scope="module")
def context(folder: Path) -> StudyContext:
    return small_context(folder)


def start(context: StudyContext, config: TrialConfig = TAUGHT, seed: int = 7) -> TrialRun:
    return start_run(config, context, seed)[0]


def on(epoch: int, metrics: object) -> Decision:
    return Decision.CONTINUE


def trial(
    context: StudyContext, config: TrialConfig, report: Callable[..., Decision] = on, **settings: Any
) -> TrialResult:
    job = Job("0", "trial", config, 7, settings.pop("until_epoch", EPOCHS), **settings)
    return run_job(job, context, report)


def same_bits(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_bits, one, other))
    return bool(one == other)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


# --- seeds and bits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TAUGHT, PLAIN], ids=["taught", "plain"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(config, context) -> None:
    one, two, other = start(context, config), start(context, config), start(context, config, seed=8)
    for run in (one, two, other):
        run.advance(EPOCHS)
    assert same_bits(one.state_dict()["loop"], two.state_dict()["loop"])
    assert one.curve == two.curve
    assert one.train_macs == two.train_macs == other.train_macs
    for (name, ours), theirs in zip(
        one.scheme.deployed.named_parameters(), other.scheme.deployed.parameters(), strict=True
    ):
        assert not torch.equal(ours, theirs), name


def test_a_seed_gives_another_beginning_and_another_order(context) -> None:
    one, other = start(context, PLAIN, seed=7), start(context, PLAIN, seed=8)
    assert not torch.equal(one.scheme.deployed.head.weight, other.scheme.deployed.head.weight)
    other.scheme.load_state_dict(one.scheme.state_dict())
    one.advance(1)
    other.advance(1)
    assert not torch.equal(one.scheme.deployed.head.weight, other.scheme.deployed.head.weight)


def test_bits_depend_on_nothing_that_ran_before(folder) -> None:
    """Neither on random numbers drawn, nor on trials of other designs, nor on who filled the bank with what."""
    first = open_context(study(), ArtifactStore(folder / "artifacts"))
    alone = start(first)
    alone.advance(EPOCHS)

    second = open_context(study(), ArtifactStore(folder / "artifacts"))
    start(second, design(KnowledgeTerm("rkd")), seed=1).advance(2)
    start(second, design(KnowledgeTerm("hint", pairs="all"), batch_size=17), seed=2).advance(EPOCHS)
    start(second, seed=3).advance(2)
    torch.rand(13)
    late = start(second)
    generator = torch.get_rng_state()
    late.advance(EPOCHS)
    assert torch.equal(torch.get_rng_state(), generator), "and it leaves the caller's random numbers alone"
    assert same_bits(alone.state_dict()["loop"], late.state_dict()["loop"])
    assert alone.curve == late.curve

    assert late.train_macs == alone.train_macs, "what designs are compared by"
    teacher = first.sources.online(first.prerequisites.teacher()).macs
    assert late.spent_macs == alone.spent_macs - 2 * N * teacher, "two epochs were remembered"


def test_another_process_finds_the_same_bits(folder, context, forker, tmp_path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import torch
from pathlib import Path
torch.set_num_threads(1)
from small_studies import ALL_TERMS, design, small_context
from naskd.trials.run import start_run
run, _ = start_run(design(*ALL_TERMS), small_context(Path({str(folder)!r})), 7)
run.advance(2)
torch.save(run.state_dict(), {str(folder / "state.pt")!r})
"""
    forker.run(code, tmp_path / "log")
    start(context, design(KnowledgeTerm("hint"))).advance(EPOCHS)
    run = start(context)
    run.advance(2)
    found = torch.load(folder / "state.pt", weights_only=True)
    assert same_bits(run.state_dict()["loop"], found["loop"])
    assert run.curve == found["curve"]


@pytest.mark.parametrize(
    "config",
    [TAUGHT, design(*ALL_TERMS, optimizer="sgd", schedule="cosine"), INTEGERS],
    ids=["adamw", "sgd", "integers"],
)
@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_training_goes_on_from_a_checkpoint_with_the_same_bits(config, stop, folder, context) -> None:
    """Loaded in a fresh context with a cold bank; curve, MACs and balanced weights included."""
    straight = start(context, config)
    straight.advance(EPOCHS)
    stopped = start(context, config)
    if stop:
        stopped.advance(stop)
    cold = open_context(study(), ArtifactStore(folder / "artifacts"))
    resumed = start(cold, config)
    resumed.load_state_dict(through_a_file(stopped.state_dict()))
    assert resumed.epoch == stop
    assert resumed.advance(EPOCHS) == straight.curve[-1]
    assert same_bits(resumed.state_dict()["loop"], straight.state_dict()["loop"])
    assert resumed.curve == straight.curve
    assert resumed.train_macs == straight.train_macs
    weights = resumed.scheme.taught.objective.weights
    assert torch.equal(weights, straight.scheme.taught.objective.weights)
    assert not torch.equal(weights, start(cold, config).scheme.taught.objective.weights)


def interrupted_after(epoch: int) -> Callable[..., Decision]:
    """A report that ends the process, as far as the training can see."""

    def report(done: int, metrics: object) -> Decision:
        if done > epoch:
            raise KeyboardInterrupt
        return Decision.CONTINUE

    return report


@pytest.fixture
def keeping(folder: Path, tmp_path: Path) -> StudyContext:
    """A context that keeps checkpoints after each epoch."""
    context = small_context(folder, execution=ExecutionSpec(device="cpu", checkpoint_every=1))
    return given(context, checkpoints=CheckpointStore(tmp_path / "checkpoints"))


def test_a_trial_goes_on_from_its_checkpoint(context, keeping) -> None:
    """Under any number in the books, with the bits and the MACs of a training that was never interrupted."""
    with pytest.raises(KeyboardInterrupt):
        trial(keeping, TAUGHT, interrupted_after(1))
    epochs = []
    job = Job("12", "trial", TAUGHT, 7, EPOCHS)
    found = run_job(job, keeping, lambda epoch, metrics: epochs.append(epoch) or Decision.CONTINUE)
    assert epochs == [2, 3]
    straight = trial(context, TAUGHT)
    assert found.curve == straight.curve
    assert found.metrics == straight.metrics
    assert found.train_macs == straight.train_macs


def test_a_checkpoint_is_of_one_training(keeping) -> None:
    with pytest.raises(KeyboardInterrupt):
        trial(keeping, TAUGHT, interrupted_after(1))
    for job in (Job("0", "trial", TAUGHT, 8, EPOCHS), Job("0", "trial", PLAIN, 7, EPOCHS)):
        epochs: list[int] = []
        run_job(job, keeping, lambda epoch, metrics, e=epochs: e.append(epoch) or Decision.CONTINUE)
        assert epochs == [1, 2, 3]


def test_checkpoints_come_as_often_as_the_study_says(folder, tmp_path) -> None:
    for every, expected in ((0, None), (2, 2), (1, EPOCHS - 1)):
        context = small_context(folder, execution=ExecutionSpec(device="cpu", checkpoint_every=every))
        store = CheckpointStore(tmp_path / str(every))
        trial(given(context, checkpoints=store), PLAIN)
        kept = sorted((tmp_path / str(every)).glob("*/*"))
        assert [int(path.stem) for path in kept] == ([] if expected is None else [expected])
        store.remove(checkpoint_key(Job("0", "trial", PLAIN, 7, EPOCHS)))
        assert not list((tmp_path / str(every)).glob("*"))


def test_a_teacher_goes_on_from_its_checkpoint(tmp_path) -> None:
    made = []
    for name in ("straight", "interrupted"):
        teacher = TeacherSpec(architecture=TEACHER, training=TRAINING)
        execution = ExecutionSpec(device="cpu", checkpoint_every=1)
        context = open_context(
            study(teacher=teacher, execution=execution), ArtifactStore(tmp_path / name / "artifacts")
        )
        context = given(context, checkpoints=CheckpointStore(tmp_path / name / "checkpoints"))
        recipe = context.prerequisites.teacher()
        job = Job(recipe.artifact_id, "artifact", None, recipe.seed, 0)
        if name == "interrupted":
            with pytest.raises(KeyboardInterrupt):
                run_job(job, context, interrupted_after(1))
        epochs = []
        result = run_job(job, context, lambda epoch, metrics, e=epochs: e.append(epoch) or Decision.CONTINUE)
        made.append((context.resources.store.load(recipe.artifact_id)[0], result.train_macs, epochs))
    (straight, macs, all_epochs), (resumed, resumed_macs, epochs) = made
    assert epochs == all_epochs[1:]
    assert resumed_macs == macs
    assert same_bits(resumed, straight)


class FullDisk:
    """Where nothing can be left."""

    def save(self, key: str, epoch: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    def load(self, key: str) -> None:
        return None


def test_a_full_disk_costs_the_checkpoint_and_not_the_trial(keeping, caplog) -> None:
    assert trial(given(keeping, checkpoints=FullDisk()), PLAIN).status == "complete"
    assert "No space left on device; the training goes on without" in caplog.text


def test_whatever_breaks_the_making_of_a_teacher_is_its_reason(tmp_path, monkeypatch) -> None:
    """With what the training had cost."""
    context = open_context(study(), ArtifactStore(tmp_path))
    recipe = context.prerequisites.teacher()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(context.resources.store, "save", full)
    result = run_job(Job(recipe.artifact_id, "artifact", None, recipe.seed, 0), context, on)
    assert result.status == "failed"
    assert result.reason == "OSError: [Errno 28] No space left on device"
    assert result.spent_macs > 0


def test_a_trial_that_stops_says_what_it_had(context) -> None:
    """Each step carries the result so far: an engine that stops a trial cannot ask it any more."""
    steps = trial_steps(Job("0", "trial", PLAIN, 7, EPOCHS), context)
    progress = next(steps)
    steps.close()
    stopped = trial(context, PLAIN, lambda epoch, metrics: Decision.STOP)
    assert not progress.last
    for name in ("status", "reason", "metrics", "curve", "train_macs", "spent_macs", "teacher_agreement"):
        assert getattr(progress.result, name) == getattr(stopped, name), name


def test_an_assistant_that_is_made_says_what_it_has_spent_by_then(context) -> None:
    """So that what a worker had done of it is in the books when the worker dies."""
    assistant = AssistantSpec(TEACHER, replace(TRAINING, epochs=2))
    aided = replace(PLAIN, distillation=DistillationSpec((KnowledgeTerm("logits"),), assistants=(assistant,)))
    recipe = context.prerequisites.of(aided).made[-1]
    job = Job(recipe.artifact_id, "artifact", aided, recipe.seed, 0, recipe.requires)
    steps = artifact_steps(job, context)
    said = [next(steps).result, steps.send(Decision.CONTINUE).result]
    with pytest.raises(StopIteration) as end:
        steps.send(Decision.CONTINUE)
    spent = [so_far.spent_macs for so_far in said]
    assert [so_far.status for so_far in said] == ["stopped"] * 2
    assert 0 < spent[0] < spent[1] == end.value.value.spent_macs


def test_advancing_in_steps_is_advancing(context) -> None:
    steps = start(context)
    for epoch in (1, 2, 2, 3):
        assert steps.advance(epoch)["epoch"] == epoch
        assert steps.epoch == epoch
    straight = start(context)
    straight.advance(EPOCHS)
    assert steps.curve == straight.curve
    with pytest.raises(ValueError, match="there is no epoch 3"):
        steps.advance(EPOCHS + 1)


# --- books --------------------------------------------------------------------------------------------------------


def test_the_cost_of_a_training_is_a_closed_form(context) -> None:
    """Three passes of the student for an image it trains on, one of the teacher, and one for each it is judged by."""
    student = context.designs.design_cost(PLAIN).macs
    teacher = context.sources.online(context.prerequisites.teacher()).macs
    plain, taught = start(context, PLAIN), start(context, design(KnowledgeTerm("logits")))
    plain.advance(2)
    taught.advance(2)
    # 120 images in batches of 32: the last of 24 is used.
    assert plain.train_macs == plain.spent_macs == 2 * (N * 3 * student + N_VAL * student)
    assert taught.train_macs == 2 * (N * (3 * student + teacher) + N_VAL * student)
    hint = start(context, design(KnowledgeTerm("hint")))
    hint.advance(1)
    # A regressor of 6 to 8 channels on 4x4.
    assert hint.train_macs == N * (3 * (student + 6 * 8 * 16) + teacher) + N_VAL * student


def test_of_few_views_a_teacher_is_run_once_each_and_that_is_what_its_price_says(folder) -> None:
    bounded = study(data=DataSpec("digits", max_train=120, views=2))
    context = open_context(bounded, ArtifactStore(folder / "artifacts"))
    teacher = context.sources.online(context.prerequisites.teacher()).macs
    config = design(KnowledgeTerm("logits"))
    run = start(context, config)
    run.advance(1)
    first = context.designs.training_macs(config).made_after(1)
    assert list(first.values()) == [run.forward_images * teacher] == [N * teacher]
    run.advance(EPOCHS)
    assert run.forward_images == 2 * N
    assert list(run.bank_bytes().values()) == [2 * N * 10 * 2], "it does not grow with the epochs"
    price = context.designs.training_macs(config)
    assert list(price.shared.values()) == [2 * N * teacher]
    assert run.spent_macs == price.own + 2 * N * teacher
    assert run.train_macs == price.whole, "it counts each pass, whatever is remembered"
    everything = open_context(study(), ArtifactStore(folder / "artifacts"))
    assert list(everything.designs.training_macs(config).shared.values()) == [EPOCHS * N * teacher]


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        *((name, {}) for name in SCHEMES.names() if not SCHEMES[name].needs_teacher),
        ("mutual", {"peers": 4}),
        ("kdcl", {"peers": 3, "peer_width": 2.0}),
        ("tf_kd_self", {"share": 0.2}),
    ],
)
def test_the_price_of_a_scheme_is_what_its_training_costs(
    context: StudyContext, scheme: str, options: dict[str, OptionValue]
) -> None:
    """Peers, branches and copies of the student among it, before anything is trained."""
    config = by_scheme(scheme, training={"epochs": 5}, **options)
    run = start(context, config)
    trained = sum(run.loop.images_per_epoch(epoch) * run.macs_per_image(epoch) for epoch in range(5))
    expected = trained + 5 * N_VAL * run.cost.macs
    assert context.designs.training_macs(config).own == pytest.approx(expected)


def test_options_that_change_no_cost_are_priced_once(
    monkeypatch: pytest.MonkeyPatch, context: StudyContext
) -> None:
    """Each build takes a tenth of a second, and a search begins with hundreds of designs."""
    built: list[TrialConfig] = []
    monkeypatch.setattr(
        type(context.designs), "_counted_passes", lambda _, config: built.append(config) or (3.0, 0.0, 1.0)
    )
    for temperature in (1.5, 2.5, 3.5):
        context.designs.training_macs(by_scheme("mutual", training={"epochs": 7}, temperature=temperature))
    assert len(built) == 1
    context.designs.training_macs(by_scheme("mutual", training={"epochs": 7}, peers=3))
    assert len(built) == 2


def test_students_see_few_views_and_teachers_all(folder) -> None:
    bounded = study(data=DataSpec("digits", max_train=120, views=2))
    context = open_context(bounded, ArtifactStore(folder / "artifacts"))

    def shown(run: TrialRun) -> list[Tensor]:
        """Of the first image, epoch by epoch."""
        (feeding,) = run.loop._feeding.values()
        _, images = feeding._images()
        return [images.batch(torch.tensor([0]), epoch)[0] for epoch in range(3)]

    first, second, third = shown(start(context, PLAIN))
    assert torch.equal(first, third)
    assert not torch.equal(first, second)
    of_teacher = shown(teacher_run(context, context.prerequisites.teacher()))
    assert torch.equal(torch.cat(of_teacher[:2]), torch.cat([first, second]))
    assert not torch.equal(of_teacher[2], first)


def test_a_teacher_is_booked_where_it_was_really_run(folder) -> None:
    context = open_context(study(), ArtifactStore(folder / "artifacts"))
    student = context.designs.design_cost(PLAIN).macs
    teacher = context.sources.online(context.prerequisites.teacher()).macs
    own = N * 3 * student + N_VAL * student
    config = design(KnowledgeTerm("logits"), batch_size=17)
    first, second = start(context, config), start(context, config, seed=8)
    kept = 119  # 17 goes seven times into 120
    own = kept * 3 * student + N_VAL * student
    first.advance(2)
    assert first.spent_macs == 2 * (own + N * teacher), "a column of the bank is filled whole"
    second.advance(3)
    assert second.spent_macs == 3 * own + N * teacher, "the third epoch is new"
    assert second.train_macs == 3 * (own + kept * teacher)
    assert (first.asked_images, first.forward_images) == (2 * kept, 2 * N)
    assert (second.asked_images, second.forward_images) == (3 * kept, N)
    assert start(context, PLAIN).bank_bytes() == {}
    assert list(second.bank_bytes().values()) == [3 * N * 10 * 2], "three columns of logits in half precision"


def test_the_crops_of_an_epoch_are_asked_about_once(folder) -> None:
    """All trials see the same, so that the second finds what the first asked; with the bits of the online teacher's."""
    online = study(execution=ExecutionSpec(device="cpu", bank_bytes=0))
    config = design(KnowledgeTerm("logits"), KnowledgeTerm("hint"), augmentation="resized_crop")
    context, other = (open_context(s, ArtifactStore(folder / "artifacts")) for s in (study(), online))
    first, second, alone = start(context, config), start(context, config), start(other, config)
    for run in (first, second, alone):
        run.advance(EPOCHS)
    assert (first.asked_images, first.forward_images) == (EPOCHS * N, EPOCHS * N)
    assert (second.asked_images, second.forward_images) == (EPOCHS * N, 0)
    assert alone.forward_images == EPOCHS * N
    assert first.curve == second.curve
    for found, expected in zip(first.curve, alone.curve, strict=True):
        assert found == pytest.approx(expected, rel=1e-3), "the bank rounds"
    plain = start(context, design(KnowledgeTerm("logits"), KnowledgeTerm("hint"), augmentation="none"))
    plain.advance(EPOCHS)
    assert plain.curve != first.curve


def test_a_resumed_training_goes_on_counting(context) -> None:
    run = start(context)
    run.advance(1)
    resumed = start(context)
    resumed.load_state_dict(run.state_dict())
    resumed.advance(EPOCHS)
    assert resumed.asked_images == EPOCHS * N
    old = {name: value for name, value in run.state_dict().items() if name != "teacher_images"}
    resumed.load_state_dict(old)
    assert resumed.asked_images == 0, "a checkpoint of an earlier version"


def test_a_result_carries_the_counts_through_the_books(context) -> None:
    result = trial(context, TAUGHT)
    assert result.asked_images == EPOCHS * N
    found = TrialResult.from_dict(json.loads(json.dumps(result.to_dict())))
    assert (found.asked_images, found.forward_images) == (result.asked_images, result.forward_images)
    assert found.bank_bytes == result.bank_bytes
    older = {
        k: v for k, v in result.to_dict().items() if k not in ("asked_images", "forward_images", "bank_bytes")
    }
    assert TrialResult.from_dict(older).asked_images == 0


def test_a_study_says_what_is_banked(folder) -> None:
    """Without a budget the teacher is asked at every step, once for all losses."""
    spec = study(execution=ExecutionSpec(device="cpu", bank_bytes=0))
    context = open_context(spec, ArtifactStore(folder / "artifacts"))
    run = start(context)
    run.advance(2)
    assert run.forward_images == run.asked_images == 2 * N
    assert run.bank_bytes() == {}


def test_a_result_says_what_the_run_measured(context) -> None:
    result = trial(context, TAUGHT)
    run = start(context)
    run.advance(EPOCHS)
    assert result.status == "complete"
    assert (result.reason, result.error) == ("", "")
    assert result.seed == 7
    assert list(result.curve) == run.curve
    assert [point["epoch"] for point in result.curve] == [1, 2, 3]
    cost = context.designs.design_cost(TAUGHT)
    assert result.metrics == {
        "val_accuracy": run.curve[-1]["val_accuracy"],
        "best_val_accuracy": max(point["val_accuracy"] for point in run.curve),
        "macs": cost.macs,
        "n_params": cost.n_params,
        "size_bytes": cost.size_bytes,
        "train_macs": run.train_macs,
    }
    student = run.scheme.deployed.eval()
    images, labels = context.resources.data.val.images, context.resources.data.val.labels
    with torch.no_grad():
        said = student(images.float() / 255).argmax(1)
        taught = (
            context.sources.online(context.prerequisites.teacher()).network(images.float() / 255).argmax(1)
        )
    assert result.metrics["val_accuracy"] == pytest.approx(float((said == labels).float().mean()))
    assert result.teacher_agreement == pytest.approx(float((said == taught).float().mean()))
    assert trial(context, PLAIN).teacher_agreement is None
    assert TrialResult.from_dict(result.to_dict()) == result


def test_steps_of_the_whole_training_are_known_before_it(context) -> None:
    run = start(context, PLAIN)
    # An evaluation of an image costs a third of training on it.
    (steps,) = run.steps_by_phase().values()
    assert steps == pytest.approx(EPOCHS * (N + N_VAL / 3) / 32)


def test_a_stopping_rule_stops(context) -> None:
    result = trial(context, TAUGHT, lambda epoch, _: Decision.STOP if epoch == 2 else Decision.CONTINUE)
    assert result.status == "stopped"
    assert result.reason == "stopped by the stopping rule after epoch 2"
    assert len(result.curve) == 2
    assert result.metrics["val_accuracy"] == result.curve[-1]["val_accuracy"]
    assert result.teacher_agreement is None
    assert result.train_macs * 3 == trial(context, TAUGHT).train_macs * 2


def test_a_job_says_how_far_to_go(context) -> None:
    assert len(trial(context, TAUGHT, until_epoch=2).curve) == 2
    assert len(trial(context, TAUGHT, until_epoch=99).curve) == EPOCHS


def test_an_interrupt_is_not_a_result(context) -> None:
    def report(epoch: int, metrics: object) -> Decision:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trial(context, PLAIN, report)


def test_bfloat16_trains_what_float32_judges(tmp_path) -> None:
    context = small_context(tmp_path, execution=ExecutionSpec(device="cpu", precision="bfloat16"))
    result = trial(context, TAUGHT)
    assert result.status == "complete", result.reason
    assert result.environment["precision"] == "bfloat16"
    assert all(p.dtype is torch.float32 for p in start(context).scheme.parameters())


# --- failures -----------------------------------------------------------------------------------------------------


class PoisonedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * math.nan


class Fake(KnowledgeLoss):
    """The student's mean logit, and what a test does to it in the second epoch."""

    batches: list[int]
    act: Callable[[Tensor], Tensor]

    def summarise(self, teacher: Taps) -> Summary:
        return {"logits": teacher.logits.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        return (student.logits,)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        term = student.logits.mean()
        if term.is_meta:  # when it is counted
            return KnowledgeOutput(term)
        self.batches.append(len(lesson.labels))
        return KnowledgeOutput(self.act(term) if len(self.batches) > 4 else term)


@pytest.fixture
def fake() -> Iterator[type[Fake]]:
    """A loss of this test alone."""
    kind = type("FakeOfTest", (Fake,), {"batches": [], "act": staticmethod(lambda term: term)})
    card = KnowledgeCard(
        "fake", "response", "", "", "", kind, taps=("logits",), paper_weight=1.0, paper_setting=""
    )
    KNOWLEDGE.register(card)
    yield kind
    del KNOWLEDGE._cards["fake"]


WITH_FAKE = design(KnowledgeTerm("fake", 0.1), KnowledgeTerm("logits"))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_fails_the_trial_and_is_named(value, fake, context) -> None:
    fake.act = staticmethod(lambda term: term * value)
    result = trial(context, WITH_FAKE)
    assert result.status == "failed"
    assert result.reason.startswith("non-finite loss: fake is ")
    assert result.reason.endswith("from step 1 of epoch 2")
    assert [point["epoch"] for point in result.curve] == [1], "what was measured before is kept"
    assert result.metrics["val_accuracy"] == result.curve[0]["val_accuracy"]
    assert result.metrics["macs"] == context.designs.design_cost(WITH_FAKE).macs


def test_the_epoch_that_failed_is_paid_for(fake, context) -> None:
    fake.act = staticmethod(lambda term: term * math.nan)
    failed = trial(context, WITH_FAKE)
    good = start(context, design(KnowledgeTerm("logits")))
    good.advance(2)
    evaluation = N_VAL * good.cost.macs
    assert failed.train_macs == good.train_macs - evaluation
    assert failed.spent_macs > 0


def test_a_gradient_that_is_not_finite_fails_the_trial_though_its_loss_was(fake, context) -> None:
    fake.act = staticmethod(PoisonedGradient.apply)
    result = trial(context, WITH_FAKE)
    assert result.status == "failed"
    assert "ce is nan, fake is nan, logits is nan from step 2, after the update of step 1" in result.reason
    one_step = replace(WITH_FAKE, training=replace(WITH_FAKE.training, batch_size=120))
    fake.batches.extend([0] * 4)
    result = trial(context, one_step)
    assert result.status == "failed"
    assert result.reason.startswith("non-finite gradient: parameter taught.network.")


def test_a_player_that_has_collapsed_fails_the_trial_and_is_paid_for(context, monkeypatch) -> None:
    phases, seen = OfflineScheme.phases, []

    def judge(means: Mapping[str, float]) -> None:
        seen.append(means)
        if len(seen) == 2:
            raise CollapsedError("a player has collapsed")

    def judged(scheme: OfflineScheme) -> tuple[Phase, ...]:
        return tuple(replace(phase, after_epoch=judge) for phase in phases(scheme))

    good = start(context, PLAIN)
    good.advance(2)
    monkeypatch.setattr(OfflineScheme, "phases", judged)
    result = trial(context, PLAIN)
    assert (result.status, result.reason) == ("failed", "a player has collapsed")
    assert result.error == "", "no traceback: it is no mistake of the program"
    assert list(result.curve) == good.curve[:1]
    assert result.train_macs == good.train_macs - N_VAL * good.cost.macs


def test_an_error_is_a_result_with_its_traceback(fake, context) -> None:
    def act(term: Tensor) -> Tensor:
        raise RuntimeError("first line\nsecond line")

    fake.act = staticmethod(act)
    result = trial(context, WITH_FAKE)
    assert result.status == "failed"
    assert result.reason == "RuntimeError: first line"
    assert "second line" in result.error
    assert "in act" in result.error
    assert len(result.curve) == 1


@pytest.mark.parametrize(
    ("error", "answers", "full", "lost"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), False, False, True),
        (RuntimeError("a mistake"), True, False, False),
        (torch.cuda.OutOfMemoryError("full"), False, True, False),
    ],
)
def test_a_failure_says_whether_its_device_is_to_blame(
    error, answers, full, lost, fake, context, monkeypatch
) -> None:
    def act(term: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(type(context.resources.compute), "answers", lambda compute: answers)
    fake.act = staticmethod(act)
    result = trial(context, WITH_FAKE)
    assert (result.status, result.out_of_memory, result.device_lost) == ("failed", full, lost)
    assert result.blames_device == (full or lost)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (design(KnowledgeTerm("no such loss")), "unknown knowledge loss 'no such loss'"),
        (replace(PLAIN, distillation=DistillationSpec(scheme="online")), "unknown scheme 'online'"),
        (design(KnowledgeTerm("rkd"), batch_size=2), "batch_size must be at least 3"),
    ],
)  # fmt: skip
def test_a_design_that_cannot_be_built_is_a_result_too(config, reason, context) -> None:
    result = trial(context, config)
    assert result.status == "failed"
    assert result.reason.startswith(reason)
    assert result.metrics == {}
    assert result.train_macs == 0


@pytest.mark.parametrize("file", ["model.pt", "manifest.json"])
def test_a_damaged_teacher_is_made_again_and_costs_no_trial(tmp_path, file, caplog) -> None:
    """In the middle of a search: it was whole when the search looked."""
    context = small_context(tmp_path)
    path = context.resources.store.path(context.prerequisites.teacher().artifact_id) / file
    whole = path.read_bytes()
    assert context.prerequisites.teacher().artifact_id in context.resources.store
    path.write_bytes(whole[:-60] + bytes([whole[-60] ^ 1]) + whole[-59:])
    result = trial(context, TAUGHT)
    assert (result.status, result.reason) == ("complete", "")
    assert "it is made again" in caplog.text
    assert context.resources.store.load(context.prerequisites.teacher().artifact_id)
    assert file == "manifest.json" or path.read_bytes() == whole, "the same bits"


@pytest.mark.parametrize("batch_size", [7, 17, 59, 119])
def test_a_last_batch_of_one_sample_never_reaches_a_loss(batch_size, fake, context) -> None:
    config = replace(WITH_FAKE, training=replace(WITH_FAKE.training, batch_size=batch_size))
    assert {N % 7, N % 17, N % 119} == {1}
    assert trial(context, config).status == "complete"
    assert set(fake.batches) == {batch_size} | ({N % batch_size} - {1})
    assert sum(fake.batches) == EPOCHS * (N - (N % batch_size == 1))


# --- teachers and students of one process ----------------------------------------------------------------------------


def test_making_what_is_there_costs_nothing_and_says_what_it_cost(context) -> None:
    (result,) = make(context)
    manifest = context.resources.store.manifest(context.prerequisites.teacher().artifact_id)
    assert result.status == "complete"
    assert result.train_macs == manifest["train_macs"] > 0
    assert list(result.curve) == manifest["curve"]
    assert result.metrics["macs"] == context.sources.online(context.prerequisites.teacher()).macs
