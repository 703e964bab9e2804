import math

import pytest

from naskd.knowledge import KNOWLEDGE, KnowledgeCard, Option
from naskd.spec.design import KnowledgeTerm

CARD = KnowledgeCard(
    name="some",
    family="feature",
    title="Some",
    paper="Some, 2020",
    equation="0",
    implementation=dict,
    taps=("stages",),
    paper_weight=1.0,
    paper_setting="nowhere",
    min_batch=4,
    min_stages=2,
    uses_pairs=True,
    options={
        "amount": Option(2.0, "how much", low=0.0, high=5.0),
        "free": Option(1.0, "any number"),
        "count": Option(3, "how many", low=1),
        "sharp": Option(True, "whether"),
        "mode": Option("a", "which"),
    },
)


def term(**options: bool | int | float | str) -> KnowledgeTerm:
    return KnowledgeTerm("some", options=tuple(options.items()))


def test_all_problems_are_found_together() -> None:
    found = CARD.problems(term(amuont=1.0, amount=9.0), n_stages=1, batch_size=2)
    assert len(found) == 4
    assert "at least 2 stages, got 1" in found[0]
    assert "at least 4, got 2" in found[1]
    assert "'amuont'" in found[2]
    assert "did you mean 'amount'" in found[2]
    assert "9.0; allowed: finite and in [0, 5]" in found[3]
    assert CARD.problems(term(), n_stages=2, batch_size=4) == []
    assert CARD.problems(term(), n_stages=2) == []


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("amount", [0, 5, 2.5], [-0.1, 5.1, math.nan, math.inf, "2", True]),
        ("free", [-1e9, 7], [math.nan, math.inf, -math.inf]),
        ("count", [1, 10**6], [0, 2.5, "3", True]),
        ("sharp", [True, False], [1, 0.0, "yes"]),
        ("mode", ["b"], [1, True]),
    ],
)
def test_an_option_has_the_type_and_range_of_its_card(name: str, right: list, wrong: list) -> None:
    for value in right:
        assert CARD.problems(term(**{name: value}), n_stages=2) == []
    for value in wrong:
        assert len(CARD.problems(term(**{name: value}), n_stages=2)) == 1


def test_equal_trainings_are_written_in_one_way() -> None:
    plain = CARD.canonical(term(), n_stages=3)
    assert plain == KnowledgeTerm("some")
    assert CARD.canonical(KnowledgeTerm("some", temperature=9.0), n_stages=3) == plain
    assert CARD.canonical(term(amount=2, sharp=True), n_stages=3) == plain
    assert CARD.canonical(term(sharp=False, amount=4), n_stages=3).options == (
        ("amount", 4.0),
        ("sharp", False),
    )
    assert isinstance(CARD.canonical(term(amount=4), n_stages=3).options[0][1], float)
    for pairs in ("first", "middle", "last", "all"):
        assert CARD.canonical(KnowledgeTerm("some", pairs=pairs), n_stages=3).pairs == pairs
        assert CARD.canonical(KnowledgeTerm("some", pairs=pairs), n_stages=1) == plain
    assert CARD.canonical(KnowledgeTerm("some", pairs="middle"), n_stages=2).pairs == "first"
    assert CARD.canonical(KnowledgeTerm("some", pairs="last"), n_stages=2).pairs == "last"


def test_canonical_keeps_what_matters() -> None:
    logits = KnowledgeTerm("logits", weight=0.3, weighting="balanced", temperature=2.0, pairs="all", source=1)
    found = KNOWLEDGE["logits"].canonical(logits, n_stages=3)
    assert found == KnowledgeTerm("logits", weight=0.3, weighting="balanced", temperature=2.0, source=1)
    wrong = term(amuont=1.0, amount=9.0)
    assert set(CARD.canonical(wrong, n_stages=3).options) == set(wrong.options)


def test_default_option_is_used() -> None:
    assert CARD.option(term(), "amount") == 2.0
    assert CARD.option(term(amount=3.0), "amount") == 3.0


def test_the_first_of_each_family_is_there() -> None:
    families = {name: KNOWLEDGE[name].family for name in ("logits", "hint", "attention", "rkd")}
    assert families == {"logits": "response", "hint": "feature", "attention": "feature", "rkd": "relation"}
