"""Weights & Biases: a run for each job, in ``wandb/`` of the run directory; online with a key."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from naskd.loggers.thread import JobLogger, LoggedRun
from naskd.study.observer import StudyObserver


def wandb_logger(folder: Path, study: str) -> StudyObserver:
    """A logger of :data:`~naskd.spec.loggers.LOGGERS`.

    Args:
        folder: The run directory.
        study: Names the project, unless ``WANDB_PROJECT`` does.
    """
    return JobLogger("wandb", lambda: partial(_WandbLog, folder, study))


class _WandbLog:
    """A run; all runs of a search share the one process that wandb starts."""

    def __init__(self, folder: Path, study: str, run: LoggedRun) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or (
            "online" if os.environ.get("WANDB_API_KEY") else "offline"
        )
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or study,
            name=run.name,
            job_type=run.kind,
            config=dict(run.design),
            dir=str(folder),
            mode=mode,
            reinit="create_new",
            # What wandb would capture besides (output, machine load, code) is the driver's, not the trial's.
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True
            ),
        )

    def log(self, epoch: int, values: Mapping[str, int | float]) -> None:
        self.run.log(dict(values), step=epoch, commit=True)

    def close(self, status: str, reason: str, final: Mapping[str, int | float]) -> None:
        self.run.summary.update({**final, "status": status, "reason": reason})
        self.run.finish(exit_code=0 if status in ("complete", "stopped") else 1)
