"""When to distil, to shrink and to quantize: the order of compression as shares of one training.

Gou, Yu, Maybank, Tao: Knowledge distillation: a survey. IJCV 2021, arXiv 2006.05525, section 8, asks for the right
order of distillation and other compression. Here a student is wider at first and gets its width after a share of the
epochs (`shrink`). Its stages of fewer than 32 bits are in floating point until another share is over (`quantize`).
Until a third one it learns from the labels alone (`distil`). All are 0 by default, so that all is there from the
beginning: then it is the training of ``offline``, bit for bit.

A network that gets narrower keeps the filters of the largest L1 norms (Li, Kadav, Durdanovic, Samet, Graf: Pruning
filters for efficient ConvNets. ICLR 2017, arXiv 1608.08710), as students do that start from a teacher. Rounding begins
with the weights that there are (Krishnamoorthi, 2018, arXiv 1806.08342, section 3.2: quantization-aware training of a
trained network).

With ``training.start`` the first network begins with that teacher's weights, at its own width. Each part goes through
the design's schedule with a fresh optimizer, and has adapters of its own. Of an initial stage of a term, so does each
part that is distilled. What trains is evaluated, so curves before the end are of a network that is not the student yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from naskd.knowledge import KNOWLEDGE
from naskd.networks import FAMILIES
from naskd.networks.student import Student
from naskd.schemes.cohort import widened
from naskd.schemes.distilled import DistilledStudent
from naskd.schemes.generations import shortest_generation
from naskd.schemes.objective import Stage
from naskd.schemes.scheme import Asked, Batch, Phase, Scheme, SchemeInputs, Update
from naskd.spec.design import FLOAT_BITS, ArchitectureSpec, Cost, DistillationSpec
from naskd.spec.errors import InputError

EVENTS = ("distil", "shrink", "quantize")


@dataclass(frozen=True)
class Part:
    """A stretch of the training between two events.

    Args:
        epochs: Its length.
        done: Names of the events that are over when it begins.
    """

    epochs: int
    done: frozenset[str]

    @property
    def name(self) -> str:
        """What has happened, in the order of :data:`EVENTS`."""
        return "+".join(name for name in EVENTS if name in self.done) or "alone"


def parts(epochs: int, after: dict[str, float]) -> list[Part]:
    """The parts of a training, in order; no two events are less than an epoch apart, or they are one.

    Args:
        epochs: Of the whole, at least 1.
        after: For each event the share of the epochs after which it happens, in [0, 1).
    """
    # The last part has an epoch at least, or there would be no student.
    at = {name: min(round(share * epochs), epochs - 1) for name, share in after.items()}
    starts = sorted({0, *at.values()})
    return [
        Part(end - start, frozenset(name for name, epoch in at.items() if epoch <= start))
        for start, end in zip(starts, [*starts[1:], epochs], strict=True)
    ]


class CompressionOrderScheme(Scheme):
    """Networks that follow each other, each with the weights of the one before.

    Raises:
        InputError: A network cannot take the weights of the one before it, or a part is too short for its terms.
    """

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        if inputs.architecture is None:
            raise InputError("scheme 'compression_order' needs a student that an architecture describes")
        self.factor = float(inputs.option("width"))
        events = {name: float(inputs.option(name)) for name in EVENTS}
        if not inputs.distillation.terms:
            events["distil"] = 0.0  # there is nothing that could begin
        if self.factor == 1:
            events["shrink"] = 0.0
        if not inputs.architecture.is_quantized:
            events["quantize"] = 0.0
        if events["shrink"] and not inputs.architecture.stages:
            raise InputError(
                f"scheme 'compression_order': a {inputs.architecture.family!r} has no stages that could shrink; "
                "allowed: shrink = 0"
            )
        for term in inputs.distillation.terms:
            if KNOWLEDGE[term.kind].deployed:
                raise InputError(
                    f"scheme 'compression_order': {term.kind!r} stays in one network, not in several"
                )
        self.parts = parts(inputs.epochs, events)
        self.students = nn.ModuleList()
        for number, part in enumerate(self.parts):
            self.students.append(self._student(number, part, inputs.architecture))
        self.present = 0
        """Which part trains, from 0."""

    def _student(self, number: int, part: Part, design: ArchitectureSpec) -> DistilledStudent:
        own = self.inputs.distillation
        if "distil" not in part.done:
            own = DistillationSpec(scheme=own.scheme, scheme_options=own.scheme_options)
        if part.epochs < shortest_generation(own):
            raise InputError(
                f"scheme 'compression_order': a part of {part.epochs} epochs is too short for a term with an initial "
                "stage, which takes two at least; train longer, or move distil, shrink or quantize"
            )
        form = self._form(part, design)
        given = replace(self.inputs, distillation=own, epochs=part.epochs, architecture=form)
        if number and self._form(self.parts[number - 1], design) == form:
            return DistilledStudent(given, self._of(number - 1).network)
        if number:
            self._check(form, self._form(self.parts[number - 1], design))
        network = self.inputs.build_derived(form) if number == 0 else self.inputs.build_variant(form)
        return DistilledStudent(given, network)

    def _form(self, part: Part, design: ArchitectureSpec) -> ArchitectureSpec:
        form = design if "shrink" in part.done else widened(design, self.factor)
        if "quantize" in part.done:
            return form
        return replace(form, stages=tuple(replace(stage, bits=FLOAT_BITS) for stage in form.stages))

    @staticmethod
    def _check(form: ArchitectureSpec, before: ArchitectureSpec) -> None:
        if found := FAMILIES[form.family].start_problems(form, before):
            raise InputError(f"scheme 'compression_order': {'; '.join(found)}, as it is before")

    def _of(self, number: int) -> DistilledStudent:
        found = self.students[number]
        assert isinstance(found, DistilledStudent)
        return found

    @property
    def deployed(self) -> nn.Module:
        """What trains, so that curves show it; in the end the student."""
        return self._of(self.present).deployed

    @property
    def cost(self) -> Cost:
        """Of the student, whatever trains."""
        return self._of(len(self.parts) - 1).cost

    @property
    def evaluated_macs(self) -> int:
        """Of what trains."""
        return self._of(self.present).cost.unmerged_macs

    @property
    def leaves_from(self) -> int:
        """The epochs of larger networks, and of those in floating point that will round."""
        last = self._of(len(self.parts) - 1).network
        return sum(part.epochs for i, part in enumerate(self.parts) if self._of(i).network is not last)

    def get_extra_state(self) -> int:
        """Which part trains."""
        return self.present

    def set_extra_state(self, state: int) -> None:
        """See :meth:`get_extra_state`."""
        self.present = state

    def _places(self) -> dict[str, tuple[int, Stage]]:
        """Part and stage by the names of phases, in order."""
        return {
            part.name + (" (initial)" if stage == "initial" else ""): (number, stage)
            for number, part in enumerate(self.parts)
            for stage in self._of(number).stages
        }

    def phases(self) -> tuple[Phase, ...]:
        """Those of each part in turn."""
        return tuple(self._phase(name, *place) for name, place in self._places().items())

    def _phase(self, name: str, number: int, stage: Stage) -> Phase:
        found = self._of(number).phase(
            stage, step=partial(self._step, number, stage), before_epoch=partial(self._before, number)
        )
        return replace(found, name=name)

    def _step(self, number: int, stage: Stage, batch: Batch, asked: Asked) -> Iterator[Update]:
        begun = sum(part.epochs for part in self.parts[:number])
        own = replace(batch, epoch=batch.epoch - begun)  # progress is the part's own
        yield Update("student", *self._of(number).learn(own, asked, stage))

    def _before(self, number: int, epoch: int) -> None:
        if self.present != number:
            self._begin(number)

    def _begin(self, number: int) -> None:
        before, taught = self._of(number - 1), self._of(number)
        self.present = number
        if taught.network is not before.network:
            assert isinstance(taught.network, Student)
            taught.network.take_weights(before.network)

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of the part that trains."""
        number, stage = self._places()[phase.name]
        return self._of(number).step_macs(batch_size, stage)
