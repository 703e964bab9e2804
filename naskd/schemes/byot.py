"""BYOT: Zhang, Song, Gao, Chen, Bao, Ma: Be your own teacher. ICCV 2019, arXiv 1905.08094, section 3.

Each stage but the last has an exit beside the network: a bottleneck and a classifier. The network teaches its exits and
all learn together. Beside the design's objective there is for each exit
``(1 - alpha) CE(z_i, y) + alpha T^2 KL(p_deep || p_i) + hint |F_i - F_deep|^2``. In the last two, what the network says
and shows is fixed. The exits stay behind.

The defaults are T 3, alpha 0.3 and hint 0.03. Public settings for CIFAR-100 have T 3 and alpha 0.1 to 0.3. For the hint
they have anything from 1e-6 to 0.03, by how the distance is summed. `exits` weighs the sum over exits: 1 in the paper.

Differs: features are compared where the classifier reads them, averaged over space, so that any family of networks has
exits. The distance is summed over features and averaged over the batch. A bottleneck is a 3x3 convolution for each
halving of the grid and a 1x1 convolution, with BatchNorm.

With `exit` above 0 the exit after that stage leaves in place of the whole network: a cheaper student that was taught by
its own deeper stages. The paper leaves the exit to the moment of inference. Here each exit is a design with a cost of
its own, and one training gives all of them.
"""

from collections.abc import Iterator
from functools import cached_property

from torch import Tensor, nn

from naskd.knowledge.base import Lesson
from naskd.knowledge.comparison import soft_divergence
from naskd.knowledge.precision import widened
from naskd.networks.early_exit import EarlyExit, Exit, first_stages, halvings
from naskd.nn.cost import network_cost
from naskd.nn.taps import as_map
from naskd.schemes.distilled import DistilledStudent
from naskd.schemes.scheme import Asked, Batch, Phase, Scheme, SchemeInputs, Sibling, Update
from naskd.spec.design import Cost
from naskd.spec.errors import InputError


def exit_loss(
    own: tuple[Tensor, Tensor],
    deep: tuple[Tensor, Tensor],
    lesson: Lesson,
    *,
    alpha: float,
    temperature: float,
    hint: float,
) -> Tensor:
    """``(1 - alpha) CE(z_i, y) + alpha T^2 KL(p_deep || p_i) + hint (1/B) sum_b |F_i - F_deep|^2``.

    Args:
        own: Features ``(B, D)`` and logits ``(B, K)`` of an exit.
        deep: The same of the whole network, not differentiated.
        lesson: Labels of the batch.
        alpha: In [0, 1].
        temperature: ``T > 0``.
        hint: At least 0.
    """
    (features, logits), (deep_features, deep_logits) = own, deep
    labels = lesson.label_loss(widened(logits))
    apart = (widened(features) - widened(deep_features.detach())).square().sum(dim=1).mean()
    heard = soft_divergence(logits, deep_logits.detach(), temperature).mean()
    return (1 - alpha) * labels + alpha * heard + hint * apart


class ByotScheme(Scheme):
    """A student and its exits, trained together by one optimizer.

    Raises:
        InputError: The stage has no exit, or the exit of such a network cannot leave.
    """

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.taught = DistilledStudent(inputs)
        self.settings = {name: float(inputs.option(name)) for name in ("alpha", "temperature", "hint")}
        self.weight = float(inputs.option("exits"))
        shapes = self.taught.shapes
        device = next(self.taught.parameters()).device
        last, features = max(shapes.stages[-1].grid), shapes.n_features
        self.exits = nn.ModuleList(
            Exit(stage.channels, halvings(max(stage.grid), last), features, shapes.n_classes)
            for stage in shapes.stages[:-1]
        ).to(device)
        self._exit = int(inputs.option("exit"))
        # In a tuple, so that it is no module of its own: its parts are in the state already.
        self._early = (self._early_exit(self._exit),) if self._exit else ()

    def _early_exit(self, number: int) -> EarlyExit:
        """What leaves with the exit after a stage, from 1."""
        if number > len(self.exits):
            raise InputError(
                f"scheme 'byot' has exit = {number}; allowed: 0 to {len(self.exits)}, as there are exits after "
                f"{len(self.exits)} of {len(self.exits) + 1} stages"
            )
        if self.taught.deployed is not self.taught.network:
            raise InputError("scheme 'byot': an exit cannot leave where a loss stays in the student")
        leave = self.exits[number - 1]
        assert isinstance(leave, Exit)
        return EarlyExit(first_stages(self.taught.network, number), leave)

    @property
    def deployed(self) -> nn.Module:
        """The student, the exits stay behind; or one of the exits with the stages before it."""
        return self._early[0] if self._early else self.taught.deployed

    @cached_property
    def cost(self) -> Cost:
        """See :attr:`Scheme.cost`."""
        return self._cost_of(self._early[0]) if self._early else self.taught.cost

    def _cost_of(self, early: EarlyExit) -> Cost:
        return network_cost(early, self.inputs.in_channels, self.inputs.resolution)

    @cached_property
    def siblings(self) -> tuple[Sibling, ...]:
        """The network and its exits, but for the one that leaves; none where no exit can."""
        others = [number for number in range(1, 1 + len(self.exits)) if number != self._exit]
        try:
            early = {number: self._early_exit(number) for number in others}
        except InputError:
            return ()
        found = [Sibling({"exit": number}, one, self._cost_of(one)) for number, one in early.items()]
        whole = [Sibling({"exit": 0}, self.taught.deployed, self.taught.cost)] if self._exit else []
        return (*whole, *found)

    def phases(self) -> tuple[Phase, ...]:
        """As offline, the exits beside the student in the last one."""
        taught = self.taught
        main = taught.phase("main", step=self._step, beside=(self.exits,))
        return (*(taught.phase(stage) for stage in taught.stages[:-1]), main)

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        taught = self.taught
        taps = taught.taps(batch.images)
        loss, terms = taught.learn(batch, asked, taps=taps)
        deep, lesson = (taps.pooled, taught.logits(taps)), taught.lesson(batch)
        losses = [
            exit_loss(leave(as_map(stage)), deep, lesson, **self.settings)
            for leave, stage in zip(self.exits, taps.stages[:-1], strict=True)
        ]
        total = sum(losses[1:], losses[0])
        yield Update("student", loss + self.weight * total, {**terms, "exits": total.detach()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """With the exits."""
        if phase.name == "initial":
            return self.taught.step_macs(batch_size, "initial")
        trained, asked = self.taught.step_macs(batch_size)
        exits = zip(self.exits, self.taught.shapes.stages[:-1], strict=True)
        return trained + sum(network_cost(leave, s.channels, s.grid).macs for leave, s in exits), asked
