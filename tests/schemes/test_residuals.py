"""ResKD and residual knowledge distillation: a student, and what leaves with it to correct it."""

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from by_loops import cross_entropy, divergence, mean, softened
from online_schemes import start
from small_studies import STUDENT, by_scheme, design, small_context
from torch import Tensor, nn

import naskd
from naskd.networks.student_file import load_student, save_student
from naskd.nn.corrected import AssistedStudent, SummedStudent
from naskd.nn.cost import network_cost
from naskd.runs.export import export_student
from naskd.runs.retrain import Design, Retraining
from naskd.schemes.residual_kd import ResidualKdScheme
from naskd.schemes.reskd import ReskdScheme
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError
from naskd.study.admission import problems
from naskd.testing.schemes import batches, update_by_hand
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.run import TrialRun, start_run
from naskd.trials.steps import run_job

LOGITS = KnowledgeTerm("logits")
BOTH = ("reskd", "residual_kd")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("residuals"))


def images_of(context: StudyContext) -> Tensor:
    return context.resources.data.val.images[:40].float() / 255


def said(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network.eval()(images)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def stir(module: nn.Module) -> None:
    """As if it had learned something."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


# --- what both do -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", BOTH)
def test_the_student_learns_first_and_is_fixed_while_the_other_learns(
    context: StudyContext, scheme: str
) -> None:
    run = start(context, scheme, LOGITS, training={"epochs": 4})
    found, images = run.scheme, images_of(context)
    assert [phase.epochs for phase in found.phases()] == [2, 2]
    run.advance(2)
    assert torch.equal(said(found.deployed, images), said(found.taught.network, images)), (
        "nothing is added yet"
    )
    student = state(found.taught)
    run.advance(4)
    assert same(state(found.taught), student)
    assert not torch.equal(said(found.deployed, images), said(found.taught.network, images))
    assert {"residual1.ce", "residual1.logits"} <= run.curve[3].keys()
    assert run.curve[3]["loss"] < run.curve[2]["loss"]


@pytest.mark.parametrize(("share", "epochs"), [(0.05, [5, 1]), (0.34, [4, 2]), (0.95, [1, 5])])
def test_the_share_is_of_the_epochs(context: StudyContext, share: float, epochs: list[int]) -> None:
    run = start(context, "reskd", LOGITS, training={"epochs": 6}, share=share)
    assert [phase.epochs for phase in run.scheme.phases()] == epochs


@pytest.mark.parametrize("scheme", BOTH)
def test_both_are_on_the_cost_axis(context: StudyContext, scheme: str) -> None:
    config, plain = by_scheme(scheme, LOGITS), context.designs.design_cost(design())
    cost = context.designs.design_cost(config)
    assert start(context, scheme, LOGITS).cost == cost
    small = replace(
        STUDENT,
        stem_width=2,
        stages=tuple(replace(stage, width=stage.width // 2) for stage in STUDENT.stages),
    )
    beside = context.designs.design_cost(replace(design(), architecture=small))
    if scheme == "reskd":
        assert (cost.macs, cost.n_params) == (plain.macs + beside.macs, plain.n_params + beside.n_params)
    else:  # a projection of 3 channels to 6 in place of the classifier, 3 to 10; the student's classifier reads twice
        assert cost.macs == plain.macs + beside.macs - 30 + 18 + 60
        assert cost.n_params == plain.n_params + beside.n_params - 40 + 18


@pytest.mark.parametrize("scheme", BOTH)
def test_what_each_part_costs_is_booked(context: StudyContext, scheme: str) -> None:
    run = start(
        context, scheme, LOGITS, training={"epochs": 2}, **({"hint": 0.0} if scheme == "residual_kd" else {})
    )
    run.advance(1)
    first = run.train_macs
    run.advance(2)
    asked_of_teachers = 2 * 120 * run.scheme.inputs.sources[0].macs
    price = context.designs.training_macs(by_scheme(scheme, LOGITS, training={"epochs": 2}))
    assert price.own == pytest.approx(
        run.train_macs - asked_of_teachers, rel=0.03
    )  # the adapter of a hint is small
    plain, asked = context.designs.design_cost(design()).macs, run.scheme.inputs.sources[0].macs
    whole = run.cost.macs
    assert first == 120 * (3 * plain + asked) + 288 * whole
    # of what is added to the 4x4 map while it learns, beside the pooled features
    added = whole - plain + (3 * 6 * 16 if scheme == "residual_kd" else 0)
    assert run.train_macs - first == 120 * (3 * added + plain + asked) + 288 * whole


@pytest.mark.parametrize("scheme", BOTH)
def test_the_whole_is_saved_loaded_and_exported(context: StudyContext, scheme: str, tmp_path: Path) -> None:
    deployed = start(context, scheme, LOGITS).scheme.deployed
    stir(deployed)
    deployed.eval()
    images = context.resources.data.val.images
    names = context.resources.data.class_names
    save_student(tmp_path / "x.safetensors", deployed, names, shape=(1, 8, 8))
    loaded = load_student(tmp_path / "x.safetensors")
    assert type(loaded) is type(deployed)
    torch.testing.assert_close(said(loaded, images_of(context)), said(deployed, images_of(context)))
    assert network_cost(loaded, 1, 8) == network_cost(deployed, 1, 8)
    formats = ["safetensors"]
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
        formats.append("onnx")
    for format in formats:
        assert export_student(tmp_path / "x.safetensors", tmp_path / f"y.{format}", images)["agreement"] == 1


@pytest.mark.parametrize("scheme", BOTH)
def test_a_trial_and_its_retraining(context: StudyContext, scheme: str, tmp_path: Path) -> None:
    config = by_scheme(scheme, LOGITS)
    job = Job("0", "trial", config, 1, config.training.epochs)
    result = run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)
    assert result.status == "complete", result.error
    assert result.metrics["macs"] == context.designs.design_cost(config).macs
    path = Retraining(context, tmp_path, 2).train(Design(0, config, None), 0)
    assert isinstance(load_student(path), SummedStudent | AssistedStudent)


@pytest.mark.parametrize("scheme", BOTH)
def test_it_goes_on_within_the_second_part(context: StudyContext, scheme: str) -> None:
    run, again = (start(context, scheme, LOGITS, training={"epochs": 4}) for _ in range(2))
    run.advance(3)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert again.advance(4) == run.advance(4)
    assert same(state(again.scheme), state(run.scheme))


def test_too_few_epochs_are_said_before_a_trial(context: StudyContext) -> None:
    config = by_scheme("reskd", LOGITS, residuals=2, training={"epochs": 2})
    (found,) = context.designs.design_problems(config)
    assert found == "scheme 'reskd' needs a training of at least 3 epochs, got 2"
    config = by_scheme("residual_kd", KnowledgeTerm("fsp"), training={"epochs": 2})
    (found,) = context.designs.design_problems(config)
    assert found == "scheme 'residual_kd' needs a training of at least 3 epochs, got 2"


def test_without_a_teacher_there_is_no_residual(context: StudyContext) -> None:
    """As the card says: labels alone are plain training."""
    spec = context.resources.spec
    for scheme in BOTH:
        assert naskd.schemes.SCHEMES[scheme].canonical(by_scheme(scheme).distillation).scheme == "offline"
        assert problems(context.designs.measured(by_scheme(scheme, LOGITS)), spec) == []


# --- ResKD --------------------------------------------------------------------------------------------------------


def reskd(context: StudyContext, **options: object) -> tuple[TrialRun, ReskdScheme]:
    run = start(context, "reskd", LOGITS, **options)
    assert isinstance(run.scheme, ReskdScheme)
    return run, run.scheme


def test_the_gap_by_the_definition(context: StudyContext) -> None:
    _, scheme = reskd(context, temperature=3.0)
    stir(scheme.residual(0).network)
    scheme.eval()
    *_, phase = scheme.phases()
    batch = next(batches(context, phase))
    (update,) = phase.step(batch, phase.ask(batch))
    teacher = context.sources.online(context.prerequisites.teacher()).network
    target, own, beside = (
        said(network, batch.images).double().numpy()
        for network in (teacher, scheme.taught.network, scheme.residual(0).network)
    )
    expected = mean(
        [
            9 * divergence(softened(t, 3.0), softened([s + r for s, r in zip(z, c, strict=True)], 3.0))
            for t, z, c in zip(target, own, beside, strict=True)
        ]
    )
    # what a bank remembers is rounded to half precision; 0.9 is the constant of logits
    assert update.terms["residual1.logits"].item() == pytest.approx(expected, rel=2e-2)
    assert update.loss.item() == pytest.approx(0.9 * update.terms["residual1.logits"].item())


def test_the_residual_of_a_perfect_student_is_nothing_and_stays_nothing(context: StudyContext) -> None:
    _, scheme = reskd(context)
    *_, phase = scheme.phases()
    batch = next(batches(context, phase))
    for _ in range(3):
        *_, own = phase.ask(batch)
        (update,) = phase.step(batch, [own, own])  # the teacher says what the student says
        assert update.loss.item() == pytest.approx(0.0, abs=1e-6)
        named = update_by_hand(scheme, phase, update)
        assert all(p.grad is not None and p.grad.abs().max() < 1e-7 for _, p in named)
    scheme.eval()
    images = images_of(context)
    torch.testing.assert_close(said(scheme.deployed, images), said(scheme.taught.network, images))


def test_each_further_network_learns_what_is_left_of_the_sum(context: StudyContext) -> None:
    run, scheme = reskd(context, residuals=3, share=0.75, training={"epochs": 8})
    assert [phase.epochs for phase in scheme.phases()] == [2, 2, 2, 2]
    images, before = images_of(context), []
    for epoch in (2, 4, 6, 8):
        run.advance(epoch)
        sums = sum(said(member, images) for member in scheme.whole.members[: epoch // 2])
        torch.testing.assert_close(said(scheme.deployed, images), sums)
        before.append(state(scheme.whole.members[epoch // 2 - 1]))
    assert all(same(state(member), kept) for member, kept in zip(scheme.whole.members, before, strict=True))
    last = scheme.phases()[-1]
    batch = next(batches(context, last))
    *_, fixed = last.ask(batch)
    so_far = sum(said(member, batch.images) for member in scheme.whole.members[:3])
    torch.testing.assert_close(fixed["logits"], so_far)
    smaller = scheme.residual(0).cost.macs
    assert scheme.forward_macs(32, last) == scheme.taught.cost.macs + 2 * smaller
    assert scheme.step_macs(32, last)[0] == smaller


def test_a_sum_shows_the_student_and_says_it_has_no_classifier(context: StudyContext) -> None:
    _, scheme = reskd(context)
    stir(scheme.deployed)
    images = images_of(context)
    scheme.eval()
    with torch.no_grad():
        found, own = scheme.deployed.taps(images), scheme.taught.network.taps(images)
    torch.testing.assert_close(found.logits, said(scheme.deployed, images))
    assert torch.equal(found.pooled, own.pooled)
    assert scheme.deployed.head is None
    assert len(scheme.deployed.pre_activation_norms()) == 2


# --- residual knowledge distillation ------------------------------------------------------------------------------


def residual_kd(context: StudyContext, *terms: KnowledgeTerm, **options: object) -> ResidualKdScheme:
    scheme = start(context, "residual_kd", *terms, **options).scheme
    assert isinstance(scheme, ResidualKdScheme)
    return scheme


def test_a_hint_is_there_always_and_once(context: StudyContext) -> None:
    def kinds(scheme: ResidualKdScheme) -> list[str]:
        return [term.kind for term in scheme.taught.inputs.distillation.terms]

    assert kinds(residual_kd(context, LOGITS)) == ["logits", "hint"]
    assert kinds(residual_kd(context, LOGITS, hint=0.0)) == ["logits"]
    assert kinds(residual_kd(context, KnowledgeTerm("hint"), LOGITS)) == ["hint", "logits"]


def test_what_is_minimised_is_the_error_of_the_residual(context: StudyContext) -> None:
    """``|r(P F_a) - (F_t - r(F_s))|^2`` in NumPy, with r the regressor of the hint."""
    scheme = residual_kd(context, KnowledgeTerm("hint"))
    stir(scheme.whole.assistant)
    scheme.eval()
    *_, phase = scheme.phases()
    batch = next(batches(context, phase))
    asked = phase.ask(batch)
    (update,) = phase.step(batch, asked)

    def last(network: nn.Module) -> np.ndarray:
        with torch.no_grad():
            return network.taps(batch.images).stages[-1].tensor.double().numpy()

    own, beside = last(scheme.taught.network), last(scheme.whole.assistant.network)
    target = asked[0]["stage_1"].double().numpy()
    adapter = next(m for m in scheme.taught.objective.modules() if type(m).__name__ == "ChannelAdapter")
    weight, bias = (p.detach().double().numpy() for p in (adapter.weight[:, :, 0, 0], adapter.bias))
    projection = scheme.whole.assistant.projection.weight.detach().double().numpy()
    total, count = 0.0, 0
    for b in range(len(own)):
        for h in range(own.shape[2]):
            for w in range(own.shape[3]):
                residual = target[b, :, h, w] - (weight @ own[b, :, h, w] + bias)
                wrong = weight @ (projection @ beside[b, :, h, w]) - residual
                total, count = total + float(wrong @ wrong), count + len(wrong)
    assert update.terms["residual1.hint"].item() == pytest.approx(total / count, rel=1e-4)
    answers = said(scheme.deployed, batch.images).double().tolist()
    labels = [cross_entropy(z, y) for z, y in zip(answers, batch.labels.tolist(), strict=True)]
    assert update.terms["residual1.ce"].item() == pytest.approx(mean(labels), rel=1e-4)


def test_a_student_without_an_error_is_left_as_it_is(context: StudyContext) -> None:
    """The loss and its gradient are 0, whatever the assistant sees."""
    config = by_scheme("residual_kd", KnowledgeTerm("hint"))
    config = replace(config, distillation=replace(config.distillation, ce_weight=0.0))
    scheme = start_run(config, context, seed=2)[0].scheme
    *_, phase = scheme.phases()
    batch = next(batches(context, phase))
    scheme.eval()
    with torch.no_grad():
        own = scheme.taught.network.taps(batch.images).stages[-1].tensor
        adapter = next(m for m in scheme.taught.objective.modules() if type(m).__name__ == "ChannelAdapter")
        perfect = [{"stage_1": adapter(own)}]
    for _ in range(3):
        (update,) = phase.step(batch, perfect)
        assert update.loss.item() == pytest.approx(0.0, abs=1e-9)
        named = update_by_hand(scheme, phase, update)
        assert all(p.grad is not None and p.grad.abs().max() < 1e-7 for _, p in named)
    assert scheme.whole.assistant.projection.weight.abs().max() < 1e-7


def test_what_is_shown_is_what_is_deployed(context: StudyContext) -> None:
    """The classifier reads the corrected features, which are the mean of the corrected map."""
    deployed = residual_kd(context, LOGITS).deployed
    assert isinstance(deployed, AssistedStudent)
    stir(deployed)
    deployed.eval()
    images = images_of(context)
    with torch.no_grad():
        taps = deployed.taps(images)
        torch.testing.assert_close(deployed(images), taps.logits)
        torch.testing.assert_close(deployed.head(taps.pooled), taps.logits)
        torch.testing.assert_close(taps.stages[-1].tensor.mean((2, 3)), taps.pooled)
    assert deployed.pre_activation_norms()[-1] is None


def test_the_classifier_must_be_the_students_own(context: StudyContext) -> None:
    with pytest.raises(InputError, match="corrects what the student's own classifier reads"):
        residual_kd(context, KnowledgeTerm("simkd"))


# --- a search -----------------------------------------------------------------------------------------------------

SPACE = """
from naskd.config import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig
from naskd.spaces import canonical

STAGES = (StageSpec("basic", 1, 4), StageSpec("basic", 1, 6, stride=2))

def space(trial):
    scheme = trial.suggest_categorical("scheme", ("offline", "reskd", "residual_kd"))
    taught = DistillationSpec((KnowledgeTerm("logits"),), scheme=scheme)
    return canonical(TrialConfig(ArchitectureSpec(STAGES, stem_width=4), taught, TrainingSpec(batch_size=32)))
"""

STUDY = """
name = "residuals"
space = "space.py:space"
epochs = 2
[data]
kind = "digits"
max_train = 120
[sampler]
name = "random"
[budget]
trials = 3
[execution]
device = "cpu"
[teacher]
training = {epochs = 1, batch_size = 32}
[teacher.architecture]
stem_width = 6
stages = [{block = "basic", depth = 1, width = 6}, {block = "basic", depth = 1, width = 8, stride = 2}]
"""


def test_a_search_finds_them_dearer(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    trials = naskd.search(tmp_path / "study.toml", out=tmp_path / "run").trials()
    macs = {t["config"]["distillation"]["scheme"]: t["macs"] for t in trials if t["state"] == "COMPLETE"}
    assert macs.keys() == {"offline", *BOTH}
    assert macs["reskd"] > 1.2 * macs["offline"]
    assert macs["residual_kd"] > 1.2 * macs["offline"]
