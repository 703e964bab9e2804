import numpy as np
import pytest
import torch
from online_schemes import start
from small_studies import small_context
from torch import nn

from naskd.schemes.dfad import DfadScheme, discrepancy
from naskd.schemes.scheme import Update
from naskd.testing.schemes import batches, copied, equal
from naskd.trials.context import StudyContext


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("dfad"))


def updates(context: StudyContext, **options: object) -> tuple[DfadScheme, list[Update]]:
    scheme = start(context, "dfad", width=4, latent=8, **options).scheme.train()
    assert isinstance(scheme, DfadScheme)
    (phase,) = scheme.phases()
    torch.manual_seed(7)
    return scheme, list(phase.step(next(batches(context, phase)), ()))


def by_loops(student: np.ndarray, teacher: np.ndarray) -> float:
    return (
        sum(
            abs(t - s)
            for own, other in zip(student, teacher, strict=True)
            for s, t in zip(own, other, strict=True)
        )
        / student.size
    )


def test_the_discrepancy_by_the_definition() -> None:
    random = np.random.default_rng(1)
    student, teacher = random.normal(0, 3, (6, 4)), random.normal(0, 3, (6, 4))
    found = discrepancy(torch.from_numpy(student), torch.from_numpy(teacher)).item()
    assert found == pytest.approx(by_loops(student, teacher), rel=1e-12)
    assert discrepancy(torch.from_numpy(student), torch.from_numpy(student)).item() == 0


def test_the_student_moves_first_and_the_generator_against_it(context) -> None:
    scheme, found = updates(context, moves=3)
    assert [update.optimizer for update in found] == ["student"] * 3 + ["generator"]
    torch.manual_seed(7)
    for update in found:
        images = scheme.made(32).detach()  # new ones each time
        said = scheme.teacher.taps(images).logits.double().numpy()
        own = scheme.deployed(images).detach().double().numpy()
        sign = -1 if update.optimizer == "generator" else 1
        assert update.loss.item() == pytest.approx(sign * by_loops(own, said), rel=1e-4)


def test_a_move_of_the_generator_takes_the_two_further_apart(context) -> None:
    scheme, found = updates(context, moves=1)
    move = found[-1]
    torch.manual_seed(7)
    scheme.made(32)
    latents = torch.get_rng_state()

    def apart() -> float:
        torch.set_rng_state(latents)
        images = scheme.made(32)
        return discrepancy(scheme.deployed(images), scheme.teacher.taps(images).logits).item()

    scheme.zero_grad()
    before = apart()
    move.loss.backward()
    with torch.no_grad():
        for parameter in scheme.generator.parameters():
            assert parameter.grad is not None
            parameter -= 1e-3 * parameter.grad
    assert apart() > before


def test_students_statistics_are_those_of_its_own_moves(context) -> None:
    """The generator's move goes through the student and leaves no trace."""
    scheme = start(context, "dfad", width=4, latent=8, moves=1).scheme.train()
    (phase,) = scheme.phases()
    step = phase.step(next(batches(context, phase)), ())
    before = copied(scheme.deployed)
    next(step)
    moved = copied(scheme.deployed)
    assert not equal(moved, before)
    next(step)
    assert equal(copied(scheme.deployed), moved)
    norms = [m for m in scheme.deployed.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.momentum == 0.1 and norm.track_running_stats for norm in norms)


def test_the_student_comes_nearer(context) -> None:
    run = start(context, "dfad", width=8, latent=8, moves=3, steps=15)
    assert run.advance(3)["discrepancy"] < 0.7 * run.curve[0]["discrepancy"]
