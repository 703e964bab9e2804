"""A teacher is tried on validation images before it teaches.

A wrong normalisation, order of classes or file of weights leaves a network that runs and teaches nonsense. What cannot
be meant ends the study; what may be meant is said with its numbers.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from naskd.data.images import SearchData
from naskd.networks.foreign import ForeignNetwork
from naskd.networks.student import design_cost
from naskd.networks.teachers import Teacher
from naskd.nn.cost import network_cost
from naskd.spec.errors import USERS, InputError, one_line
from naskd.spec.teachers import TeacherSpec, called, leak
from naskd.spec.timeouts import OutOfTimeError, within
from naskd.training.compute import Compute
from naskd.training.evaluation import predict_logits
from naskd.trials.answers import (
    Accuracy,
    Reordering,
    better_order,
    kind_of_outputs,
    measured_accuracy,
    spread,
    surely_better,
)
from naskd.trials.context import StudyContext
from naskd.trials.preprocessings import other_preprocessings

_LOG = logging.getLogger(__name__)

IMAGES = 2048
"""Images that a teacher is tried on, at most."""
MACS = {"cpu": 5e11, "cuda": 2e13}
"""Multiply-accumulates of one pass over them, about: half a minute of a slow processor."""
FEWEST = 64
"""Images that it is tried on however large it is."""
EXPLORED = 256
"""Images on which other ways to show it an image are tried."""
GOOD = 0.9
"""Accuracy from which no other way is tried."""
REPEATED = 32
"""Images that are shown twice."""


@dataclass(frozen=True)
class TeacherTrial:
    """What became of a trial.

    Args:
        name: Of the teacher in the study.
        measured: Of its accuracy, in a line; empty where it was not run.
        refusals: Why it cannot be meant.
        warnings: What may be meant, and should be known.
        built: Whether there is such a network at all.
        leak: What is in doubt since it saw validation images, or may have; see :func:`naskd.spec.teachers.leak`.
    """

    name: str
    measured: str = ""
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    built: bool = True
    leak: str = ""

    @property
    def accuracy(self) -> str:
        """What was measured, and whether the images of it were new to the teacher; empty where nothing was."""
        if not (self.measured and self.leak):
            return self.measured
        return f"{self.measured}, on images that it {'has' if self.leak.startswith('it has') else 'may have'} seen"

    @property
    def said(self) -> list[str]:
        """All warnings, for people, with the name. The one that says what was measured is the first."""
        first = sorted(self.warnings, key=lambda warning: not (self.measured and self.measured in warning))
        return [f"{called(self.name)}: {warning}" for warning in (*first, self.leak) if warning]

    @property
    def lines(self) -> list[str]:
        """Everything but the refusals, for people."""
        warned = any(self.measured in warning for warning in self.warnings)
        measured = [f"{called(self.name)}: {self.accuracy}"] if self.measured and not warned else []
        return [*measured, *(f"warning: {warning}" for warning in self.said)]

    @property
    def problems(self) -> list[str]:
        """The refusals, with the name."""
        return [f"{called(self.name)}: {refusal}" for refusal in self.refusals]


def log_trials(trials: Sequence[TeacherTrial]) -> None:
    """In one record, since a display shows the last one. Its ``warnings`` are those among its lines."""
    if lines := [line for trial in trials for line in trial.lines]:
        _LOG.warning("\n".join(lines), extra={"warnings": [said for trial in trials for said in trial.said]})


def try_teachers(context: StudyContext) -> list[TeacherTrial]:
    """Build each teacher of a study, load it, and run it where it comes trained; nothing is trained or stored.

    One that is stored was tried when it was made: what was found then is said again.
    """
    study = context.resources.spec
    return [
        replace(_try(name, spec, context), leak=leak(spec, study.data.own_test))
        for name, spec in study.teacher_specs().items()
    ]


def _try(name: str, spec: TeacherSpec, context: StudyContext) -> TeacherTrial:
    resources, notes = context.resources, tuple[str, ...]()
    seconds = resources.spec.execution.start_seconds
    late = f"it took longer than execution.start_seconds = {seconds:g} to be tried"
    try:
        recipe = context.prerequisites.teacher(name)
        known = resources.store.manifest(recipe.artifact_id) if recipe.artifact_id in resources.store else {}
        if "warnings" in known:
            context.sources.online(recipe)  # it still answers as it did
            measured = f"accuracy {known['val_accuracy']:.3f} on the validation images"
            # What is asked of it may be more than when it was stored.
            low = not spec.trained_here and known["val_accuracy"] < (spec.min_accuracy or 0)
            refusals = (f"{measured}; min_accuracy is {spec.min_accuracy:g}",) if low else ()
            return TeacherTrial(name, measured, refusals, tuple(known["warnings"]))
        _check_size(spec, context)
        with resources.compute.drawing(0):
            if spec.fine_tune:
                begins = context.prerequisites.checkpoint(name) if spec.holds_state else None
                with within(seconds, late):  # the file fits, but for the classifier
                    context.networks.teacher(name, begins=begins)
            if spec.trained_here:
                context.sources.stand_in(recipe)
                return TeacherTrial(name)
            state: Mapping[str, Tensor] | None = None
            if spec.holds_state:
                file = context.prerequisites.checkpoint(name)
                with within(seconds, late):
                    fitted = context.networks.checkpoint_state(name, file)
                state, notes = fitted.tensors, fitted.notes
            network = context.networks.frozen(recipe, state)
            with within(seconds, late):
                found = examine(network, spec, resources.teacher_data, resources.compute)
    except InputError as error:
        return TeacherTrial(name, "", tuple(str(error).splitlines()), built=False)
    except OutOfTimeError:
        return TeacherTrial(name, refusals=(late,), built=False)
    except USERS as error:  # a user's network may do anything; the answer names it
        return TeacherTrial(name, "", (f"it cannot be run: {one_line(error)}",), built=False)
    return replace(found, name=name, warnings=(*notes, *found.warnings))


def _check_size(spec: TeacherSpec, context: StudyContext) -> None:
    """Before anything is built: whether there is memory for the weights alone."""
    if spec.architecture is None:
        return
    data = context.resources.teacher_data
    size = design_cost(spec.architecture, data.in_channels, data.n_classes, data.resolution).size_bytes
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > room:
        raise InputError(
            f"architecture: its weights take {size / 2**30:.1f} GiB, this machine has {room / 2**30:.1f} GiB; "
            "allowed: less depth or width"
        )


def examine(network: Teacher, spec: TeacherSpec, data: SearchData, compute: Compute) -> TeacherTrial:
    """Run a teacher on validation images, and judge its answers.

    Args:
        network: As its students hear it; it is as it was afterwards.
        spec: Of the teacher. Of one that naskd has trained, only what no training can mean is refused.
        data: Its validation images are shown: all, or as many as it can answer in a moment.
        compute: What runs it.

    Raises:
        Exception: Whatever the network raises.
    """
    macs = network_cost(network, data.in_channels, data.resolution).macs
    shown = _Shown.of(data, compute, int(min(IMAGES, max(FEWEST, MACS[compute.device.type] / max(1, macs)))))
    with compute.drawing(0):
        logits = shown.logits(network)
        if problem := _not_finite(network, logits, shown):
            return TeacherTrial(spec.name, refusals=(problem,))
        found = measured_accuracy(logits, shown.labels)
        trial = TeacherTrial(spec.name, str(found))
        constant = spread(logits) <= 1e-6 * max(1.0, float(logits.abs().max()))
        refusals, warnings = list[str](), list[str]()
        if constant:
            refusals.append(f"it says the same of all {len(logits)} validation images, whatever they show")
        else:
            warnings += [*_of_outputs(logits), *_of_repeats(network, shown.part(REPEATED))]
        if spec.trained_here:  # a tiny budget may give any network
            return replace(trial, warnings=(*refusals, *warnings, *_of_accuracy(found)))
        if (order := better_order(logits, shown.labels)) is not None:
            refusals.append(_of_order(network, spec, order, data.class_names, found))
        elif not constant:
            warnings += _of_accuracy(found)
        if spec.min_accuracy is not None and found.fraction < spec.min_accuracy:
            refusals.append(f"{found}; min_accuracy is {spec.min_accuracy:g}")
        if found.fraction < GOOD:
            (refusals or warnings).extend(_ways(network, shown, macs))  # beside what it may explain
    return replace(trial, refusals=tuple(refusals), warnings=tuple(warnings))


def _not_finite(network: Teacher, logits: Tensor, shown: "_Shown") -> str:
    """What is not a number in its answers, or in what losses read of it; empty where nothing is."""
    if bad := int((~logits.isfinite()).any(1).sum()):
        what = f"it answers NaN or infinity for {bad} of {len(logits)} validation images"
    else:
        x = shown.part(2).images.to(shown.compute.device).float() / 255
        with torch.no_grad(), shown.compute.autocast():
            taps = network.taps(x)
        stages = [tap.tensor for tap in (*taps.stages, *taps.pre_activations)]
        if all(bool(tensor.isfinite().all()) for tensor in (*stages, taps.pooled)):
            return ""
        what = "stages that losses read of it are NaN or infinite"
    where = [
        name.removeprefix("network.").removeprefix("network.")
        for name, value in network.state_dict().items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    weights = f"; its weights are not finite in {', '.join(where[:4])}" if where else ""
    return what + weights


def _of_outputs(logits: Tensor) -> Iterator[str]:
    kind = kind_of_outputs(logits)
    if kind == "log-probabilities":
        yield (
            "its outputs are log-probabilities, not logits: a softmax does not mind, a loss on the logits "
            "themselves does; return what comes before log_softmax"
        )
    elif kind:
        yield (
            f"its outputs are {kind}, not logits (from {float(logits.min()):.3g} to {float(logits.max()):.3g}): "
            "a softmax of them is almost flat and teaches little; return what comes before the last softmax or sigmoid"
        )


def _of_repeats(network: Teacher, shown: "_Shown") -> Iterator[str]:
    """Whether an image is answered alike a second time, and alike alone."""
    once, again = shown.logits(network), shown.logits(network)
    scale = max(spread(once), 1e-12)
    if (apart := float((once - again).abs().max())) > 0.01 * scale:
        changed = int((once.argmax(1) != again.argmax(1)).sum())
        yield (
            f"it answers the same {len(once)} images differently a second time: by up to {apart:.3g}, "
            f"{changed} of {len(once)} with another class; is there a dropout that does not follow self.training?"
        )
        return
    some = shown.images[:8]
    alone = torch.cat([predict_logits(network, some[i : i + 1], shown.compute) for i in range(len(some))])
    if alone.shape != once[:8].shape:
        raise InputError(f"of a single image it returns {tuple(alone.shape)}; wanted logits (B, K) for any B")
    if (apart := float((once[:8] - alone).abs().max())) > 0.05 * scale:
        changed = int((once[:8].argmax(1) != alone.argmax(1)).sum())
        yield (
            f"it answers an image alone otherwise than among {len(once)}: by up to {apart:.3g}, {changed} of "
            f"{len(alone)} with another class; does a BatchNorm use the statistics of the batch?"
        )


def _of_accuracy(found: Accuracy) -> Iterator[str]:
    if found.may_be_chance:
        yield (
            f"{found}: no better than guessing; are weights, mean, std, resolution and classes the right ones?"
        )
    elif found.fraction < found.by_chance + 0.25 * (1 - found.by_chance):
        yield f"{found}: little above guessing"


def _of_order(
    network: Teacher, spec: TeacherSpec, order: Reordering, class_names: tuple[str, ...], found: Accuracy
) -> str:
    inner = network.network
    raw = inner.order.tolist() if isinstance(inner, ForeignNetwork) and inner.order is not None else None
    own = [""] * len(class_names)
    for name, column in zip(class_names, order.columns, strict=True):
        own[column if raw is None else raw[column]] = name
    listed = ", ".join(f'"{name}"' for name in own)
    said = "the classes that are given" if spec.classes is not None else "the order of the study's classes"
    return (
        f"accuracy {found.fraction:.3f} with {said}, {order.fraction:.3f} with classes = [{listed}]: "
        "its outputs stand in another order than is said"
    )


def _ways(network: Teacher, shown: "_Shown", macs: int) -> Iterator[str]:
    """The best other way to show it an image, where that is surely better."""
    inner = network.network
    if not isinstance(inner, ForeignNetwork):
        return
    given, best = inner.preprocessing, (0.0, "", 0.0)
    for way in other_preprocessings(given, shown.data):
        n = int(
            min(EXPLORED, MACS[shown.compute.device.type] / 4 / max(1.0, macs * way.cost), len(shown.labels))
        )
        if n < min(FEWEST // 2, len(shown.labels)):
            continue  # images so large would take minutes
        part = shown.part(n)
        now = part.right(network)
        try:
            inner.preprocessing = way.preprocessing.to(shown.compute.device)
            then = part.right(network)
        except Exception:  # it does not take such images
            continue
        finally:
            inner.preprocessing = given
        reached = float(then.double().mean())
        if surely_better(then, now) and reached > best[0]:
            best = reached, way.setting, float(now.double().mean())
    if best[1]:
        yield f"it would have accuracy {best[0]:.3f} instead of {best[2]:.3f} with {best[1]}"


@dataclass(frozen=True, eq=False)
class _Shown:
    """Images that a teacher is tried on.

    Args:
        data: Whose validation images they are.
        compute: What runs the teacher.
        images: uint8, where the data has them.
        labels: On the CPU.
    """

    data: SearchData
    compute: Compute
    images: Tensor
    labels: Tensor

    @staticmethod
    def of(data: SearchData, compute: Compute, n: int) -> "_Shown":
        """`n` validation images, evenly spaced, since they may be sorted by class."""
        return _Shown(data, compute, data.val.images, data.val.labels.cpu()).part(n)

    def part(self, n: int) -> "_Shown":
        """`n` of these."""
        if n >= len(self.labels):
            return self
        chosen = torch.linspace(0, len(self.labels) - 1, n).round().long()
        return replace(self, images=self.images[chosen.to(self.images.device)], labels=self.labels[chosen])

    def logits(self, network: nn.Module) -> Tensor:
        """What a network says of them, on the CPU."""
        return predict_logits(network, self.images, self.compute)

    def right(self, network: nn.Module) -> Tensor:
        """``(N,)``, true where it names the class."""
        return self.logits(network).argmax(1) == self.labels
