"""ResKD: Li, Li, Omar, Wu, Li: ResKD: Residual-Guided Knowledge Distillation. TIP 2021, arXiv 2006.04719, section 3.

A student is trained by the design's objective. Then a much smaller network, the res-student, learns the gap between
the logits of teacher and student: it minimises ``T^2 KL(p_t || softmax((z_s + z_r) / T))``, the student fixed. The sum
of both leaves, and both count in the cost. With `residuals` above 1 that is repeated: the sum so far is fixed, and a
further res-student learns what is left.

A res-student's classifier is 0 at first, so that it begins as nothing. Of a student that says what its teacher says, it
stays that: the loss and its gradient are 0.

Defaults: one res-student of half the channels, and half of the epochs for it. The paper searches the res-student's
architecture within a budget, and trains each network in full.

Differs: a res-student is the student with fewer channels, and the design's epochs are split. The gap is to the first
network that the design hears. Left out: the energy by which the paper stops adding, since a design says how many there
are; and its inference that leaves out res-students image by image, since a network then has no single cost.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from torch import nn

from naskd.networks.layers import total
from naskd.nn.corrected import SummedStudent, sum_of
from naskd.nn.deployed import as_deployed, linear_head
from naskd.schemes.distilled import DistilledStudent
from naskd.schemes.earlier_self import asked_online, earlier_logits, heard_too
from naskd.schemes.residual import Residuals, narrower, residual_parts
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update
from naskd.spec.design import Cost, DistillationSpec, KnowledgeTerm
from naskd.spec.errors import InputError


class ReskdScheme(Residuals):
    """A student and its res-students, whose logits are added."""

    def __init__(self, inputs: SchemeInputs) -> None:
        lengths = residual_parts(inputs, int(inputs.option("residuals")))
        super().__init__(inputs, DistilledStudent(replace(inputs, epochs=lengths[0])), lengths)
        small = narrower(inputs)
        gap = KnowledgeTerm("logits", temperature=float(inputs.option("temperature")))
        given = replace(
            inputs,
            distillation=DistillationSpec((gap,), ce_weight=0.0),
            sources=inputs.sources[:1],
            architecture=small,
        )
        self.residuals = nn.ModuleList(
            DistilledStudent(replace(given, epochs=n), silenced(inputs.build_variant(small)))
            for n in lengths[1:]
        )
        self.whole = SummedStudent(
            [self.taught.deployed, *(self.residual(i).network for i in range(len(lengths) - 1))]
        )

    @property
    def deployed(self) -> nn.Module:
        """The student and all res-students."""
        return self.whole

    @property
    def cost(self) -> Cost:
        """Of all of them."""
        return total([self.taught.cost, *(self.residual(i).cost for i in range(len(self.residuals)))])

    def residual(self, i: int) -> DistilledStudent:
        """The res-student `i`, from 0."""
        found = self.residuals[i]
        assert isinstance(found, DistilledStudent)
        return found

    def residual_phase(self, name: str, i: int) -> Phase:
        """See :class:`Residuals`."""
        ask, step = partial(self._ask, i), partial(self._step, i)
        return replace(asked_online(self.residual(i).phase("main", ask=ask, step=step)), name=name)

    def _ask(self, i: int, batch: Batch) -> Asked:
        fixed = self.whole.members[: i + 1]
        said = sum_of([earlier_logits(member, batch.images) for member in fixed])
        return heard_too(self.residual(i).ask(batch), {"logits": said})

    def _step(self, i: int, batch: Batch, asked: Asked) -> Iterator[Update]:
        *asked, fixed = asked
        student = self.residual(i)
        taps = student.taps(batch.images)
        summed = replace(taps, logits=fixed["logits"] + taps.logits)
        loss, terms = student.learn(batch, asked, taps=summed)
        yield Update("student", loss, {f"residual{i + 1}.{name}": term for name, term in terms.items()})

    def residual_macs(self, batch_size: int, i: int) -> tuple[float, float]:
        """See :class:`Residuals`."""
        return self.residual(i).step_macs(batch_size)

    def fixed_macs(self, i: int) -> float:
        """See :class:`Residuals`."""
        return float(
            self.taught.cost.unmerged_macs + sum(self.residual(j).cost.unmerged_macs for j in range(i))
        )


def silenced(network: nn.Module) -> nn.Module:
    """The same network with a classifier of zeros: it says nothing until it is trained.

    Raises:
        InputError: It has no linear classifier.
    """
    head = linear_head(as_deployed(network))
    if head is None:
        raise InputError(
            f"scheme 'reskd' needs students with a linear classifier, not a {type(network).__name__}"
        )
    nn.init.zeros_(head.weight)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return network
