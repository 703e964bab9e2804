"""A process that trains one step of every kind of block there is, and says which one it was at when it dies.

    python tests/native_faults.py [ISA...]    # names of oneDNN's, for ONEDNN_MAX_CPU_ISA; "" is the machine's own

writes a line of JSON for each instruction set: its name, how its child ended, and the combinations at fault. glibc's
checking allocator (``LD_PRELOAD=libc_malloc_debug.so.0 MALLOC_CHECK_=3``) finds a write beyond a buffer as soon as that
is freed; without it, only luck does.
"""

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator

import torch
from torch import nn

from naskd.networks import BLOCKS
from naskd.networks.cnn import block_type
from naskd.networks.layers import conv_norm, patches
from naskd.nn import pointwise, subsampled
from naskd.nn.subsampled import avoid_faulty_kernels
from naskd.spec.design import StageSpec

Case = tuple[str, tuple[object, ...]]
BATCH = 16
WIDTHS = (1, 4, 7, 8)
LARGE = 112
"""Side of a map on which more is wrong than on a small one."""


def cases() -> Iterator[Case]:
    """All combinations: of a block, of a stem, and of a convolution that a user's network may have."""
    for stride, (last, small) in itertools.product((1, 2), ((True, True), (True, False), (False, False))):
        for width, kernel in itertools.product(WIDTHS, (1, 3)):
            for name in BLOCKS.names():
                for expansion in (0.25, 2.0):
                    yield "block", (name, width, kernel, expansion, stride, last, small)
        for channels, kernel in itertools.product((1, 3, 4), (1, 3)):
            yield "stem", (channels, kernel, stride, last, small)
        for channels, patch in itertools.product((1, 3, 4), (2, 4)):
            yield "patches", (channels, patch, stride, last, small)
    for width, stride, groups in itertools.product(WIDTHS, (1, 2, 3, (1, 2), (2, 1)), (1, 2)):
        yield "conv", (width * groups, stride, groups, True, 8)
    for width in (1, 7, 8, 12, 15, 16, 24):
        yield "conv", (width, 2, 1, True, LARGE)


def step(case: Case) -> None:
    """Forward and backward, as a training does it."""
    kind, options = case
    module: nn.Module
    side = 8
    if kind == "block":
        name, width, kernel, expansion, stride, last, small = options
        stage = StageSpec(name, 1, 12, kernel=kernel, expansion=expansion, squeeze_excitation=True)
        module, channels = block_type(name)(width, stage, stride), width
    elif kind == "stem":
        channels, kernel, stride, last, small = options
        module = nn.Sequential(*conv_norm(channels, 16, kernel, stride))
    elif kind == "patches":
        channels, patch, stride, last, small = options
        module = nn.Sequential(*patches(channels, 16, patch))
    else:
        (channels, stride, groups, last, side), small = options, False
        module = nn.Conv2d(channels, 16, 1, stride, groups=groups)
    pointwise.SMALL = 400_000 if small else 0
    layout = torch.channels_last if last else torch.contiguous_format
    module = module.to(memory_format=layout)
    avoid_faulty_kernels(module)
    x = (
        torch.randn(BATCH if side == 8 else 4, channels, side, side)
        .to(memory_format=layout)
        .requires_grad_(kind not in ("stem", "patches"))
    )
    module(x).sum().backward()


def ending(run: Callable[[int], None]) -> tuple[int, int]:
    """How a child ended: minus a signal, or its exit code; and what it noted last."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        run(write)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        noted = len(pipe.read())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), noted


def faults(isa: str, chosen: list[Case]) -> list[tuple[Case, int]]:
    """The combinations that end a process, each with how."""

    def run(pipe: int) -> None:
        os.environ["ONEDNN_MAX_CPU_ISA"] = isa or "DEFAULT"
        for case in rest:
            os.write(pipe, b".")
            step(case)

    found, rest = [], chosen
    while rest:
        code, noted = ending(run)
        if code == 0:
            break
        found.append((rest[noted - 1], code))
        rest = rest[noted:]
    return found


if __name__ == "__main__":
    if "UNGUARDED" in os.environ:  # to see that faults are found, where the machine has any
        subsampled.NARROW = 0
    torch.set_num_threads(1)
    everything = list(cases())
    for isa in sys.argv[1:] or [""]:
        print(json.dumps([isa, len(everything), faults(isa, everything)]), flush=True)
