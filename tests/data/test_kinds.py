"""Kinds of data by name: a user's own, from a file that the study's modules name."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forks import Forker

KIND = '''
from pathlib import Path

import numpy as np

from naskd.data.raw import DataReader, array_source
from naskd.spec.datasets import DATASETS, DataCard
from naskd.spec.option import Option
from naskd.spec.paths import missing_file


class Arrays(DataReader):
    """Images and labels of one file, test images of another."""

    def development(self, spec, base, cache):
        return self._open(spec, base / spec.option("file"))

    def test(self, spec, base, cache):
        return self._open(spec, base / spec.option("test_file"))

    def _open(self, spec, file):
        with (Path(__file__).parent / "opened").open("a") as notes:
            notes.write(f"{file.name}\\n")
        with np.load(file) as arrays:
            return array_source(arrays["images"], arrays["labels"], tuple("abc"), spec)


def check(given, base):
    return [p for key in ("file", "test_file") if key in given for p in missing_file(key, given[key], base)]


DATASETS.register(
    DataCard(
        name="arrays",
        title="arrays of an .npz",
        paper="",
        implementation=Arrays,
        options={
            "file": Option(None, "the .npz with images and labels", kind=str, required=True),
            "test_file": Option(None, "the .npz with the test images", kind=str),
        },
        own_test="test_file",
        check=check,
    )
)
'''
STUDY = """
name = "own"
space = "space.py:joint"
epochs = 1
modules = ["kind.py"]
[data]
kind = "arrays"
file = "train.npz"
test_file = "test.npz"
[budget]
trials = 2
[retrain]
seeds = 1
[execution]
device = "cpu"
"""
SPACE = """
from naskd.spec.design import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig

def joint(trial):
    width = trial.suggest_int("width", 4, 8)
    architecture = ArchitectureSpec((StageSpec("basic", 1, width),), stem_width=4)
    return TrialConfig(architecture, DistillationSpec(), TrainingSpec(epochs=1, batch_size=32))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name, count in (("train", 60), ("test", 15)):
        images = random.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(count) % 3)
    for name, text in (("kind.py", KIND), ("study.toml", STUDY), ("space.py", SPACE)):
        (tmp_path / name).write_text(text)
    return tmp_path


HEAD = "import naskd\nfrom pathlib import Path\nfrom naskd.spec.parse import parse_study\n"


def run(forker: Forker, folder: Path, code: str) -> str:
    """In a process of its own: what a module registers stays."""
    return forker.run(f"{HEAD}if True:\n{code}", folder / "printed")


def test_a_kind_of_data_of_ones_own_is_surveyed_searched_and_retrained(folder: Path, forker: Forker) -> None:
    out = run(
        forker,
        folder,
        "    run = naskd.search('study.toml', out='runs/own')\n"
        "    print([t['state'] for t in run.trials()], set(Path('opened').read_text().split()))\n"
        "    again = naskd.open_run('runs/own')\n"
        "    assert again.spec.data.options == (('file', 'train.npz'), ('test_file', 'test.npz'))\n"
        "    print(again.retrain()['n_test'], set(Path('opened').read_text().split()))\n",
    ).splitlines()
    assert out[0].startswith("['COMPLETE', 'COMPLETE']")
    assert out[1].startswith("15 ")


def test_each_file_is_opened_once_before_a_search_and_never_by_workers(folder: Path) -> None:
    """In a process that has begun as a user's does: workers find out by what it is."""
    code = (
        "if __name__ == '__main__':\n"
        "    s = ['execution.executor=processes', 'execution.workers=2']\n"
        "    run = naskd.search('study.toml', out='runs/own', settings=s)\n"
        "    print([t['state'] for t in run.trials()], Path('opened').read_text().split())\n"
    )
    command = [sys.executable, "-c", HEAD + code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['COMPLETE', 'COMPLETE'] ['train.npz', 'test.npz']\n"


def test_without_test_images_apart_a_part_is_cut_off_and_only_the_content_names_the_data(
    folder: Path, forker: Forker
) -> None:
    code = """
    from dataclasses import replace
    from naskd.data.load import load_search_data
    from naskd.data.sealed import load_test_split
    apart = parse_study(Path('study.toml'))
    whole = replace(apart, data=replace(apart.data, options=(('file', 'train.npz'),)))
    print(apart.data.own_test, whole.data.own_test, len(load_test_split(whole.data, whole.base)))
    Path('moved.npz').write_bytes(Path('train.npz').read_bytes())
    moved = replace(apart, data=replace(apart.data, options=(('file', 'moved.npz'), ('test_file', 'test.npz'))))
    assert moved.identity() == apart.identity()
    first, second = (load_search_data(spec.data, spec.base) for spec in (apart, moved))
    assert first.data_hash == second.data_hash
"""
    assert run(forker, folder, code) == "True False 12\n"


def test_its_own_check_speaks_with_all_others(folder: Path, forker: Forker) -> None:
    code = """
    try: parse_study(Path('study.toml'), ['data.file=trein.npz', 'epochs=0'])
    except ValueError as error: print(error)
"""
    out = run(forker, folder, code)
    assert "2 problems" in out
    assert 'data.file: got "trein.npz"; allowed: an existing file' in out
    assert "did you mean 'train.npz'" in out
