"""Trials at once in processes of this machine: several students on a device, of which one may crash alone.

What students on one GPU still have in common is said in :mod:`naskd.executors.local.mps`.

Differs from the Ray executor in what it does without: no cluster, no second scheduler. Workers share the machine's
disk, so teachers, assistants, checkpoints and what teachers said are files that all of them see, and images one piece
of memory. On a GPU each process has a CUDA context and a copy of the images of its own: CIFAR-10 takes 150 MB there,
which CUDA IPC would save at the price of workers that die with the one that owns the memory.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from naskd.executors.attempts import POLL_SECONDS, Attempt, Attempts, interrupts
from naskd.executors.faults import FAULTS
from naskd.executors.local import mps
from naskd.executors.local.shared_arrays import SharedArrays
from naskd.executors.local.worker import Begun, CannotBegin, Worker, WorkerSetup
from naskd.executors.packing import deliver, pack
from naskd.spec.cpus import available_cpus
from naskd.spec.errors import InputError
from naskd.spec.study import ExecutionSpec
from naskd.store.checkpoints import CheckpointStore
from naskd.store.files import process_folder
from naskd.store.students import StudentStore
from naskd.training.compute import Compute
from naskd.trials.context import StudyContext
from naskd.trials.jobs import TrialResult, TrialSource
from naskd.trials.outcome import Work
from naskd.trials.steps import job_steps


@dataclass(eq=False)
class Slot:
    """A place for one trial.

    Args:
        device: Where.
        worker: Warm from an earlier trial; None when there is none (yet, or any more).
        attempt: What it does now.
    """

    device: "Device"
    worker: Worker | None = None
    attempt: Attempt | None = None


@dataclass(eq=False)
class Device:
    """A GPU, or the CPU.

    Args:
        gpu: As ``CUDA_VISIBLE_DEVICES`` names it; None for the CPU.
        slots: Of its trials.
        waiting: An attempt that gets the device alone as soon as nobody uses it.
        doubtful: Whether the service between its processes may have to recover, which it does when all have ended.
    """

    gpu: str | None
    slots: list[Slot] = field(default_factory=list)
    waiting: Attempt | None = None
    doubtful: bool = False

    @property
    def shared(self) -> bool:
        """Whether trials share the memory of a GPU, so that one may find it too full."""
        return self.gpu is not None and len(self.slots) > 1

    @property
    def busy(self) -> int:
        """How many trials run here."""
        return sum(slot.attempt is not None for slot in self.slots)

    @property
    def reserved(self) -> bool:
        """Whether somebody is alone here, or is about to be, or nobody new may come before all have ended."""
        alone = any(slot.attempt is not None and slot.attempt.alone for slot in self.slots)
        return alone or self.waiting is not None or (self.doubtful and self.busy > 0)


def devices_of(execution: ExecutionSpec, compute: Compute) -> list[Device]:
    """The devices of this machine with a place for each trial that may run at once.

    Args:
        execution: The options ``trials_per_device`` and ``workers`` of this executor's card.
        compute: Where trials run.

    Raises:
        InputError: More trials are asked for than `trials_per_device` allows.
    """
    gpus: Sequence[str | None] = _gpus() if compute.device.type == "cuda" else [None]
    settings = execution.settings("processes")
    places, workers = settings["trials_per_device"], settings["workers"]
    if places is None and workers is not None:
        places = -(-workers // len(gpus))
    elif places is None:
        places = 1 if gpus[0] is not None else max(1, available_cpus() // execution.threads)
    held = places * len(gpus)
    if workers is not None and workers > held:
        what = "the CPU is one device" if gpus[0] is None else f"GPUs of this machine: {len(gpus)}"
        raise InputError(
            f"execution.workers = {workers}, but execution.trials_per_device = {places} allows {held}: {what}"
        )
    devices = [Device(gpu) for gpu in gpus]
    for number in range(workers or held):
        device = devices[number % len(devices)]
        device.slots.append(Slot(device))
    return [device for device in devices if device.slots]


def devices_for(context: StudyContext) -> list[Device]:
    """See :func:`devices_of`; for a study's context."""
    return devices_of(context.resources.spec.execution, context.resources.compute)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in visible.split(",")] if visible else []
    count = torch.cuda.device_count()
    return names[:count] if names else [str(number) for number in range(count)]


class ProcessesExecutor:
    """Runs trials and artifacts in processes of this machine, several at once.

    Ctrl-C once finishes and records the running trials, then returns; twice raises ``KeyboardInterrupt`` at once, and
    the running trials are taken up from their checkpoints by the next session.

    Args:
        context: The study's data and networks, in this process.
        folder: The run directory.
        work: How a worker does a job.
    """

    def __init__(self, context: StudyContext, folder: Path, work: Work = job_steps) -> None:
        self.context = context
        self.folder = folder
        self.work = work

    def run(self, source: TrialSource) -> None:
        """See :class:`~naskd.executors.Executor`.

        Raises:
            InputError: What is asked for does not go together; see :func:`devices_of`.
            WorkerError: No worker can begin.
        """
        devices = devices_of(self.context.resources.spec.execution, self.context.resources.compute)
        cache = (self.context.resources.cache or self.folder).absolute()
        packed, arrays = pack(self.context)
        checkpoints = self.context.resources.checkpoints
        assert checkpoints is None or isinstance(checkpoints, CheckpointStore)
        students = self.context.resources.students
        with ExitStack() as cleanup:
            cache.mkdir(parents=True, exist_ok=True)
            shared = SharedArrays(arrays, cache)
            cleanup.callback(shared.close)
            files = Path(cleanup.enter_context(TemporaryDirectory(prefix="files-", dir=process_folder())))
            mps_wanted = self.context.resources.spec.execution.settings("processes")["mps"]
            sharing = mps_wanted and any(device.shared for device in devices)
            variables = cleanup.enter_context(mps.service(sharing))
            environment = {**os.environ, **variables}
            setup = WorkerSetup(
                deliver(packed, files),
                shared,
                self.context.resources.store.root.absolute(),
                None if checkpoints is None else checkpoints.root,
                None if self.context.resources.cache is None else cache,
                self.work,
                self.context.resources.compute.device.type,
                environment=environment,
                students=students.root.absolute() if isinstance(students, StudentStore) else None,
            )
            attempts = Attempts(source, self.context)
            served = partial(mps.await_service, environment) if variables else None
            pool = Pool(attempts, devices, setup, served)
            cleanup.callback(pool.end)
            cleanup.enter_context(interrupts(attempts))
            pool.run()


class Pool:
    """The workers of a search, and who does what.

    Args:
        attempts: Where work comes from and results go.
        devices: With their slots.
        setup: Of each worker.
        served: Waits until the service between the processes of a GPU serves again; None where there is none.
    """

    def __init__(
        self,
        attempts: Attempts,
        devices: Sequence[Device],
        setup: WorkerSetup,
        served: Callable[[], None] | None = None,
    ) -> None:
        self.attempts = attempts
        self.devices = devices
        self.setup = setup
        self.served = served

    @property
    def slots(self) -> list[Slot]:
        """Of all devices."""
        return [slot for device in self.devices for slot in device.slots]

    def run(self) -> None:
        """Work until nothing is left to do."""
        while True:
            self._hand_out()
            if self.attempts.at_end and not any(device.busy or device.waiting for device in self.devices):
                return
            self._listen()

    def end(self) -> None:
        """End all workers; those that still work are killed."""
        workers = [(slot, slot.worker) for slot in self.slots if slot.worker is not None]
        for slot, worker in workers:
            worker.dismiss() if slot.attempt is None else worker.kill()
        for slot, worker in workers:
            worker.await_end()
            slot.worker = slot.attempt = None

    def _hand_out(self) -> None:
        """Give work to whoever has none."""
        for device in self.devices:
            if device.waiting is not None and not device.busy:
                self._begin_alone(device, device.waiting)
        while (slot := self._free_slot()) is not None and (attempt := self.attempts.take()) is not None:
            if not attempt.alone:
                self._begin(slot, attempt)
            elif slot.device.busy:
                slot.device.waiting = attempt
            else:
                self._begin_alone(slot.device, attempt)

    def _free_slot(self) -> Slot | None:
        """On the device that does least; where a worker is warm, if there is such a one."""
        free = [slot for slot in self.slots if slot.attempt is None and not slot.device.reserved]
        return min(free, key=lambda slot: (slot.device.busy, slot.worker is None), default=None)

    def _begin_alone(self, device: Device, attempt: Attempt) -> None:
        """Begin on a device that nobody uses. Idle workers hold memory of it, so they end."""
        device.waiting = None
        self._end_idle(device)
        self._begin(device.slots[0], attempt)

    def _end_idle(self, device: Device) -> None:
        idle = [slot for slot in device.slots if slot.worker is not None and slot.attempt is None]
        for slot in idle:
            assert slot.worker is not None
            # Who has lost the device may not come to an end by itself.
            slot.worker.kill() if device.doubtful else slot.worker.dismiss()
            slot.worker.await_end()
            slot.worker = None

    def _begin(self, slot: Slot, attempt: Attempt) -> None:
        if slot.device.doubtful and self.served is not None:
            self._end_idle(slot.device)  # the service recovers when all its processes have ended
            self.served()
            slot.device.doubtful = False
        if slot.worker is None:
            try:
                slot.worker = Worker(self.setup, slot.device.gpu)
            except OSError as error:
                self.attempts.lose(attempt, f"{error}", begun=False)
                return
        slot.attempt = attempt
        if slot.worker.begun:
            self.attempts.begin(attempt)
        slot.worker.send(attempt.job)

    def _listen(self) -> None:
        """Wait until somebody has something to say, or a while, and hear it."""
        speakers: dict[Any, Slot] = {
            handle: slot
            for slot in self.slots
            if slot.worker is not None
            for handle in slot.worker.waitables()
        }
        # Both handles of one worker may be ready.
        for slot in dict.fromkeys(speakers[handle] for handle in wait(list(speakers), POLL_SECONDS)):
            self._hear(slot)
        for slot in self.slots:
            self._end_overdue(slot)

    def _end_overdue(self, slot: Slot) -> None:
        """Kill a worker whose job, or whose start, takes too long."""
        worker, attempt = slot.worker, slot.attempt
        if worker is None or attempt is None:
            return
        late = "" if worker.begun else self.attempts.limits.start_overdue(worker.started)
        reason = late or self.attempts.overdue(attempt)
        if not reason:
            return
        slot.worker = slot.attempt = None
        worker.kill()
        worker.await_end()
        if late:
            self.attempts.lose(attempt, late, begun=False)
        else:
            self.attempts.fail(attempt, reason)

    def _hear(self, slot: Slot) -> None:
        worker, attempt = slot.worker, slot.attempt
        assert worker is not None
        said = worker.receive()
        if said is None:
            slot.worker = slot.attempt = None
            why = worker.await_end()
            faulty = worker.begun and worker.ended_by in FAULTS
            full = worker.cannot_begin is not None and worker.cannot_begin.out_of_memory
            slot.device.doubtful |= worker.cannot_begin is not None and self.served is not None
            if attempt is None:
                pass  # who dies between two jobs has lost nothing; the next job gets another worker
            elif full and slot.device.shared and not attempt.alone:
                self._end(slot, attempt, TrialResult("failed", attempt.job.seed, why, out_of_memory=True))
            elif faulty:
                self.attempts.fail(attempt, why)
            else:
                self.attempts.lose(attempt, why, begun=worker.begun)
            return
        if isinstance(said, Begun) and attempt is not None:
            self.attempts.begin(attempt)
        if isinstance(said, Begun | CannotBegin):
            return
        assert attempt is not None
        if isinstance(said, TrialResult):
            slot.attempt = None
            if said.device_lost:
                worker.kill()
                worker.await_end()
                slot.worker = None
                slot.device.doubtful = self.served is not None
            self._end(slot, attempt, said)
        else:
            worker.send(self.attempts.report(attempt, said.epoch, said.metrics, said.result))

    def _end(self, slot: Slot, attempt: Attempt, result: TrialResult) -> None:
        self.attempts.end(attempt, result, shares_device=slot.device.shared)
