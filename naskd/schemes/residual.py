"""A student first, and then smaller networks beside it that learn what it lacks: what two schemes share.

All of them leave together. Until its own part of the epochs a network adds nothing to the student, so that curves show
the student alone. Each part has a schedule of its own; the student is fixed in all parts but the first.
"""

from collections.abc import Sequence

from naskd.schemes.cohort import widened
from naskd.schemes.distilled import DistilledStudent
from naskd.schemes.earlier_self import equal_parts
from naskd.schemes.generations import shortest_generation
from naskd.schemes.scheme import Phase, Scheme, SchemeInputs
from naskd.spec.design import ArchitectureSpec
from naskd.spec.errors import InputError


def residual_parts(inputs: SchemeInputs, residuals: int) -> tuple[int, ...]:
    """Epochs of the student, and of each network beside it, by the option ``share``.

    Raises:
        InputError: There are too few.
    """
    first, epochs = shortest_generation(inputs.distillation), inputs.epochs
    if epochs < first + residuals:
        scheme = inputs.distillation.scheme
        raise InputError(
            f"scheme {scheme!r} needs a training of at least {first + residuals} epochs, got {epochs}"
        )
    share = float(inputs.option("share"))
    beside = min(epochs - first, max(residuals, round(share * epochs)))
    return (epochs - beside, *equal_parts(beside, residuals))


def narrower(inputs: SchemeInputs) -> ArchitectureSpec:
    """The student's architecture with as many times the channels as the option ``width`` says."""
    assert inputs.architecture is not None, "what corrects a student is made from its design"
    return widened(inputs.architecture, float(inputs.option("width")))


class Residuals(Scheme):
    """The student, and then in turn those beside it.

    Args:
        inputs: Of the scheme.
        student: With the epochs of its part.
        lengths: Epochs of all parts, the student's first.
    """

    def __init__(self, inputs: SchemeInputs, student: DistilledStudent, lengths: Sequence[int]) -> None:
        super().__init__(inputs)
        self.taught = student
        self.starts = [sum(lengths[:i]) for i in range(len(lengths))]
        self.lengths = tuple(lengths)

    def phases(self) -> tuple[Phase, ...]:
        """The student's, as offline, and one for each network beside it."""
        own = [self.taught.phase(stage) for stage in self.taught.stages]
        return (*own, *(self.residual_phase(name, i) for name, i in self._residuals().items()))

    def _residuals(self) -> dict[str, int]:
        """Numbers of the networks beside the student, from 0, by the names of their phases."""
        return {f"residual {i + 1}": i for i in range(len(self.lengths) - 1)}

    def residual_phase(self, name: str, i: int) -> Phase:
        """In which network `i` learns what is left."""
        raise NotImplementedError

    def residual_macs(self, batch_size: int, i: int) -> tuple[float, float]:
        """See :meth:`Scheme.step_macs`, in the part of network `i`."""
        raise NotImplementedError

    def fixed_macs(self, i: int) -> float:
        """See :meth:`Scheme.forward_macs`, in the part of network `i`."""
        raise NotImplementedError

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of the network that is trained."""
        if (i := self._residuals().get(phase.name)) is not None:
            return self.residual_macs(batch_size, i)
        return self.taught.step_macs(batch_size, "initial" if phase.name == "initial" else "main")

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """The passes of the student, and of those beside it that have learned already."""
        i = self._residuals().get(phase.name)
        return 0.0 if i is None else self.fixed_macs(i)
