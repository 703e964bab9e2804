"""Two peers, as a user's own scheme. Name this file in the study's ``modules``, and ``two_peers`` in a space.

Zhang, Xiang, Hospedales, Lu: Deep mutual learning. CVPR 2018, arXiv 1706.00384, equations 8 to 10: each of two peers
minimises its cross-entropy with the labels, and the divergence from what the other says (``logits`` at temperature 1;
here any kind of knowledge will do, and it is the other who answers; naskd's ``mutual`` leaves terms to the teachers).

Differs: both move by what they said of the same batch; in the paper's algorithm 1 the first moves before the second
looks at it. So neither peer is special.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from torch import nn

from naskd.knowledge.source import TapsSource
from naskd.schemes import SCHEMES, SchemeCard
from naskd.schemes.distilled import DistilledStudent
from naskd.schemes.objective import Stage
from naskd.schemes.scheme import Asked, Batch, Phase, Scheme, SchemeInputs, Update
from naskd.spec.design import Cost


class TwoPeers(Scheme):
    """Two networks of the design, each the other's teacher; the first one leaves."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        one, other = inputs.build(), inputs.build()
        shape = (inputs.in_channels, inputs.resolution)
        self.teachers = (TapsSource.beside(other, *shape), TapsSource.beside(one, *shape))
        self.peers = nn.ModuleList(
            DistilledStudent(replace(inputs, sources=(teacher,)), network)
            for teacher, network in zip(self.teachers, (one, other), strict=True)
        )

    def students(self) -> list[DistilledStudent]:
        """Both peers."""
        return [peer for peer in self.peers if isinstance(peer, DistilledStudent)]

    @property
    def deployed(self) -> nn.Module:
        """The first peer."""
        return self.students()[0].deployed

    @property
    def cost(self) -> Cost:
        """Of the first peer: the other is paid for in training alone."""
        return self.students()[0].cost

    def phases(self) -> tuple[Phase, ...]:
        """One, or two where a kind of knowledge has an initial stage."""
        first = self.students()[0]
        return tuple(
            Phase(
                name=stage,
                epochs=first.epochs_of(stage),
                trained={f"peer{i}": peer.trained_in(stage) for i, peer in enumerate(self.students())},
                step=partial(self._step, stage),
                min_batch=first.objective.min_batch,
            )
            for stage in first.stages
        )

    def _step(self, stage: Stage, batch: Batch, asked: Asked) -> Iterator[Update]:
        one, other = self.students()
        shown = one.taps(batch.images), other.taps(batch.images)
        learned = []
        for peer, teacher, own, heard in zip((one, other), self.teachers, shown, shown[::-1], strict=True):
            said = peer.ask(batch, stage, [teacher.of(heard)])
            learned.append(peer.learn(batch, said, stage, own))
        for i, (loss, terms) in enumerate(learned):
            yield Update(f"peer{i}", loss, {f"peer{i}.{name}": term for name, term in terms.items()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of both; nobody else is asked."""
        stage: Stage = "initial" if phase.name == "initial" else "main"
        return sum(peer.step_macs(batch_size, stage)[0] for peer in self.students()), 0.0


SCHEMES.register(
    SchemeCard(
        name="two_peers",
        title="Deep mutual learning: two peers teach each other",
        paper="Zhang, Xiang, Hospedales, Lu: Deep mutual learning. CVPR 2018, arXiv 1706.00384",
        implementation=TwoPeers,
        supervisor="peers",
    )
)
