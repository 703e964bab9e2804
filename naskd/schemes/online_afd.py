"""Online AFD: Chung, Park, Kim, Kwak: Feature-map-level online adversarial knowledge distillation. ICML 2020.

arXiv 2002.01775, section 3. Networks learn together from the labels, from what another one says, and from a
discriminator each, which tells the last maps of that other network (real) from its own (fake):
``CE_k + weight T^2 KL(p_l || p_k) + adversarial (1 - D_k(t_k(F_k)))^2``. The discriminator minimises
``(1 - D_k(F_l))^2 + D_k(t_k(F_k))^2``. Of two networks each hears the other; of more, in a cycle, each hears the one
before it. Where maps differ in width, a 1x1 convolution ``t_k`` takes a network's own to the other's. The first network
leaves.

The form of the losses and ``T`` 3 are the paper's. The layers of the discriminators, their rate and optimizer, and the
weight 0.1 of the adversarial term are ours, and not tuned: AdamW at 2e-4 with a first beta of 0.5 is a habit of
adversarial training. Their weight decay and schedule are the design's.

Differs: one optimizer minimises all that a network has to, in place of one for its logits and one for its maps.
Discriminators move after the networks, on the maps that those had before. Each network minimises the design's whole
objective, so that teachers of the study may teach all of them. A discriminator that is never fooled in an epoch, or
that says the same of all maps, ends the training as failed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from naskd.knowledge.adapters import ChannelAdapter
from naskd.knowledge.comparison import soft_divergence
from naskd.nn.cost import count_macs, on_meta
from naskd.nn.taps import as_map
from naskd.schemes.cohort import Cohort, CohortScheme, name_of, together
from naskd.schemes.discriminator import (
    MapDiscriminator,
    check_discriminators,
    fixed,
    spread,
    squares_fooled,
    squares_told,
)
from naskd.schemes.distilled import Learned
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update, recordable


class OnlineAfdScheme(CohortScheme):
    """Networks, the first of which leaves, and a discriminator of each."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))
        self.adversarial = float(inputs.option("adversarial"))
        self.rate = float(inputs.option("discriminator_rate"))
        self.cohort = Cohort(inputs, int(inputs.option("peers")), float(inputs.option("peer_width")))
        widths = [student.shapes.stages[-1].channels for student in self.cohort.students]
        heard = [widths[self._heard_by(place)] for place in range(len(widths))]
        device = next(self.cohort.parameters()).device
        self.transfers = nn.ModuleList(
            nn.Identity() if own == other else ChannelAdapter(own, other)
            for own, other in zip(widths, heard, strict=True)
        ).to(device)
        self.discriminators = nn.ModuleList(MapDiscriminator(other) for other in heard).to(device)

    def phases(self) -> tuple[Phase, ...]:
        """The initial stage, where a term asks for one, and the game of networks and discriminators."""
        *initial, main = self.cohort.phases(self._step, beside=(self.transfers,))
        game = replace(
            main,
            trained={**main.trained, "discriminators": (self.discriminators,)},
            settings={
                "discriminators": {"optimizer": "adamw", "learning_rate": self.rate, "momentum": 0.5},
            },
            repeats=main.repeats and recordable(self._step, (self.discriminators,)),
            # Where nobody tries to fool them, they may well be never fooled.
            after_epoch=self._judge if self.adversarial else None,
        )
        return (*initial, game)

    def _heard_by(self, place: int) -> int:
        return (place - 1) % len(self.cohort.members)

    def _judge(self, means: Mapping[str, float]) -> None:
        check_discriminators(means, [name_of(i, "discriminator") for i in range(len(self.discriminators))])

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        learned, logits, taps = self.cohort.taught(batch, asked)
        maps = [as_map(shown.stages[-1]) for shown in taps]
        own = [transfer(shown) for transfer, shown in zip(self.transfers, maps, strict=True)]
        noted: list[Learned] = []
        for place, (loss, terms) in enumerate(learned):
            other = logits[self._heard_by(place)].detach()
            apart = soft_divergence(logits[place], other, self.temperature).mean()
            fooled = squares_fooled(fixed(self.discriminators[place], own[place]))
            named = {"mutual": apart.detach(), "fooling": fooled.detach()}
            total = loss + self.weight * apart + self.adversarial * fooled
            noted.append((total, terms | {name_of(place, name): term for name, term in named.items()}))
        yield Update("students", *together(noted))
        told = [
            self._told(place, maps[self._heard_by(place)].detach(), fake.detach())
            for place, fake in enumerate(own)
        ]
        yield Update("discriminators", *together(told))

    def _told(self, place: int, real: Tensor, fake: Tensor) -> Learned:
        """What a discriminator minimises: one pass over both, since half a batch fills a device less."""
        scores = self.discriminators[place](torch.cat((real, fake)))
        first, second = scores.chunk(2)
        loss, name = squares_told(first, second), name_of(place, "discriminator")
        return loss, {name: loss.detach(), f"{name}.spread": spread(first, second)}

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Of networks, their 1x1 convolutions, and discriminators, which see three maps of each image.

        The network's own one is seen twice. The first of these passes has half the backward pass that is booked for it,
        since the discriminator is fixed.
        """
        if phase.name == "initial":
            return self.cohort.step_macs(batch_size, "initial")
        trained, asked = self.cohort.step_macs(batch_size)
        return trained + sum(map(self._macs_beside, range(len(self.cohort.members)))), asked

    def _macs_beside(self, place: int) -> int:
        own, other = (self.cohort.students[i].shapes.stages[-1] for i in (place, self._heard_by(place)))
        mine, real = (torch.empty(1, last.channels, *own.grid, device="meta") for last in (own, other))
        transfer, discriminator = on_meta(self.transfers[place]), on_meta(self.discriminators[place])
        return count_macs(lambda: transfer(mine)) + 3 * count_macs(lambda: discriminator(real))
