"""Students that learn side by side: the design's own, which leaves, and others that stay behind.

Each is a :class:`~naskd.schemes.distilled.DistilledStudent` with its own losses and adapters. Teachers of the study are
asked once for all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from naskd.knowledge.base import KnowledgeLoss
from naskd.networks import FAMILIES
from naskd.nn.quantized import Quantizer
from naskd.nn.taps import Taps
from naskd.schemes.distilled import DistilledStudent, Learned, StudentScheme
from naskd.schemes.objective import Stage
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Step, Update, recordable
from naskd.spec.design import ArchitectureSpec


class Cohort(nn.Module):
    """Students that learn from the same batches.

    Args:
        inputs: Of the scheme.
        n: Students, the one that leaves included; at least 1.
        peer_width: How many times as wide as the design's the others are, see :func:`widened`. They begin with random
            weights, wherever the first begins: equal networks would have nothing to tell each other.

    Raises:
        InputError: See :class:`~naskd.schemes.distilled.DistilledStudent` and :func:`widened`.
    """

    def __init__(self, inputs: SchemeInputs, n: int, peer_width: float = 1.0) -> None:
        super().__init__()
        self.members = nn.ModuleList(peer(inputs, place, peer_width) for place in range(n))

    @property
    def students(self) -> list[DistilledStudent]:
        """All of them, the one that leaves first."""
        return [member for member in self.members if isinstance(member, DistilledStudent)]

    @property
    def first(self) -> DistilledStudent:
        """The one that leaves."""
        return self.students[0]

    def trained_in(self, stage: Stage) -> tuple[nn.Module, ...]:
        """What a stage trains of all of them."""
        return tuple(module for student in self.students for module in student.trained_in(stage))

    def step_macs(self, batch_size: int, stage: Stage = "main") -> tuple[float, float]:
        """See :meth:`~naskd.schemes.scheme.Scheme.step_macs`; every teacher is asked once."""
        booked = [student.step_macs(batch_size, stage) for student in self.students]
        return sum(trained for trained, _ in booked), booked[0][1]

    # --- what it does with a batch -----------------------------------------------------------------------------

    def ask(self, batch: Batch, stage: Stage = "main") -> Asked:
        """What all objectives want to know of a batch, student by student; each teacher is asked once."""
        index = batch.index if batch.known else None
        objectives = [student.objective for student in self.students]
        n_terms = len(objectives[0].losses)
        found: list[dict[str, Tensor]] = [{} for _ in range(len(objectives) * n_terms)]
        for number, (source, _) in enumerate(self.first.objective.by_source):
            asking: list[tuple[int, KnowledgeLoss]] = []
            for place, objective in enumerate(objectives):
                for i in objective.by_source[number][1]:
                    loss = objective.losses[i]
                    assert isinstance(loss, KnowledgeLoss)
                    if i in objective.of_stage[stage]:
                        asking.append((place * n_terms + i, loss))
            if not asking:
                continue
            answers = source.summaries(batch.images, index, batch.epoch, [loss for _, loss in asking])
            for (position, _), answer in zip(asking, answers, strict=True):
                prefix = objectives[0].told(position % n_terms, number)
                found[position].update((prefix + name, tensor) for name, tensor in answer.items())
        return found

    def said(self, asked: Asked, place: int) -> Asked:
        """What :meth:`ask` found for one of them."""
        n_terms = len(self.first.objective.losses)
        return asked[place * n_terms : (place + 1) * n_terms]

    def learn(self, batch: Batch, asked: Asked, place: int, stage: Stage = "main") -> Learned:
        """What a batch costs one of them by its own objective; others' terms are named ``peer1.logits``."""
        return self._named(place, self.students[place].learn(batch, self.said(asked, place), stage))

    def taught(self, batch: Batch, asked: Asked) -> tuple[list[Learned], list[Tensor], list[Taps]]:
        """The same of all of them in the main stage; the logits ``(B, K)`` of each and its taps, with gradients."""
        taps = [student.taps(batch.images) for student in self.students]
        learned, logits = [], []
        for place, (student, own) in enumerate(zip(self.students, taps, strict=True)):
            learned.append(self._named(place, student.learn(batch, self.said(asked, place), taps=own)))
            logits.append(student.logits(own))
        return learned, logits, taps

    @staticmethod
    def _named(place: int, learned: Learned) -> Learned:
        loss, terms = learned
        return loss, {name_of(place, name): term for name, term in terms.items()}

    # --- as a phase --------------------------------------------------------------------------------------------

    def phases(
        self,
        step: Step,
        *,
        apart: bool = False,
        beside: Sequence[nn.Module] = (),
        before_epoch: Callable[[int], None] | None = None,
        repeats: bool = True,
    ) -> tuple[Phase, ...]:
        """The initial stage, where a term asks for one, and the main one.

        Args:
            step: Of the main stage.
            apart: Each has an optimizer of its own, ``peer0``, ``peer1`` and so on; else one trains all, ``students``.
            beside: Modules that the one optimizer trains in the main stage.
            before_epoch: Of the main stage.
            repeats: Whether `step` adds nothing that changes from one batch to the next, see ``Phase.repeats``.
        """
        first, found = self.first, []
        for stage in first.stages:
            main = stage == "main"
            doing = step if main else partial(self._initial, apart)
            same = all(student.objective.same_each_step(stage) for student in self.students)
            more = tuple(beside) if main else ()
            found.append(
                Phase(
                    name="peers" if main else "initial",
                    epochs=first.epochs_of(stage),
                    trained={f"peer{i}": s.trained_in(stage) for i, s in enumerate(self.students)}
                    if apart
                    else {"students": (*self.trained_in(stage), *more)},
                    step=doing,
                    ask=partial(self.ask, stage=stage),
                    ask_images=min(student.objective.ask_images(stage) for student in self.students),
                    min_batch=first.objective.min_batch,
                    repeats=same and (repeats or not main) and recordable(doing, (self, *more)),
                    before_epoch=before_epoch if main else None,
                )
            )
        return tuple(found)

    def _initial(self, apart: bool, batch: Batch, asked: Asked) -> Iterator[Update]:
        """Each by its own terms: there is nothing to learn from each other before the training proper."""
        learned = [self.learn(batch, asked, place, "initial") for place in range(len(self.members))]
        if not apart:
            learned = [together(learned)]
        for place, (loss, terms) in enumerate(learned):
            yield Update(f"peer{place}" if apart else "students", loss, terms)


def peer(inputs: SchemeInputs, place: int, peer_width: float = 1.0) -> DistilledStudent:
    """A student of a cohort; see :class:`Cohort`.

    Args:
        inputs: Of the scheme.
        place: From 0, which leaves.
        peer_width: Of the others.

    Raises:
        InputError: See :class:`Cohort`.
    """
    if place == 0:
        return DistilledStudent(inputs)
    assert inputs.architecture is not None, "peers are for students"
    other = widened(inputs.architecture, peer_width)
    return DistilledStudent(replace(inputs, architecture=other), inputs.build_variant(other))


def name_of(place: int, term: str) -> str:
    """Of a term in the learning curve: plain for the student that leaves, ``peer1.logits`` for others."""
    return f"peer{place}.{term}" if place else term


def together(learned: Sequence[Learned]) -> Learned:
    """One loss and the terms of all."""
    losses = [loss for loss, _ in learned]
    return torch.stack(losses).sum(), {name: term for _, terms in learned for name, term in terms.items()}


class CohortScheme(StudentScheme):
    """A scheme of peers of which the first one leaves; a subclass has them as `cohort`."""

    cohort: Cohort

    @property
    def taught(self) -> DistilledStudent:
        """The first peer."""
        return self.cohort.first


def widened(architecture: ArchitectureSpec, factor: float) -> ArchitectureSpec:
    """The same network, `factor` times as wide; see :meth:`~naskd.networks.card.FamilyCard.widened`.

    Raises:
        InputError: Its family cannot do that.
    """
    return FAMILIES[architecture.family].widened(architecture, factor)


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm uses the batch's statistics as in training, and its running ones stay as they are.

    So do the ranges of maps that are rounded.
    """
    rounding = [part for part in network.modules() if isinstance(part, Quantizer)]
    norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm)]
    before = [(norm.track_running_stats, norm.momentum) for norm in norms]
    for norm in norms:
        # naskd's own layers look at the second alone.
        norm.track_running_stats, norm.momentum = False, 0.0
    for part in rounding:
        part.observes = False
    try:
        yield
    finally:
        for part in rounding:
            part.observes = True
        for norm, (tracks, momentum) in zip(norms, before, strict=True):
            norm.track_running_stats, norm.momentum = tracks, momentum
