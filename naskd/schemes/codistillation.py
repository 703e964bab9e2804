"""Codistillation: Anil, Pereyra, Passos, Ormandi, Dahl, Hinton. ICLR 2018, arXiv 1804.03235, algorithm 1.

Large scale distributed neural network training through online distillation. Networks of one architecture learn from
the labels and, after a burn-in, from the mean of what the others predict:
``CE_k + weight KL(mean_(l != k) p_l || p_k)``. A network hears stale copies of the others, which are refreshed rarely:
where networks train on different machines, weights travel seldom. The first one leaves.

Defaults: 2 networks and a weight of 1, as in the paper, copies of the last epoch's end, and a fifth of the training as
burn-in. The paper counts the last two in steps of distributed trainings, so that these values are ours, and not tuned.

Differs: the divergence takes the place of the paper's cross-entropy with the mean, of the same gradient. A temperature
can be set; the paper has none, and with it the divergence is multiplied by ``T^2``. All networks see the same batches,
and differ by the weights that they begin with; the paper's best results are with other data for each. Copies predict in
evaluation mode. They are asked in the burn-in too and not listened to, so that all epochs cost the same. Each network
minimises the design's whole objective, so that teachers of the study may teach all of them.

Left out: networks on different machines, or in trials of their own, which is what the paper is for. Here they share one
training, which is the same arithmetic, and no faster.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from naskd.knowledge.precision import widened
from naskd.schemes.cohort import Cohort, CohortScheme, name_of, together
from naskd.schemes.distilled import Learned
from naskd.schemes.earlier_self import EarlierSelf, asked_online, heard_too
from naskd.schemes.okddip import leader_loss
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


def burn_in_epochs(share: float, epochs: int) -> int:
    """Of a training of `epochs`, the first that hear nobody: their share, rounded, and never all of them."""
    return min(round(share * epochs), epochs - 1)


class CodistillationScheme(CohortScheme):
    """Networks that hear stale copies of each other, the first of which leaves."""

    heard: Tensor

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        self.exchange = int(inputs.option("exchange"))
        self.cohort = Cohort(inputs, int(inputs.option("peers")))
        self.copies = nn.ModuleList(EarlierSelf(student.deployed) for student in self.cohort.students)
        self.burn_in = burn_in_epochs(float(inputs.option("burn_in")), self.taught.epochs_of("main"))
        device = next(self.cohort.parameters()).device
        self.register_buffer("heard", torch.zeros((), device=device))

    def phases(self) -> tuple[Phase, ...]:
        """The initial stage, where a term asks for one, and the training together, its burn-in included."""
        *initial, main = self.cohort.phases(self._step, before_epoch=self._begin)
        return (*initial, asked_online(replace(main, ask=self._ask)))

    def _begin(self, epoch: int) -> None:
        """Refresh the copies after the burn-in, and every so many epochs from then on."""
        since = epoch - self.burn_in
        self.heard.fill_(float(since >= 0))
        if since >= 0 and since % self.exchange == 0:
            for copy, student in zip(self.copies, self.cohort.students, strict=True):
                assert isinstance(copy, EarlierSelf)
                copy.take(student.deployed)

    def _ask(self, batch: Batch) -> Asked:
        stale = torch.stack([copy(batch.images) for copy in self.copies], dim=1)
        return heard_too(self.cohort.ask(batch), {"stale": stale})

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        *asked, said = asked
        stale = widened(said["stale"]).transpose(0, 1)
        learned, logits, _ = self.cohort.taught(batch, asked)
        noted: list[Learned] = []
        for place, ((loss, terms), own) in enumerate(zip(learned, logits, strict=True)):
            others = torch.cat((stale[:place], stale[place + 1 :]))
            apart = leader_loss(widened(own), others, self.temperature)
            named = {**terms, name_of(place, "codistillation"): apart.detach()}
            noted.append((loss + self.weight * self.heard * apart, named))
        yield Update("students", *together(noted))

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of all networks."""
        return self.cohort.step_macs(batch_size, "initial" if phase.name == "initial" else "main")

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """The passes of the copies."""
        if phase.name == "initial":
            return 0.0
        return float(sum(student.cost.unmerged_macs for student in self.cohort.students))
