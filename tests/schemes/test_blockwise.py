"""Blockwise distillation: stages that learn apart from what a teacher sees, and then together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from online_schemes import start
from small_studies import by_scheme, small_context
from torch import Tensor, nn

import naskd
from naskd.schemes.blockwise import BlockwiseScheme, explaining
from naskd.schemes.scheme import Batch
from naskd.spec.design import KnowledgeTerm
from naskd.study.admission import problems
from naskd.testing.schemes import batches, update_by_hand
from naskd.trials.context import StudyContext

LOGITS = KnowledgeTerm("logits")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("blockwise"))


def started(context: StudyContext, **options: object) -> BlockwiseScheme:
    scheme = start(context, "blockwise", LOGITS, **options).scheme
    assert isinstance(scheme, BlockwiseScheme)
    return scheme


def first(scheme: BlockwiseScheme, context: StudyContext) -> Batch:
    return next(batches(context, scheme.phases()[0]))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_what_explains_a_map_best_is_the_least_squares_solution() -> None:
    torch.manual_seed(0)
    target, weight, bias = torch.randn(2, 5, 3, 2), torch.randn(5, 3), torch.randn(5)
    found = explaining(target.double(), weight.double(), bias.double()).numpy()
    for b, h, w in np.ndindex(2, 3, 2):
        wanted = target[b, :, h, w].double().numpy() - bias.double().numpy()
        expected, *_ = np.linalg.lstsq(weight.double().numpy(), wanted, rcond=None)
        np.testing.assert_allclose(found[b, :, h, w], expected, rtol=1e-2, atol=1e-3)
    exact = torch.randn(2, 3, 3, 2).double()
    shown = torch.einsum("ts,bshw->bthw", weight.double(), exact) + bias.double()[:, None, None]
    torch.testing.assert_close(explaining(shown, weight.double(), bias.double()), exact, rtol=1e-2, atol=1e-3)
    more = explaining(torch.randn(2, 2, 3, 2), torch.randn(2, 6), torch.zeros(2))
    assert more.isfinite().all(), "more channels than the teacher has"


def test_of_a_perfect_student_the_stages_are_those_of_the_joined_network(context: StudyContext) -> None:
    """And there is nothing to learn: the teacher sees what the student's regressors say."""
    scheme = started(context).eval()
    batch = first(scheme, context)
    with torch.no_grad():
        joined = scheme.network.taps(batch.images).stages
        said = [
            {
                f"stage_{t}": adapter(joined[s].tensor)
                for (s, t), adapter in zip(scheme.blocks.pairs, scheme.blocks.adapters, strict=True)
            }
        ]
    apart = scheme.stages_apart(batch.images, said).stages
    for one, other in zip(apart, joined, strict=True):
        torch.testing.assert_close(one.tensor, other.tensor, rtol=0.02, atol=0.01)
    (update,) = scheme.phases()[0].step(batch, said)
    assert update.loss.item() < 1e-5
    named = update_by_hand(scheme, scheme.phases()[0], update)
    assert max(float(p.grad.abs().max()) for _, p in named if p.grad is not None) < 1e-2


def test_no_stage_feels_the_error_of_another(context: StudyContext) -> None:
    scheme = started(context)
    batch = first(scheme, context)
    asked = scheme.phases()[0].ask(batch)
    terms = scheme.blocks.pair_terms(scheme.stages_apart(batch.images, asked), asked[0])
    for term, own, others in ((terms[0], 0, 1), (terms[1], 1, 0)):
        stages = scheme.network.stages
        found = torch.autograd.grad(
            term, list(stages[own].parameters()), retain_graph=True, allow_unused=True
        )
        assert any(g is not None and g.abs().max() > 0 for g in found)
        parts = [*stages[others].parameters(), *scheme.blocks.adapters[others].parameters()]
        found = torch.autograd.grad(term, parts, retain_graph=True, allow_unused=True)
        assert all(g is None or g.abs().max() == 0 for g in found)


def test_the_loss_by_the_definition(context: StudyContext) -> None:
    """Squared errors of the regressors, each as a share of the teacher's mean square."""
    scheme = started(context).eval()
    batch = first(scheme, context)
    phase = scheme.phases()[0]
    asked = phase.ask(batch)
    (update,) = phase.step(batch, asked)
    with torch.no_grad():
        taps = scheme.stages_apart(batch.images, asked).stages
    expected = 0.0
    for (s, t), adapter in zip(scheme.blocks.pairs, scheme.blocks.adapters, strict=True):
        weight, bias = (
            adapter.weight.detach().double().flatten(1).numpy(),
            adapter.bias.detach().double().numpy(),
        )
        own, target = taps[s].tensor.double().numpy(), asked[0][f"stage_{t}"].double().numpy()
        wrong = [
            float(((weight @ own[b, :, h, w] + bias - target[b, :, h, w]) ** 2).sum())
            for b, h, w in np.ndindex(len(own), *own.shape[2:])
        ]
        expected += sum(wrong) / float((target**2).sum())
    assert update.loss.item() == pytest.approx(expected, rel=1e-4)


def test_stages_learn_first_without_the_classifier_and_then_all_together(context: StudyContext) -> None:
    run = start(context, "blockwise", LOGITS, training={"epochs": 4}, share=0.5)
    scheme = run.scheme
    assert [(phase.name, phase.epochs) for phase in scheme.phases()] == [("blocks", 2), ("distillation", 2)]
    head, stages, regressors = state(scheme.network.head), state(scheme.network.stages), state(scheme.blocks)
    run.advance(2)
    assert run.curve[1]["blocks"] < run.curve[0]["blocks"]
    assert same(head, state(scheme.network.head))
    assert not same(stages, state(scheme.network.stages))
    regressors, stages = state(scheme.blocks), state(scheme.network.stages)
    run.advance(4)
    assert same(regressors, state(scheme.blocks))
    assert not same(head, state(scheme.network.head))
    assert not same(stages, state(scheme.network.stages))
    assert "logits" in run.curve[3]


def test_its_price_is_what_its_training_costs(context: StudyContext) -> None:
    config = by_scheme("blockwise", LOGITS, training={"epochs": 4})
    run = start(context, "blockwise", LOGITS, training={"epochs": 4})
    teacher = run.scheme.inputs.sources[0].macs
    trained = sum(run.loop.images_per_epoch(e) * (run.macs_per_image(e) - teacher) for e in range(4))
    expected = trained + 4 * 288 * run.cost.macs
    assert context.designs.training_macs(config).own == pytest.approx(expected)
    assert run.cost == context.designs.design_cost(by_scheme("offline"))


def test_one_stage_and_one_epoch_are_too_few(context: StudyContext) -> None:
    config = by_scheme("blockwise", LOGITS)
    (found,) = naskd.schemes.SCHEMES["blockwise"].problems(config.distillation, n_stages=1)
    assert found == "scheme 'blockwise' needs students of at least 2 stages, got 1"
    assert problems(context.designs.measured(config), context.resources.spec) == []
    with pytest.raises(ValueError, match="needs a training of at least 2 epochs, got 1"):
        start(context, "blockwise", LOGITS, training={"epochs": 1})


SPACE = """
from naskd.config import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig

STAGES = (StageSpec("basic", 1, 4), StageSpec("basic", 1, 6, stride=2))

def space(trial):
    scheme = trial.suggest_categorical("scheme", ("offline", "blockwise"))
    taught = DistillationSpec((KnowledgeTerm("logits"),), scheme=scheme)
    return TrialConfig(ArchitectureSpec(STAGES, stem_width=4), taught, TrainingSpec(batch_size=32))
"""

STUDY = """
name = "blockwise"
space = "space.py:space"
epochs = 2
[data]
kind = "digits"
max_train = 120
[sampler]
name = "random"
[budget]
trials = 2
[execution]
device = "cpu"
[teacher]
training = {epochs = 1, batch_size = 32}
[teacher.architecture]
stem_width = 6
stages = [{block = "basic", depth = 1, width = 6}, {block = "basic", depth = 1, width = 8, stride = 2}]
"""


def test_a_search_chooses_it(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    trials = naskd.search(tmp_path / "study.toml", out=tmp_path / "run").trials()
    found = {t["config"]["distillation"]["scheme"] for t in trials if t["state"] == "COMPLETE"}
    assert found == {"offline", "blockwise"}
