"""One training that can stop and go on, and the loop over it that turns every outcome into data."""

import contextlib
import dataclasses
import gc
import io
import logging
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from naskd.data.views import StreamedImages, ViewedImages
from naskd.knowledge.source import KnowledgeSource
from naskd.nn.cost import network_cost
from naskd.schemes import SCHEMES
from naskd.schemes.scheme import Scheme, SchemeInputs
from naskd.spec.design import ArchitectureSpec, AssistantSpec, DistillationSpec, TrainingSpec, TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.seeds import derive_seed
from naskd.training.evaluation import accuracy, predict
from naskd.training.loop import NonFiniteError, TrainingLoop
from naskd.trials.context import ArtifactRecipe, TrialContext
from naskd.trials.jobs import Decision, Job, TrialResult

_LOG = logging.getLogger(__name__)

Report = Callable[[int, Mapping[str, float]], Decision]


class TrialRun:
    """One training of one design with one seed.

    Args:
        distillation, training: Of the design.
        build: Makes a fresh network of the design on the device.
        context: Data and compute.
        seed: Of initialisation and order.
        views: The training images with their views.
        sources: Knowledge of each teacher of the design.
        architecture: Of what `build` makes, where there is one.
    """

    def __init__(
        self,
        distillation: DistillationSpec,
        training: TrainingSpec,
        build: Callable[[], nn.Module],
        context: TrialContext,
        seed: int,
        views: ViewedImages | StreamedImages,
        sources: tuple[KnowledgeSource, ...] = (),
        architecture: ArchitectureSpec | None = None,
    ) -> None:
        self.context = context
        self.curve: list[dict[str, float]] = []
        self.train_macs = 0
        self.spent_macs = 0
        self.asked_images = 0
        self.forward_images = 0
        self.seconds = 0.0
        """Wall time up to the checkpoint that this run was taken up from."""
        self._predictions: Tensor | None = None
        """On the validation images, after the last epoch that this process trained."""
        self._sources = tuple({id(source): source for source in sources}.values())
        channels, resolution = context.input_shape
        inputs = SchemeInputs(
            distillation,
            training.epochs,
            build,
            sources,
            channels,
            resolution,
            n_samples=len(context.data.train),
            architecture=architecture,
            variant=context.build_student,
        )
        with context.compute.drawing(derive_seed("initialisation", seed)):
            self.scheme: Scheme = SCHEMES.load(distillation.scheme)(inputs)
        order_seed = derive_seed("order", seed)
        self.loop = TrainingLoop(self.scheme, training, context.data, views, order_seed, context.compute)
        self.cost = self.scheme.cost
        self._step_macs: dict[str, tuple[float, float]] = {
            phase.name: self.scheme.step_macs(training.batch_size, phase) for phase in self.loop.phases
        }

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.loop.epoch

    @property
    def total_epochs(self) -> int:
        """Length of the schedule, initial stages included."""
        return self.loop.total_epochs

    def macs_per_image(self, epoch: int) -> float:
        """Of a training step in an epoch (from 0), its teachers' forward passes included."""
        trained, asked = self._step_macs[self.loop.phase_of(epoch).name]
        # The backward pass of what is trained costs two forward passes; a teacher is only asked.
        return 3 * trained + asked

    @property
    def equivalent_steps(self) -> float:
        """Steps of the whole training; an evaluation counts as the part of a step that its MACs are."""
        spec, total = self.loop.spec, 0.0
        for epoch in range(self.total_epochs):
            evaluation = len(self.context.data.val) * self.cost.macs / self.macs_per_image(epoch)
            total += (self.loop.images_per_epoch(epoch) + evaluation) / spec.batch_size
        return total

    def advance(self, until_epoch: int) -> dict[str, float]:
        """Train up to the end of epoch `until_epoch` (from 1) and evaluate after each epoch.

        Returns:
            The last epoch's metrics.

        Raises:
            NonFiniteError: See :class:`~naskd.training.loop.TrainingLoop`.
        """
        data = self.context.data
        while self.loop.epoch < until_epoch:
            n_images = self.loop.images_per_epoch(self.loop.epoch)
            before = self._teacher_counts()
            try:
                metrics = self.loop.run_epoch()
            except NonFiniteError:
                self._book(n_images, 0, before)  # it was found out at the end, when all was spent
                raise
            self._predictions = self._predict()
            self._book(n_images, len(data.val), before)
            reached = accuracy(self._predictions, data.val.labels)
            self.curve.append({"epoch": self.loop.epoch, "val_accuracy": reached, **metrics})
        return self.curve[-1]

    def _book(self, n_trained: int, n_evaluated: int, before: tuple[int, int, int]) -> None:
        evaluation = n_evaluated * self.cost.macs
        asked, forward, macs = (now - then for now, then in zip(self._teacher_counts(), before, strict=True))
        self.asked_images += asked
        self.forward_images += forward
        epoch = self.loop.epoch - 1
        trained, _ = self._step_macs[self.loop.phase_of(epoch).name]
        self.train_macs += round(n_trained * self.macs_per_image(epoch)) + evaluation
        self.spent_macs += round(n_trained * 3 * trained) + evaluation + macs

    def _teacher_counts(self) -> tuple[int, int, int]:
        """Of all teachers so far, whoever asked: images asked for, images run, and their MACs."""
        asked = sum(source.asked_images for source in self._sources)
        forward = [(source.forward_images, source.macs) for source in self._sources]
        return asked, sum(n for n, _ in forward), sum(n * macs for n, macs in forward)

    def bank_bytes(self) -> dict[str, int]:
        """Size by id of the banks that are heard."""
        return {source.bank_id: source.size_bytes for source in self._sources if source.size_bytes}

    def agreement(self, recipe: ArtifactRecipe) -> float:
        """Fraction of validation images on which the student names the class that its teacher names."""
        predictions = self._predict() if self._predictions is None else self._predictions
        return accuracy(predictions, self.context.val_predictions(recipe))

    def _predict(self) -> Tensor:
        return predict(self.scheme.deployed, self.context.data.val.images, self.context.compute)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to go on with the same bits."""
        return {
            "loop": self.loop.state_dict(),
            "curve": self.curve,
            "macs": [self.train_macs, self.spent_macs],
            "teacher_images": [self.asked_images, self.forward_images],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"])
        self._predictions = None
        self.curve = list(state["curve"])
        self.train_macs, self.spent_macs = state["macs"]
        self.asked_images, self.forward_images = state.get("teacher_images", (0, 0))
        self.seconds = float(state.get("seconds", 0.0))


def start_run(
    config: TrialConfig, context: TrialContext, seed: int
) -> tuple[TrialRun, ArtifactRecipe | None]:
    """A run of a student with its supervisors loaded; the recipe is its supervisor's, None without one."""
    recipes = context.recipes(config)
    supervisor = recipes[-1] if recipes else None
    augmentation = config.training.augmentation
    chain = context.supervisors(config.distillation, recipes)
    run = TrialRun(
        config.distillation,
        config.training,
        lambda: context.build_student(config.architecture),
        context,
        seed,
        context.views(augmentation),
        tuple(context.source_for(recipe, config.training) for recipe in chain),
        config.architecture,
    )
    return run, supervisor


@dataclass(frozen=True)
class Progress:
    """Where a job stands after an epoch.

    Args:
        epoch: Epochs done, from 1.
        metrics: Of the epoch.
        last: Whether it was the last one.
        result: Of a trial, as if it were stopped here; None for an artifact.
    """

    epoch: int
    metrics: Mapping[str, float]
    last: bool
    result: TrialResult | None = None


Steps = Generator[Progress, Decision, TrialResult]
"""A job that yields after each epoch, is sent the decision, and returns its result. It never raises but for an
interrupt: what a design or a machine does to a training is data."""


Work = Callable[[Job, TrialContext], Steps]
"""How a worker does a job: :func:`job_steps`, but for tests of what a worker may do."""


def checkpoint_key(job: Job) -> str:
    """Under which a job's state is kept: its training, whatever its number in the books."""
    return (
        job.job_id if job.config is None or job.kind == "artifact" else f"{job.config.config_id}-{job.seed}"
    )


def job_steps(job: Job, context: TrialContext) -> Steps:
    """A job of either kind, epoch by epoch, for executors that are called back by an engine."""
    return trial_steps(job, context) if job.kind == "trial" else artifact_steps(job, context)


def run_job(job: Job, context: TrialContext, report: Report) -> TrialResult:
    """Do a job to its end, or until the source says stop.

    Args:
        job: A trial or an artifact.
        context: The study's, on this process.
        report: Called after each epoch with the epoch (from 1) and its metrics.
    """
    steps = job_steps(job, context)
    try:
        progress = next(steps)
        while True:
            progress = steps.send(report(progress.epoch, progress.metrics))
    except StopIteration as end:
        return cast(TrialResult, end.value)


def trial_steps(job: Job, context: TrialContext) -> Steps:
    """Train a student; see :data:`Steps`.

    Where the context keeps checkpoints, the training goes on from its newest one.
    """
    started = time.perf_counter()
    environment = context.compute.environment()
    run: TrialRun | None = None

    def result(
        status: Literal["complete", "failed", "stopped"], reason: str = "", **more: Any
    ) -> TrialResult:
        return TrialResult(
            status,
            seed=job.seed,
            reason=reason,
            metrics=_metrics(run) if run is not None and run.curve else {},
            curve=tuple(run.curve) if run is not None else (),
            train_macs=run.train_macs if run is not None else 0,
            spent_macs=run.spent_macs if run is not None else 0,
            asked_images=run.asked_images if run is not None else 0,
            forward_images=run.forward_images if run is not None else 0,
            bank_bytes=run.bank_bytes() if run is not None else {},
            wall_seconds=(run.seconds if run is not None else 0.0) + time.perf_counter() - started,
            environment=environment,
            **more,
        )

    try:
        assert job.config is not None
        run, recipe = start_run(job.config, context, job.seed)
        _take_up(run, job, context)
        started = time.perf_counter()
        last = min(job.until_epoch, run.total_epochs)
        while run.epoch < last:
            metrics = run.advance(run.epoch + 1)
            reason = f"stopped by the stopping rule after epoch {run.epoch}"
            so_far = result("stopped", reason)
            waited = time.perf_counter()
            decision = yield Progress(run.epoch, metrics, run.epoch == last, so_far)
            started += time.perf_counter() - waited
            if decision is not Decision.CONTINUE:
                return so_far
            _leave(run, job, context, last, started)
        agreement = run.agreement(recipe) if recipe is not None else None
        return result("complete", teacher_agreement=agreement)
    except NonFiniteError as failure:
        return result("failed", str(failure))
    except Exception as failure:  # the one broad except: whatever a design does, the study must go on
        return result("failed", **_failure(failure, context))
    finally:
        # The traceback of a failure would keep the networks alive.
        run = None
        _free(context)


def artifact_steps(job: Job, context: TrialContext) -> Steps:
    """Make a teacher or an assistant and store it; at once when it is stored already. See :data:`Steps`.

    The result carries what the making cost, whoever made it. A foreign teacher that does not fit its
    checkpoint or the data, and a training that diverges, are failures with a reason.
    """
    started = time.perf_counter()
    spent: list[TrialRun] = []
    try:
        chain = [context.teacher_recipe()] if job.config is None else context.recipes(job.config)
        position = next(i for i, recipe in enumerate(chain) if recipe.artifact_id == job.job_id)
        recipe, parent = chain[position], chain[position - 1] if position else None
        with context.store.claim(recipe.artifact_id) as wanted:
            if wanted:
                yield from _make(job, recipe, parent, chain, context, spent)
            manifest = context.store.manifest(recipe.artifact_id)
    except (
        Exception
    ) as failure:  # as for a trial: a full disk or a lost connection is no reason to lose the books
        known = isinstance(failure, InputError | NonFiniteError)
        return TrialResult(
            "failed",
            seed=job.seed,
            train_macs=sum(run.train_macs for run in spent),
            spent_macs=sum(run.spent_macs for run in spent),
            wall_seconds=time.perf_counter() - started,
            **({"reason": str(failure)} if known else _failure(failure, context)),
        )
    finally:
        spent.clear()
        _free(context)
    return TrialResult(
        status="complete",
        seed=recipe.seed,
        metrics={k: manifest[k] for k in ("val_accuracy", "macs", "n_params", "size_bytes")},
        curve=tuple(manifest["curve"]),
        train_macs=manifest["train_macs"],
        spent_macs=manifest["spent_macs"],
        wall_seconds=time.perf_counter() - started,
        environment=context.compute.environment(),
    )


def _metrics(run: TrialRun) -> dict[str, float]:
    return {
        "val_accuracy": run.curve[-1]["val_accuracy"],
        "best_val_accuracy": max(point["val_accuracy"] for point in run.curve),
        "macs": run.cost.macs,
        "n_params": run.cost.n_params,
        "size_bytes": run.cost.size_bytes,
        "train_macs": run.train_macs,
    }


def _failure(failure: Exception, context: TrialContext) -> dict[str, Any]:
    said = str(failure).splitlines()
    full = isinstance(failure, torch.cuda.OutOfMemoryError)
    return {
        "reason": f"{type(failure).__name__}: {said[0] if said else 'no message'}",
        "error": traceback.format_exc(),
        "out_of_memory": full,
        "device_lost": not full and not context.compute.answers(),
    }


def _free(context: TrialContext) -> None:
    """Give the device's memory back, so that a neighbour on it can have it."""
    if context.compute.device.type == "cuda":
        gc.collect()
        # Torch before 2.12 asserts here after a recording that failed; the memory is then only given back later.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


def _take_up(run: TrialRun, job: Job, context: TrialContext) -> None:
    """Go on from the newest checkpoint of the same training."""
    data = context.checkpoints.load(checkpoint_key(job)) if context.checkpoints is not None else None
    if data is not None:
        state = torch.load(io.BytesIO(data), map_location=context.compute.device, weights_only=True)
        run.load_state_dict(state)


def _leave(run: TrialRun, job: Job, context: TrialContext, last: int, started: float) -> None:
    """Keep the state of a training at the epochs that the study chose, but not of one that is over."""
    every = context.spec.execution.checkpoint_every
    if context.checkpoints is None or not every or run.epoch % every or run.epoch == last:
        return
    state = io.BytesIO()
    seconds = run.seconds + time.perf_counter() - started
    torch.save({**run.state_dict(), "seconds": seconds}, state)
    try:
        context.checkpoints.save(checkpoint_key(job), run.epoch, state.getvalue())
    except OSError as error:
        _LOG.warning("no checkpoint after epoch %d: %s; the training goes on without", run.epoch, error)


def teacher_run(context: TrialContext) -> TrialRun:
    """The training of the study's own teacher, from scratch or from a torchvision network."""
    assert context.spec.teacher is not None
    training, seed = context.spec.teacher.training, context.teacher_recipe().seed
    views = context.views(training.augmentation)
    return TrialRun(DistillationSpec(), training, context.build_trainable_teacher, context, seed, views)


def assistant_run(
    recipe: ArtifactRecipe, assistant: AssistantSpec, parent: ArtifactRecipe, context: TrialContext
) -> TrialRun:
    """The distillation of an assistant from the stored network above it."""
    return TrialRun(
        DistillationSpec(terms=assistant.terms, ce_weight=assistant.ce_weight).canonical(),
        assistant.training,
        lambda: context.build_student(assistant.architecture),
        context,
        recipe.seed,
        context.views(assistant.training.augmentation),
        (context.source_for(parent, assistant.training),),
    )


def _make(
    job: Job,
    recipe: ArtifactRecipe,
    parent: ArtifactRecipe | None,
    others: Sequence[ArtifactRecipe],
    context: TrialContext,
    spent: list[TrialRun],
) -> Generator[Progress, Decision, None]:
    """Make and store it; the training, if there is one, is noted in `spent`. Nobody stops an artifact.

    States that the same training passes through, and that are among `others`, are stored on the way.
    """
    started = time.perf_counter()
    run: TrialRun | None = None
    if recipe.assistant is not None:
        assert parent is not None
        run = assistant_run(recipe, recipe.assistant, parent, context)
    elif context.trains_teacher:
        run = teacher_run(context)
    if run is not None:
        spent.append(run)
        _take_up(run, job, context)
        last = recipe.epoch or run.total_epochs
        while run.epoch < last:
            metrics = run.advance(run.epoch + 1)
            yield Progress(run.epoch, metrics, run.epoch == last)
            _leave(run, job, context, last, started)
            _keep_earlier(run, recipe, others, context)
        state = {name: tensor.detach().cpu() for name, tensor in run.scheme.deployed.state_dict().items()}
    else:
        state = context.teacher_checkpoint()
    seconds = (run.seconds if run is not None else 0.0) + time.perf_counter() - started
    cost = {
        "train_macs": run.train_macs if run is not None else 0,
        "spent_macs": run.spent_macs if run is not None else 0,
        "wall_seconds": seconds,
        "curve": run.curve if run is not None else [],
    }
    _keep(recipe, state, context, cost)


def _keep_earlier(
    run: TrialRun, recipe: ArtifactRecipe, others: Sequence[ArtifactRecipe], context: TrialContext
) -> None:
    """Store a state of a teacher that somebody will ask for; its cost is booked with the training that is going on."""
    for other in others:
        if other.epoch == run.epoch and other != recipe and other.artifact_id not in context.store:
            state = {name: x.detach().cpu().clone() for name, x in run.scheme.deployed.state_dict().items()}
            free = {"train_macs": 0, "spent_macs": 0, "wall_seconds": 0.0, "curve": list(run.curve)}
            _keep(other, state, context, free)


def _keep(
    recipe: ArtifactRecipe, state: Mapping[str, Tensor], context: TrialContext, cost: Mapping[str, Any]
) -> None:
    network = context.frozen_network(recipe, state)
    deployed = network_cost(network, *context.input_shape)
    predictions = predict(network, context.data.val.images, context.compute)
    context.store.save(
        recipe.artifact_id,
        state,
        {
            "label": recipe.label,
            "requires": list(recipe.requires),
            "seed": recipe.seed,
            "val_accuracy": accuracy(predictions, context.data.val.labels),
            **dataclasses.asdict(deployed),
            **cost,
            "environment": context.compute.environment(),
        },
    )
