"""The study: it proposes designs, books results, and is the only owner of the ``optuna.Study``."""

import logging
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.trial import TrialState

from naskd.spec.design import Cost, TrialConfig
from naskd.spec.errors import InputError, RunError
from naskd.spec.pareto import hypervolume, objective_space
from naskd.spec.seeds import trial_seed
from naskd.spec.study import StudySpec, identity_difference
from naskd.spec.teachers import DEFAULT_NAME
from naskd.study.admission import count_kinds, design_today, problems, settle
from naskd.study.leases import LEASE_SECONDS, owner_id
from naskd.study.ledger import CHOOSING_SECONDS, Books, await_creation
from naskd.study.samplers import build_sampler
from naskd.study.storage import one_sync
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.prerequisites import ArtifactRecipe

_LOG = logging.getLogger(__name__)

SCHEMA_VERSION = 1
MAX_BLOCKED = 8
"""Designs that wait for a shared network at once; more would be proposed without having learned anything."""
LOOK_SECONDS = 5.0
"""How often a driver that is training looks at what the others have done."""

DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {"val_accuracy": "maximize"}
"""Of each objective; whatever is not named here is a cost and minimised."""

Space = Callable[[optuna.Trial], TrialConfig]


class Resources(Protocol):
    """What the study asks of the world outside: costs of designs and artifacts. A trial context answers."""

    def design_cost(self, config: TrialConfig) -> Cost:
        """Of the deployed network, without building it."""

    def design_problems(self, config: TrialConfig) -> list[str]:
        """Why its losses cannot be matched to its networks; empty when they can."""

    def recipes(self, config: TrialConfig) -> list[ArtifactRecipe]:
        """What must exist before the design can be trained, in order."""

    def teachers(self) -> list[ArtifactRecipe]:
        """All teachers of the study, which its file names."""

    def has_artifact(self, artifact_id: str) -> bool:
        """Whether it is in the store."""


@dataclass(frozen=True)
class Snapshot:
    """Where a study stands, for a progress display.

    Args:
        complete, failed, turned_away: Trials.
        running: The job that began or reported last; empty when there is nothing to tell of one.
        epoch, epochs: Of that job: done, and in all where that is known.
        hypervolume, best_accuracy: Of the complete trials.
        train_macs: Spent so far.
        fraction: Of the budget.
        seconds, seconds_left: Of the search.
        waiting_for: So many trials of other drivers, with no own work.
        others: How many more jobs run here.
    """

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
    waiting_for: int = 0
    others: int = 0


class Study:
    """A :class:`~naskd.trials.jobs.TrialSource` over an Optuna study.

    Args:
        spec: The study.
        space: Proposes designs.
        storage: Holds the books.
        resources: Costs and artifacts.
        identity: What a resume must find unchanged: the spec's own identity and the hashes of files and data.
        reference_point: Of the hypervolume, one value an objective; used when the study is created.
        observe: Called with a :class:`Snapshot` whenever something has changed.

    Raises:
        RunError: The storage holds a study of another identity.
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
        self._running: dict[str, Job] = {}
        self._blocked: deque[Job] = deque()
        self._artifacts: dict[str, ArtifactRecipe] = {}
        self._unmade: dict[str, str] = {}
        self._looked = 0.0
        self._streak: list[str] = []
        self._teachers_to_ask: deque[ArtifactRecipe] | None = None
        # Of how many points, hypervolume, best accuracy: shown after every epoch, changed by complete trials alone.
        self._standing_of: tuple[int, float, float] = (0, 0.0, math.nan)
        self._artifact_seconds = 0.0
        self._study = self._open(storage, identity, reference_point)
        self._books = Books(self._study, spec.objectives, lambda config: design_today(config, spec.seed))
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
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=self.spec.name,
                directions=[DIRECTIONS.get(name, "minimize") for name in names],
            )
        except DuplicatedStudyError:
            study = optuna.load_study(study_name=self.spec.name, storage=storage)
            await_creation(study)
        known = study.user_attrs.get("identity")
        if known is None:
            if reference_point is None:
                raise RunError(f"the run holds no study named {self.spec.name!r}")
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
            raise InputError(
                f"run {self.spec.name!r} was started differently and cannot be resumed:\n  {lines}\n"
                "undo the change, or start a new run with another name or --out"
            )
        self._sampler_from: int | None = len(study.get_trials(deepcopy=False))
        study.sampler = build_sampler(self.spec.sampler, self.spec.seed, self._sampler_from)
        return study

    def _recover(self) -> None:
        """Read the books and settle what a dead process has left RUNNING."""
        self._books.open()

    def release(self) -> None:
        """At the end of a session: give back what was not told, so that another session runs it again."""
        for number in sorted(self._books.held):
            self._books.run_again(number, "interrupted: run again")
        self._running.clear()
        self._blocked.clear()

    def renew(self) -> None:
        """Renew the leases of all trials that this process holds. May be called by another thread."""
        self._books.renew()

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
        """No new job will come: the budget is spent, or the space has nothing more to give.

        While trials of other drivers fill the budget it is not spent: one of them may die, and is then run here.
        """
        if self._blocked:
            return False
        return self._spent() is not None or (bool(self.stop_reason) and not self._others_may_fail())

    @property
    def end_reason(self) -> str:
        """Why no new job will come; empty while one may."""
        return self.stop_reason or self._spent() or ""

    def _others_may_fail(self) -> bool:
        return self._books.running_elsewhere > 0 or self._books.waiting_again

    def _spent(self) -> str | None:
        budget, books = self.spec.budget, self._books
        if budget.trials is not None and books.trained + len(books.held) >= budget.trials:
            return f"all {budget.trials} trials done"
        if budget.seconds is not None and self._elapsed() >= budget.seconds:
            return f"{budget.seconds:g} s are over"
        if budget.train_macs is not None and books.train_macs >= budget.train_macs:
            return f"{budget.train_macs:g} training MACs are spent"
        return None

    def _may_propose(self) -> bool:
        """Whether there is room for one more trial, as of now."""
        self._look()
        books, budget = self._books, self.spec.budget
        if len(self._blocked) >= MAX_BLOCKED or self._spent() is not None:
            return False
        if self.stop_reason and not books.waiting_again:
            return False
        taken = books.trained + len(books.held) + books.running_elsewhere
        return budget.trials is None or taken < budget.trials

    def _look(self) -> None:
        """Take in what other drivers have done, and settle what dead ones have left."""
        self._looked = time.monotonic()
        self._books.refresh_and_settle()

    def _elapsed(self) -> float:
        """Seconds of search: the trials of earlier sessions, and all of this one."""
        return self._seconds_before + time.monotonic() - self._started

    def ask(self) -> Job | None:
        """See :class:`~naskd.trials.jobs.TrialSource`. Turned-away designs are booked on the way and cost nothing."""
        job = self._teacher_job() or self._next_blocked()
        while job is None and self._may_propose():
            with one_sync(self._study._storage):
                job = self._propose()
        if job is None:
            if not self._running and not self.finished:
                self._show(None, 0, waiting_for=self._books.running_elsewhere)
            return None
        self._running[job.job_id] = job
        self._show(job, 0)
        return job

    def _teacher_job(self) -> Job | None:
        """A teacher before anything else: reports compare with it, and a broken one should be known at once."""
        if self._teachers_to_ask is None:
            self._teachers_to_ask = deque(self.resources.teachers() if self.spec.teacher_specs() else ())
        while self._teachers_to_ask:
            if (job := self._missing([self._teachers_to_ask.popleft()], None)) is not None:
                return job
        return None

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
                try:
                    self._books.write(int(job.job_id), "blocked", False)
                except UpdateFinishedTrialError:
                    self._lost(job)
                    continue
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
        return self.resources.has_artifact(recipe.artifact_id) and self._books.has_artifact(
            recipe.artifact_id
        )

    def _missing(self, recipes: list[ArtifactRecipe], config: TrialConfig | None) -> Job | None:
        """A job for the first artifact that is not there; None when all are, or when that one is being made."""
        recipe = next((r for r in recipes if not self._is_made(r)), None)
        if recipe is None or recipe.artifact_id in self._artifacts:
            return None
        self._artifacts[recipe.artifact_id] = recipe
        label = described(recipe)
        return Job(recipe.artifact_id, "artifact", config, recipe.seed, 0, recipe.requires, label)

    def _propose(self) -> Job | None:
        """One proposal of the sampler: a job, or None when it was turned away."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
            trial = self._study.ask()
        has_rivals = self._books.hold(trial.number)
        try:
            return self._admit(trial, has_rivals)
        except UpdateFinishedTrialError:
            # Another driver took it for one that a dead driver has left.
            self._books.held.discard(trial.number)
            return None

    def _admit(self, trial: optuna.Trial, has_rivals: bool) -> Job | None:
        """Choose the design of a trial: a job, or None when it is turned away or has to wait."""
        began = time.monotonic()
        if self._sampler_from is not None and self._sampler_from != trial.number:
            # Drivers that begin together would propose the same: the first own number is nobody else's.
            self._study.sampler = build_sampler(self.spec.sampler, self.spec.seed, trial.number)
        self._sampler_from = None
        trial.set_user_attr("owner", self._owner)
        trial.set_user_attr("lease", time.time() + LEASE_SECONDS)
        config, reason = self._design(trial)
        if config is None:
            self._turn_away(trial.number, reason)
            return None
        seed = trial_seed(self.spec.seed, config.config_id)
        trial.set_user_attr("config", config.to_dict())
        trial.set_user_attr("seed", seed)
        # The last of the three: from here on, others know what this trial trains.
        trial.set_user_attr("config_id", config.config_id)
        # Who has taken long may have been given up by others, who then know nothing of this design.
        has_rivals = has_rivals or time.monotonic() - began > CHOOSING_SECONDS
        if has_rivals and not self._is_ours(trial.number, (config.config_id, seed)):
            return None
        self._streak.clear()
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
            self._books.write(trial.number, "blocked", True)
            self._blocked.append(job)
        return found

    def _is_ours(self, number: int, design: tuple[str, int]) -> bool:
        """Whether a trial keeps its design and its place in the budget next to those of other drivers."""
        books, budget = self._books, self.spec.budget
        books.await_earlier(number)
        if (earlier := books.same_design(design, number)) is not None:
            self._turn_away(number, f"duplicate: design {design[0]} is trial {earlier}")
            return False
        if budget.trials is not None and books.turn(number) >= budget.trials:
            books.give_up(number, "trials of other drivers fill the budget")
            return False
        return True

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
        except UpdateFinishedTrialError:
            raise
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
            found = found or self.resources.design_problems(config)
        except ValueError as error:
            return None, f"invalid: {str(error).splitlines()[0]}"
        if found:
            return None, found[0]
        design = config.config_id, trial_seed(self.spec.seed, config.config_id)
        if (earlier := self._books.same_design(design, trial.number)) is not None:
            return None, f"duplicate: design {config.config_id} is trial {earlier}"
        if reason := self._unmade_reason([r.artifact_id for r in self.resources.recipes(config)]):
            return None, reason
        return config, ""

    def _broken_space(self, trial: optuna.Trial, what: str) -> InputError:
        message = f"the search space {self.spec.space} {what}"
        self._books.end(trial.number, TrialState.FAIL, message)
        return InputError(message)

    def _turn_away(self, number: int, reason: str) -> None:
        self._books.turn_away(number, reason)
        self._streak.append(reason)
        n = len(self._streak)
        if n >= self.spec.budget.max_turned_away:
            kinds = count_kinds(dict(enumerate(self._streak)))
            counts = ", ".join(f"{kind} ({k})" for kind, k in kinds.items())
            self.stop_reason = f"{n} designs in a row were turned away: {counts}; last: {reason}"
        self._show(None, 0)

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        """See :class:`~naskd.trials.jobs.TrialSource`."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()
        self._show(job, epoch)
        return Decision.CONTINUE

    def tell(self, job: Job, result: TrialResult) -> None:
        """See :class:`~naskd.trials.jobs.TrialSource`."""
        if self._running.pop(job.job_id, None) is None:
            raise ValueError(f"job {job.job_id} is not running: it was told already, or never asked for")
        if job.kind == "artifact":
            self._tell_artifact(job, result)
            return
        number, books = int(job.job_id), self._books
        assert job.config is not None
        design = job.config.config_id, job.seed
        if not books.alone:
            books.refresh()
            # Drivers that were given up while they chose a design may have chosen the same.
            if (other := books.same_design(design, number)) is not None:
                self._turn_away(number, f"duplicate: design {design[0]} is trial {other}")
                return
        result = _checked(result, self.spec.objectives)
        try:
            with one_sync(self._study._storage):
                for name in ("val_accuracy", "macs", "n_params"):
                    if name in result.metrics:
                        books.write(number, name, result.metrics[name])
                if result.reason:
                    books.write(number, "reason", result.reason)
                books.write(number, "result", result.to_dict())
        except UpdateFinishedTrialError:
            self._lost(job)
            return
        if books.close(number, result):
            books.book(number, design[0], result)
        else:
            self._lost(job)
        self._show(None, 0)

    def _lost(self, job: Job) -> None:
        """Another driver has taken a trial for one that a dead driver has left, and runs it again."""
        self._books.held.discard(int(job.job_id))
        _LOG.warning("trial %s is run again by another driver: its lease had ended", job.job_id)

    def _tell_artifact(self, job: Job, result: TrialResult) -> None:
        recipe = self._artifacts.pop(job.job_id)
        self._artifact_seconds += result.wall_seconds
        if result.status != "complete":
            reason = f"the {described(recipe)} could not be made: {result.reason}"
            if recipe.label == "teacher":
                raise RunError(reason)
            # An assistant is part of a design: the designs that want it are turned away, the others go on.
            self._unmade[job.job_id] = reason
            return
        cost = {key: getattr(result, key) for key in ("train_macs", "spent_macs", "wall_seconds")}
        named = {"label": recipe.label, "name": recipe.teacher}
        self._books.book_artifact(job.job_id, {**named, **cost, **result.metrics})
        self._show(None, 0)

    # --- looking -----------------------------------------------------------------------------------------------

    def hypervolume(self) -> float:
        """Of the complete trials, on accuracy and the logarithms of costs."""
        return self._standing()[0]

    def _standing(self) -> tuple[float, float]:
        """Hypervolume and best accuracy of the complete trials."""
        points, names = self._books.points, self.spec.objectives
        if self._standing_of[0] != len(points):
            found = study_hypervolume(points, names, self.reference_point)
            best = max(point[names.index("val_accuracy")] for point in points)
            self._standing_of = (len(points), found, best)
        return self._standing_of[1:]

    def _seconds_left(self, elapsed: float, fraction: float) -> float:
        """By the time that trials took; making a teacher or an assistant does not happen again."""
        if fraction <= 0:
            return math.nan
        left = (elapsed - self._artifact_seconds) * (1 - fraction) / fraction
        limit = self.spec.budget.seconds
        return left if limit is None else min(left, max(0.0, limit - elapsed))

    def _show(self, job: Job | None, epoch: int, waiting_for: int = 0) -> None:
        books, budget = self._books, self.spec.budget
        elapsed = self._elapsed()
        fractions = [
            spent / limit
            for spent, limit in (
                (books.trained, budget.trials),
                (elapsed, budget.seconds),
                (books.train_macs, budget.train_macs),
            )
            if limit
        ]
        fraction = min(1.0, max(fractions, default=0.0))
        running, epochs = "", 0
        if job is not None:
            running = f"trial {job.job_id}" if job.kind == "trial" else job.label
            epochs = job.until_epoch
        found, best = self._standing()
        self.observe(
            Snapshot(
                complete=books.complete,
                failed=books.failed,
                turned_away=len(books.turned_away),
                running=running,
                waiting_for=waiting_for,
                epoch=epoch,
                epochs=epochs,
                hypervolume=found,
                best_accuracy=best,
                train_macs=books.train_macs,
                fraction=fraction,
                seconds=elapsed,
                seconds_left=self._seconds_left(elapsed, fraction),
                others=len(self._running) - (job is not None),
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


def described(recipe: ArtifactRecipe) -> str:
    """A shared network for people: ``teacher``, or ``teacher 'resnet'`` where it has a name of its own."""
    return recipe.label if recipe.teacher == DEFAULT_NAME else f"{recipe.label} {recipe.teacher!r}"


def _checked(result: TrialResult, objectives: tuple[str, ...]) -> TrialResult:
    """A complete result without a finite value for each objective is a failure."""
    if result.status != "complete":
        return result
    bad = [name for name in objectives if not math.isfinite(result.metrics.get(name, math.nan))]
    return replace(result, status="failed", reason=f"no finite value for {', '.join(bad)}") if bad else result
