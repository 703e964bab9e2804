"""A run with everything in it, and what is damaged in its copies."""

import hashlib
import json
import os
import shutil
import signal
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import naskd
from naskd.spec.errors import InputError
from naskd.store.checkpoints import CheckpointStore

from .damage import BYTES, LINES, damaged
from .oracle import call, refused

STUDY = """\
name = "fuzz"
seed = {seed}
space = "space.py:joint"
epochs = 2

[data]
kind = "digits"
max_train = 64

[teacher]
seed = {seed}

[teacher.architecture]
stem_width = 4
stages = [{{block = "basic", depth = 1, width = 4, stride = 2}}]

[teacher.training]
epochs = 1
batch_size = 32

[sampler]
name = "random"

[budget]
trials = 3

[execution]
device = "cpu"
checkpoint_every = 1

[retrain]
epochs = 1
seeds = 2

[[warm_start]]
width = 4
taught = "logits"

[[warm_start]]
width = 4
taught = "hint"

[[warm_start]]
width = 6
taught = "no"

[[warm_start]]
width = 6
taught = "logits"
"""

SPACE = '''\
"""Students with and without a teacher."""

from naskd.config import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig


def joint(trial):
    width = trial.suggest_categorical("width", [4, 6, 8, 10])
    taught = trial.suggest_categorical("taught", ["no", "logits", "hint"])
    terms = () if taught == "no" else (KnowledgeTerm(taught),)
    architecture = ArchitectureSpec(
        stem_width=4, stem_stride=2, stages=(StageSpec("basic", depth=1, width=width, stride=2),)
    )
    return TrialConfig(architecture, DistillationSpec(terms), TrainingSpec(batch_size=32, augmentation="none"))
'''

TRIALS = 4
"""Of the search when it is over; it was stopped in its fourth."""
EXPORTED = "exported/trial0.safetensors"


class Made:
    """A run directory with what lies beside it: its files, and what its commands answer.

    Args:
        home: Folder of the study file, of ``runs`` and all that is in it.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run = home / "runs" / "fuzz"

    def copy(self, home: Path) -> "Made":
        """Another one to be damaged."""
        shutil.copytree(self.home, home, symlinks=True)
        return Made(home)

    def files(self, target: str) -> list[Path]:
        """What a name of :data:`TARGETS` means, in a fixed order."""
        where = {
            "journal": self.run.glob("journal.log"),
            "study": self.run.glob("study.json"),
            "retrained": self.run.glob("retrained.json"),
            "weights": self.run.glob("retrained/*.safetensors"),
            "exported": self.run.glob(EXPORTED),
            "teacher": self.home.glob("runs/artifacts/*/model.pt"),
            "manifest": self.home.glob("runs/artifacts/*/manifest.json"),
            "bank": self.home.glob("runs/cache/bank/*/*.safetensors"),
            "decoded": self.home.glob("runs/cache/*.npy"),
            "decoded_hash": self.home.glob("runs/cache/*.json"),
            "checkpoint": self.run.glob("checkpoints/**/*.ckpt"),
            "space": self.run.glob("space.py"),
        }[target]
        found = sorted(path for path in where if not path.name.startswith("."))
        assert found, f"there is no {target}"
        return found

    # --- what the commands say: None where they refuse, naming the file ------------------------------------

    def front(self, *names: str) -> dict[str, Any] | None:
        """The record."""
        result = call("front", self.run, "--json", "--all")
        if refused(result, *names):
            return None
        record = json.loads(result.stdout)
        if record["retrained"] is None and any(name in result.stderr for name in names):
            del record["retrained"]  # it is not shown, and that is said
        return dict(record)

    def shown(self, *names: str) -> dict[str, Any] | None:
        """The first trial."""
        result = call("show", self.run, "0", "--json")
        return None if refused(result, *names) else dict(json.loads(result.stdout))

    def retrained(self, *names: str) -> dict[str, Any] | None:
        """Retrain, and what it found."""
        if refused(call("retrain", self.run, "0"), *names):
            return None
        record = json.loads((self.run / "retrained.json").read_text())
        return {key: record[key] for key in ("seeds", "epochs", "n_test", "designs", "teacher_test_accuracy")}

    def exported(self, *names: str) -> str | None:
        """Export, and the weights as a hash."""
        return None if refused(call("export", self.run, "0"), *names) else self.loaded(*names)

    def loaded(self, *names: str) -> str | None:
        """The weights of the exported file."""
        problem, state = "", {}
        try:
            state = naskd.load(self.run / EXPORTED).state_dict()
        except InputError as error:
            problem = str(error)
        if problem:
            assert any(name in problem for name in names), f"it does not say where: {problem}"
            return None
        content = hashlib.sha256()
        for name, tensor in sorted(state.items()):
            content.update(name.encode() + tensor.numpy().tobytes())
        return content.hexdigest()

    def searched(self, *names: str) -> dict[str, Any] | None:
        """Go on with the search to its end, and what it found."""
        result = call("search", self.home / "fuzz.toml", "--out", self.run, "--trials", TRIALS)
        if refused(result, *names):
            return None
        return results(json.loads(call("front", self.run, "--json", "--all").stdout))


def results(record: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, by design; without times, numbers of trials and what a cache saved."""
    kept = (
        "state",
        "val_accuracy",
        "best_val_accuracy",
        "macs",
        "n_params",
        "size_bytes",
        "seed",
        "train_macs",
        "curve",
    )
    trials = [t for t in record["trials"] if t["state"] not in ("WAITING", "PRUNED") and not t["retried"]]
    found = {t["config_id"]: {key: t[key] for key in kept} for t in trials}
    assert len(found) == len(trials), "a design is there twice"
    return found


def made_by_another_process(home: Path, seed: int) -> Made:
    """See :func:`_make`; who searched is dead, as whoever leaves a damaged run is."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _make(home, seed)
            code = 0
        finally:
            traceback.print_exc()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0, "the run to be damaged was not made"
    return Made(home)


def _make(home: Path, seed: int) -> None:
    """Search three trials, retrain and export the first one, and stop in the middle of the fourth."""
    home.mkdir(parents=True)
    (home / "fuzz.toml").write_text(STUDY.format(seed=seed))
    (home / "space.py").write_text(SPACE)
    made = Made(home)
    assert call("search", home / "fuzz.toml", "--out", made.run).exit_code == 0
    assert call("retrain", made.run, "0").exit_code == 0
    assert call("export", made.run, "0").exit_code == 0
    save = CheckpointStore.save

    def save_and_stop(self: CheckpointStore, key: str, epoch: int, data: bytes) -> None:
        save(self, key, epoch, data)
        if epoch == 1:
            for _ in range(2):  # a Ctrl-C finishes the trial, and a second one ends at once
                signal.raise_signal(signal.SIGINT)

    with patch.object(CheckpointStore, "save", save_and_stop):
        stopped = call("search", home / "fuzz.toml", "--out", made.run, "--trials", TRIALS, codes=(130,))
    assert stopped.exit_code == 130, stopped.output


@dataclass(frozen=True)
class Case:
    """One damaged file of a run.

    Args:
        target: Which file, as :meth:`Made.files` calls it.
        how: Of :mod:`damage`, or ``other``: the same file of another run of the study, with another seed.
        seed: Of the damage; also which of several files it befalls.
    """

    target: str
    how: str
    seed: int

    @property
    def name(self) -> str:
        """Enough to make it again."""
        return f"{self.target}-{self.how}-{self.seed}"

    def path(self, made: Made) -> Path:
        """The file."""
        files = made.files(self.target)
        return files[self.seed % len(files)]

    def befall(self, made: Made, other: Made) -> Path:
        """Damage a copy; the file."""
        path = self.path(made)
        if self.how == "missing":
            path.unlink()
        elif self.how == "folder":
            path.unlink()
            path.mkdir()
        else:
            whole = path.read_bytes()
            path.write_bytes(
                self.path(other).read_bytes() if self.how == "other" else damaged(whole, self.how, self.seed)
            )
        return path


FLIPS = {
    "journal": 10,
    "study": 5,
    "retrained": 6,
    "weights": 3,
    "exported": 2,
    "teacher": 1,
    "manifest": 2,
    "bank": 2,
    "decoded": 1,
    "decoded_hash": 1,
    "checkpoint": 4,
    "space": 1,
}
"""Cases with one flipped bit, by target."""

OFTEN = ("journal", "study", "retrained", "weights", "checkpoint")
"""What befalls these in every way; the others are read by the same few functions."""

TEXT = ("journal", "study", "retrained", "manifest")
NEED_NOT_BE = ("retrained", "exported")
"""That it is missing is no damage: it was not made yet."""


def cases() -> Iterator[Case]:
    """All of them; the same at every call."""
    for target, flips in FLIPS.items():
        yield from (Case(target, "flip", seed) for seed in range(flips))
        changes = [how for how in BYTES if how != "flip"] if target in OFTEN else ["truncate", "zero"]
        yield from (
            Case(target, how, seed) for how in changes for seed in range(2 if target == "journal" else 1)
        )
        if target == "journal":
            yield from (Case(target, how, seed) for how in LINES for seed in range(2))
        foreign = ["empty", "text", "zeros"] if target in OFTEN else ["text"]
        foreign += ["json_list", "json_null", "html"] if target in TEXT else []
        # Of a student that was exported nobody can know whose it should be.
        foreign += [] if target == "exported" else ["other"]
        foreign += [] if target in NEED_NOT_BE else ["missing"]
        yield from (Case(target, how, 0) for how in (*foreign, "folder"))
