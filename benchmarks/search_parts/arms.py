"""The arms: who proposes, and who stops."""

from dataclasses import dataclass, field
from typing import Any

from naskd.spec.study import BudgetSpec
from search_parts.replayed import Searched, World, search


@dataclass(frozen=True)
class Arm:
    """A sampler with a stopping rule.

    Args:
        sampler, stopping: Names, as a study file says them.
        options: Of both; those of the rule begin with ``stopping.``.
    """

    sampler: str
    stopping: str = "none"
    options: dict[str, Any] = field(default_factory=dict)

    def search(self, world: World, seed: int, budget: BudgetSpec, workers: int = 1) -> Searched:
        return search(world, self.sampler, self.stopping, seed, budget, workers, **self.options)


def named_arm(text: str) -> tuple[str, Arm]:
    """``name=sampler`` or ``name=sampler,rule``.

    Raises:
        SystemExit: It is neither.
    """
    name, _, methods = text.partition("=")
    sampler, _, rule = methods.partition(",")
    if not (name and sampler):
        raise SystemExit(f"--arm {text!r}: wanted NAME=SAMPLER or NAME=SAMPLER,RULE")
    return name, Arm(sampler, rule or "none")


ARMS = {
    "random": Arm("random"),
    "NSGA-II": Arm("nsga2"),
    "TPE": Arm("tpe"),
    "GP": Arm("gp"),
    "MO-ASHA, random": Arm("random", "mo_asha"),
    "MO-ASHA, TPE": Arm("tpe", "mo_asha"),
    "TPE, front": Arm("tpe", "front"),
    "EHVI": Arm("ehvi"),
    "EHVI, front": Arm("ehvi", "front"),
}
