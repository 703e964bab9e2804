"""What training a search is said to take, where teachers' answers are remembered."""

import math
from pathlib import Path

from small_studies import design, small_context

from naskd.runs.estimate import estimate_search
from naskd.spec.design import KnowledgeTerm
from naskd.spec.study import BudgetSpec


def test_a_budget_of_training_is_of_what_is_executed(tmp_path: Path) -> None:
    """A teacher that is asked once for all trials does not take its part of the budget in each."""
    taught, budget = design(KnowledgeTerm("logits")), 10**9
    context = small_context(tmp_path, budget=BudgetSpec(train_macs=budget))
    price = context.designs.training_macs(taught)
    (shared,) = price.shared.values()
    found = estimate_search(context, [taught])
    assert found["trials"] == math.ceil((budget - shared) / price.own)
    assert found["train_macs"] == found["trials"] * price.own + shared
    little = small_context(tmp_path, budget=BudgetSpec(train_macs=1))
    assert estimate_search(little, [taught])["trials"] == 1, "what is shared is spent by the first trial"
    assert found["trial_train_macs"]["median"] == price.whole > price.own, (
        "it compares designs, as in a record"
    )
