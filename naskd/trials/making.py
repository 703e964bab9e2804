"""How a teacher or an assistant is made and stored, once for all trials that want it."""

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from torch import Tensor

from naskd.networks.probe import probe_of
from naskd.nn.cost import network_cost
from naskd.schemes.scheme import TrainingOverError
from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.sizes import sides
from naskd.store.artifacts import DamagedArtifactError
from naskd.training.evaluation import accuracy, predict
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.outcome import Progress, Steps, failure_facts, free_memory, leave, passes_on, take_up
from naskd.trials.prerequisites import ArtifactRecipe
from naskd.trials.run import TrialRun, assistant_run, teacher_run
from naskd.trials.teacher_trial import examine

_LOG = logging.getLogger(__name__)


def artifact_steps(job: Job, context: StudyContext) -> Steps:
    """Make a teacher or an assistant and store it; at once when it is stored already. See :data:`Steps`.

    The result carries what the making cost, whoever made it. A foreign teacher that does not fit its
    checkpoint or the data, and a training that diverges, are failures with a reason.
    """
    started = time.perf_counter()
    spent: list[TrialRun] = []
    try:
        prerequisites = context.prerequisites
        chain = prerequisites.teachers() if job.config is None else prerequisites.of(job.config).made
        known = {recipe.artifact_id: recipe for recipe in (*chain, *prerequisites.foreseen_states())}
        recipe = known[job.job_id]
        with context.resources.store.claim(recipe.artifact_id) as wanted:
            if wanted:
                yield from _make(job, recipe, known, context, spent)
            manifest = context.resources.store.manifest(recipe.artifact_id)
    except BaseException as failure:
        # As for a trial: a full disk or a lost connection is no reason to end the search.
        if passes_on(failure):
            raise
        expected = isinstance(failure, InputError | TrainingOverError)
        return TrialResult(
            "failed",
            seed=job.seed,
            train_macs=sum(run.train_macs for run in spent),
            spent_macs=sum(run.spent_macs for run in spent),
            wall_seconds=time.perf_counter() - started,
            **({"reason": str(failure)} if expected else failure_facts(failure, context)),
        )
    finally:
        spent.clear()
        free_memory(context)
    return TrialResult(
        status="complete",
        seed=recipe.seed,
        metrics={k: manifest[k] for k in ("val_accuracy", "macs", "n_params", "size_bytes")},
        curve=tuple(manifest["curve"]),
        warnings=tuple(manifest.get("warnings", ())),
        train_macs=manifest["train_macs"],
        spent_macs=manifest["spent_macs"],
        wall_seconds=time.perf_counter() - started,
        environment=context.resources.compute.environment(),
        sha256=manifest["sha256"],
    )


def _make(
    job: Job,
    recipe: ArtifactRecipe,
    known: Mapping[str, ArtifactRecipe],
    context: StudyContext,
    spent: list[TrialRun],
) -> Generator[Progress, Decision, None]:
    """Make and store it; the training, if there is one, is noted in `spent`. Nobody stops an artifact.

    States that the same training passes through, and that are among `known`, are stored on the way.
    """
    started = time.perf_counter()
    run: TrialRun | None = None
    notes: tuple[str, ...] = ()
    if recipe.assistant is not None or context.resources.spec.teacher_specs()[recipe.teacher].trained_here:
        run = take_up(
            lambda: with_whole_networks(lambda: _run(recipe, known, context), job.config, context),
            job,
            context,
        )
        spent.append(run)
        last = recipe.epoch or run.total_epochs
        while run.epoch < last:
            metrics = run.advance(run.epoch + 1)
            so_far = TrialResult(
                "stopped", seed=recipe.seed, train_macs=run.train_macs, spent_macs=run.spent_macs
            )
            yield Progress(run.epoch, metrics, run.epoch == last, so_far)
            leave(run, job, context, last, started)
            _keep_earlier(run, recipe, list(known.values()), context)
        state = {name: tensor.detach().cpu() for name, tensor in run.scheme.deployed.state_dict().items()}
    else:
        state, notes = _brought_along(recipe, context)
    seconds = (run.seconds if run is not None else 0.0) + time.perf_counter() - started
    cost = {
        "train_macs": run.train_macs if run is not None else 0,
        "spent_macs": run.spent_macs if run is not None else 0,
        "wall_seconds": seconds,
        "curve": run.curve if run is not None else [],
    }
    _keep(recipe, state, context, cost, notes)


def _run(recipe: ArtifactRecipe, known: Mapping[str, ArtifactRecipe], context: StudyContext) -> TrialRun:
    """The training of a teacher, or of an assistant by the networks above it."""
    if recipe.assistant is None:
        return teacher_run(context, recipe)
    training = recipe.assistant.training
    above = tuple(context.sources.heard_in(known[one], training) for one in recipe.requires)
    return assistant_run(recipe.assistant, recipe.seed, above, context)


def with_whole_networks(
    build: Callable[[], TrialRun], config: TrialConfig | None, context: StudyContext
) -> TrialRun:
    """What `build` gives; shared networks that it finds damaged are made again first, each once.

    They were there when the study looked. What this costs is booked nowhere: it belongs to no design.

    Args:
        build: Loads shared networks.
        config: The design that needs them; None for the study's teachers.
        context: The study's.

    Raises:
        InputError: One cannot be made again.
    """
    mended: set[str] = set()
    while True:
        try:
            return build()
        except DamagedArtifactError as damage:
            if damage.artifact_id in mended:
                raise
            mended.add(damage.artifact_id)
            _LOG.warning("%s; it is made again", damage)
            _make_again(damage.artifact_id, config, context)


def _make_again(artifact_id: str, config: TrialConfig | None, context: StudyContext) -> None:
    chain = context.prerequisites.teachers() if config is None else context.prerequisites.of(config).made
    recipe = next(recipe for recipe in chain if recipe.artifact_id == artifact_id)
    steps = artifact_steps(
        Job(artifact_id, "artifact", config, recipe.seed, 0, recipe.requires, recipe.label), context
    )
    try:
        next(steps)
        while True:
            steps.send(Decision.CONTINUE)
    except StopIteration as end:
        result: TrialResult = end.value
    if result.status != "complete":
        raise InputError(f"the {recipe.label} was damaged and could not be made again: {result.reason}")


def _brought_along(
    recipe: ArtifactRecipe, context: StudyContext
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state of a teacher that naskd does not train, its checkpoint or what its source gives; what to say of it."""
    if context.resources.spec.teacher_specs()[recipe.teacher].holds_state:
        file = context.prerequisites.checkpoint(recipe.teacher)
        fitted = context.networks.checkpoint_state(recipe.teacher, file)
        return fitted.tensors, fitted.notes
    network = context.networks.teacher(recipe.teacher)
    return {name: x.detach().cpu() for name, x in network.state_dict().items()}, ()


def _keep_earlier(
    run: TrialRun, recipe: ArtifactRecipe, others: Sequence[ArtifactRecipe], context: StudyContext
) -> None:
    """Store a state of this teacher that somebody will ask for; its cost is booked with the training in progress."""
    if recipe.assistant is not None:
        return
    for other in others:
        passed = other.teacher == recipe.teacher and other.epoch == run.epoch
        if passed and other != recipe and other.artifact_id not in context.resources.store:
            state = {name: x.detach().cpu().clone() for name, x in run.scheme.deployed.state_dict().items()}
            free = {"train_macs": 0, "spent_macs": 0, "wall_seconds": 0.0, "curve": list(run.curve)}
            _keep(other, state, context, free)


def _keep(
    recipe: ArtifactRecipe,
    state: Mapping[str, Tensor],
    context: StudyContext,
    cost: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> None:
    """Store it, unless it is a teacher that cannot be meant.

    Raises:
        InputError: It is.
    """
    network, data = context.networks.frozen(recipe, state), context.sources.data_of(recipe)
    warnings = list(notes)
    if recipe.assistant is None and not recipe.epoch:
        teacher = context.resources.spec.teacher_specs()[recipe.teacher]
        trial = examine(network, teacher, data, context.resources.compute)
        if trial.refusals:
            raise InputError("; ".join(trial.refusals))
        warnings += trial.warnings
    channels, resolution = data.in_channels, data.resolution
    deployed = network_cost(network, channels, resolution)
    predictions = predict(network, data.val.images, context.resources.compute)
    context.resources.store.save(
        recipe.artifact_id,
        state,
        {
            "label": recipe.label,
            "name": recipe.teacher,
            "requires": list(recipe.requires),
            "seed": recipe.seed,
            "val_accuracy": accuracy(predictions, data.val.labels),
            **deployed.deployed(),
            **cost,
            "warnings": warnings,
            "probe": probe_of(network, (channels, *sides(resolution))),
            "environment": context.resources.compute.environment(),
        },
    )
