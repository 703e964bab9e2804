"""Devices that time networks; their cards are in :mod:`naskd.spec.devices`."""

import math
import platform
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from naskd.spec.errors import InputError, RunError

Timer = Callable[[], float]
"""Runs a network on one image several times; the fastest run, in ms."""

LEAST_RUNS = 5
LEAST_SECONDS = 0.01
"""A timer runs a network so often and so long at least."""


class Device(Protocol):
    """Runs networks on one image at a time.

    Args:
        hardware: What it is.
        runtime: What runs networks there, with its version.
    """

    hardware: str
    runtime: str

    def timer(self, network: nn.Module, file: Path, image: Tensor) -> Timer:
        """Load a network; the device may hold hundreds of them at once.

        Args:
            network: In evaluation mode, on the CPU.
            file: The same as ONNX, ``images`` in and ``logits`` out; not there where the device's card says that it
                reads none.
            image: ``(1, C, H, W)`` float32 in [0, 1].

        Raises:
            RunError: It cannot be run.
        """


def fastest(run: Callable[[], object]) -> float:
    """Milliseconds of the fastest of several runs, after one that is not timed."""
    run()
    best, runs, end = float("inf"), 0, time.perf_counter() + LEAST_SECONDS
    while runs < LEAST_RUNS or time.perf_counter() < end:
        began = time.perf_counter()
        run()
        best, runs = min(best, time.perf_counter() - began), runs + 1
    return 1e3 * best


def cpu_name() -> str:
    """The processor of this machine, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), platform.processor() or platform.machine())


class OnnxRuntimeDevice:
    """ONNX Runtime on a CPU.

    Args:
        threads: Of a network.
    """

    def __init__(self, threads: int) -> None:
        import onnxruntime

        self._runtime = onnxruntime
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        self.hardware = cpu_name()
        self.runtime = f"onnxruntime {onnxruntime.__version__}"

    def timer(self, network: nn.Module, file: Path, image: Tensor) -> Timer:
        """See :class:`Device`."""
        session = self._runtime.InferenceSession(
            file.read_bytes(), self._options, providers=["CPUExecutionProvider"]
        )
        given = {"images": image.numpy()}
        return lambda: fastest(lambda: session.run(None, given))


class TorchDevice:
    """PyTorch, on a GPU by CUDA events.

    Args:
        on: ``cuda`` or ``cpu``.
        threads: Of a network on a CPU.

    Raises:
        InputError: There is no GPU.
    """

    def __init__(self, on: str, threads: int) -> None:
        if on == "cuda" and not torch.cuda.is_available():
            raise InputError("device 'torch' is to run on cuda, but no GPU is here; allowed: --option on=cpu")
        self._on, self._threads = on, threads
        self.hardware = torch.cuda.get_device_name() if on == "cuda" else cpu_name()
        self.runtime = f"torch {torch.__version__}"

    def timer(self, network: nn.Module, file: Path, image: Tensor) -> Timer:
        """See :class:`Device`."""
        placed, given = network.to(self._on), image.to(self._on)
        return self._timed_on_gpu(placed, given) if self._on == "cuda" else self._timed_on_cpu(placed, given)

    def _timed_on_cpu(self, network: nn.Module, image: Tensor) -> Timer:
        def timed() -> float:
            before = torch.get_num_threads()
            torch.set_num_threads(self._threads)
            try:
                with torch.inference_mode():
                    return fastest(lambda: network(image))
            finally:
                torch.set_num_threads(before)

        return timed

    @staticmethod
    def _timed_on_gpu(network: nn.Module, image: Tensor) -> Timer:
        def timed() -> float:
            best, runs, end = float("inf"), 0, time.perf_counter() + LEAST_SECONDS
            begin, done = _cuda_event(), _cuda_event()
            with torch.inference_mode():
                network(image)
                torch.cuda.synchronize()
                while runs < LEAST_RUNS or time.perf_counter() < end:
                    begin.record()
                    network(image)
                    done.record()
                    done.synchronize()
                    best, runs = min(best, begin.elapsed_time(done)), runs + 1
            return best

        return timed


def _cuda_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's is not annotated


class CommandDevice:
    """A program that gets the path of an ONNX file as its last argument and prints milliseconds in its last line.

    Args:
        command: The program with its arguments, as a shell would read them; no shell is started.
        hardware: What networks run on; default the command.
        seconds: That a call may take.
    """

    def __init__(self, command: str, hardware: str, seconds: float) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise InputError(f"option 'command' of device 'command' is {command!r}: {error}") from error
        if not self._command:
            raise InputError(
                "option 'command' of device 'command' is empty; allowed: a program with its arguments"
            )
        self._seconds = seconds
        self.hardware = hardware or command
        self.runtime = command

    def timer(self, network: nn.Module, file: Path, image: Tensor) -> Timer:
        """See :class:`Device`."""
        return lambda: self._asked(file)

    def _asked(self, file: Path) -> float:
        call: list[Any] = [*self._command, str(file)]
        try:
            done = subprocess.run(call, capture_output=True, text=True, timeout=self._seconds)
        except OSError as error:
            raise InputError(
                f"device 'command': {self._command[0]} cannot be run: {error.strerror}"
            ) from error
        except subprocess.TimeoutExpired:
            raise RunError(
                f"device 'command': {shlex.join(call)} took longer than {self._seconds:g} s"
            ) from None
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
            raise RunError(f"device 'command': {shlex.join(call)} ended with {done.returncode}: {said}")
        last = (done.stdout.strip().splitlines() or [""])[-1]
        try:
            found = float(last)
        except ValueError:
            found = math.nan
        if not (math.isfinite(found) and found > 0):
            raise RunError(
                f"device 'command': the last line of {shlex.join(call)} is {last[:80]!r}; "
                "it must be milliseconds, a number above 0"
            )
        return found
