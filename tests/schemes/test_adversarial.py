import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from by_loops import cross_entropy, divergence
from online_schemes import softmax, start
from small_studies import ALL_TERMS, TEACHER, by_scheme, design, small_context
from torch import Tensor, nn

import naskd
from naskd.nn.cost import count_macs
from naskd.schemes import SCHEMES
from naskd.schemes.adversarial import AdversarialScheme, fooled, told
from naskd.schemes.scheme import CollapsedError
from naskd.spec.design import DistillationSpec, KnowledgeTerm
from naskd.testing.schemes import batches, counted, teacher_of
from naskd.training.loop import NonFiniteError
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.run import start_run
from naskd.trials.steps import run_job

KD = KnowledgeTerm("logits")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("adversarial"))


def started(context: StudyContext, *terms: KnowledgeTerm, **options: object) -> AdversarialScheme:
    scheme = start(context, "adversarial", *(terms or (KD,)), **options).scheme
    assert isinstance(scheme, AdversarialScheme)
    return scheme.train()


def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items() if isinstance(value, Tensor)}


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


def test_the_losses_by_the_definition() -> None:
    random = np.random.default_rng(1)
    real, fake = random.normal(0, 3, (2, 6, 1))
    expected = sum(-math.log(sigmoid(r)) for r in real[:, 0]) / 6
    expected += sum(-math.log(1 - sigmoid(f)) for f in fake[:, 0]) / 6
    assert told(torch.from_numpy(real), torch.from_numpy(fake)).item() == pytest.approx(expected, rel=1e-9)
    expected = sum(-math.log(sigmoid(f)) for f in fake[:, 0]) / 6
    assert fooled(torch.from_numpy(fake)).item() == pytest.approx(expected, rel=1e-9)


def test_who_cannot_tell_loses_two_bits_and_who_is_sure_is_finite() -> None:
    nothing = torch.zeros(3, 1)
    assert told(nothing, nothing).item() == pytest.approx(2 * math.log(2))
    sure = torch.full((3, 1), 500.0, requires_grad=True)
    assert told(sure, -sure).item() == 0
    fooled(-sure).backward()
    torch.testing.assert_close(sure.grad, torch.full((3, 1), 1 / 3))  # it does not saturate


@pytest.mark.parametrize("on", ["logits", "features"])
def test_the_updates_by_the_definition(context, on: str) -> None:
    scheme = started(context, on=on, weight=0.5, classes=0.25)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    with torch.no_grad():
        taps, teacher = scheme.taught.taps(batch.images), teacher_of(context).taps(batch.images)
        shown = (taps.logits, teacher.logits)
        if on == "features":
            shown = (scheme.transfer(taps.pooled), teacher.pooled)
        own, other = (scheme.discriminator(x).double().numpy() for x in shown)
    students, judges = 0.0, 0.0
    for image, label in enumerate(batch.labels.tolist()):
        logits, target = taps.logits[image].double().numpy(), teacher.logits[image].double().numpy()
        students += cross_entropy(logits, label)
        students += 0.9 * 16 * divergence(softmax(target, 4.0), softmax(logits, 4.0))
        students += 0.5 * (-math.log(sigmoid(own[image, 0])) + 0.25 * cross_entropy(own[image, 1:], label))
        judges += -math.log(sigmoid(other[image, 0])) - math.log(1 - sigmoid(own[image, 0]))
        judges += 0.25 * sum(cross_entropy(scores[image, 1:], label) for scores in (own, other))
    assert scheme.taught.objective.weights.tolist() == [pytest.approx(0.9)]
    updates = list(phase.step(batch, phase.ask(batch)))
    assert [update.optimizer for update in updates] == ["student", "discriminator"]
    found = np.array([update.loss.item() for update in updates]) * len(batch.labels)
    np.testing.assert_allclose(found, [students, judges], rtol=1e-4)


@pytest.mark.parametrize("on", ["logits", "features"])
def test_neither_player_moves_the_other(context, on: str) -> None:
    scheme = started(context, on=on)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    for update in phase.step(batch, phase.ask(batch)):
        mine, other = [scheme.taught, scheme.transfer], [scheme.discriminator]
        if update.optimizer == "discriminator":
            mine, other = other, mine
        scheme.zero_grad()
        update.loss.backward()
        assert all(p.grad is None for module in other for p in module.parameters())
        assert all(p.grad is not None for module in mine for p in module.parameters())
    assert all(p.grad is None for p in teacher_of(context).parameters())


@pytest.mark.parametrize("on", ["logits", "features"])
def test_without_weight_it_is_offline_distillation(context, on: str) -> None:
    """The same bits; a discriminator that nobody tries to fool ends nothing."""
    alone = start(context, "adversarial", *ALL_TERMS, weight=0.0, on=on)
    offline = start_run(design(*ALL_TERMS), context, seed=2)[0]
    alone.advance(3)
    offline.advance(3)
    one, other = state(alone.scheme.taught), state(offline.scheme.taught)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in other)
    assert alone.scheme.phases()[-1].after_epoch is None
    fooling = start(context, "adversarial", *ALL_TERMS, weight=1.0, on=on)
    fooling.advance(3)
    changed = state(fooling.scheme.taught)
    assert not all(torch.equal(changed[key], other[key]) for key in other)


@pytest.mark.parametrize("on", ["logits", "features"])
@pytest.mark.parametrize("terms", [(KD,), (KnowledgeTerm("ab"),), ALL_TERMS])
def test_the_teacher_is_asked_once_for_terms_and_discriminator(context, terms, on: str) -> None:
    """Of ``ab``, which teaches in its initial stage alone, for the discriminator alone."""
    scheme = started(context, *terms, on=on)
    teacher = scheme.teacher
    phase = scheme.phases()[-1]
    batch = next(batches(context, phase))
    before = teacher.asked_images
    asked = phase.ask(batch)
    assert teacher.asked_images - before == len(batch.labels)
    expected = teacher_of(context).taps(batch.images)
    name = "logits" if on == "logits" else "pooled"
    torch.testing.assert_close(asked[-1][name], getattr(expected, name), rtol=1e-2, atol=1e-2)  # remembered
    assert scheme.step_macs(len(batch.labels), phase)[1] == teacher.macs


@pytest.mark.parametrize("on", ["logits", "features"])
def test_student_discriminator_and_transfer_are_booked(context, on: str) -> None:
    scheme = started(context, on=on)
    (phase,) = scheme.phases()
    trained, _ = scheme.step_macs(32, phase)
    width = 10 if on == "logits" else TEACHER.stages[-1].width
    discriminator = width * 128 + 128 * 128 + 128 * 11
    transfer = 0 if on == "logits" else 6 * width
    assert trained == scheme.cost.macs + transfer + 3 * discriminator
    batch = next(batches(context, phase))
    asked = phase.ask(batch)
    computed = sum(macs for _, macs in counted(phase.step(batch, asked)))
    assert computed == 32 * trained
    assert count_macs(lambda: scheme.deployed(batch.images)) == 32 * scheme.cost.macs


def test_the_discriminator_stays_behind(context) -> None:
    run, plain = start(context, "adversarial", KD), start_run(design(KD), context, seed=2)[0]
    assert run.cost == plain.cost
    others = {*run.scheme.discriminator.parameters(), *run.scheme.transfer.parameters()}
    assert not set(run.scheme.deployed.parameters()) & others


def test_the_discriminator_has_its_own_optimizer(context) -> None:
    config = by_scheme("adversarial", KD, training={"optimizer": "sgd"}, discriminator_rate=0.01)
    run = start_run(config, context, seed=2)[0]
    run.advance(3)
    assert isinstance(run.loop._optimizers["discriminator"], torch.optim.AdamW)
    assert isinstance(run.loop._optimizers["student"], torch.optim.SGD)
    assert run.curve[-1]["discriminator"] < run.curve[0]["discriminator"]


def test_a_discriminator_that_is_never_fooled_fails_the_trial_and_is_paid_for(context, monkeypatch) -> None:
    monkeypatch.setattr("naskd.schemes.discriminator.SURE", 10.0)
    job = Job("t", "trial", by_scheme("adversarial", KD), 2, 3)
    result = run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)
    assert result.status == "failed"
    assert result.reason.startswith("discriminator has collapsed: it is never fooled, its loss was ")
    assert result.train_macs > 0


def test_a_discriminator_that_is_dead_ends_the_training(context) -> None:
    run = start(context, "adversarial", KD)
    with torch.no_grad():
        for layer in run.scheme.discriminator.layers[::2]:
            layer.weight.zero_()
            layer.bias.zero_()
    with pytest.raises(CollapsedError, match="discriminator has collapsed: it says the same"):
        run.advance(1)


def test_a_discriminator_that_diverges_ends_the_training(context) -> None:
    run = start(context, "adversarial", KD)
    with torch.no_grad():
        run.scheme.discriminator.layers[-1].weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="fooling"):
        run.advance(1)


def test_mixed_images_are_named_by_both_labels(context) -> None:
    """Of which nothing is remembered: the teacher is run on them."""
    config = by_scheme("adversarial", KD, training={"mixing": "mixup"})
    run = start_run(config, context, seed=2)[0]
    run.advance(2)
    assert run.curve[-1]["discriminator.classes"] > 0


def test_a_checkpoint_keeps_the_discriminator(context) -> None:
    run, again = (start(context, "adversarial", KD, on="features") for _ in range(2))
    run.advance(1)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert {"discriminator.layers.0.weight", "transfer.weight"} <= set(again.scheme.state_dict())
    assert not any(key.startswith("listener") for key in again.scheme.state_dict())
    assert again.advance(2) == run.advance(2)


def test_where_nobody_asks_a_teacher_it_is_plain_training() -> None:
    found = DistillationSpec(scheme="adversarial", scheme_options=(("weight", 2.0),))
    assert SCHEMES["adversarial"].canonical(found) == DistillationSpec()


def test_what_the_discriminator_may_be_shown_is_said() -> None:
    card = SCHEMES["adversarial"]
    found = DistillationSpec((KD,), scheme="adversarial", scheme_options=(("on", "maps"),))
    (problem,) = card.problems(found, n_stages=2)
    assert problem == "option 'on' of scheme 'adversarial' is 'maps'; allowed: logits, features"


SPACE = """
from naskd.config import (
    ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig
)

def space(trial):
    scheme = trial.suggest_categorical("scheme", ("offline", "adversarial"))
    on = trial.suggest_categorical("on", ("logits", "features"))
    return TrialConfig(
        ArchitectureSpec((StageSpec("basic", 1, 4), StageSpec("basic", 1, 6, stride=2)), stem_width=4),
        DistillationSpec(
            (KnowledgeTerm("logits"),),
            scheme=scheme,
            scheme_options=(("on", on),) if scheme == "adversarial" else (),
        ),
        TrainingSpec(batch_size=32, learning_rate=0.01),
    )
"""

STUDY = """
name = "adversarial"
space = "space.py:space"
epochs = 2
[data]
kind = "digits"
max_train = 120
[teacher]
[teacher.architecture]
stem_width = 6
stages = [{ block = "basic", depth = 1, width = 6 }, { block = "basic", depth = 1, width = 8, stride = 2 }]
[teacher.training]
epochs = 1
[sampler]
name = "random"
[budget]
trials = 3
[execution]
device = "cpu"
"""


def test_a_search_chooses_it(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    trials = naskd.search(tmp_path / "study.toml", out=tmp_path / "run").trials()
    done = [trial["config"]["distillation"] for trial in trials if trial["state"] == "COMPLETE"]
    assert {taught["scheme"] for taught in done} == {"offline", "adversarial"}
    assert len(done) == 3
