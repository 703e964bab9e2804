"""The same student trained with the labels alone: what a design owes to being taught.

It is shown as many images: where a design has so many unlabelled images with each labelled one, the labels alone have
that many times the epochs more.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from naskd.spec.canonical import canonical
from naskd.spec.design import SCRATCH, DistillationSpec, TrialConfig
from naskd.trials.designs import Designs


def with_labels_alone(config: TrialConfig, designs: Designs) -> TrialConfig | None:
    """A design with the labels alone: neither teacher nor scheme, from scratch, and all else as it is.

    None where it is that already, or where the student that leaves is another one: an early exit, say, or a network
    that its scheme has added something to.

    Args:
        config: The design.
        designs: Of the study, which know what designs deploy.
    """
    training = dataclasses.replace(config.training, start=SCRATCH)
    alone = canonical(TrialConfig(config.architecture, DistillationSpec(), training))
    if alone == canonical(config):
        return None
    return alone if designs.design_cost(alone) == designs.design_cost(config) else None


def compared(row: Mapping[str, Any], trainings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What stands under ``labels_alone`` of a retrained design.

    Args:
        row: Of the design, with ``test_accuracies``.
        trainings: Of the student with the labels alone, at least one, as ``retrained.json`` keeps them.

    Returns:
        ``test_accuracies``, ``test_accuracy_mean``, ``test_accuracy_sd`` (None for one training), ``n``; ``gain``: by
        how much the design is better in the mean; ``gain_standard_error``: of that, after Welch; None where either was
        trained once.
    """
    alone = [float(training["test_accuracy"]) for training in trainings]
    taught = [float(accuracy) for accuracy in row["test_accuracies"]]
    error = None
    if min(len(alone), len(taught)) > 1:
        error = math.sqrt(sum(statistics.variance(values) / len(values) for values in (alone, taught)))
    return {
        "test_accuracies": alone,
        "test_accuracy_mean": statistics.fmean(alone),
        "test_accuracy_sd": statistics.stdev(alone) if len(alone) > 1 else None,
        "n": len(alone),
        "gain": statistics.fmean(taught) - statistics.fmean(alone),
        "gain_standard_error": error,
    }
