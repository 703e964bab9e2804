"""A mistyped argument of a function: which one was meant is said, wherever the call stands."""

import pytest

from naskd.spaces import suggest_teaching
from naskd.spec.design import KnowledgeTerm, StageSpec
from naskd.spec.errors import one_line


def raised(call) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    return one_line(caught.value)


class Mine:
    def __init__(self, width: int) -> None:
        self.width = width

    def widened(self, *, factor: int = 2) -> int:
        return factor * self.width


def test_a_function_of_naskd_and_a_class_of_ones_own() -> None:
    assert "'unlabeled'; did you mean 'unlabelled'" in raised(
        lambda: suggest_teaching(None, unlabeled=(0, 1))
    )
    assert "did you mean 'width'" in raised(lambda: Mine(widht=3))
    assert "did you mean 'factor'" in raised(lambda: Mine(3).widened(facter=3))


def test_what_is_like_nothing_has_no_hint() -> None:
    said = raised(lambda: Mine(3, quux=1))
    assert "unexpected keyword argument 'quux'" in said
    assert "did you mean" not in said
    assert "did you mean" not in raised(lambda: {}.fromkeys(["a"], valeu=3))


def test_fields_of_designs_say_it_too() -> None:
    assert "did you mean 'temperature'" in raised(lambda: KnowledgeTerm("logits", temprature=2.0))
    assert "did you mean 'width'" in raised(lambda: StageSpec("basic", 1, widht=16))
