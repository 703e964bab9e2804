"""Which Tune trial carries which job, what comes next, and how many run at once."""

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.tune.search import Searcher

from naskd.executors.attempts import Attempt, Attempts
from naskd.executors.ray.connect import ClusterError
from naskd.executors.ray.ray_private import why_lost
from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.study import ExecutionSpec
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult, TrialSource

_LOG = logging.getLogger(__name__)

SLOTS_SECONDS = 2.0
"""How long the size of the cluster is believed."""


class Dispatch:
    """What searcher and scheduler share: which Tune trial carries which job, and what comes next.

    An error of the source ends the search and is raised by :meth:`raise_failure`; inside of Tune it would be lost.

    Args:
        source: Of the jobs.
        context: The study's, in this process.
        resources: Of a Tune trial, by attempt; and how many of them may run at once now.
    """

    def __init__(self, source: TrialSource, context: StudyContext, resources: "Resources") -> None:
        self.attempts = Attempts(source, context, ClusterError)
        self.resources = resources
        self._out: dict[str, Attempt] = {}
        self._errors: dict[str, BaseException] = {}
        self._lost_devices = 0
        """Warm workers that will end as soon as Tune gives them another trial."""
        self._failure: BaseException | None = None

    def raise_failure(self) -> None:
        """Raise what ended the search, if something did."""
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        """Whatever the source says must reach the user, not Tune."""
        try:
            yield
        except Exception as error:  # whatever it is, it is raised again when Tune has let go
            self._failure = error

    # --- the searcher's side -----------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next job as a Tune configuration; None when there is none now, ``FINISHED`` when none comes any more."""
        if self._failure is not None:
            return str(Searcher.FINISHED)
        if len(self._out) >= self.resources.slots():
            return None
        attempt = None
        with self._keeping_failure():
            attempt = self.attempts.take()
        if attempt is None:
            ended = self._failure is not None or self.attempts.at_end
            # A running attempt may yet have to be made again.
            return str(Searcher.FINISHED) if ended and not self._out else None
        self._out[trial_id] = attempt
        return {
            "job": job_to_dict(attempt.job),
            "attempt": attempt.number,
            "budget_left": self.attempts.limits.budget_left,
            "resources": self.resources.of(attempt),
        }

    def complete(self, trial_id: str, result: Mapping[str, Any] | None, failed: bool) -> None:
        """A Tune trial has ended: book its job, or hand it out again."""
        attempt = self._out.pop(trial_id, None)
        if attempt is None or self._failure is not None:
            return
        if failed or result is None:
            error = self._errors.pop(trial_id, None)
            if (
                self._lost_devices
                and attempt.result is None
                and isinstance(error, ray.exceptions.RayActorError)
            ):
                self._lost_devices -= 1
                self.attempts.give_back(attempt)
                return
            begun = not (isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed)
            with self._keeping_failure():
                self.attempts.lose(attempt, why_lost(error), begun=begun)
            return
        found = result["trial_result"]
        # The last epoch comes with the end, and Tune asks no scheduler about a trial that has ended.
        if "so_far" in result and self.report(trial_id, result, attempt) is not Decision.CONTINUE:
            found = result["so_far"] or found
        if self._failure is not None:
            return
        assert isinstance(found, TrialResult)
        self._lost_devices += found.device_lost
        with self._keeping_failure():
            self.attempts.end(attempt, found, shares_device=self.resources.shares_device)

    # --- the scheduler's side ----------------------------------------------------------------------------------

    def report(self, trial_id: str, result: Mapping[str, Any], attempt: Attempt | None = None) -> Decision:
        """What the source says to an epoch of a Tune trial."""
        attempt = attempt or self._out.get(trial_id)
        if attempt is None or self._failure is not None:
            return Decision.STOP
        with self._keeping_failure():
            metrics = dict(result["metrics"])
            return self.attempts.report(attempt, result["epoch"], metrics, result["trial_result"])
        return Decision.STOP

    def errored(self, trial_id: str, error: BaseException | None) -> None:
        """Why a Tune trial has failed; the searcher is told afterwards that it did."""
        if error is not None:
            self._errors[trial_id] = error


class Resources:
    """What a trial asks of a cluster, and how many of them it holds.

    Args:
        spec: Of the study.
        own: Whether the cluster is ours, so that nobody will add a node to it.

    Raises:
        InputError: No node of our own cluster can hold a trial.
    """

    def __init__(self, spec: ExecutionSpec, own: bool) -> None:
        self.own = own
        settings = spec.settings("ray")
        self.workers: int | None = settings["workers"]
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0  # type: ignore[no-untyped-call]  # Ray's is not annotated
        default = 1.0 if has_gpus and spec.device != "cpu" else 0.0
        self.cpus = float(settings["cpus_per_trial"] or spec.threads)
        gpus = settings["gpus_per_trial"]
        self.gpus = default if gpus is None else float(gpus)
        self._slots, self._counted = 0, -math.inf
        if not self._held():
            wants = f"a trial wants {self.cpus:g} CPUs and {self.gpus:g} GPUs (execution.cpus_per_trial)"
            there = max(_alive(), key=lambda node: node.get("CPU", 0.0), default={})
            has = f"the largest node has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
            if own:
                raise InputError(f"{wants}; {has}")
            _LOG.warning("%s; %s: the search waits for a node that has them", wants, has)

    @property
    def shares_device(self) -> bool:
        """Whether trials share a GPU, so that one may find it too full."""
        return 0 < self.gpus < 1

    def of(self, attempt: Attempt) -> dict[str, float]:
        """A bundle of Ray's resources."""
        gpus = max(1.0, self.gpus) if attempt.alone else self.gpus
        return {"CPU": self.cpus, **({"GPU": gpus} if gpus else {})}

    def slots(self) -> int:
        """Trials at once: what the cluster holds now, as it grows and shrinks, and what the study allows."""
        if time.monotonic() - self._counted > SLOTS_SECONDS:
            self._slots, self._counted = self._held(), time.monotonic()
        if self.workers is None:
            return max(1, self._slots)
        # One more than a foreign cluster holds shows its autoscaler that there is work.
        return max(1, min(self.workers, self._slots if self.own else self._slots + 1))

    def _held(self) -> int:
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return sum(
            min(math.floor(node.get(name, 0.0) / need + 1e-9) for name, need in wanted.items() if need)
            for node in _alive()
        )


def _alive() -> list[dict[str, float]]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's is not annotated
    return [node["Resources"] for node in nodes if node["Alive"]]


def job_to_dict(job: Job) -> dict[str, Any]:
    """A job as Tune's configuration holds it: plain types, which Tune copies and pickles."""
    return {
        **dataclasses.asdict(job),
        "config": job.config.to_dict() if job.config is not None else None,
        "siblings": [config.to_dict() for config in job.siblings],
    }


def job_from_dict(data: Mapping[str, Any]) -> Job:
    """The inverse of :func:`job_to_dict`."""
    config = TrialConfig.from_dict(data["config"]) if data["config"] is not None else None
    siblings = tuple(TrialConfig.from_dict(one) for one in data["siblings"])
    return Job(**{**data, "config": config, "requires": tuple(data["requires"]), "siblings": siblings})
