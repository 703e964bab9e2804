"""Peers that train apart: each in a training of its own, which tells the others its weights now and then.

A scheme says when, and what it does with what it hears; :mod:`naskd.trials.exchanging` carries it from one to another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from naskd.schemes.distilled import StudentScheme


@dataclass(frozen=True)
class Exchange:
    """What happens between two epochs: a peer tells what it is, and hears what the others were.

    Args:
        number: Of the exchange, from 0.
        heard: Of the exchange in which the others told what is heard now; below 0 where nothing was told yet.
        after: Epochs that a peer has done when it tells what is heard now.
    """

    number: int
    heard: int
    after: int


@dataclass(frozen=True)
class Exchanges:
    """When peers tell each other what they are.

    Args:
        first: Epoch, from 0, before which they do it first.
        every: Epochs between two exchanges, at least 1.
        lag: Exchanges by which what is heard is older than what is told at the same time, at least 0.
    """

    first: int
    every: int
    lag: int

    @property
    def listening(self) -> int:
        """Epoch, from 0, from which on there is something to hear."""
        return self.first + self.lag * self.every

    def before(self, epoch: int) -> Exchange | None:
        """The exchange before an epoch, from 0; None where there is none."""
        number, left = divmod(epoch - self.first, self.every)
        if number < 0 or left:
            return None
        return Exchange(number, number - self.lag, epoch - self.lag * self.every)


class PeerScheme(StudentScheme):
    """One of several networks that train apart: the first one leaves, wherever the others are.

    A card names it as `apart`. A subclass sets the attributes.

    Attributes:
        place: Which of them it is, from 0.
        exchanges: When they tell each other what they are, in epochs of the whole training.
    """

    place: int
    exchanges: Exchanges

    def told(self) -> Mapping[str, Tensor]:
        """What the others are told."""
        return self.deployed.state_dict()

    def hear(self, others: Sequence[Mapping[str, Tensor]]) -> None:
        """Take in what the others have told, on the CPU, in the order of their places."""
        raise NotImplementedError
