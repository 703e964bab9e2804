import copy
from dataclasses import replace

import pytest
import torch
from small_studies import STUDENT, design, small_context
from torch import Tensor

from naskd.knowledge.base import Lesson
from naskd.schemes.parameter_sharing import ParameterSharingScheme, boosted, rocket_loss
from naskd.spec.design import ArchitectureSpec, KnowledgeTerm, StageSpec, TrialConfig
from naskd.study.admission import problems
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run


def shared(*terms: KnowledgeTerm, **options: float) -> TrialConfig:
    found = design(*terms)
    return replace(
        found,
        distillation=replace(
            found.distillation, scheme="parameter_sharing", scheme_options=tuple(sorted(options.items()))
        ),
    )


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("rocket"))


def start(context: StudyContext, *terms: KnowledgeTerm, **options: float) -> TrialRun:
    return start_run(shared(*terms, **options), context, seed=2)[0]


def test_the_loss_by_hand() -> None:
    """Logits apart by (1, -2) and (0, 0): squares 5 and 0, mean 2.5. Equal logits of two classes: CE log 2."""
    booster, student = torch.zeros(2, 2), torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    assert rocket_loss(
        booster, student, Lesson(torch.tensor([0, 1]), torch.arange(2)), 0.2
    ).item() == pytest.approx(torch.log(torch.tensor(2.0)).item() + 0.2 * 2.5)


def test_the_booster_does_not_follow_the_student() -> None:
    """The gradient block: the hint moves the student alone."""
    booster = torch.randn(4, 3, requires_grad=True)
    student = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0])
    rocket_loss(booster, student, Lesson(labels, torch.arange(len(labels))), 5.0).backward()
    expected = torch.autograd.grad(torch.nn.functional.cross_entropy(booster, labels), booster)[0]
    torch.testing.assert_close(booster.grad, expected)
    torch.testing.assert_close(student.grad, 5.0 * 2 * (student - booster).detach() / 4)


def test_the_booster_is_deeper_above_what_is_shared() -> None:
    spec = boosted(STUDENT, 3)
    assert [stage.depth for stage in spec.stages] == [1, 3]
    assert spec.stages[0] == STUDENT.stages[0]


def test_the_student_alone_leaves_and_the_booster_shares_its_lower_layers(context) -> None:
    run = start(context)
    scheme = run.scheme
    assert isinstance(scheme, ParameterSharingScheme)
    assert run.cost == context.designs.design_cost(design())
    assert not set(scheme.booster.parameters()) & set(scheme.deployed.parameters())
    images = torch.rand(8, 1, 8, 8)
    scheme.booster(scheme.taught.network.taps(images).stages[-2].tensor).square().sum().backward()
    lower = [*scheme.taught.network.stem.parameters(), *scheme.taught.network.stages[0].parameters()]
    upper = [*scheme.taught.network.stages[1].parameters(), *scheme.taught.network.head.parameters()]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in lower)
    assert all(p.grad is None for p in upper)


def test_both_learn_and_the_booster_is_paid_for(context) -> None:
    run, plain = start(context), start_run(design(), context, seed=2)[0]
    before = {n: p.clone() for n, p in run.scheme.named_parameters()}
    first = run.advance(1)
    last = run.advance(3)
    plain.advance(3)
    assert all(not torch.equal(p, before[n]) for n, p in run.scheme.named_parameters())
    assert last["booster"] < first["booster"]
    # 6 channels at 4x4: the student's stage has 2 convolutions of 3x3, the first from 4 channels, and a shortcut.
    stage = (4 * 6 * 9 + 6 * 6 * 9 + 4 * 6) * 16
    deeper = 2 * (2 * 6 * 6 * 9) * 16
    per_image = 3 * (stage + deeper + 6 * 10)
    n = sum(run.loop.images_per_epoch(epoch) for epoch in range(3))
    assert run.train_macs - plain.train_macs == n * per_image


def test_a_teacher_may_teach_too(context) -> None:
    run = start(context, KnowledgeTerm("logits"), hint=0.1, depth=2)
    metrics = run.advance(1)
    assert {"ce", "logits", "booster"} <= set(metrics)


def test_without_a_hint_the_student_is_that_of_shared_layers_only(context) -> None:
    def curve(**options: float) -> list[float]:
        run = start(context, **options)
        return [run.advance(epoch)["ce"] for epoch in (1, 2)]

    assert curve(hint=0.0) != curve(hint=1.0)


def test_one_stage_is_too_few(context) -> None:
    config = replace(shared(), architecture=ArchitectureSpec((StageSpec("basic", 1, 4),)))
    found = problems(context.designs.measured(config), context.resources.spec)
    assert "at least 2 stages, got 1" in found[0]


def test_a_checkpoint_keeps_the_booster(context) -> None:
    run, again = start(context), start(context)
    run.advance(1)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    state: dict[str, Tensor] = again.scheme.state_dict()
    assert any(name.startswith("booster") for name in state)
    assert again.advance(2) == run.advance(2)
