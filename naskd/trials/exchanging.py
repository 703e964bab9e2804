"""Peers that train apart: what one tells, and how the others hear it, through the study's checkpoints.

What a peer tells in an exchange is kept before its epoch is reported, in a ring of places. It is replaced when nobody
can need it any more. Who is taken up from its newest state, of exchange ``j``, has told ``j + 1`` at most. So nobody is
beyond exchange ``j + lag + 2``, and it asks for what was told in exchange ``j - lag``.
"""

import time

import torch
from safetensors.torch import load, save
from torch import Tensor

from naskd.schemes.apart import PeerScheme
from naskd.spec.errors import RunError
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Job
from naskd.trials.outcome import checkpoint_key, keep
from naskd.trials.run import TrialRun

LEAST_PATIENCE = 3.0
"""Seconds that a peer keeps its worker for others, at least; else as long as its last epoch took.

More than the second for which an executor does not ask again: who has given a worker back must have time to begin.
"""

_LONGEST_NAP = 0.5


class Exchanging:
    """One peer's side of it.

    Args:
        job: Of the peer.
        run: Its training.
        peers: How many there are.
        context: The study's, which keeps checkpoints.
    """

    def __init__(self, job: Job, run: TrialRun, peers: int, context: StudyContext) -> None:
        assert isinstance(run.scheme, PeerScheme)
        assert context.resources.checkpoints is not None
        self._job, self._run, self._context = job, run, context
        self._scheme, self._store = run.scheme, context.resources.checkpoints
        self._others = [place for place in range(peers) if place != self._scheme.place]
        # The training's own folder, wherever the peer's is.
        self._folder = checkpoint_key(job).partition("/")[0]
        # From `lag` exchanges before to `lag + 2` after that of a peer that is taken up.
        self._ring = 2 * self._scheme.exchanges.lag + 3
        self._kept = run.epoch
        """Epochs that are in the state that this peer would be taken up from."""

    def _key(self, place: int, number: int) -> str:
        return f"{self._folder}/told{place}/{number % self._ring}"

    def tell(self) -> None:
        """Tell the others what this peer is now, if it is time; on return it is there for them.

        Raises:
            OSError: It cannot be written.
        """
        exchange = self._scheme.exchanges.before(self._run.epoch)
        if exchange is None:
            return
        key = self._key(self._scheme.place, exchange.number)
        newest = self._store.newest(key)
        if newest is None or newest < exchange.number:
            told = {name: _plain(x) for name, x in self._scheme.told().items()}
            self._store.save(key, exchange.number, save(told))
            self._store.settle()

    def leave(self, started: float) -> None:
        """Keep the state of the training if it may have to be taken up from here: others forget what came before.

        Args:
            started: See :func:`~naskd.trials.outcome.keep`.

        Raises:
            OSError: It cannot be written.
        """
        exchange = self._scheme.exchanges.before(self._run.epoch)
        if exchange is not None and self._run.epoch != self._kept:
            keep(checkpoint_key(self._job), self._run, self._job, self._context, started)
            self._store.settle()
            self._kept = self._run.epoch

    def hear(self, seconds: float) -> int | None:
        """Take in what the others have told, if it is time; None when that is done.

        Args:
            seconds: How long it is waited for.

        Returns:
            Epochs that the others must have done, where one has not told it yet.

        Raises:
            RunError: What is wanted was replaced, or is damaged.
        """
        exchange = self._scheme.exchanges.before(self._run.epoch)
        if exchange is None or exchange.heard < 0:
            return None
        since = time.monotonic()
        missing = set(self._others)
        while True:
            missing = {place for place in missing if not self._is_told(place, exchange.heard)}
            waited = time.monotonic() - since
            if not missing:
                break
            if waited >= seconds:
                return exchange.after
            time.sleep(min(_LONGEST_NAP, max(0.01, waited / 10), seconds - waited))
        told = [self._store.load(self._key(place, exchange.heard)) for place in self._others]
        states = [load(data) for data in told if data is not None]
        if len(states) < len(told):
            raise RunError(f"what a peer has told after {exchange.after} epochs is damaged")
        self._scheme.hear(states)
        return None

    def _is_told(self, place: int, number: int) -> bool:
        newest = self._store.newest(self._key(place, number))
        if newest is not None and newest > number:
            raise RunError(f"what peer {place} has told in exchange {number} is not kept any more")
        return newest == number


def _plain(tensor: Tensor) -> Tensor:
    """As a file can hold it: on the CPU, in rows, in memory of its own."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
