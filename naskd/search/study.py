"""The study: it proposes designs, books results, and is the only owner of the ``optuna.Study``."""

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from naskd.config import Cost, TrialConfig
from naskd.context import ArtifactRecipe
from naskd.jobs import Decision, Job, TrialResult
from naskd.pareto import hypervolume, objective_space
from naskd.search.admission import count_kinds, problems, settle
from naskd.search.leases import LEASE_SECONDS, RENEW_SECONDS, is_alive, owner_id
from naskd.search.samplers import build_sampler
from naskd.search.storage import one_sync
from naskd.seeds import trial_seed
from naskd.studyfile import StudySpec, identity_difference

SCHEMA_VERSION = 1
MAX_RETRIES = 3
"""How often a design whose process died is run again before it counts as the cause."""
MAX_BLOCKED = 8
"""Designs that wait for a shared network at once; more would be proposed without having learned anything."""
CLAIM_SECONDS = 1.0
"""A running trial without an owner is given this long to name one: its driver may just be about to."""

DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {"val_accuracy": "maximize"}
"""Of each objective; whatever is not named here is a cost and minimised."""

Space = Callable[[optuna.Trial], TrialConfig]


class StudyError(RuntimeError):
    """The study cannot go on; the message is for the user."""


class StudyInputError(StudyError, ValueError):
    """What the study was given cannot be used: its space, its first designs, or a run that was started differently."""


class Resources(Protocol):
    """What the study asks of the world outside: costs of designs and artifacts. A trial context answers."""

    def design_cost(self, config: TrialConfig) -> Cost:
        """Of the deployed network, without building it."""

    def recipes(self, config: TrialConfig) -> list[ArtifactRecipe]:
        """What must exist before the design can be trained, in order."""

    def teacher_recipe(self) -> ArtifactRecipe:
        """The study's teacher, which the study file names."""

    def has_artifact(self, artifact_id: str) -> bool:
        """Whether it is in the store."""


@dataclass(frozen=True)
class Snapshot:
    """Where a study stands, for a progress display."""

    complete: int = 0
    failed: int = 0
    turned_away: int = 0
    running: str = ""
    epoch: int = 0
    epochs: int = 0
    hypervolume: float = 0.0
    best_accuracy: float = math.nan
    train_macs: int = 0
    fraction: float = 0.0
    seconds: float = 0.0
    seconds_left: float = math.nan


@dataclass
class _Books:
    """What the study knows of its trials, rebuilt from the storage when it is opened."""

    trained: dict[tuple[str, int], int] = field(default_factory=dict)
    points: list[tuple[float, ...]] = field(default_factory=list)
    complete: int = 0
    failed: int = 0
    turned_away: dict[int, str] = field(default_factory=dict)
    train_macs: int = 0
    wall_seconds: float = 0.0
    standing: tuple[int, float, float] = (0, 0.0, math.nan)
    """Of how many points, hypervolume, best accuracy: shown after every epoch, changed by complete trials alone."""


class Study:
    """A :class:`~naskd.jobs.TrialSource` over an Optuna study.

    Args:
        spec: The study.
        space: Proposes designs.
        storage: Holds the books.
        resources: Costs and artifacts.
        identity: What a resume must find unchanged: the spec's own identity and the hashes of files and data.
        reference_point: Of the hypervolume, one value an objective; used when the study is created.
        observe: Called with a :class:`Snapshot` whenever something has changed.

    Raises:
        StudyError: The storage holds a study of another identity.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: Space,
        storage: optuna.storages.BaseStorage,
        resources: Resources,
        *,
        identity: Mapping[str, Any],
        reference_point: Mapping[str, float] | None = None,
        observe: Callable[[Snapshot], None] = lambda _: None,
    ) -> None:
        self.spec = spec
        self.space = space
        self.resources = resources
        self.observe = observe
        self.stop_reason = ""
        self._owner = owner_id()
        self._books = _Books()
        self._running: dict[str, Job] = {}
        self._renewed = time.time()
        self._blocked: deque[Job] = deque()
        self._artifacts: dict[str, str] = {}
        self._unmade: dict[str, str] = {}
        self._streak = 0
        self._teacher_asked = False
        self._artifact_seconds = 0.0
        self._study = self._open(storage, identity, reference_point)
        self._recover()
        self._seconds_before = self._books.wall_seconds
        self._started = time.monotonic()

    # --- opening -----------------------------------------------------------------------------------------------

    def _open(
        self,
        storage: optuna.storages.BaseStorage,
        identity: Mapping[str, Any],
        reference_point: Mapping[str, float] | None,
    ) -> optuna.Study:
        names: list[str] = list(self.spec.objectives)
        study = optuna.create_study(
            storage=storage,
            study_name=self.spec.name,
            directions=[DIRECTIONS.get(name, "minimize") for name in names],
            load_if_exists=True,
        )
        known = study.user_attrs.get("identity")
        if known is None:
            if reference_point is None:
                raise StudyError(f"the run holds no study named {self.spec.name!r}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(names)
            study.set_user_attr("schema_version", SCHEMA_VERSION)
            study.set_user_attr("reference_point", dict(reference_point))
            # A study without its identity was never completely created: creating it goes on from there.
            for parameters in self.spec.warm_start[len(study.get_trials(deepcopy=False)) :]:
                study.enqueue_trial(dict(parameters), user_attrs={"warm_start": True})
            study.set_user_attr("identity", dict(identity))
        elif difference := identity_difference(known, dict(identity)):
            lines = "\n  ".join(difference)
            raise StudyInputError(
                f"run {self.spec.name!r} was started differently and cannot be resumed:\n  {lines}\n"
                "undo the change, or start a new run with another name or --out"
            )
        study.sampler = build_sampler(
            self.spec.sampler, self.spec.seed, len(study.get_trials(deepcopy=False))
        )
        return study

    def _recover(self) -> None:
        """Rebuild the books and settle what a dead process has left RUNNING."""
        trials = self._study.get_trials(deepcopy=False)
        if any(_unclaimed(trial) for trial in trials):
            time.sleep(CLAIM_SECONDS)
            trials = self._study.get_trials(deepcopy=False)
        retried = {t.user_attrs["retry_of"] for t in trials if "retry_of" in t.user_attrs}
        for artifact in self._study.user_attrs.get("artifacts", {}).values():
            self._books.train_macs += artifact["spent_macs"] if artifact["label"] != "teacher" else 0
        for trial in trials:
            attrs = trial.user_attrs
            if trial.state is TrialState.RUNNING:
                self._recover_running(trial, trial.number in retried)
            elif trial.state is TrialState.PRUNED and "result" not in attrs:
                self._books.turned_away[trial.number] = attrs.get("reason", "")
            elif trial.state.is_finished() and "result" in attrs:
                self._book(trial.number, attrs["config_id"], TrialResult.from_dict(attrs["result"]))

    def _recover_running(self, trial: FrozenTrial, retried: bool) -> None:
        attrs = trial.user_attrs
        if is_alive(attrs.get("owner", ""), attrs.get("lease", 0.0)):
            if "config_id" in attrs:
                self._books.trained[attrs["config_id"], attrs["seed"]] = trial.number
            return
        if "result" in attrs:
            # Killed between writing the result and closing the trial: nothing is lost.
            result = TrialResult.from_dict(attrs["result"])
            self._close(trial.number, result)
            self._book(trial.number, attrs["config_id"], result)
            return
        # A trial that was waiting for a network has not begun: it cannot be why its process died.
        retries = attrs.get("retries", 0) + (not attrs.get("blocked", False))
        if retries > MAX_RETRIES:
            reason = f"its process died {retries} times"
            result = TrialResult("failed", seed=attrs.get("seed", 0), reason=reason)
            self._set_attr(trial.number, "reason", reason)
            self._set_attr(trial.number, "result", result.to_dict())
            self._close(trial.number, result)
            self._book(trial.number, attrs.get("config_id", ""), result)
            return
        self._run_again(trial, retries, "orphaned: its process ended; run again", enqueue=not retried)

    def _run_again(self, trial: FrozenTrial, retries: int, reason: str, *, enqueue: bool = True) -> None:
        """Close a trial that was not finished, and enqueue the same parameters.

        First the retry, then the end: killed in between, the next resume finds the retry and does not add another.
        """
        # A trial that ended while its space was still asking has a part of its parameters, given ones another.
        parameters = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if enqueue and parameters:
            self._study.enqueue_trial(parameters, user_attrs={"retry_of": trial.number, "retries": retries})
        self._set_attr(trial.number, "reason", reason)
        self._study.tell(trial.number, state=TrialState.FAIL)

    def release(self) -> None:
        """At the end of a session: give back what was not told, so that the next session runs it again."""
        jobs = [*self._running.values(), *self._blocked]
        numbers = {int(job.job_id) for job in jobs if job.kind == "trial"}
        for trial in self._study.get_trials(deepcopy=False):
            if trial.number in numbers and trial.state is TrialState.RUNNING:
                self._run_again(trial, trial.user_attrs.get("retries", 0), "interrupted: run again")
        self._running.clear()
        self._blocked.clear()

    # --- the source --------------------------------------------------------------------------------------------

    @property
    def optuna_study(self) -> optuna.Study:
        """For reading."""
        return self._study

    @property
    def reference_point(self) -> dict[str, float]:
        """Of the hypervolume, fixed when the study was created."""
        return dict(self._study.user_attrs["reference_point"])

    @property
    def train_macs(self) -> int:
        """Really spent on trials and assistants so far, teachers' forward passes included; the ledger of the study."""
        return self._books.train_macs

    @property
    def finished(self) -> bool:
        """No new job will come: the budget is spent, or the space has nothing more to give."""
        return not self._blocked and (bool(self.stop_reason) or self._spent() is not None)

    @property
    def end_reason(self) -> str:
        """Why no new job will come; empty while one may."""
        return self.stop_reason or self._spent() or ""

    def _spent(self) -> str | None:
        budget, books = self.spec.budget, self._books
        if budget.trials is not None:
            open_trials = sum(job.kind == "trial" for job in self._running.values()) + len(self._blocked)
            if books.complete + books.failed + open_trials >= budget.trials:
                return f"all {budget.trials} trials done"
        if budget.seconds is not None and self._elapsed() >= budget.seconds:
            return f"{budget.seconds:g} s are over"
        if budget.train_macs is not None and books.train_macs >= budget.train_macs:
            return f"{budget.train_macs:g} training MACs are spent"
        return None

    def _elapsed(self) -> float:
        """Seconds of search: the trials of earlier sessions, and all of this one."""
        return self._seconds_before + time.monotonic() - self._started

    def ask(self) -> Job | None:
        """See :class:`~naskd.jobs.TrialSource`. Turned-away designs are booked on the way and cost nothing."""
        job = self._teacher_job() or self._next_blocked()
        while job is None and not self.end_reason and len(self._blocked) < MAX_BLOCKED:
            with one_sync(self._study._storage):
                job = self._propose()
        if job is None:
            return None
        self._running[job.job_id] = job
        self._show(job, 0)
        return job

    def _teacher_job(self) -> Job | None:
        """The teacher before anything else: every report compares with it, and a broken one should be known at once."""
        if self.spec.teacher is None or self._teacher_asked:
            return None
        self._teacher_asked = True
        return self._missing([self.resources.teacher_recipe()], None)

    def _next_blocked(self) -> Job | None:
        """A trial whose artifacts have become ready, or the next artifact that one of them needs."""
        for _ in range(len(self._blocked)):
            job = self._blocked.popleft()
            if reason := self._unmade_reason(job.requires):
                self._turn_away(int(job.job_id), reason)
                continue
            found = self._ready(job)
            if found is not job:
                self._blocked.append(job)
            else:
                self._set_attr(int(job.job_id), "blocked", False)
            if found is not None:
                return found
        return None

    def _unmade_reason(self, requires: Sequence[str]) -> str:
        """Why one of these artifacts cannot be made; empty when all can."""
        return next((self._unmade[a] for a in requires if a in self._unmade), "")

    def _ready(self, trial: Job) -> Job | None:
        """The trial itself, an artifact job that it waits for, or None while somebody makes that artifact."""
        assert trial.config is not None
        recipes = self.resources.recipes(trial.config)
        if all(self._is_made(recipe) for recipe in recipes):
            return trial
        return self._missing(recipes, trial.config)

    def _is_made(self, recipe: ArtifactRecipe) -> bool:
        return (
            self.resources.has_artifact(recipe.artifact_id) and recipe.artifact_id in self._booked_artifacts()
        )

    def _missing(self, recipes: list[ArtifactRecipe], config: TrialConfig | None) -> Job | None:
        """A job for the first artifact that is not there; None when all are, or when that one is being made."""
        recipe = next((r for r in recipes if not self._is_made(r)), None)
        if recipe is None or recipe.artifact_id in self._artifacts:
            return None
        self._artifacts[recipe.artifact_id] = recipe.label
        return Job(recipe.artifact_id, "artifact", config, recipe.seed, 0, recipe.requires, recipe.label)

    def _booked_artifacts(self) -> Mapping[str, Any]:
        return dict(self._study.user_attrs.get("artifacts", {}))

    def _propose(self) -> Job | None:
        """One proposal of the sampler: a job, or None when it was turned away."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask()
        trial.set_user_attr("owner", self._owner)
        trial.set_user_attr("lease", time.time() + LEASE_SECONDS)
        config, reason = self._design(trial)
        if config is None:
            self._turn_away(trial.number, reason)
            return None
        self._streak = 0
        seed = trial_seed(self.spec.seed, config.config_id)
        trial.set_user_attr("config", config.to_dict())
        trial.set_user_attr("config_id", config.config_id)
        trial.set_user_attr("seed", seed)
        self._books.trained[config.config_id, seed] = trial.number
        recipes = self.resources.recipes(config)
        job = Job(
            str(trial.number),
            "trial",
            config,
            seed,
            config.training.epochs,
            requires=tuple(r.artifact_id for r in recipes),
        )
        found = self._ready(job)
        if found is not job:
            self._set_attr(trial.number, "blocked", True)
            self._blocked.append(job)
        return found

    def _design(self, trial: optuna.Trial) -> tuple[TrialConfig | None, str]:
        """The settled design of a proposal, or why it is turned away."""
        try:
            with warnings.catch_warnings():
                # An enqueued value out of range only warns; it is turned away below.
                warnings.simplefilter("ignore")
                proposed = self.space(trial)
        except optuna.TrialPruned as pruned:
            return None, f"pruned by the space: {pruned}"
        except ValueError as error:
            return None, f"invalid: {str(error).splitlines()[0]}"
        except Exception as error:  # a user's space may raise anything; the answer names it
            raise self._broken_space(trial, f"raised {type(error).__name__}: {error}") from error
        if not isinstance(proposed, TrialConfig):
            what = f"returned {type(proposed).__name__}; it must return a TrialConfig"
            raise self._broken_space(trial, what)
        for name, distribution in trial.distributions.items():
            if not distribution._contains(distribution.to_internal_repr(trial.params[name])):
                return None, f"out of range: {name} = {trial.params[name]!r}, allowed: {distribution}"
        try:
            config = settle(proposed, self.spec)
            found = problems(config, self.resources.design_cost(config), self.spec)
        except ValueError as error:
            return None, f"invalid: {str(error).splitlines()[0]}"
        if found:
            return None, found[0]
        earlier = self._books.trained.get((config.config_id, trial_seed(self.spec.seed, config.config_id)))
        if earlier is not None:
            return None, f"duplicate: design {config.config_id} is trial {earlier}"
        if reason := self._unmade_reason([r.artifact_id for r in self.resources.recipes(config)]):
            return None, reason
        return config, ""

    def _broken_space(self, trial: optuna.Trial, what: str) -> StudyError:
        message = f"the search space {self.spec.space} {what}"
        self._set_attr(trial.number, "reason", message)
        self._study.tell(trial.number, state=TrialState.FAIL)
        return StudyError(message)

    def _turn_away(self, number: int, reason: str) -> None:
        self._set_attr(number, "reason", reason)
        # PRUNED, not FAIL: samplers ignore FAIL and would ask for the same again.
        self._study.tell(number, state=TrialState.PRUNED)
        self._books.turned_away[number] = reason
        self._streak += 1
        if self._streak >= self.spec.budget.max_turned_away:
            recent = dict(list(self._books.turned_away.items())[-self._streak :])
            counts = ", ".join(f"{kind} ({n})" for kind, n in count_kinds(recent).items())
            self.stop_reason = f"{self._streak} designs in a row were turned away: {counts}; last: {reason}"
        self._show(None, 0)

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        """See :class:`~naskd.jobs.TrialSource`. Renews the leases of all trials that this process holds."""
        if time.time() - self._renewed >= RENEW_SECONDS:
            self.renew()
        self._show(job, epoch)
        return Decision.CONTINUE

    def renew(self) -> None:
        """Renew the leases of all trials that this process holds."""
        self._renewed = time.time()
        with one_sync(self._study._storage):
            for held in (*self._running.values(), *self._blocked):
                if held.kind == "trial":
                    self._set_attr(int(held.job_id), "lease", self._renewed + LEASE_SECONDS)

    def tell(self, job: Job, result: TrialResult) -> None:
        """See :class:`~naskd.jobs.TrialSource`."""
        if self._running.pop(job.job_id, None) is None:
            raise ValueError(f"job {job.job_id} is not running: it was told already, or never asked for")
        if job.kind == "artifact":
            self._tell_artifact(job, result)
            return
        number = int(job.job_id)
        result = _checked(result, self.spec.objectives)
        with one_sync(self._study._storage):
            for name in ("val_accuracy", "macs", "n_params"):
                if name in result.metrics:
                    self._set_attr(number, name, result.metrics[name])
            if result.reason:
                self._set_attr(number, "reason", result.reason)
            self._set_attr(number, "result", result.to_dict())
        self._close(number, result)
        assert job.config is not None
        self._book(number, job.config.config_id, result)
        self._show(None, 0)

    def _tell_artifact(self, job: Job, result: TrialResult) -> None:
        label = self._artifacts.pop(job.job_id)
        self._artifact_seconds += result.wall_seconds
        if result.status != "complete":
            reason = f"the {label} could not be made: {result.reason}"
            if label == "teacher":
                raise StudyError(reason)
            # An assistant is part of a design: the designs that want it are turned away, the others go on.
            self._unmade[job.job_id] = reason
            return
        booked = dict(self._booked_artifacts())
        if job.job_id not in booked:
            booked[job.job_id] = {
                "label": label,
                "train_macs": result.train_macs,
                "spent_macs": result.spent_macs,
                "wall_seconds": result.wall_seconds,
                **result.metrics,
            }
            self._study.set_user_attr("artifacts", booked)
            if label != "teacher":
                self._books.train_macs += result.spent_macs
        self._show(None, 0)

    def _set_attr(self, number: int, key: str, value: Any) -> None:
        trial_id = self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
        self._study._storage.set_trial_user_attr(trial_id, key, value)

    def _close(self, number: int, result: TrialResult) -> None:
        if result.status == "complete":
            self._study.tell(number, values=[result.metrics[name] for name in self.spec.objectives])
        else:
            state = TrialState.PRUNED if result.status == "stopped" else TrialState.FAIL
            self._study.tell(number, state=state)

    def _book(self, number: int, config_id: str, result: TrialResult) -> None:
        books = self._books
        books.trained[config_id, result.seed] = number
        books.train_macs += result.spent_macs
        books.wall_seconds += result.wall_seconds
        if result.status == "complete":
            books.complete += 1
            books.points.append(tuple(result.metrics[name] for name in self.spec.objectives))
        else:
            books.failed += 1

    # --- looking -----------------------------------------------------------------------------------------------

    def hypervolume(self) -> float:
        """Of the complete trials, on accuracy and the logarithms of costs."""
        return self._standing()[0]

    def _standing(self) -> tuple[float, float]:
        """Hypervolume and best accuracy of the complete trials."""
        books, names = self._books, self.spec.objectives
        if books.standing[0] != len(books.points):
            found = study_hypervolume(books.points, names, self.reference_point)
            best = max(point[names.index("val_accuracy")] for point in books.points)
            books.standing = (len(books.points), found, best)
        return books.standing[1:]

    def _seconds_left(self, elapsed: float, fraction: float) -> float:
        """By the time that trials took; making a teacher or an assistant does not happen again."""
        if fraction <= 0:
            return math.nan
        left = (elapsed - self._artifact_seconds) * (1 - fraction) / fraction
        limit = self.spec.budget.seconds
        return left if limit is None else min(left, max(0.0, limit - elapsed))

    def _show(self, job: Job | None, epoch: int) -> None:
        books, budget = self._books, self.spec.budget
        done = books.complete + books.failed
        elapsed = self._elapsed()
        fractions = [
            spent / limit
            for spent, limit in (
                (done, budget.trials),
                (elapsed, budget.seconds),
                (books.train_macs, budget.train_macs),
            )
            if limit
        ]
        fraction = min(1.0, max(fractions, default=0.0))
        running, epochs = "", 0
        if job is not None:
            running = (
                f"trial {job.job_id}" if job.kind == "trial" else self._artifacts.get(job.job_id, "artifact")
            )
            epochs = job.until_epoch
        found, best = self._standing()
        self.observe(
            Snapshot(
                complete=books.complete,
                failed=books.failed,
                turned_away=len(books.turned_away),
                running=running,
                epoch=epoch,
                epochs=epochs,
                hypervolume=found,
                best_accuracy=best,
                train_macs=books.train_macs,
                fraction=fraction,
                seconds=elapsed,
                seconds_left=self._seconds_left(elapsed, fraction),
            )
        )


def study_hypervolume(
    points: list[tuple[float, ...]], names: tuple[str, ...], reference_point: Mapping[str, float]
) -> float:
    """Hypervolume of objective values against a study's reference point, both in raw units."""
    if not points:
        return 0.0
    maximise = [DIRECTIONS.get(name) == "maximize" for name in names]
    reference = objective_space([reference_point[name] for name in names], names)
    return hypervolume(objective_space(points, names), reference, maximise)


def _unclaimed(trial: FrozenTrial) -> bool:
    """Whether a trial was begun a moment ago by a driver that has not yet signed it."""
    if trial.state is not TrialState.RUNNING or "owner" in trial.user_attrs or trial.datetime_start is None:
        return False
    return abs((datetime.now() - trial.datetime_start).total_seconds()) < CLAIM_SECONDS


def _checked(result: TrialResult, objectives: tuple[str, ...]) -> TrialResult:
    """A complete result without a finite value for each objective is a failure."""
    if result.status != "complete":
        return result
    bad = [name for name in objectives if not math.isfinite(result.metrics.get(name, math.nan))]
    return replace(result, status="failed", reason=f"no finite value for {', '.join(bad)}") if bad else result
