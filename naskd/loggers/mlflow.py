"""MLflow: a run for each job, in ``mlflow.db`` of the run directory or where ``MLFLOW_TRACKING_URI`` says."""

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from naskd.loggers.thread import JobLogger, LoggedRun, unlike
from naskd.study.observer import StudyObserver


def mlflow_logger(folder: Path, study: str) -> StudyObserver:
    """A logger of :data:`~naskd.spec.loggers.LOGGERS`.

    Args:
        folder: The run directory.
        study: Names the experiment, unless ``MLFLOW_EXPERIMENT_NAME`` does.
    """
    return JobLogger("mlflow", partial(_MLflow, folder, study))


class _MLflow:
    """An experiment.

    Its client is our own: ``mlflow.set_tracking_uri`` also sets ``MLFLOW_TRACKING_URI``, and the next search of
    this process would write to the file of this one.
    """

    def __init__(self, folder: Path, study: str) -> None:
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or study
        self.client = MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
        found = self.client.get_experiment_by_name(name)
        self.experiment: str = (
            found.experiment_id
            if found is not None
            else self.client.create_experiment(
                name, artifact_location=None if uri else (folder / "mlflow-artifacts").as_uri()
            )
        )

    def __call__(self, run: LoggedRun) -> "_MLflowLog":
        return _MLflowLog(self.client, self.experiment, run)


class _MLflowLog:
    """A run; an epoch is one transaction."""

    def __init__(self, client: Any, experiment: str, run: LoggedRun) -> None:
        from mlflow.entities import Param

        self.client, self.epoch = client, 0
        self.logged: Mapping[str, int | float] = {}
        created = client.create_run(experiment, run_name=run.name, tags={"kind": run.kind})
        self.run_id: str = created.info.run_id
        parameters = [Param(name, str(value)) for name, value in run.design.items()]
        for start in range(0, len(parameters), 100):  # as many as a batch may hold
            client.log_batch(self.run_id, params=parameters[start : start + 100])

    def log(self, epoch: int, values: Mapping[str, int | float]) -> None:
        self.epoch, self.logged = epoch, values
        self._log(values, {})

    def close(self, status: str, reason: str, final: Mapping[str, int | float]) -> None:
        self._log(unlike(self.logged, final), {"status": status, "reason": reason})
        words = {"failed": "FAILED", "interrupted": "KILLED"}
        self.client.set_terminated(self.run_id, words.get(status, "FINISHED"))

    def _log(self, values: Mapping[str, int | float], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id,
            metrics=[Metric(name, float(value), now, self.epoch) for name, value in values.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
