"""Copies of columns on a device, made while the column before is used."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from naskd.spec.errors import USERS, one_line
from naskd.store.columns import Column
from naskd.store.eight_bits import EightBits

_LOG = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

_PIECE = 2**25
"""Bytes that travel at once: two pieces of memory that a device reads by itself are enough to keep it busy."""


class DeviceCopies:
    """Copies of columns on a device, shared by all banks of a process. On the CPU the columns themselves are used.

    An epoch uses one column of each tensor, so that a training copies each once an epoch and never waits between. Where
    it is known which come next, those are read and copied by a thread meanwhile.

    Args:
        device: Where the networks are.
        budget_bytes: Of all copies, or what tells it when the first is made: who makes this may be a process that never
            uses the device. The least recently used go first. What one bank is asked for at once is kept even
            beyond it, so that several banks with columns larger than it copy them again for every batch. What comes
            next is copied ahead if it fits beside what is used now.
    """

    def __init__(self, device: torch.device, budget_bytes: int | Callable[[], int]) -> None:
        self.device = device
        self._given = budget_bytes
        self.looks_ahead = device.type == "cuda"
        """Whether anything is copied ahead."""
        self._copies: OrderedDict[Hashable, Column] = OrderedDict()
        self._used_bytes = 0
        self._coming: Future[dict[Hashable, Column]] | None = None
        self._worker: ThreadPoolExecutor | None = None

    @cached_property
    def budget_bytes(self) -> int:
        """Of all copies."""
        return self._given() if callable(self._given) else self._given

    @property
    def size_bytes(self) -> int:
        """Of all copies."""
        return sum(copy.nbytes for copy in self._copies.values())

    def of(self, columns: Mapping[Key, Column]) -> dict[Key, Column]:
        """The columns, by the same keys, on the device."""
        if self.device.type == "cpu":
            return dict(columns)
        missing = {key: column for key, column in columns.items() if key not in self._copies}
        if missing:
            came = self._came()
            # What came and is not wanted now is thrown away: the order was another than was foreseen.
            self._make_room(sum(column.nbytes for column in missing.values()), columns)
            for key, column in missing.items():
                self._copies[key] = came[key] if key in came else column.to(self.device)
        for key in columns:
            self._copies.move_to_end(key)
        self._used_bytes = sum(self._copies[key].nbytes for key in columns)
        return {key: self._copies[key] for key in columns}

    def ahead(self, load: Callable[[], Mapping[Hashable, Column]]) -> None:
        """Copy columns that will be asked for next, by a thread.

        Args:
            load: Gives them, and may take its time; called by the thread.
        """
        if not self.looks_ahead or self._coming is not None:
            return
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="columns")
        self._coming = self._worker.submit(self._bring, load, frozenset(self._copies), self._used_bytes)

    def _came(self) -> dict[Hashable, Column]:
        """What was copied ahead; nothing where that failed, since it is then copied as if nobody had tried."""
        coming, self._coming = self._coming, None
        if coming is None:
            return {}
        try:
            found = coming.result()
        except USERS as error:  # out of the device's memory, say
            _LOG.debug("nothing was copied ahead: %s", one_line(error))
            return {}
        if self.device.type == "cuda":
            stream = torch.cuda.current_stream(self.device)
            for copy in found.values():
                for tensor in _tensors(copy):
                    tensor.record_stream(stream)  # it was allocated for another
        return found

    def _bring(
        self, load: Callable[[], Mapping[Hashable, Column]], there: frozenset[Hashable], used_bytes: int
    ) -> dict[Hashable, Column]:
        columns = {key: column for key, column in load().items() if key not in there}
        if used_bytes + sum(column.nbytes for column in columns.values()) > self.budget_bytes:
            return {}
        if self.device.type != "cuda":
            return {key: column.to(self.device) for key, column in columns.items()}
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # of torch
        with torch.cuda.stream(stream):
            found = {key: _streamed(column, self.device) for key, column in columns.items()}
        stream.synchronize()  # this thread has nothing else to do
        return found

    def _make_room(self, n_bytes: int, needed: Mapping[Key, Column]) -> None:
        spare = self.budget_bytes - n_bytes - self.size_bytes
        for key in [key for key in self._copies if key not in needed]:
            if spare >= 0:
                return
            spare += self._copies.pop(key).nbytes


def _tensors(column: Column) -> tuple[Tensor, ...]:
    return (column.codes, column.ranges) if isinstance(column, EightBits) else (column,)


def _streamed(column: Column, device: torch.device) -> Column:
    """A copy through pinned memory, from which a GPU copies several times as fast as from a mapped file."""
    if isinstance(column, EightBits):
        return column.with_parts(
            _streamed_tensor(column.codes, device), _streamed_tensor(column.ranges, device)
        )
    # Maps lie with their channels last: as they lie they are contiguous.
    stored = column.movedim(1, -1) if column.ndim == 4 else column
    found = _streamed_tensor(stored, device)
    return found.movedim(-1, 1) if column.ndim == 4 else found


def _streamed_tensor(tensor: Tensor, device: torch.device) -> Tensor:
    target = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    rows = max(1, _PIECE // max(1, tensor[:1].nbytes))
    pieces = [torch.empty((rows, *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=True) for _ in range(2)]
    events: list[torch.cuda.Event | None] = [None, None]
    for number, start in enumerate(range(0, len(tensor), rows)):
        which = number % 2
        if (event := events[which]) is not None:
            event.synchronize()  # the piece may be overwritten when it has arrived
        part = tensor[start : start + rows]
        piece = pieces[which][: len(part)]
        piece.copy_(part)
        target[start : start + rows].copy_(piece, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # of torch
        arrived.record()
        events[which] = arrived
    return target
