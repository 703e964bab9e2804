"""Codistillation: Anil, Pereyra, Passos, Ormandi, Dahl, Hinton. ICLR 2018, arXiv 1804.03235, algorithm 1.

Large scale distributed neural network training through online distillation. Networks of one architecture learn from
the labels and, after a burn-in, from the mean of what the others predict:
``CE_k + weight KL(mean_(l != k) p_l || p_k)``. A network hears stale copies of the others, which are refreshed rarely:
where networks train on different machines, weights travel seldom. The first one leaves.

They train together, or with ``peers_in = "trials"`` each in a training of its own, by whichever worker. That one holds
one network with its gradients, and copies of the others. Weights travel through the study's checkpoints. The arithmetic
is the same.

Defaults: 2 networks and a weight of 1, as in the paper, copies of the last epoch's end, and a fifth of the training as
burn-in. The paper counts the last two in steps of distributed trainings, so that these values are ours, and not tuned.

Differs: the divergence takes the place of the paper's cross-entropy with the mean, of the same gradient. A temperature
can be set; the paper has none, and with it the divergence is multiplied by ``T^2``. All networks see the same batches,
and differ by the weights that they begin with; the paper's best results are with other data for each. Copies predict in
evaluation mode. They are asked in the burn-in too and not listened to, so that all epochs cost the same. Each network
minimises the design's whole objective, so that teachers of the study may teach all of them.

Differs: in the paper a network hears whatever copy came last, so that no two trainings are equal. Here copies have a
fixed age, ``lag`` exchanges, and who is faster waits for them. With a lag there is nothing to hear in as many at first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from naskd.knowledge.precision import widened
from naskd.schemes.apart import Exchanges, PeerScheme
from naskd.schemes.cohort import Cohort, CohortScheme, name_of, peer, together
from naskd.schemes.distilled import DistilledStudent, Learned
from naskd.schemes.earlier_self import EarlierSelf, asked_online, heard_too
from naskd.schemes.okddip import leader_loss
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update
from naskd.spec.errors import InputError


def burn_in_epochs(share: float, epochs: int) -> int:
    """Of a training of `epochs`, the first that hear nobody: their share, rounded, and never all of them."""
    return min(round(share * epochs), epochs - 1)


def exchanges_of(inputs: SchemeInputs, student: DistilledStudent) -> Exchanges:
    """When the networks of a design tell each other what they are, in epochs of its main stage.

    Raises:
        InputError: They would hear nobody before the end.
    """
    epochs = student.epochs_of("main")
    found = Exchanges(
        burn_in_epochs(float(inputs.option("burn_in")), epochs),
        int(inputs.option("exchange")),
        int(inputs.option("lag")),
    )
    if found.listening >= epochs:
        raise InputError(
            f"with lag = {found.lag} and exchange = {found.every}, peers would first hear each other after "
            f"{found.listening} of {epochs} epochs; allowed: fewer than these"
        )
    return found


class CodistillationScheme(CohortScheme):
    """Networks that hear stale copies of each other, the first of which leaves; they train together."""

    heard: Tensor

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        self.cohort = Cohort(inputs, int(inputs.option("peers")))
        self.exchanges = exchanges_of(inputs, self.taught)
        self.copies = self._copies()
        if self.exchanges.lag:
            self.told = nn.ModuleList(self._copies() for _ in range(self.exchanges.lag))
        device = next(self.cohort.parameters()).device
        self.register_buffer("heard", torch.zeros((), device=device))

    def _copies(self) -> nn.ModuleList:
        return nn.ModuleList(EarlierSelf(student.deployed) for student in self.cohort.students)

    def phases(self) -> tuple[Phase, ...]:
        """The initial stage, where a term asks for one, and the training together, its burn-in included."""
        *initial, main = self.cohort.phases(self._step, before_epoch=self._begin)
        return (*initial, asked_online(replace(main, ask=self._ask)))

    def _begin(self, epoch: int) -> None:
        """Refresh the copies after the burn-in, and every so many epochs from then on."""
        self.heard.fill_(float(epoch >= self.exchanges.listening))
        exchange = self.exchanges.before(epoch)
        if exchange is None:
            return
        networks: list[nn.Module] = [student.deployed for student in self.cohort.students]
        if not self.exchanges.lag:
            _take(self.copies, networks)
            return
        told = self.told[exchange.number % self.exchanges.lag]
        assert isinstance(told, nn.ModuleList)
        if exchange.heard >= 0:
            _take(self.copies, [copy.network for copy in told if isinstance(copy, EarlierSelf)])
        _take(told, networks)

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


def _take(copies: nn.ModuleList, networks: Sequence[nn.Module]) -> None:
    for copy, network in zip(copies, networks, strict=True):
        assert isinstance(copy, EarlierSelf)
        copy.take(network)


class CodistillationPeer(PeerScheme):
    """One of the networks, in a training of its own: it holds copies of the others and no gradient of them.

    It draws the weights of all, in their order, and keeps those of others as its first copies. So it begins as it does
    where all train together.
    """

    heard: Tensor

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        assert inputs.place is not None
        self.place = inputs.place
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        self.copies = nn.ModuleList()
        for place in range(int(inputs.option("peers"))):
            student = peer(inputs, place)
            if place == self.place:
                self.taught = student
            else:
                self.copies.append(EarlierSelf(student.deployed))
        own = exchanges_of(inputs, self.taught)
        self.exchanges = replace(own, first=own.first + self.taught.initial_epochs)
        device = next(self.taught.parameters()).device
        self.register_buffer("heard", torch.zeros((), device=device))

    def phases(self) -> tuple[Phase, ...]:
        """The initial stage, where a term asks for one, and the main one, its burn-in included."""
        *initial, _ = self.taught.stages
        main = self.taught.phase("main", ask=self._ask, step=self._step, before_epoch=self._begin)
        return (*(self.taught.phase(stage) for stage in initial), asked_online(replace(main, name="peers")))

    def hear(self, others: Sequence[Mapping[str, Tensor]]) -> None:
        """See :class:`~naskd.schemes.apart.PeerScheme`."""
        for copy, state in zip(self.copies, others, strict=True):
            assert isinstance(copy, EarlierSelf)
            copy.network.load_state_dict(state)

    def _begin(self, epoch: int) -> None:
        listens = epoch + self.taught.initial_epochs >= self.exchanges.listening
        self.heard.fill_(float(listens))

    def _ask(self, batch: Batch) -> Asked:
        stale = torch.stack([copy(batch.images) for copy in self.copies], dim=1)
        return heard_too(self.taught.ask(batch), {"stale": stale})

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        *asked, said = asked
        taps = self.taught.taps(batch.images)
        loss, terms = self.taught.learn(batch, asked, taps=taps)
        stale = widened(said["stale"]).transpose(0, 1)
        apart = leader_loss(widened(self.taught.logits(taps)), stale, self.temperature)
        named = {**terms, "codistillation": apart.detach()}
        yield Update("student", loss + self.weight * self.heard * apart, named)

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of this network."""
        return self.taught.step_macs(batch_size, "initial" if phase.name == "initial" else "main")

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """The passes of the copies of the others."""
        return 0.0 if phase.name == "initial" else float(self.taught.cost.unmerged_macs * len(self.copies))
