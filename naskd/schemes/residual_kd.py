"""Residual knowledge distillation: Gao, Shen, Li, Loy: Residual Knowledge Distillation. 2020, arXiv 2002.09168.

A student mimics its teacher's features, and an assistant learns the residual error between the two. Both leave: the
assistant's features are added to the student's before they are classified.

In its part of the epochs the assistant minimises the design's own objective on what both show together, the student and
the adapters of its losses fixed. As the regressor r of a hint is linear, the error ``|r(F_s + P F_a) - F_t|^2`` is that
of ``r(P F_a)`` from the residual ``F_t - r(F_s)``. A hint on the last stage is added where the design has none. P, from
the assistant's channels to the student's, is 0 at first: a student that makes no error is left as it is.

Defaults: an assistant of half the channels, half of the epochs for it, and a hint that at step 0 pulls as hard as the
labels do. The paper weighs each stage by hand.

Differs: the residual is that of the last stage; the paper adds a residual after each stage, and trains both networks
together from stage to stage. It derives student and assistant from one network, so that the sum costs what that did.
Here the assistant is the student with fewer channels, and costs what it costs: the search sees both.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from naskd.networks.layers import linear_cost, total
from naskd.networks.student import design_cost
from naskd.nn.corrected import AssistedStudent, FeatureAssistant
from naskd.nn.taps import evaluation_mode
from naskd.schemes.distilled import DistilledStudent
from naskd.schemes.residual import Residuals, narrower, residual_parts
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update, recordable
from naskd.spec.design import ArchitectureSpec, Cost, DistillationSpec, KnowledgeTerm
from naskd.spec.errors import InputError


class ResidualKdScheme(Residuals):
    """A student and its assistant, whose features are added."""

    def __init__(self, inputs: SchemeInputs) -> None:
        lengths = residual_parts(inputs, 1)
        hinted = hinting(inputs.distillation, float(inputs.option("hint")))
        super().__init__(
            inputs, DistilledStudent(replace(inputs, distillation=hinted, epochs=lengths[0])), lengths
        )
        if self.taught.deployed is not self.taught.network:
            raise InputError(
                "scheme 'residual_kd' corrects what the student's own classifier reads, and a loss replaces that"
            )
        small = narrower(inputs)
        if small.is_quantized:
            raise InputError(
                "scheme 'residual_kd' adds to what the student's classifier reads, which has no integer form: bits "
                "must be 32"
            )
        channels = [spec.stages[-1].width for spec in (small, inputs.architecture) if spec is not None]
        self.assistant_cost = self._cost_beside(small)
        assistant = FeatureAssistant(inputs.build_variant(small), *channels)
        device = next(self.taught.network.parameters()).device
        self.whole = AssistedStudent(self.taught.network, assistant.to(device))

    @property
    def deployed(self) -> nn.Module:
        """The student and its assistant."""
        return self.whole

    @property
    def cost(self) -> Cost:
        """Of both; features are corrected after they are pooled."""
        return total([self.taught.cost, self.assistant_cost])

    def _cost_beside(self, small: ArchitectureSpec) -> Cost:
        """Of an assistant without its classifier, of the projection, and of the classifier on what that adds."""
        inputs, shapes = self.inputs, self.taught.shapes
        own, n_classes = small.stages[-1].width, shapes.n_classes
        whole = design_cost(small, inputs.in_channels, n_classes, inputs.resolution)
        classifier, weights = linear_cost(own, n_classes), own * shapes.n_features
        return Cost(
            whole.macs - classifier.macs + weights + shapes.n_features * n_classes,
            whole.n_params - classifier.n_params + weights,
            whole.size_bytes - classifier.size_bytes + 4 * weights,
            unmerged_macs=whole.unmerged_macs - classifier.macs + weights + shapes.n_features * n_classes,
        )

    def residual_phase(self, name: str, i: int) -> Phase:
        """See :class:`Residuals`."""
        objective = self.taught.objective
        return Phase(
            name=name,
            epochs=self.lengths[1],
            trained={"student": (self.whole.assistant,)},
            step=self._step,
            ask=self.taught.ask,
            ask_images=objective.ask_images("main"),
            min_batch=objective.min_batch,
            repeats=objective.same_each_step("main") and recordable(self._step, (self,)),
        )

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        done = (batch.epoch - self.starts[1]) / self.lengths[1]
        lesson = replace(self.taught.lesson(batch), progress=done)
        with evaluation_mode(self.taught):
            with torch.no_grad():
                own = self.taught.taps(batch.images)
            taps = self.whole.assistant.corrected(own, batch.images, self.whole.head.weight.detach())
            loss, terms = self.taught.objective(taps, asked, lesson)
        yield Update("student", loss, {f"residual1.{name}": term for name, term in terms.items()})

    def residual_macs(self, batch_size: int, i: int) -> tuple[float, float]:
        """See :class:`Residuals`."""
        trained, asked = self.taught.step_macs(batch_size)
        height, width = self.taught.shapes.stages[-1].grid
        whole_map = self.whole.assistant.projection.weight.numel() * height * width
        return trained - self.taught.cost.unmerged_macs + self.assistant_cost.unmerged_macs + whole_map, asked

    def fixed_macs(self, i: int) -> float:
        """See :class:`Residuals`."""
        return float(self.taught.cost.unmerged_macs)


def hinting(distillation: DistillationSpec, weight: float) -> DistillationSpec:
    """The same with a hint on the last stage, unless there is a hint already or its weight is 0."""
    if weight == 0 or any(term.kind == "hint" for term in distillation.terms):
        return distillation
    hint = KnowledgeTerm("hint", weight=weight, weighting="balanced")
    return replace(distillation, terms=(*distillation.terms, hint))
