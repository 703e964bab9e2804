"""The total loss of a distilled student: ``ce_weight * CE + sum_i weight_i * K_i``."""

from collections.abc import Mapping, Sequence
from typing import Literal, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.bank import FILL_BATCH
from naskd.knowledge.base import NO_PARTS, KnowledgeLoss, Lesson, LossInputs, Summary, summary_of
from naskd.knowledge.card import INITIAL_SHARE, KnowledgeCard
from naskd.knowledge.drawn_source import DrawnSource
from naskd.knowledge.source import KnowledgeSource
from naskd.nn.cost import count_macs, on_meta
from naskd.nn.taps import Taps, TapShapes, taps_like
from naskd.spec.design import DistillationSpec, KnowledgeTerm
from naskd.spec.errors import InputError

Stage = Literal["initial", "main"]

ASKED = {"remembered": 1024, "online": FILL_BATCH}
"""Images at once. What is remembered is there already; what a network says of them, and works out for it, takes memory:
no more than the filling of a bank does."""

ROUNDING = 1e-6
"""A gradient below this share of cross-entropy's is noise: of a student that agrees already, or of attention on a 1x1
grid. Balanced, it would be the loudest of all, a million times too loud. Real terms were found above 0.01."""

_COUNTED: dict[tuple[object, ...], float] = {}
"""Multiply-accumulates of terms in this process, by all that they depend on: counting them takes as long as a step."""
_MOST_COUNTED = 10_000
"""After so many the counting begins anew."""


class DistillationObjective(nn.Module):
    """Cross-entropy with the labels and the design's knowledge terms, in up to two stages.

    The ``initial`` stage, where a term's card asks for one, has no labels in it; ``main`` is the training proper.

    ``balanced`` terms are scaled once, on the first batch of the stage that they teach in: by ``|grad CE| / |grad K|``,
    both taken at the student's tensors that the term reads. CE is that of the labels alone, whatever weights terms give
    them: where a teacher is heard in place of all labels of a batch, nothing would be left to compare with. Without any
    labels it is that with made-up classes, see :meth:`~naskd.knowledge.base.Lesson.reference_loss`. A term whose
    gradient is zero there, or of the size of rounding errors, keeps scale 1.

    Args:
        spec: The design's terms, weights and teachers.
        student: Shapes of the student's taps.
        sources: Knowledge of each teacher; empty where no term needs one.
        n_samples: Of the training split.

    Raises:
        InputError: A term cannot be matched to these networks.
    """

    def __init__(
        self,
        spec: DistillationSpec,
        student: TapShapes,
        sources: Sequence[KnowledgeSource],
        n_samples: int = 0,
    ) -> None:
        super().__init__()
        self.ce_weight = spec.ce_weight
        self._n_samples = n_samples
        self.names = term_names(spec.terms)
        self.losses = nn.ModuleList(build_losses(spec.terms, student, sources, n_samples))
        cards = [loss.card for loss in self._losses()]
        self.drawing = [i for i, loss in enumerate(self._losses()) if loss.draws]
        self.by_teacher = [
            [
                i
                for i, loss in enumerate(self._losses())
                if not loss.draws and _asks(loss.card, loss.settings, at)
            ]
            for at in range(len(sources))
        ]
        self.by_source = self._asked_of(sources)
        weights = [
            term.weight * (card.paper_weight if term.weighting == "paper" else 1.0)
            for term, card in zip(spec.terms, cards, strict=True)
        ]
        self.of_stage: dict[Stage, list[int]] = {
            "initial": [i for i, card in enumerate(cards) if card.initial_stage],
            "main": [i for i, card in enumerate(cards) if card.initial_stage != "term"],
        }
        self.balanced = [i for i, term in enumerate(spec.terms) if term.weighting == "balanced"]
        self.calibrated: set[str] = set()
        self.deployed = next((i for i, card in enumerate(cards) if card.deployed), None)
        self._shown: WeakKeyDictionary[Taps, tuple[tuple[bool, bool], Taps]] = WeakKeyDictionary()
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights))

    def _asked_of(self, sources: Sequence[KnowledgeSource]) -> tuple[tuple[KnowledgeSource, list[int]], ...]:
        """Who is asked, and by which terms: each teacher, then one of all for the terms that draw."""
        each = tuple(zip(sources, self.by_teacher, strict=True))
        return (*each, (DrawnSource(sources), self.drawing)) if self.drawing else each

    def told(self, i: int, number: int) -> str:
        """What stands before the names in a term's summary, of what the source at a place of :attr:`by_source` says."""
        loss = self._losses()[i]
        return f"{number}/" if loss.card.several_teachers and not loss.draws else ""

    @property
    def initial_share(self) -> float:
        """Share of the epochs that the initial stage takes: the largest that a term asks for; 0 without one."""
        losses = self._losses()
        return max(
            (
                float(losses[i].card.option(losses[i].settings, INITIAL_SHARE))
                for i in self.of_stage["initial"]
            ),
            default=0.0,
        )

    @property
    def initial_teaches_student(self) -> bool:
        """Whether the student learns in the initial stage, or parts of the losses alone."""
        return any(self._losses()[i].card.initial_stage == "term" for i in self.of_stage["initial"])

    def modules_of(self, stage: Stage) -> list[nn.Module]:
        """Parts of the losses that a stage trains."""
        losses = self._losses()
        if stage == "initial":
            return [module for i in self.of_stage[stage] for module in losses[i].initial_modules()]
        return [module for i in self.of_stage[stage] for module in losses[i].main_modules()]

    @property
    def min_batch(self) -> int:
        """Smallest batch on which every term is defined."""
        return max([2, *(loss.card.min_batch for loss in self._losses())])

    def same_each_step(self, stage: Stage) -> bool:
        """Whether each step of a stage, after the first, does the same operations; see ``Phase.repeats``."""
        cards = [self._losses()[i].card for i in self.of_stage[stage]]
        return not any(card.uses_progress or card.waits for card in cards)

    def _losses(self) -> list[KnowledgeLoss]:
        return [loss for loss in self.losses if isinstance(loss, KnowledgeLoss)]

    def get_extra_state(self) -> list[str]:
        """Stages whose balanced weights have been set, kept in checkpoints."""
        return sorted(self.calibrated)

    def set_extra_state(self, state: Sequence[str]) -> None:
        """See :meth:`get_extra_state`."""
        self.calibrated = set(state)

    def summaries(
        self,
        images: Tensor,
        index: Tensor | None,
        epoch: int,
        stage: Stage = "main",
        sources: Sequence[KnowledgeSource] | None = None,
        beside: Sequence[KnowledgeLoss] = (),
    ) -> list[Summary]:
        """What each term of a stage keeps of its teachers, empty for the others; every teacher is asked once.

        Args:
            images: ``(B, C, H, W)`` in [0, 1], as the student sees them.
            index: ``(B,)`` positions in the training split; None for images that are not of it.
            epoch: From 0.
            stage: Whose terms.
            sources: Who answers this time, one for each that the objective was built for and of the same shapes; None:
                those themselves.
            beside: Losses that teach nothing and hear the first source too, for a scheme that wants what they keep;
                their summaries follow those of the terms.
        """
        losses = self._losses()
        found: list[dict[str, Tensor]] = [{} for _ in losses]
        asked = self.by_source if sources is None else self._asked_of(sources)
        for number, (source, positions) in enumerate(asked):
            asking = [i for i in positions if i in self.of_stage[stage]]
            more = beside if number == 0 else ()
            if not asking and not more:
                continue
            if source.learns or sources is not None:
                self._renew(source, asking)
            answers = source.summaries(images, index, epoch, [*(losses[i] for i in asking), *more])
            found += map(dict, answers[len(asking) :])
            for i, answer in zip(asking, answers[: len(asking)], strict=True):
                prefix = self.told(i, number)
                found[i].update((prefix + name, tensor) for name, tensor in answer.items())
        return list(found)

    def _renew(self, source: KnowledgeSource, asking: Sequence[int]) -> None:
        """Give losses the weights of a teacher that has moved, or that answers in another one's place."""
        reading = [self._losses()[i] for i in asking]
        reading = [loss for loss in reading if loss.card.needs_teacher_head or loss.card.needs_teacher_norms]
        parts = source.parts if reading else NO_PARTS
        for loss in reading:
            loss.renew(parts)

    def check_images(self, stage: Stage, *, labelled: bool) -> None:
        """Whether a stage can be taught with images that are not those of the training split.

        Args:
            stage: Whose terms.
            labelled: Whether anybody says what is on them.

        Raises:
            InputError: A term remembers samples by their place in the split, or needs labels that are not there.
        """
        for i in self.of_stage[stage]:
            card = self._losses()[i].card
            if card.needs_index:
                raise InputError(
                    f"knowledge {card.name!r} knows the training images alone, and is shown others"
                )
            if card.needs_labels and not labelled:
                raise InputError(f"knowledge {card.name!r} needs labels, and is shown images without")

    def ask_images(self, stage: Stage) -> int:
        """Images that a stage's teachers may be asked about at once, see ``Phase.ask_images``."""
        losses = self._losses()
        remembered = all(
            source.remembers([losses[i] for i in positions if i in self.of_stage[stage]])
            for source, positions in self.by_source
        )
        return ASKED["remembered" if remembered else "online"]

    def forward(
        self, student: Taps, summaries: Sequence[Summary], lesson: Lesson
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of the main stage and its detached, unweighted terms by name."""
        student = self.as_deployed(student)
        chosen = self.of_stage["main"]
        losses = self._losses()
        outputs = {i: losses[i].term_of(student, summaries[i], lesson) for i in chosen}
        label_weights = [out.label_weights for out in outputs.values() if out.label_weights is not None]
        ce = lesson.label_loss(
            student.logits.float(), torch.stack(label_weights).prod(0) if label_weights else None
        )
        found = {i: out.term for i, out in outputs.items()}
        self._calibrate("main", student, summaries, found, lesson)
        total = self.ce_weight * ce
        for i, term in found.items():
            total = torch.addcmul(total, self.weights[i], term)
        return total, {"ce": ce.detach(), **{self.names[i]: term.detach() for i, term in found.items()}}

    def initial(
        self, student: Taps | None, summaries: Sequence[Summary], lesson: Lesson
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of the initial stage and its terms.

        Args:
            student: None where :attr:`initial_teaches_student` is not so.
            summaries: See :meth:`summaries`.
            lesson: Of the batch.
        """
        losses = self._losses()
        own = {
            i: losses[i].initial_term(summaries[i], lesson)
            for i in self.of_stage["initial"]
            if losses[i].card.initial_stage == "modules"
        }
        taught: dict[int, Tensor] = {}
        if student is not None:
            student = self.as_deployed(student)
            taught = {
                i: losses[i].term_of(student, summaries[i], lesson).term
                for i in self.of_stage["initial"]
                if i not in own
            }
            self._calibrate("initial", student, summaries, taught, lesson)
        parts = [*own.values(), *(self.weights[i] * term for i, term in taught.items())]
        names = {i: f"{self.names[i]}.initial" for i in own} | {i: self.names[i] for i in taught}
        return sum(parts[1:], parts[0]), {names[i]: term.detach() for i, term in (own | taught).items()}

    def as_deployed(self, student: Taps) -> Taps:
        """With the logits of the network that leaves: a student without a classifier of its own has none that count."""
        if self.deployed is None:
            return student
        # A scheme that wants the logits, too, runs what stays behind the student once a step, as its cost says.
        state = torch.is_grad_enabled(), self.training
        found = self._shown.get(student)
        if found is None or found[0] != state:
            found = self._shown[student] = state, self._losses()[self.deployed].deployed_taps(student)
        return found[1]

    def _calibrate(
        self,
        stage: Stage,
        student: Taps,
        summaries: Sequence[Summary],
        terms: Mapping[int, Tensor],
        lesson: Lesson,
    ) -> None:
        if stage in self.calibrated:
            return
        losses = self._losses()
        balanced = {i: term for i, term in terms.items() if i in self.balanced}
        ce = lesson.reference_loss(student.logits.float()) if balanced else None
        for i, drawn in balanced.items():
            assert ce is not None
            tensors = losses[i].read_of(student)
            reference = _gradient_norm(ce, tensors)
            own = _gradient_norm(losses[i].usual_term(drawn, student, summaries[i], lesson), tensors)
            usable = (own > ROUNDING * reference) & (reference > 0) & own.isfinite() & reference.isfinite()
            self.weights[i] *= torch.where(usable, reference / own, torch.ones_like(own)).to(
                self.weights.dtype
            )
        self.calibrated.add(stage)

    def step_macs(self, student: TapShapes, batch_size: int, stage: Stage = "main") -> float:
        """Multiply-accumulates of a stage's terms for one image, at this batch size (relation losses grow with it)."""
        if not self.of_stage[stage]:
            return 0.0
        key = (
            student,
            batch_size,
            stage,
            self._n_samples,
            tuple((source.shapes, tuple(positions)) for source, positions in self.by_source),
            tuple((i, _structure(self._losses()[i])) for i in self.of_stage[stage]),
        )
        if key not in _COUNTED:
            counted = self._counted(student, batch_size, stage)
            if len(_COUNTED) >= _MOST_COUNTED:
                _COUNTED.clear()
            _COUNTED[key] = counted
        return _COUNTED[key]

    def _counted(self, student: TapShapes, batch_size: int, stage: Stage) -> float:
        taps = taps_like(student, batch_size, "meta")
        index = torch.zeros(batch_size, dtype=torch.long, device="meta")
        lesson = Lesson(index, index)
        losses = {i: cast(KnowledgeLoss, on_meta(self.losses[i])) for i in self.of_stage[stage]}
        shapes = [source.shapes for source, _ in self.by_source]

        def forward() -> None:
            for i, loss in losses.items():
                summary: dict[str, Tensor] = {}
                for number, (_, positions) in enumerate(self.by_source):
                    if i in positions:
                        prefix = self.told(i, number)
                        answer = summary_of(loss, taps_like(shapes[number], batch_size, "meta"))
                        summary.update((prefix + name, tensor) for name, tensor in answer.items())
                if stage == "initial" and loss.card.initial_stage == "modules":
                    loss.initial_term(summary, lesson)
                else:
                    loss.term_of(taps, summary, lesson)

        return count_macs(forward) / batch_size


def build_losses(
    terms: Sequence[KnowledgeTerm],
    student: TapShapes,
    sources: Sequence[KnowledgeSource],
    n_samples: int,
) -> list[KnowledgeLoss]:
    """The losses of a design.

    Raises:
        InputError: A term cannot be matched to these networks, or two of them want to stay in the student.
    """
    losses: list[KnowledgeLoss] = []
    for term in terms:
        shapes, parts = student, NO_PARTS
        if KNOWLEDGE[term.kind].needs_teacher:
            if term.source >= len(sources):
                raise InputError(f"knowledge {term.kind!r} asks a teacher, and there is none for it")
            shapes, parts = sources[term.source].shapes, sources[term.source].parts
        given = LossInputs(parts, n_samples, tuple(source.shapes for source in sources))
        losses.append(KNOWLEDGE.load(term.kind)(term, student, shapes, given))
    staying = [loss.settings.kind for loss in losses if loss.card.deployed]
    if len(staying) > 1:
        raise InputError(f"only one kind of knowledge may stay in the student, got {' and '.join(staying)}")
    return losses


def _structure(loss: KnowledgeLoss) -> tuple[object, ...]:
    """All of a loss that what it computes depends on, apart from the shapes that it is given."""
    tensors = (*loss.named_parameters(), *loss.named_buffers())
    return (
        loss.settings,
        loss.training,
        loss.card.initial_stage,
        loss.card.several_teachers,
        tuple((name, type(module)) for name, module in loss.named_modules()),
        tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors),
    )


def _asks(card: KnowledgeCard, term: KnowledgeTerm, position: int) -> bool:
    """Whether a term wants to hear the teacher at a position."""
    return card.needs_teacher and (card.several_teachers or term.source == position)


def _gradient_norm(value: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    gradients = torch.autograd.grad(value, tensors, retain_graph=True, allow_unused=True)
    squares = [g.float().square().sum() for g in gradients if g is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), device=value.device)


def term_names(terms: Sequence[KnowledgeTerm]) -> list[str]:
    """A unique name for each term's learning curve: its kind, numbered where a kind comes twice."""
    names: list[str] = []
    for term in terms:
        count = sum(name.split("#")[0] == term.kind for name in names)
        names.append(term.kind if not count else f"{term.kind}#{count + 1}")
    return names
