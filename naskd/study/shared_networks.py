"""Teachers and assistants: made before the trials that need them, once for all of them."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError

from naskd.spec.design import TrialConfig
from naskd.spec.errors import RunError
from naskd.spec.teachers import DEFAULT_NAME
from naskd.study.ledger import Ledger
from naskd.trials.facts import DesignFacts
from naskd.trials.jobs import Job, TrialResult
from naskd.trials.prerequisites import ArtifactRecipe

MAKE_ROOM = "nothing is damaged: make room, and search again to go on"
"""What is to be done about a full disk."""
MAX_BLOCKED = 8
"""Designs that wait for a shared network at once; more would be proposed without having learned anything."""


class SharedNetworks:
    """Which shared networks are there, are being made or cannot be made, and which trials wait for them.

    Args:
        facts: What designs need, and what there is.
        ledger: Of the study.
        teachers: Epochs of the teachers that the study file names; they come before anything else.
    """

    def __init__(self, facts: DesignFacts, ledger: Ledger, teachers: Mapping[str, int]) -> None:
        self._facts = facts
        self._ledger = ledger
        self._epochs = teachers
        self._teachers: deque[ArtifactRecipe] | None = None
        self._making: dict[str, ArtifactRecipe] = {}
        self._unmade: dict[str, str] = {}
        self._waiting: deque[Job] = deque()

    @property
    def waiting(self) -> int:
        """Trials that wait."""
        return len(self._waiting)

    def forget(self) -> None:
        """Nobody waits any more: the session is over."""
        self._waiting.clear()

    def teacher_job(self) -> Job | None:
        """A teacher before anything else: reports compare with it, and a broken one should be known at once."""
        if self._teachers is None:
            self._teachers = deque(self._facts.teachers() if self._epochs else ())
        while self._teachers:
            if (job := self._missing([self._teachers.popleft()], None)) is not None:
                return job
        return None

    def next_waiting(
        self, turn_away: Callable[[int, str], None], lost: Callable[[Job], object]
    ) -> Job | None:
        """A trial whose networks have become ready, or the next network that one of them needs.

        Args:
            turn_away: Called with a trial whose network cannot be made, and why.
            lost: Called with a trial that another driver has taken.
        """
        for _ in range(len(self._waiting)):
            job = self._waiting.popleft()
            if reason := self.unmade_reason(job.requires):
                turn_away(int(job.job_id), reason)
                continue
            found = self._ready(job)
            if found is not job:
                self._waiting.append(job)
            else:
                try:
                    self._ledger.write(int(job.job_id), "blocked", False)
                except UpdateFinishedTrialError:
                    lost(job)
                    continue
            if found is not None:
                return found
        return None

    def begin(self, job: Job) -> Job | None:
        """A new trial: itself, or the network to make for it first, or None while somebody makes that network.

        Raises:
            UpdateFinishedTrialError: Another driver has taken the trial.
        """
        found = self._ready(job)
        if found is not job:
            self._ledger.write(int(job.job_id), "blocked", True)
            self._waiting.append(job)
        return found

    def unmade_reason(self, requires: Sequence[str]) -> str:
        """Why one of these networks cannot be made; empty when all can."""
        return next((self._unmade[a] for a in requires if a in self._unmade), "")

    def tell(self, job: Job, result: TrialResult) -> None:
        """Book a network that was made.

        Raises:
            RunError: A teacher could not be made, or was made again and is not the one that it was; or a disk is full.
        """
        recipe = self._making.pop(job.job_id)
        if result.status != "complete":
            reason = f"the {described(recipe)} could not be made: {result.reason}"
            if result.disk_full:
                raise RunError(f"{reason}; {MAKE_ROOM}")
            if recipe.label == "teacher":
                raise RunError(reason)
            if result.spent_macs:
                self._ledger.book_unmade(job.job_id, result.spent_macs)
            # An assistant is part of a design: the designs that want it are turned away, the others go on.
            self._unmade[job.job_id] = reason
            return
        noted = self._ledger.artifacts[job.job_id] if self._ledger.has_artifact(job.job_id) else {}
        if noted.get("sha256") and result.sha256 not in ("", noted["sha256"]):
            raise RunError(
                f"the {described(recipe)} of this run is not stored any more, and what was made again is another "
                f"(weights {noted['sha256'][:12]}, now {result.sha256[:12]}), so that trials of both could not be "
                f"compared: restore artifact {job.job_id} from a copy, or begin a new run"
            )
        cost = {key: getattr(result, key) for key in ("train_macs", "spent_macs", "wall_seconds")}
        named: dict[str, Any] = {"label": recipe.label, "name": recipe.teacher}
        if result.warnings:
            named["warnings"] = list(result.warnings)
        weights = {"sha256": result.sha256} if result.sha256 else {}
        self._ledger.book_artifact(job.job_id, {**named, **cost, **result.metrics, **weights})

    def _ready(self, trial: Job) -> Job | None:
        """The trial itself, a job that makes what it waits for, or None while somebody makes that."""
        assert trial.config is not None
        recipes = self._facts.recipes(trial.config)
        if all(self._is_made(recipe) for recipe in recipes):
            return trial
        return self._missing(recipes, trial.config)

    def _is_made(self, recipe: ArtifactRecipe) -> bool:
        return self._facts.has_artifact(recipe.artifact_id) and self._ledger.has_artifact(recipe.artifact_id)

    def _missing(self, recipes: list[ArtifactRecipe], config: TrialConfig | None) -> Job | None:
        """A job for the first network that is not there; None when all are, or when that one is being made."""
        recipe = next((r for r in recipes if not self._is_made(r)), None)
        if recipe is None or recipe.artifact_id in self._making:
            return None
        self._making[recipe.artifact_id] = recipe
        label, epochs = described(recipe), self._length(recipe)
        return Job(
            recipe.artifact_id,
            "artifact",
            config,
            recipe.seed,
            epochs,
            recipe.requires,
            label,
            recipe.trained and not self._facts.has_artifact(recipe.artifact_id),
        )

    def _length(self, recipe: ArtifactRecipe) -> int:
        """Epochs until the network is made; 0 where it is loaded."""
        if not recipe.trained or self._facts.has_artifact(recipe.artifact_id):
            return 0
        whole = self._epochs[recipe.teacher] if recipe.assistant is None else recipe.assistant.training.epochs
        return recipe.epoch or whole


def described(recipe: ArtifactRecipe) -> str:
    """A shared network for people: ``teacher``, or ``teacher 'resnet'`` where it has a name of its own."""
    return recipe.label if recipe.teacher == DEFAULT_NAME else f"{recipe.label} {recipe.teacher!r}"
