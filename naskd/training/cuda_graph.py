"""A training step recorded once and replayed.

A GPU computes the step of a small student in less time than Python takes to launch its kernels. A CUDA graph launches
all of them at once. Whether that is faster is measured on the first steps of each phase, since it depends on student,
batch and machine.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from naskd.knowledge.base import Mixed
from naskd.nn.torch_private import copy_all
from naskd.schemes.scheme import Asked, Batch

_LOG = logging.getLogger(__name__)

Row = tuple[tuple[str, ...], Tensor]
"""Names and values, ``(n,)`` float64, of what a step notes."""
Step = Callable[[Batch, Asked], Row]

TIMED = {"launched": 1, "replayed": 2}
"""Steps of each kind that are timed; the fastest counts, since the first replay takes longer than the others."""
FEWEST = 20
"""A phase of fewer steps is not worth a recording, which takes about as long as two steps."""


class Replay:
    """The steps of one phase on batches of one size: launched first, then replayed if that is faster.

    Every call is a step of the training, whichever way it is executed. The device is waited for before and after
    each of the few that are timed.

    Args:
        step: One step. It does the same operations each time, after its first call.
        device: A CUDA device.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self.step = step
        self.device = device
        self.done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: list[Tensor] = []
        self._row: Row = ((), torch.empty(0))
        self._seconds: dict[str, list[float]] = {how: [] for how in TIMED}

    def __call__(self, batch: Batch, asked: Asked) -> Row:
        """Do a step."""
        self.done += 1
        if self.done == 1:  # whatever happens once: memory of the optimizer, scales of balanced terms
            return self.step(batch, asked)
        number = self.done - 1 - TIMED["launched"]
        if number < 1:
            return self._timed("launched", lambda: self.step(batch, asked))
        if number == 1:
            self._record(batch, asked)
        if self._graph is None:
            return self.step(batch, asked)
        if number > TIMED["replayed"]:
            return self._replay(batch, asked)
        row = self._timed("replayed", lambda: self._replay(batch, asked))
        if number == TIMED["replayed"] and min(self._seconds["replayed"]) >= min(self._seconds["launched"]):
            self._graph, self._given = None, []
        return row

    def _timed(self, how: str, step: Callable[[], Row]) -> Row:
        torch.cuda.synchronize(self.device)
        started = time.perf_counter()
        row = step()
        torch.cuda.synchronize(self.device)
        self._seconds[how].append(time.perf_counter() - started)
        return row

    def _record(self, batch: Batch, asked: Asked) -> None:
        """Record a step, without executing it, if that is possible."""
        mixed = batch.mixed and Mixed(batch.mixed.labels.clone(), batch.mixed.share.clone())
        own = replace(
            batch,
            images=batch.images.clone(),
            labels=batch.labels.clone(),
            index=batch.index.clone(),
            view=batch.view.clone(),
            mixed=mixed,
        )
        said = [{name: tensor.clone() for name, tensor in summary.items()} for summary in asked]
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # torch's is not annotated
        before = torch.cuda.current_stream(self.device)
        stream.wait_stream(before)
        try:
            with torch.cuda.stream(stream):
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    row = self.step(own, said)
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            _LOG.info("this step cannot be recorded and is launched each time: %s", str(error).split("\n")[0])
            return
        before.wait_stream(stream)
        self._graph, self._given, self._row = graph, _tensors(own, said), row

    def _replay(self, batch: Batch, asked: Asked) -> Row:
        assert self._graph is not None
        pairs: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for mine, given in zip(self._given, _tensors(batch, asked), strict=True):
            own, new = pairs.setdefault(mine.dtype, ([], []))
            own.append(mine)
            new.append(given)
        for own, new in pairs.values():  # one launch for all tensors of a type
            copy_all(own, new)
        self._graph.replay()
        names, values = self._row
        return names, values.clone()


def _tensors(batch: Batch, asked: Asked) -> list[Tensor]:
    said = [tensor for summary in asked for tensor in summary.values()]
    mixed = [] if batch.mixed is None else [batch.mixed.labels, batch.mixed.share]
    return [batch.images, batch.labels, batch.index, batch.view, *mixed, *said]
