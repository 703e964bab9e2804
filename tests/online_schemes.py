"""What tests of schemes whose networks teach each other share: designs, trainings, searches, and NumPy's numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from small_studies import design

import naskd
from naskd.spec.design import KnowledgeTerm, TrialConfig
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run

Array = np.ndarray[Any, np.dtype[np.float64]]

SPACE = """
from naskd.config import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig

def space(trial):
    width = trial.suggest_categorical("width", (4, 6))
    scheme = trial.suggest_categorical("scheme", ("offline", "{scheme}"))
    return TrialConfig(
        ArchitectureSpec((StageSpec("basic", 1, 4), StageSpec("basic", 1, width, stride=2)), stem_width=4),
        DistillationSpec(scheme=scheme),
        TrainingSpec(batch_size=32, learning_rate=0.01),
    )
"""

STUDY = """
name = "{scheme}"
space = "space.py:space"
epochs = 2
[data]
kind = "digits"
max_train = 120
[sampler]
name = "random"
[budget]
trials = 4
[execution]
device = "cpu"
"""


def taught(scheme: str, *terms: KnowledgeTerm, **options: Any) -> TrialConfig:
    """A small design of a scheme with options."""
    found = design(*terms)
    given = replace(found.distillation, scheme=scheme, scheme_options=tuple(sorted(options.items())))
    return replace(found, distillation=given)


def start(
    context: StudyContext, scheme: str, *terms: KnowledgeTerm, seed: int = 2, **options: Any
) -> TrialRun:
    """A training of it that has not begun."""
    return start_run(taught(scheme, *terms, **options), context, seed=seed)[0]


def search(folder: Path, scheme: str) -> naskd.Run:
    """Four designs of two widths without a teacher, the scheme among what is searched."""
    (folder / "space.py").write_text(SPACE.format(scheme=scheme))
    (folder / "study.toml").write_text(STUDY.format(scheme=scheme))
    return naskd.search(folder / "study.toml", out=folder / "run")


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Of one image, ``(K,)``."""
    shares = np.exp((logits - logits.max()) / temperature)
    return shares / shares.sum()


def cross_entropy(logits: Array, label: int) -> float:
    """Of one image."""
    return float(-np.log(softmax(logits)[label]))


def divergence(target: Array, own: Array) -> float:
    """``KL(target || own)`` of one image's probabilities, class by class."""
    return float(sum(t * (np.log(t) - np.log(o)) for t, o in zip(target, own, strict=True)))
