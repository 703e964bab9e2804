"""What tests of schemes whose networks teach each other share: trainings, searches, and NumPy's numbers."""

from pathlib import Path
from typing import Any

import numpy as np
from small_studies import by_scheme

import naskd
from naskd.spec.design import KnowledgeTerm
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


def start(
    context: StudyContext, scheme: str, *terms: KnowledgeTerm, seed: int = 2, **options: Any
) -> TrialRun:
    """A training of it that has not begun."""
    return start_run(by_scheme(scheme, *terms, **options), context, seed=seed)[0]


def search(folder: Path, scheme: str) -> naskd.Run:
    """Four designs of two widths without a teacher, the scheme among what is searched."""
    (folder / "space.py").write_text(SPACE.format(scheme=scheme))
    (folder / "study.toml").write_text(STUDY.format(scheme=scheme))
    return naskd.search(folder / "study.toml", out=folder / "run")


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Of one image, ``(K,)``."""
    shares = np.exp((logits - logits.max()) / temperature)
    return shares / shares.sum()
