"""What may have come by guessing: by hand, for coins."""

import math
from fractions import Fraction

import pytest

from naskd.spec.chance import POSSIBLE, at_least, guessed_at_most, may_guess


@pytest.mark.parametrize(("tries", "most"), [(1, 8), (5, 9), (50, 9), (60, 10)])
def test_of_ten_coins_so_many_may_be_heads(tries: int, most: int) -> None:
    """8 or more have a probability of 56 / 1024, 9 of 11 / 1024, 10 of 1 / 1024."""
    assert guessed_at_most(10, 2, tries) == most
    images = {"val": 10, "classes": 2}
    assert [may_guess(k / 10, images, tries) for k in range(11)] == [k <= most for k in range(11)]


@pytest.mark.parametrize(("n", "classes", "tries"), [(1, 2, 1), (120, 10, 12), (3000, 100, 40)])
def test_it_is_the_largest_number_that_is_possible(n: int, classes: int, tries: int) -> None:
    most = guessed_at_most(n, classes, tries)
    assert tries * at_least(most, n, 1 / classes) > POSSIBLE
    assert most == n or tries * at_least(most + 1, n, 1 / classes) <= POSSIBLE


@pytest.mark.parametrize("p", [Fraction(1, 2), Fraction(1, 10), Fraction(9, 10), Fraction(1, 1000)])
@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_it_is_the_sum_of_the_terms_of_the_binomial(n: int, p: Fraction) -> None:
    terms = [math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)]
    for k in range(-1, n + 2):
        assert at_least(k, n, float(p)) == pytest.approx(
            float(sum(terms[max(k, 0) :])), rel=1e-12, abs=1e-300
        )


@pytest.mark.parametrize("deviations", [-6.0, -1.0, 0.0, 2.0, 5.0])
def test_of_very_many_it_is_that_of_the_normal_distribution(deviations: float) -> None:
    """At once: each table of a run asks this some hundred times, of all validation images."""
    n, p = 10**9, 0.1
    k = round(n * p + deviations * math.sqrt(n * p * (1 - p)))
    assert at_least(k, n, p) == pytest.approx(math.erfc(deviations / math.sqrt(2)) / 2, rel=5e-3)


def test_certain_and_impossible() -> None:
    assert (at_least(0, 5, 0.0), at_least(5, 5, 1.0), at_least(1, 5, 0.0), at_least(6, 5, 0.5)) == (
        1,
        1,
        0,
        0,
    )
    assert at_least(10**6, 10**6, 0.5) == 0.0
