"""What goes wrong in a worker, by the label of a job. Imported by workers, so it imports no pytest.

``kill@2``: the process gets SIGKILL after epoch 2, before that is reported; ``kill@2 once``: the first time only.
``hang@2``: never ends, and catches whatever it is told.
Likewise ``segfault``, ``exit`` (code 3), and ``orphan``, which kills the server of workers. ``meet@1``: wait
after epoch 1 until another job waits there too. ``patient@1``: until a worker
was turned away. ``hungry@1``: has no memory on a device while others use it.
``faulty@1``: loses the device instead; ``lost@1``: always does; ``fault@1``: does so on a real GPU;
``abandon@1``: is killed while that works for it.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from naskd.trials.context import StudyContext
from naskd.trials.jobs import Job, TrialResult
from naskd.trials.outcome import Steps
from naskd.trials.steps import job_steps

MEET_SECONDS = 60.0


def notes(folder: Path, what: str) -> list[str]:
    """What workers have noted in the study's store, in order."""
    path = folder / what
    return path.read_text().splitlines() if path.is_file() else []


def note(folder: Path, what: str, line: object) -> None:
    """Append a line; short ones of several processes do not mix."""
    with open(folder / what, "a") as file:
        file.write(f"{line}\n")


def await_notes(folder: Path, what: str, n: int) -> None:
    """Wait for the n-th line."""
    deadline = time.monotonic() + MEET_SECONDS
    while len(notes(folder, what)) < n:
        assert time.monotonic() < deadline, f"nobody noted {what}"
        time.sleep(0.005)


def work(job: Job, context: StudyContext) -> Steps:
    """As :func:`~naskd.trials.run.job_steps`, with the mishap of the job's label."""
    folder = context.resources.store.root
    folder.mkdir(parents=True, exist_ok=True)
    note(folder, "pids", f"{job.job_id} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    what, _, at = job.label.partition("@")
    at, _, once = at.partition(" ")
    steps = job_steps(job, context)
    decision: Any = None
    try:
        while True:
            progress = steps.send(decision)
            note(folder, f"epochs-{job.job_id}", progress.epoch)
            if at and progress.epoch == int(at) and not (once and notes(folder, f"done-{job.job_id}")):
                note(folder, f"done-{job.job_id}", what)
                if (result := _mishap(what, job, folder)) is not None:
                    return result
            decision = yield progress
    except StopIteration as end:
        return end.value


def _mishap(what: str, job: Job, folder: Path) -> TrialResult | None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "orphan":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(MEET_SECONDS)
    elif what == "hang":  # and does not let itself be told
        while True:
            with suppress(BaseException):
                time.sleep(MEET_SECONDS)
    elif what == "exit":
        os._exit(3)
    elif what == "meet":
        note(folder, "met", job.job_id)
        await_notes(folder, "met", 2)
    elif what == "patient":
        await_notes(folder, "turned away", 1)
        time.sleep(0.5)
    elif what == "fault":  # on the GPU; whoever asks something of it next is told
        torch.zeros(4, device="cuda")[torch.full((1,), 9, device="cuda")]
    elif what == "abandon":  # killed while the GPU works for it
        x = torch.ones(4096, 4096, device="cuda")
        for _ in range(200):
            x = x @ x
        os.kill(os.getpid(), signal.SIGKILL)
    elif what in ("hungry", "faulty"):
        await_notes(folder, "pids", 4)
        if _others_here(job, folder):
            full = {"reason": "OutOfMemoryError: full", "out_of_memory": True}
            lost = {"reason": "AcceleratorError: a fault", "device_lost": True}
            return TrialResult("failed", seed=job.seed, **(full if what == "hungry" else lost))
        time.sleep(0.2)
        if _others_here(job, folder):
            return TrialResult("failed", seed=job.seed, reason="somebody came")
        note(folder, "alone", job.job_id)
    elif what == "lost":
        return TrialResult("failed", seed=job.seed, reason="AcceleratorError: a fault", device_lost=True)
    return None


def _others_here(job: Job, folder: Path) -> bool:
    """Whether a process that did another job lives on this device."""
    here = os.environ["CUDA_VISIBLE_DEVICES"]
    others = [line.split() for line in notes(folder, "pids")]
    return any(
        number != job.job_id and gpu == here and Path(f"/proc/{pid}").exists() for number, pid, gpu in others
    )


def mapped_file(address: int) -> str:
    """The file that a piece of this process's memory belongs to (Linux)."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return line.split(maxsplit=5)[5] if len(line.split()) > 5 else ""
    return ""


def look_at_memory(job: Job, context: StudyContext) -> Steps:
    """Trains nothing; says where the images are and what the process is like."""
    found = {
        "images": mapped_file(context.resources.data.train.images.data_ptr()),
        "sum": int(context.resources.data.train.images.sum()),
        "labels": context.resources.data.val.labels.tolist(),
        "folder": os.getcwd(),
        "pid": os.getpid(),
        "pipes": os.environ.get("CUDA_MPS_PIPE_DIRECTORY"),
    }
    return TrialResult("complete", seed=job.seed, metrics=found)
    yield
