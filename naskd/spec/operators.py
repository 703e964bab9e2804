"""What a network executes, as plain data: operators in order, and the maps between them.

:func:`naskd.nn.tracing.operators_of` writes it; peak memory and predictions of latency are made from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Buffer:
    """A map, or a vector of features, of one image.

    Args:
        numbers: How many.
        bits: Of each number.
    """

    numbers: int
    bits: int

    @property
    def n_bytes(self) -> int:
        """Rounded up to a whole one."""
        return -(-self.numbers * self.bits // 8)


@dataclass(frozen=True)
class Operator:
    """A step of a network.

    Args:
        kind: ``convolution``, ``pointwise`` (kernel 1), ``depthwise``, ``linear``, ``product`` (of two maps), or
            torch's name of it.
        reads: Indices of the buffers that it reads, each once.
        writes: Indices of the buffers that it writes. One that it also reads is changed in place.
        given, made: Shapes of the first map that it reads and of the first one that it writes, ``(1, C, H, W)`` or
            ``(1, D)``.
        macs: Multiply-accumulates.
        n_weights: Constant numbers that it reads.
        bits: Of its weights.
        kernel, stride, padding: Of a convolution, for each side; empty otherwise.
        dilation: Likewise; empty stands for 1, too.
        groups: Of a convolution: into how many parts its channels are parted, each read and made by itself.
    """

    kind: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    given: tuple[int, ...] = ()
    made: tuple[int, ...] = ()
    macs: int = 0
    n_weights: int = 0
    bits: int = 32
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1


@dataclass(frozen=True)
class OperatorGraph:
    """What one evaluation pass of one image executes.

    Operators that change each number of one map by itself are no steps: BatchNorm, ReLU, rounding. Where nobody else
    reads that map, the operator before writes their result.

    Args:
        operators: In the order in which they run.
        buffers: What they read and write.
        given: Index of the images' buffer.
        results: Indices of the buffers that are handed out.
    """

    operators: tuple[Operator, ...]
    buffers: tuple[Buffer, ...]
    given: int
    results: tuple[int, ...]

    def bytes_alive(self) -> list[int]:
        """For each operator, the bytes of all maps that must be held while it runs.

        These are what it reads and writes, and what was written before and is read later. The images are there from
        the start, until they are read for the last time.
        """
        first, last = {self.given: 0}, {self.given: 0}
        for at, operator in enumerate(self.operators):
            for index in (*operator.reads, *operator.writes):
                first.setdefault(index, at)
                last[index] = at
        last |= dict.fromkeys(self.results, len(self.operators) - 1)
        alive = [0] * len(self.operators)
        for index, begin in first.items():
            for at in range(begin, last[index] + 1):
                alive[at] += self.buffers[index].n_bytes
        return alive

    @property
    def peak_bytes(self) -> int:
        """The most bytes of maps that are held at once.

        Liberis, Lane: Neural networks on microcontrollers: saving memory at inference via operator reordering. 2019,
        arXiv 1910.05110, section 2.
        Differs: operators run in the order of the network's code, and are not reordered.
        """
        return max(self.bytes_alive(), default=self.buffers[self.given].n_bytes)


def joined(parts: Sequence[OperatorGraph]) -> OperatorGraph:
    """Graphs one after the other: each is given what the one before it hands out, which must be one buffer of its size.

    Raises:
        ValueError: There is none, or they do not fit together.
    """
    if not parts:
        raise ValueError("no graph to join")
    buffers, operators = list(parts[0].buffers), list(parts[0].operators)
    (last,) = parts[0].results if len(parts) > 1 else (parts[0].given,)
    results = parts[0].results
    for part in parts[1:]:
        if buffers[last].numbers != part.buffers[part.given].numbers:
            raise ValueError(
                f"{buffers[last].numbers} numbers do not fit {part.buffers[part.given].numbers}: what a graph hands "
                "out must be what the next one is given"
            )
        places: dict[int, int] = {part.given: last}
        # What is rounded as soon as it is read is written so.
        buffers[last] = replace(buffers[last], bits=part.buffers[part.given].bits)
        for index, buffer in enumerate(part.buffers):
            if index != part.given:
                places[index] = len(buffers)
                buffers.append(buffer)
        operators += [
            replace(o, reads=tuple(places[i] for i in o.reads), writes=tuple(places[i] for i in o.writes))
            for o in part.operators
        ]
        results = tuple(places[i] for i in part.results)
        last = results[0]
    return OperatorGraph(tuple(operators), tuple(buffers), parts[0].given, results)
