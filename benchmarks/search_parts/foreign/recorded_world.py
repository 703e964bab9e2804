"""A recorded table for optimizers of other frameworks, whose interpreters have no naskd: the standard library alone.

A driver is a script that ends with ``main(arms, packages)``: functions by the names of their arms, and the packages
whose versions are told. Each function searches a :class:`RecordedWorld` until it is ``finished``::

    def random_search(world):
        draw = random.Random(world.seed)
        while not world.finished:
            design = world.design({name: draw.choice(values) for name, values in world.parameters.items()})
            if design is not None:
                world.train(design, world.epochs)
"""

import json
import math
import platform
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

FRUITLESS = 200
"""A search is over, too, after so many designs in a row of which nothing was left to train."""


class RecordedWorld:
    """What a search may know, and what it has spent.

    A design that is proposed again is turned away, as it is for every arm of naskd. Epochs of a design that were
    trained before cost nothing, so that a training that was paused goes on from its checkpoint.

    Args:
        given: As ``search_parts.outside`` writes it.

    Attributes:
        seed: Of the search.
        epochs: Of a whole training.
        parameters: Of the grid, by name, with the values of each; numbers are in order.
        spent: Multiply-accumulates of training so far.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.seed: int = given["seed"]
        self.epochs: int = given["epochs"]
        self.parameters: dict[str, list[Any]] = given["parameters"]
        self.spent = 0
        self._budget = given["budget"]
        self._designs = given["designs"]
        self._by_values = {tuple(values): design for *values, design in given["points"]}
        self._draw = random.Random(given["seed"])
        self._made: set[str] = set()
        self._trained: dict[str, int] = {}
        self._decisions: list[list[Any]] = []
        self._fruitless = 0
        sizes = [math.log(design["macs"]) for design in self._designs.values()]
        self._least, self._span = min(sizes), (max(sizes) - min(sizes)) or 1.0

    @property
    def finished(self) -> bool:
        """Whether the budget is spent or nothing new comes; asked between trainings, which may go on beyond it."""
        return self.spent >= self._budget or self._fruitless >= FRUITLESS

    @property
    def decisions(self) -> list[list[Any]]:
        """Designs in the order in which they were trained, each with its last epoch by then."""
        return self._decisions

    def design(self, values: Mapping[str, Any], *, again: bool = False) -> str | None:
        """The design at a point of the grid; None where it is turned away, which costs nothing.

        Args:
            values: Of all parameters.
            again: Whether one that was trained already may come; where none was recorded there is none.
        """
        self._fruitless += 1
        design = self._by_values.get(tuple(values[name] for name in self.parameters))
        return design if again or design not in self._trained else None

    def untried(self) -> dict[str, Any] | None:
        """A point of the grid whose design was not trained yet, drawn at random; None where all were.

        For samplers that repeat themselves: naskd's are helped likewise.
        """
        left = [values for values, design in self._by_values.items() if design not in self._trained]
        return dict(zip(self.parameters, self._draw.choice(left), strict=True)) if left else None

    def train(self, design: str, until_epoch: int) -> None:
        """Train a design up to and with this epoch, from 1, from where it was."""
        training, before = self._designs[design], self._trained.get(design, 0)
        if until_epoch <= before:
            return
        for epoch in range(before, until_epoch):
            self.spent += training["epoch_macs"][epoch]
            for name, macs in training["shared"][epoch].items() if epoch < len(training["shared"]) else ():
                self.spent += 0 if name in self._made else macs
                self._made.add(name)
        self._trained[design] = until_epoch
        self._fruitless = 0
        if self._decisions and self._decisions[-1][0] == design:
            self._decisions.pop()
        self._decisions.append([design, until_epoch])

    def error(self, design: str, epoch: int) -> float:
        """1 - validation accuracy after an epoch, from 1; less is better."""
        return 1.0 - float(self._designs[design]["val_accuracy"][epoch - 1])

    def size(self, design: str) -> float:
        """MACs on a logarithmic scale, from 0 for the smallest design of the table to 1 for the largest.

        On this scale distances between designs depend on both objectives. In MACs they would depend on nothing else.
        """
        return (math.log(self._designs[design]["macs"]) - self._least) / self._span


def main(
    arms: Mapping[str, Callable[[RecordedWorld], None]],
    packages: Sequence[str],
    more: Mapping[str, str] | None = None,
) -> None:
    """Answer to ``DRIVER --arms FILE``, which asks for names and versions, or to ``DRIVER ARM GIVEN FILE``.

    Args:
        arms: Functions by the names of their arms.
        packages: Those whose versions are told.
        more: Versions of what is no installed package.
    """
    *asked, out = sys.argv[1:]
    if asked == ["--arms"]:
        versions = {
            "Python": platform.python_version(),
            **{name: version(name) for name in packages},
            **(more or {}),
        }
        answer: dict[str, Any] = {"arms": list(arms), "versions": versions}
    else:
        arm, given = asked
        world = RecordedWorld(json.loads(Path(given).read_text(encoding="utf-8")))
        arms[arm](world)
        answer = {"decisions": world.decisions, "train_macs": world.spent}
    Path(out).write_text(json.dumps(answer), encoding="utf-8")
