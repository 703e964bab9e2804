"""How many trials importances need: shares of two halves of a run, compared.

    python benchmarks/importance_halves.py [--table docs/data/tables/cifar10] [--trials 12 25 50 100] [--draws 6]

Designs of a recorded table are drawn at random, without a table accuracies that nothing explains. For each number of
trials it prints medians over draws of the largest difference between the halves' shares and of the largest share, how
often both halves have the same parameter first, and the mean correlation of their shares.
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from naskd.knowledge import KNOWLEDGE
from naskd.spec.objectives import ACCURACY, OBJECTIVES
from naskd.study.importance import importance
from naskd.study.used import DESIGN, UNUSED

FEW = 3
"""Trials from which shares are computed here: what fewer than usual say is the question."""
LABELS, WEIGHT, TEMPERATURE = "none", "kd.ce_weight", "kd.temperature"


def recorded(table: Path) -> list[FrozenTrial]:
    """Its designs as complete trials, which say what they had no use for."""
    values = json.loads((table / "card.json").read_text())["parameters"]
    ranges: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(choices) for name, choices in values.items()
    }
    rows = [
        json.loads(line) for line in (table / "rows.jsonl").read_text().splitlines() if line.startswith("{")
    ]
    found = []
    for row in (row for row in rows if not row["replicate"]):
        kind = row["values"]["kd.kind"]
        unused = [WEIGHT, TEMPERATURE] if kind == LABELS else []
        if kind in KNOWLEDGE and not KNOWLEDGE[kind].uses_temperature:
            unused = [TEMPERATURE]
        found.append(
            create_trial(
                value=row[ACCURACY][-1],
                params={name: row["values"][name] for name in ranges},
                distributions=ranges,
                user_attrs={UNUSED: {DESIGN: unused}},
            )
        )
    return found


def of_luck(rng: random.Random, n: int) -> list[FrozenTrial]:
    """Complete trials of eight parameters, by which their accuracies do not differ."""
    ranges: dict[str, BaseDistribution] = {f"p{number}": FloatDistribution(0.0, 1.0) for number in range(8)}
    return [
        create_trial(
            value=rng.random(),
            params={name: rng.random() for name in ranges},
            distributions=ranges,
            user_attrs={UNUSED: {DESIGN: []}},
        )
        for _ in range(n)
    ]


def shares(trials: list[FrozenTrial]) -> dict[str, float]:
    """What each parameter explains of accuracy."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    told = importance(study, [OBJECTIVES[ACCURACY]], most=len(trials[0].params), needs=FEW)
    return told.get(ACCURACY, {})


def compare(draw: Callable[[random.Random, int], list[FrozenTrial]], n: int, draws: int) -> str:
    """A line about halves of `n` trials."""
    differences, largest, correlations, same = [], [], [], 0
    for number in range(draws):
        rng = random.Random(number)
        trials = draw(rng, n)
        halves = [shares(trials[: n // 2]), shares(trials[n // 2 :])]
        names = sorted({name for half in halves for name in half})
        one, other = (np.array([half.get(name, 0.0) for name in names]) for half in halves)
        differences.append(float(abs(one - other).max()))
        largest.append(float(one.max()))
        correlations.append(float(np.corrcoef(one, other)[0, 1]))
        same += int(one.argmax() == other.argmax())
    return (
        f"halves of {n // 2:3}: largest difference {statistics.median(differences):.2f}, "
        f"largest share {statistics.median(largest):.2f}, same first {same} of {draws}, "
        f"correlation {statistics.fmean(correlations):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path)
    parser.add_argument("--trials", type=int, nargs="+", default=[12, 25, 50, 100])
    parser.add_argument("--draws", type=int, default=6)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = recorded(given.table) if given.table else []
    for n in given.trials:
        print(
            compare(lambda rng, n: rng.sample(known, n) if known else of_luck(rng, n), n, given.draws),
            flush=True,
        )


if __name__ == "__main__":
    main()
