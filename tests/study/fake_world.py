"""A world in which trainings take no time: what a study asks of the world outside, and made-up results at once."""

import math
from collections.abc import Callable
from dataclasses import replace

import optuna

from naskd.spec.datasets import DataSpec
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    Cost,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
    content_id,
)
from naskd.spec.study import BudgetSpec, StudySpec
from naskd.spec.teachers import TeacherSpec
from naskd.study.study import Study
from naskd.trials.facts import TrainingMacs
from naskd.trials.jobs import Job, TrialResult
from naskd.trials.measures import Measured
from naskd.trials.prerequisites import ArtifactRecipe

IDENTITY = {"epochs": 2, "files": {"space.py": "abc"}, "teacher_hash": "t1", "data_hash": "d1"}
REFERENCE = {"val_accuracy": 0.1, "macs": 1e6, "n_params": 1e4, "forgetting": 1.0}
TEACHER_MACS, ASSISTANT_MACS, TRIAL_MACS = 5000, 700, 10


def student(width: int, depth: int = 1) -> ArchitectureSpec:
    """One stage."""
    return ArchitectureSpec((StageSpec("basic", depth, width),))


ASSISTANTS = {
    name: AssistantSpec(student(width), TrainingSpec(epochs=1)) for name, width in (("a", 100), ("b", 200))
}


def make_spec(trials: int | None = 10, **changes: object) -> StudySpec:
    """A study with a teacher; `changes` replace fields."""
    spec = StudySpec(
        name="fake",
        space="space.py:joint",
        data=DataSpec("digits"),
        budget=BudgetSpec(trials=trials) if trials else BudgetSpec(seconds=1e6),
        teacher=TeacherSpec(architecture=student(300)),
        epochs=2,
    )
    return replace(spec, **changes)


def joint(trial: optuna.Trial) -> TrialConfig:
    """Architecture, knowledge and assistant of some 50,000 designs."""
    width = trial.suggest_int("width", 1, 64)
    depth = trial.suggest_int("depth", 1, 4)
    rate = trial.suggest_categorical("rate", [1e-3, 2e-3, 5e-3, 1e-2])
    taught = trial.suggest_categorical("kd.use", [True, False])
    temperature = trial.suggest_int("kd.temperature", 1, 8)
    assistant = trial.suggest_categorical("kd.assistant", ["none", *ASSISTANTS])
    terms = (KnowledgeTerm("logits", temperature=temperature),) if taught else ()
    chain = (ASSISTANTS[assistant],) if assistant != "none" else ()
    return TrialConfig(
        student(width, depth),
        DistillationSpec(terms=terms, assistants=chain),
        TrainingSpec(learning_rate=rate),
    )


def plain(trial: optuna.Trial) -> TrialConfig:
    """256 designs without knowledge."""
    return TrialConfig(student(trial.suggest_int("width", 1, 64), trial.suggest_int("depth", 1, 4)))


def assisted(trial: optuna.Trial) -> TrialConfig:
    """Every design wants the same assistant."""
    term = KnowledgeTerm("logits", temperature=trial.suggest_int("kd.temperature", 1, 8))
    return TrialConfig(
        student(trial.suggest_int("width", 1, 64)),
        DistillationSpec(terms=(term,), assistants=(ASSISTANTS["a"],)),
    )


class FakeWorld:
    """Artifacts that exist by being named; `log` tells what was made and trained, in order."""

    def __init__(self) -> None:
        self.made: set[str] = set()
        self.log: list[str] = []

    def design_cost(self, config: TrialConfig) -> Cost:
        macs = sum(s.width**2 * s.depth * 10 for s in config.architecture.stages)
        return Cost(macs=macs, n_params=macs // 10 + 1, size_bytes=4 * macs)

    def measured(self, config: TrialConfig) -> Measured:
        return Measured(config, self.design_cost(config), 1, 8, 10)

    def design_problems(self, config: TrialConfig) -> list[str]:
        return []

    def siblings(self, config: TrialConfig) -> list[TrialConfig]:
        return []

    def teachers(self) -> list[ArtifactRecipe]:
        return [ArtifactRecipe("teacher-id", None, (), 1, "teacher")]

    def recipes(self, config: TrialConfig) -> list[ArtifactRecipe]:
        if not config.distillation.terms:
            return []
        chain = self.teachers()
        for assistant in config.distillation.assistants:
            parent = chain[-1].artifact_id
            artifact_id = content_id([assistant.architecture.stages[0].width, parent])
            chain.append(ArtifactRecipe(artifact_id, assistant, (parent,), 2, "assistant"))
        return chain

    def has_artifact(self, artifact_id: str) -> bool:
        return artifact_id in self.made

    def training_macs(self, config: TrialConfig) -> TrainingMacs:
        return TrainingMacs(TRIAL_MACS)

    @property
    def n_val(self) -> int:
        return 100

    def work(self, job: Job) -> TrialResult:
        """What an executor would do with a job."""
        self.log.append(job.job_id if job.kind == "trial" else f"artifact {job.job_id}")
        assert all(artifact in self.made for artifact in job.requires), "a job ran before what it requires"
        if job.kind == "artifact":
            self.made.add(job.job_id)
            macs = TEACHER_MACS if job.job_id == "teacher-id" else ASSISTANT_MACS
            metrics = {"val_accuracy": 0.99, "macs": 1}
            return TrialResult("complete", job.seed, metrics=metrics, train_macs=2 * macs, spent_macs=macs)
        return made_up(job, self.design_cost(job.config))


def made_up(job: Job, cost: Cost) -> TrialResult:
    """A result that depends on design and seed alone."""
    noise = job.seed % 1000 / 1e5
    accuracy = 1 - 0.8 / (1 + math.log1p(cost.macs) / 10) + noise
    metrics = {"val_accuracy": accuracy, "macs": cost.macs, "n_params": cost.n_params}
    curve = tuple({"epoch": e, "val_accuracy": accuracy * e / 2} for e in (1, 2))
    return TrialResult(
        "complete",
        job.seed,
        metrics=metrics,
        curve=curve,
        train_macs=2 * TRIAL_MACS,
        spent_macs=TRIAL_MACS,
        wall_seconds=0.5,
    )


def make_study(
    spec: StudySpec | None = None,
    storage: optuna.storages.BaseStorage | None = None,
    world: FakeWorld | None = None,
    *,
    space: Callable[[optuna.Trial], TrialConfig] = joint,
    identity: dict[str, object] = IDENTITY,
    **changes: object,
) -> Study:
    """A study of the fake world; in memory unless told otherwise."""
    spec = spec or make_spec()
    return Study(
        spec,
        space,
        storage or optuna.storages.InMemoryStorage(),
        world or FakeWorld(),
        identity=identity,
        reference_point={name: REFERENCE[name] for name in spec.objectives},
        **changes,
    )


def drive(study: Study, jobs: int | None = None) -> None:
    """What the serial executor does, `jobs` jobs at most."""
    done = 0
    while (jobs is None or done < jobs) and (job := study.ask()) is not None:
        study.tell(job, study.facts.work(job))
        done += 1


def drive_in_parallel(study: Study, workers: int) -> None:
    """What an executor with `workers` workers does: all of them busy whenever there is work."""
    running: list[Job] = []
    while True:
        while len(running) < workers and (job := study.ask()) is not None:
            running.append(job)
        if not running:
            assert study.finished, "no job is running, none is to be had, and the study is not finished"
            return
        job = running.pop(0)
        study.tell(job, study.facts.work(job))


def states(study: Study) -> list[str]:
    """State of each trial by number."""
    return [trial.state.name for trial in study.optuna_study.get_trials(deepcopy=False)]


def reasons(study: Study) -> list[str]:
    """Reason of each trial by number, empty where there is none."""
    return [t.user_attrs.get("reason", "") for t in study.optuna_study.get_trials(deepcopy=False)]
