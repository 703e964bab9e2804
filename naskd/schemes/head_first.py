"""Linear probing, then fine-tuning (LP-FT): the classifier learns first, the whole network afterwards.

Kumar, Raghunathan, Jones, Ma, Liang: Fine-tuning can distort pretrained features and underperform out-of-distribution.
ICLR 2022, arXiv 2202.10054, section 3. A new classifier on pretrained features has large gradients at first, which
would change the features before it fits them.

Differs: in the paper the classifier is fitted until it converges; here it takes a share of the epochs, and each part
goes through the design's schedule. Features are those of evaluation mode meanwhile, as nothing else is trained. Only
the labels teach the classifier; what teaches besides does so afterwards.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from naskd.nn.deployed import as_deployed, linear_head
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update, recordable
from naskd.spec.errors import InputError

HEAD = "head"
"""Name of the first phase."""


class HeadFirstScheme(StudentScheme):
    """One student, of which the classifier is trained alone for a share of the epochs.

    Raises:
        InputError: The network does not end in a linear classifier of its features, a term needs a stage of its own or
            replaces the classifier, or the training has one epoch.
    """

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        if inputs.epochs < 2:
            raise InputError(
                f"scheme 'head_first' needs a training of at least 2 epochs, got {inputs.epochs}"
            )
        share = float(inputs.option("share"))
        self.head_epochs = min(inputs.epochs - 1, max(1, round(share * inputs.epochs)))
        self.taught = DistilledStudent(replace(inputs, epochs=inputs.epochs - self.head_epochs))
        objective = self.taught.objective
        if self.taught.initial_epochs or objective.deployed is not None:
            raise InputError(
                "scheme 'head_first' trains the network's own classifier first, and a term has an initial stage or "
                "replaces it"
            )
        self._find_head()

    def _find_head(self) -> torch.nn.Linear:
        head = linear_head(as_deployed(self.taught.network))
        if head is None or not any(head is module for module in self.taught.network.modules()):
            raise InputError(
                f"scheme 'head_first': {type(self.taught.network).__name__} does not end in a linear classifier of its "
                "features in the study's order of classes"
            )
        return head

    def phases(self) -> tuple[Phase, ...]:
        """The classifier, then everything."""
        whole = self.taught.phase("main", step=self._joined)
        first = Phase(
            name=HEAD,
            epochs=self.head_epochs,
            trained={"student": (self._find_head(),)},
            step=self._alone,
            min_batch=whole.min_batch,
            repeats=recordable(self._alone, (self,)),
        )
        return first, whole

    def _joined(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        batch = replace(batch, epoch=batch.epoch - self.head_epochs)  # progress is that of the terms
        yield Update("student", *self.taught.learn(batch, asked))

    def _alone(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        with torch.no_grad():
            taps = self.taught.taps(batch.images)
        loss = self.taught.lesson(batch).label_loss(self._find_head()(taps.pooled).float())
        yield Update("student", loss, {"ce": loss.detach()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """See :meth:`Scheme.step_macs`; at first only the classifier has a backward pass, and nobody is asked."""
        if phase.name == HEAD:
            return float(self._find_head().weight.numel()), 0.0
        return self.taught.step_macs(batch_size)

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """What comes before the classifier, while that alone is trained."""
        return float(self.taught.cost.unmerged_macs) if phase.name == HEAD else 0.0
