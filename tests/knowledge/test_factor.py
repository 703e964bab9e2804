import pytest
import torch

from naskd.knowledge.base import Lesson
from naskd.knowledge.feature.factor import FactorLoss, factor_loss
from naskd.nn.taps import Taps
from naskd.spec.design import KnowledgeTerm

from .stages import maps, showing, term

NO_LESSON = Lesson(torch.zeros(3, dtype=torch.long), torch.arange(3))


def two_stages(seed: int, *channels: int) -> Taps:
    return showing(maps(3, channels[0], 4, 4, seed=seed), maps(3, channels[1], 2, 2, seed=seed))


def built(student: Taps, teacher: Taps, rate: float = 0.5, pairs: str = "last") -> FactorLoss:
    torch.manual_seed(0)
    term = KnowledgeTerm("factor", pairs=pairs, options=(("rate", rate),))
    return FactorLoss(term, student.shapes, teacher.shapes).double()


def test_by_hand() -> None:
    """(3, 4, 0, 0) and (0, 0, 7, 0) have length 1 as (0.6, 0.8, 0, 0) and (0, 0, 1, 0)."""
    student, teacher = (
        torch.tensor([3.0, 4, 0, 0]).view(1, 2, 1, 2),
        torch.tensor([0.0, 0, 7, 0]).view(1, 2, 1, 2),
    )
    assert factor_loss(student, teacher).item() == pytest.approx(2.4 / 4)


def test_is_zero_at_equality_and_blind_to_the_scale_of_a_sample() -> None:
    x, other = maps(3, 4, 2, 2), maps(3, 4, 2, 2, seed=1)
    assert factor_loss(x, x) == 0
    scales = torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1, 1)
    assert factor_loss(x * scales, x) < 1e-15
    torch.testing.assert_close(factor_loss(x * scales, other), factor_loss(x, other))


def test_signs_and_channels_are_heard() -> None:
    """Unlike where the factors' squares are averaged over channels first, as in attention transfer."""
    x = maps(3, 4, 2, 2)
    assert factor_loss(-x, x) > 0.1
    assert factor_loss(x[:, [1, 0, 3, 2]], x) > 0.1


def test_falls_with_the_root_of_the_number_of_elements() -> None:
    small, large = (factor_loss(maps(8, 16, s, s), maps(8, 16, s, s, seed=1)) for s in (4, 16))
    assert (small / large).item() == pytest.approx(4, rel=0.1)


def test_the_larger_factor_is_pooled_before_it_is_normalised() -> None:
    small, large = maps(2, 3, 2, 2), maps(2, 3, 4, 6, seed=1)
    pooled = torch.nn.functional.adaptive_avg_pool2d(large, 2)
    assert factor_loss(small, large) == factor_loss(small, pooled) > 0
    assert factor_loss(large, small) == factor_loss(pooled, small)


@pytest.mark.parametrize(("rate", "factors"), [(0.5, 3), (1.0, 6), (0.05, 1)])
def test_the_rate_says_how_many_channels_a_factor_has(rate: float, factors: int) -> None:
    student, teacher = showing(maps(3, 4, 4, 4)), showing(maps(3, 6, 4, 4))
    loss = built(student, teacher, rate)
    assert loss.paraphrasers["0"].encoder(teacher.stages[0].tensor).shape == (3, factors, 4, 4)
    assert loss.adapters[0](student.stages[0].tensor).shape == (3, factors, 4, 4)
    assert loss.paraphrasers["0"](teacher.stages[0].tensor).shape == (3, 6, 4, 4)


def test_is_the_loss_of_translator_and_paraphraser() -> None:
    student, teacher = two_stages(0, 4, 5), two_stages(1, 6, 8)
    loss = built(student, teacher, pairs="all")
    parts = [
        factor_loss(
            loss.adapters[i](student.stages[i].tensor),
            loss.paraphrasers[str(i)].encoder(teacher.stages[i].tensor),
        )
        for i in (0, 1)
    ]
    torch.testing.assert_close(term(loss, student, teacher), parts[0] + parts[1])


def test_the_initial_term_is_what_the_paraphrasers_lose_summed_over_pairs() -> None:
    teacher = showing(maps(3, 6, 4, 4, seed=1))
    loss = built(two_stages(0, 4, 5), teacher, pairs="all")
    assert loss.pairs == ((0, 0), (1, 0))
    assert list(loss.paraphrasers) == ["0"]
    x = teacher.stages[0].tensor
    lost = (loss.paraphrasers["0"](x) - x).square().mean()
    torch.testing.assert_close(loss.initial_term(loss.summarise(teacher), NO_LESSON), 2 * lost)


def test_a_paraphraser_learns_to_tell_a_stage_in_half_its_channels() -> None:
    """A stage of rank 3 in 6 channels."""
    teacher = showing(torch.einsum("oc,bchw->bohw", maps(6, 3, seed=2), maps(3, 3, 4, 4)))
    loss = built(showing(maps(3, 4, 4, 4)), teacher)
    optimizer = torch.optim.Adam([p for m in loss.initial_modules() for p in m.parameters()], lr=0.01)
    summary, values = loss.summarise(teacher), []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss.initial_term(summary, NO_LESSON)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.1 * values[0]


def test_scores_of_learned_pairs_are_trained_beside_the_student() -> None:
    student, teacher = two_stages(0, 4, 5), two_stages(1, 6, 8)
    loss = built(student, teacher, pairs="learned")
    first = {p for m in loss.initial_modules() for p in m.parameters()}
    second = {p for m in loss.main_modules() for p in m.parameters()}
    assert loss.scores is not None
    assert loss.scores in second
    assert first | second == set(loss.parameters())
    assert not first & second
    assert len(loss.adapters) == 4
    assert len(loss.paraphrasers) == 2
