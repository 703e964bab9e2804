import math

import numpy as np
import pytest
import torch
from by_loops import divergence, softened
from online_schemes import start
from small_studies import small_context

from naskd.nn.taps import as_map
from naskd.schemes.scheme import Update
from naskd.schemes.zskt import ZsktScheme, beliefs_apart
from naskd.testing.schemes import batches
from naskd.trials.context import StudyContext


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("zskt"))


def updates(context: StudyContext, **options: object) -> tuple[ZsktScheme, list[Update]]:
    scheme = start(context, "zskt", width=4, latent=8, **options).scheme.train()
    assert isinstance(scheme, ZsktScheme)
    (phase,) = scheme.phases()
    torch.manual_seed(7)
    return scheme, list(phase.step(next(batches(context, phase)), ()))


def apart_by_loops(student: np.ndarray, teacher: np.ndarray) -> float:
    pairs = zip(teacher, student, strict=True)
    return sum(divergence(softened(t), softened(s)) for t, s in pairs) / len(student)


def attention_by_loops(student: np.ndarray, teacher: np.ndarray) -> float:
    """Of one pair of stages ``(B, C, H, W)`` on one grid."""
    total = 0.0
    for own, other in zip(student, teacher, strict=True):
        maps = [
            [sum(channel[i] ** 2 for channel in x.reshape(len(x), -1)) for i in range(own[0].size)]
            for x in (own, other)
        ]
        lengths = [math.sqrt(sum(value**2 for value in flat)) for flat in maps]
        total += sum((s / lengths[0] - t / lengths[1]) ** 2 for s, t in zip(*maps, strict=True)) / own[0].size
    return total / len(student)


def test_the_divergence_by_the_definition() -> None:
    random = np.random.default_rng(1)
    student, teacher = random.normal(0, 3, (6, 4)), random.normal(0, 3, (6, 4))
    found = beliefs_apart(torch.from_numpy(student), torch.from_numpy(teacher)).item()
    assert found == pytest.approx(apart_by_loops(student, teacher), rel=1e-12)


def test_equal_logits_are_not_apart_and_both_have_a_say() -> None:
    student = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    teacher = student.detach().clone().requires_grad_()
    assert beliefs_apart(student, teacher).item() == pytest.approx(0, abs=1e-12)
    beliefs_apart(student, teacher + torch.tensor([1.0, 0.0, 0.0])).backward()
    for logits in (student, teacher):
        assert logits.grad is not None
        assert logits.grad.abs().max() > 0.01
    assert torch.autograd.gradcheck(beliefs_apart, (student, teacher))


def test_the_moves_are_those_of_the_paper(context) -> None:
    """The generator's once, against the divergence; then the student's, of its images, with attention beside it."""
    scheme, found = updates(context, moves=3, attention=50.0)
    assert [update.optimizer for update in found] == ["generator", "student", "student", "student"]
    torch.manual_seed(7)
    images = scheme.made(32).detach()
    with torch.no_grad():
        shown, own = scheme.teacher.taps(images), scheme.taught.taps(images)
    beliefs = apart_by_loops(own.logits.double().numpy(), shown.logits.double().numpy())
    assert found[0].loss.item() == pytest.approx(-beliefs, rel=1e-3)
    attention = sum(
        attention_by_loops(as_map(own.stages[s]).double().numpy(), as_map(shown.stages[t]).double().numpy())
        for s, t in scheme.pairs
    )
    assert len(scheme.pairs) == 2
    for update in found[1:]:  # nobody has moved
        assert update.loss.item() == pytest.approx(beliefs + 50 * attention, rel=1e-3)
        assert update.terms["attention"].item() == pytest.approx(attention / 3, rel=1e-3)


def test_the_teacher_answers_once_for_all_moves(context) -> None:
    scheme = start(context, "zskt", width=4, latent=8, moves=4).scheme.train()
    (phase,) = scheme.phases()
    before = scheme.teacher.forward_images
    assert len(list(phase.step(next(batches(context, phase)), ()))) == 5
    assert scheme.teacher.forward_images == before + 32


def test_the_student_comes_nearer(context) -> None:
    run = start(context, "zskt", width=8, latent=8, moves=4, steps=15)
    first, last = run.advance(1), run.advance(3)
    assert last["divergence"] < first["divergence"]
    assert last["attention"] < first["attention"]
