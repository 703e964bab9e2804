"""What may have come by guessing: by hand, for coins."""

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
