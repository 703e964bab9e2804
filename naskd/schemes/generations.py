"""Generations: students of one design, trained one after the other, each taught by the one before it as well.

Two schemes are this. ``born_again`` has any number of generations of equal length, and adds what the last one says to
the design's objective. ``tf_kd_self`` has two of any length, and weighs what the first one says against the objective.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

from torch import nn

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.comparison import soft_divergence
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.earlier_self import asked_online, earlier_logits, heard_too
from naskd.schemes.objective import Stage
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update
from naskd.spec.design import DistillationSpec


class Generations(StudentScheme):
    """Each generation minimises ``own * objective + earlier * T^2 KL(p_before || p)``, the first its objective alone.

    The objective is the design's, so that teachers of the study teach every generation. Each begins with weights and
    adapters of its own. An initial stage of a term is each generation's own too, and nobody else teaches in it.

    Args:
        inputs: Of the scheme.
        lengths: Epochs of each generation; they add up to the design's.
        own: Weight of the objective from the second generation on.
        earlier: Weight of what the generation before says.
        temperature: ``T > 0``.
    """

    def __init__(
        self,
        inputs: SchemeInputs,
        lengths: Sequence[int],
        *,
        own: float = 1.0,
        earlier: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(inputs)
        self.starts = [0, *accumulate(lengths)][:-1]
        self.own, self.earlier, self.temperature = own, earlier, temperature
        self.students = nn.ModuleList(DistilledStudent(replace(inputs, epochs=n)) for n in lengths)
        self.present = 0
        """Which generation trains, from 0."""

    def student(self, generation: int) -> DistilledStudent:
        """Of a generation, from 0."""
        found = self.students[generation]
        assert isinstance(found, DistilledStudent)
        return found

    @property
    def taught(self) -> DistilledStudent:
        """The student that trains."""
        return self.student(self.present)

    @property
    def leaves_from(self) -> int:
        """The epochs of all generations before the last: each begins with weights of its own."""
        return self.starts[-1]

    def get_extra_state(self) -> int:
        """Which generation trains."""
        return self.present

    def set_extra_state(self, state: int) -> None:
        """See :meth:`get_extra_state`."""
        self.present = state

    def _places(self) -> dict[str, tuple[int, Stage]]:
        """Generation and stage by the names of phases, in order."""
        return {
            f"generation {i + 1}" + (" (initial)" if stage == "initial" else ""): (i, stage)
            for i in range(len(self.students))
            for stage in self.student(i).stages
        }

    def phases(self) -> tuple[Phase, ...]:
        """Those of each generation in turn."""
        return tuple(self._phase(name, *place) for name, place in self._places().items())

    def _phase(self, name: str, i: int, stage: Stage) -> Phase:
        ask, step = partial(self._ask, i, stage), partial(self._step, i, stage)
        found = replace(
            self.student(i).phase(stage, ask=ask, step=step), name=name, before_epoch=partial(self._begin, i)
        )
        return asked_online(found) if _hears_the_last(i, stage) else found

    def _begin(self, i: int, epoch: int) -> None:
        self.present = i

    def _ask(self, i: int, stage: Stage, batch: Batch) -> Asked:
        asked = self.student(i).ask(batch, stage)
        if not _hears_the_last(i, stage):
            return asked
        before = self.student(i - 1).deployed
        return heard_too(asked, {"logits": earlier_logits(before, batch.images)})

    def _step(self, i: int, stage: Stage, batch: Batch, asked: Asked) -> Iterator[Update]:
        student = self.student(i)
        batch = replace(batch, epoch=batch.epoch - self.starts[i])
        if not _hears_the_last(i, stage):
            yield Update("student", *student.learn(batch, asked, stage))
            return
        *asked, said = asked
        taps = student.taps(batch.images)
        loss, terms = student.learn(batch, asked, taps=taps)
        apart = soft_divergence(student.logits(taps), said["logits"], self.temperature).mean()
        yield Update("student", self.own * loss + self.earlier * apart, {**terms, "earlier": apart.detach()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of the generation that trains."""
        i, stage = self._places()[phase.name]
        return self.student(i).step_macs(batch_size, stage)

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """The pass of the generation before."""
        return float(self.cost.unmerged_macs) if _hears_the_last(*self._places()[phase.name]) else 0.0


def _hears_the_last(i: int, stage: Stage) -> bool:
    return i > 0 and stage == "main"


def shortest_generation(distillation: DistillationSpec) -> int:
    """Epochs that a generation takes at least: a term with an initial stage needs two."""
    return 2 if any(KNOWLEDGE[term.kind].initial_stage for term in distillation.terms) else 1
