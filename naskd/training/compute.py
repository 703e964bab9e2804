"""What a training runs on: device, precision, memory format, threads."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

import naskd
from naskd.spec.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Compute:
    """Resolved choices; ``resolve`` makes them from what a study file says.

    Args:
        device: ``cpu`` or ``cuda[:n]``.
        bfloat16: Autocast the networks to bfloat16 (losses stay in float32).
        channels_last: Keep maps as NHWC.
        threads: Intra-operation threads on the CPU; bits differ between counts.
        cuda_graphs: Record training steps as CUDA graphs where that is faster; see :mod:`naskd.training.cuda_graph`.
    """

    device: torch.device
    bfloat16: bool = False
    channels_last: bool = False
    threads: int = 1
    cuda_graphs: bool = False

    @staticmethod
    def resolve(
        device: str = "auto",
        precision: Precision = "auto",
        channels_last: bool | Literal["auto"] = "auto",
        threads: int = 1,
        cuda_graphs: bool = True,
    ) -> "Compute":
        """Fill in ``auto``: the first GPU if there is one, channels_last everywhere, bfloat16 on GPUs that have it.

        On the CPU, channels_last made a training step of digits students 0.68 to 0.96 times as long, most with
        depthwise convolutions; bfloat16 there gains only with matrix extensions, and is a choice.

        Raises:
            InputError: CUDA was asked for and is not there.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(f"device = {device!r}, but torch sees no CUDA device; use 'auto' or 'cpu'")
        on_gpu = device.startswith("cuda")
        return Compute(
            device=torch.device(device),
            bfloat16=(on_gpu and torch.cuda.is_bf16_supported())
            if precision == "auto"
            else precision == "bfloat16",
            channels_last=True if channels_last == "auto" else channels_last,
            threads=threads,
            cuda_graphs=cuda_graphs and on_gpu,
        )

    def place(self, network: nn.Module) -> nn.Module:
        """Move to the device, in the memory format."""
        if self.channels_last:
            return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
        return network.to(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """The context that forward passes run in."""
        if self.bfloat16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    @contextmanager
    def drawing(self, seed: int) -> Iterator[None]:
        """Inside, torch's generators begin at `seed`; afterwards they are where they were."""
        on_gpu = self.device.type == "cuda"
        with torch.random.fork_rng([self.device] if on_gpu else []):
            if on_gpu:
                torch.manual_seed(seed)
            else:  # a hundred times as fast, since devices that are not there are not told
                torch.default_generator.manual_seed(seed)
            yield

    def answers(self) -> bool:
        """Whether the device still does what this process asks: after a fault on a GPU it never does again."""
        if self.device.type != "cuda":
            return True
        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError:
            return False
        return True

    def apply_threads(self) -> None:
        """Set this process's thread count, and let it keep the memory that it frees."""
        torch.set_num_threads(self.threads)
        _keep_freed_memory()

    def environment(self) -> dict[str, str | int | float]:
        """Versions and settings, for the ledger."""
        return {
            "naskd": naskd.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "device": str(self.device),
            "device_name": torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else platform.processor(),
            "host": platform.node(),
            "threads": self.threads,
            "precision": "bfloat16" if self.bfloat16 else "float32",
            "channels_last": int(self.channels_last),
        }


def _keep_freed_memory() -> None:
    """Ask glibc not to return freed memory to the system after each step, which faults it in again in the next.

    A step of a digits student took up to 840 page faults, a millisecond of its five to ten; afterwards none. Another C
    library has other habits, and is left alone.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc takes
        mallopt(_M_TRIM_THRESHOLD, 2**29)
