"""The study that is killed, and a place of its own for all that it leaves."""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from naskd.runs.run import open_run

STUDY = """\
name = "mortal"
space = "space.py:joint"
epochs = 4

[data]
kind = "digits"

[teacher.architecture]
stem_width = 16
stages = [{{block = "basic", depth = 1, width = 16, stride = 2}}]

[teacher.training]
epochs = 6

[sampler]
name = "random"

[budget]
trials = 100000

[execution]
executor = "{executor}"
device = "cpu"
threads = 1
checkpoint_every = 1
retries = 100
{workers}

[retrain]
epochs = 6
seeds = 2
"""

SPACE = '''\
"""Students of one stage, of which some want an assistant."""

from naskd.config import ArchitectureSpec, AssistantSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec
from naskd.config import TrialConfig


def student(width):
    return ArchitectureSpec(stem_width=4, stem_stride=2, stages=(StageSpec("basic", depth=1, width=width),))


def joint(trial):
    width = trial.suggest_int("width", 4, 20, step=4)
    taught = trial.suggest_categorical("taught", ["no", "teacher", "assistant"])
    rate = trial.suggest_float("rate", 2e-3, 2e-2, log=True)
    training = TrainingSpec(batch_size=64, learning_rate=rate, augmentation="translate")
    if taught == "no":
        return TrialConfig(student(width), training=training)
    chain = (AssistantSpec(student(16), TrainingSpec(epochs=2)),) if taught == "assistant" else ()
    terms = (KnowledgeTerm("logits"), KnowledgeTerm("hint", weighting="balanced"))
    return TrialConfig(student(width), DistillationSpec(terms, assistants=chain), training)
'''


class Place:
    """Folders of one study: its files, its runs, and those for temporary files and for what is kept at home.

    Args:
        executor: Of the trials.
    """

    def __init__(self, executor: str) -> None:
        # Ray's sockets leave 107 characters for a path.
        self.root = Path(tempfile.mkdtemp(prefix="nk-", dir="/tmp"))
        self.executor = executor
        self.run = self.root / "runs" / "mortal"
        self.log = self.root / "log"
        for name in ("tmp", "home", "ray"):
            (self.root / name).mkdir()
        workers = "" if executor == "serial" else "workers = 2"
        (self.root / "study.toml").write_text(STUDY.format(executor=executor, workers=workers))
        (self.root / "space.py").write_text(SPACE)

    @property
    def mark(self) -> str:
        """Of all its processes."""
        return self.root.name

    @property
    def env(self) -> dict[str, str]:
        """For its processes: nothing of the user's is touched."""
        return {
            "TMPDIR": str(self.root / "tmp"),
            "RAY_TMPDIR": str(self.root / "ray"),
            "HOME": str(self.root / "home"),
            "NASKD_CACHE": str(self.root / "home" / "kept"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def command(self, *words: object) -> list[object]:
        """A command of naskd."""
        return [sys.executable, "-m", "naskd", *words]

    def search(self, trials: int | None = None) -> list[object]:
        """The search, without end or up to a number of trials."""
        limit = () if trials is None else ("--trials", trials)
        return self.command("search", "study.toml", "--out", "runs/mortal", *limit)

    def trials(self) -> list[dict[str, Any]]:
        """All in the ledger; none before it is there."""
        if not (self.run / "study.json").exists():
            return []
        return open_run(self.run).trials()

    def retrained(self) -> dict[str, Any]:
        """What retraining has found."""
        record = json.loads((self.run / "retrained.json").read_text())
        return {key: record[key] for key in ("designs", "teacher_test_accuracy")}

    def copy_runs(self, target: Path) -> Path:
        """A copy of the runs folder for an undisturbed second life; the run in it."""
        shutil.copytree(self.root / "runs", target / "runs", symlinks=True)
        return target / "runs" / "mortal"

    def remove(self) -> None:
        """All of it."""
        shutil.rmtree(self.root, ignore_errors=True)
