"""Study files that are damaged, each with a name that says how; and the files beside them."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .damage import BYTES, FOREIGN, LINES, damaged
from .pictures import write_folder

WHOLE = """\
# a study with most keys
name = "whole"
seed = 3
space = "space.py:joint"
epochs = 1
objectives = ["val_accuracy", "macs"]
modules = ["parts.py"]
storage = "journal"

[reference_point]
val_accuracy = 0.05
macs = 1e6

[data]
kind = "digits"
resolution = 8
channels = 1
val_fraction = 0.2
test_fraction = 0.2
split_seed = 0
max_train = 64
max_bytes = 100_000_000

[teacher]
seed = 1

[teacher.architecture]
stem_width = 4
stem_kernel = 3
stem_stride = 2
stages = [{block = "basic", depth = 1, width = 4, kernel = 3, stride = 1}]

[teacher.training]
epochs = 1
batch_size = 32
optimizer = "adamw"
learning_rate = 0.003
weight_decay = 0.01
schedule = "one_cycle"
augmentation = "none"

[sampler]
name = "tpe"
startup_trials = 4

[stopping]
name = "none"

[budget]
trials = 1
seconds = 1000.0
train_macs = 1e12
max_turned_away = 50

[limits]
max_macs = 2e6
min_macs = 1e2
max_params = 1e6

[limits.max]
size_bytes = 1e7

[execution]
executor = "serial"
device = "cpu"
threads = 1
precision = "float32"
channels_last = false
cuda_graphs = false
bank_bytes = 1e8
bank_device_bytes = 1e8
checkpoint_every = 0
retries = 1
callbacks = []

[retrain]
epochs = 1
seeds = 1

[[warm_start]]
width = 4
kd = "logits"
"stem.stride" = 2
"""

FOLDER = """\
name = "folder"
space = "space.py:joint"
epochs = 1

[data]
kind = "image_folder"
root = "images"
test_root = "sealed"
resolution = 8
channels = 3

[teacher]
builder = "teacher.py:build"
checkpoint = "teacher.pt"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
resolution = 8
classes = ["apple", "berry", "cherry"]
taps = ["body"]
saw = "other"

[[teachers]]
name = "second"
architecture = {stages = [{block = "basic", depth = 1, width = 4}]}
training = {epochs = 1}

[budget]
trials = 1
"""

SPACE = '''\
"""Six designs."""

from naskd.config import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig


def joint(trial):
    width = trial.suggest_categorical("width", [4, 6, 8])
    stride = trial.suggest_categorical("stem.stride", [2])
    kind = trial.suggest_categorical("kd", ["none", "logits"])
    terms = () if kind == "none" else (KnowledgeTerm(kind),)
    architecture = ArchitectureSpec(
        stem_width=4, stem_stride=stride, stages=(StageSpec("basic", depth=1, width=width),)
    )
    return TrialConfig(architecture, DistillationSpec(terms), TrainingSpec(batch_size=32, augmentation="none"))
'''

PARTS = '"""Nothing is registered here."""\n\nNUMBER = 1\n'

TEACHER = '''\
"""A network of one's own."""

from collections import OrderedDict

from torch import nn


def build():
    return nn.Sequential(
        OrderedDict(
            body=nn.Conv2d(3, 4, 3, padding=1), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(4, 3)
        )
    )
'''

PLAIN = WHOLE.partition("[[warm_start]]")[0].replace('"whole"', '"plain"')
BASES = {"whole": WHOLE, "folder": FOLDER, "plain": PLAIN}

VALUES = {
    "minus_one": "-1",
    "zero": "0",
    "half": "0.5",
    "huge": "1e30",
    "long": "9" * 400,
    "largest": "9223372036854775807",
    "nan": "nan",
    "inf": "-inf",
    "true": "true",
    "empty": '""',
    "blank": '" "',
    "word": '"hello"',
    "close": '"Basic "',
    "dots": '"../../../../etc/passwd"',
    "escape": '"\\u001b[31mred\\u001b[0m"',
    "nul": '"a\\u0000b"',
    "formula": '"=1+1"',
    "wide": '"' + "x" * 5000 + '"',
    "emoji": '"\\U0001F600"',
    "number": '"12"',
    "list": "[]",
    "lists": "[[[1]]]",
    "mixed": '[1, "a", {b = 2}]',
    "table": "{}",
    "other_table": '{name = "x"}',
    "date": "2026-01-01",
    "nothing": "",
    "name": "null",
}
"""What may stand behind a key by mistake, as TOML."""


@dataclass(frozen=True)
class Case:
    """One damaged study.

    Args:
        name: Says how it is made.
        base: Of :data:`BASES`.
        change: Makes the damage in the folder, where the study file is ``study.toml``.
        places: Beside the study file, names of which one must be said where the study is refused.
    """

    name: str
    base: str
    change: Callable[[Path], object]
    places: tuple[str, ...] = ()


def write(folder: Path, base: str) -> Path:
    """An undamaged study; its file."""
    for name, text in (("study.toml", BASES[base]), ("space.py", SPACE), ("parts.py", PARTS)):
        (folder / name).write_text(text)
    if base == "folder":
        import torch

        (folder / "teacher.py").write_text(TEACHER)
        write_folder(folder / "images")
        write_folder(folder / "sealed", first=100)
        state = {
            "body.weight": torch.full((4, 3, 3, 3), 0.1),
            "body.bias": torch.zeros(4),
            "head.weight": torch.ones(3, 4),
            "head.bias": torch.tensor([0.1, 0.2, 0.3]),
        }
        torch.save(state, folder / "teacher.pt")
    return folder / "study.toml"


def _settings(base: str) -> list[int]:
    """Lines with a key and a value."""
    lines = BASES[base].splitlines()
    return [n for n, line in enumerate(lines) if " = " in line and not line.startswith("#")]


def _edited(base: str, line: int, edit: Callable[[str], str]) -> bytes:
    lines = BASES[base].splitlines()
    lines[line] = edit(lines[line])
    return ("\n".join(lines) + "\n").encode()


def _study(name: str, base: str, data: bytes, *places: str) -> Case:
    return Case(name, base, lambda folder: (folder / "study.toml").write_bytes(data), places)


def _by_bytes() -> Iterator[Case]:
    for base, each in (("whole", 5), ("folder", 3)):
        for how in (*BYTES, *LINES):
            for seed in range(each):
                yield _study(f"{base}-{how}-{seed}", base, damaged(BASES[base].encode(), how, seed))
    for how in FOREIGN:
        yield _study(f"whole-{how}", "whole", damaged(b"", how, 0))


def _by_values() -> Iterator[Case]:
    draw = random.Random("values")
    for base, each in (("whole", 2), ("folder", 2)):
        for line in _settings(base):
            for value in draw.sample(sorted(VALUES), each):
                key = BASES[base].splitlines()[line].partition(" = ")[0].strip('"')
                data = _edited(
                    base, line, lambda text, value=value: f"{text.partition(' = ')[0]} = {VALUES[value]}"
                )
                yield _study(f"{base}-line{line + 1}-{key}-{value}", base, data, key)


def _by_keys() -> Iterator[Case]:
    draw = random.Random("keys")

    def misspelt(text: str) -> str:
        key, _, value = text.partition(" = ")
        position = draw.randrange(len(key))
        return f"{key[:position]}{draw.choice('eioxz_')}{key[position + 1 :]} = {value}"

    for base, each in (("whole", 24), ("folder", 8)):
        for line in draw.sample(_settings(base), each):
            yield _study(f"{base}-line{line + 1}-misspelt", base, _edited(base, line, misspelt))


def _nested(levels: int) -> dict[str, str]:
    return {
        "arrays": "x = " + "[" * levels + "]" * levels,
        "tables": "x = " + "{a = " * levels + "1" + "}" * levels,
        "dots": ".".join("a" * 1 for _ in range(levels)) + " = 1",
        "headers": "[" + ".".join("a" for _ in range(levels)) + "]",
        "closed": "x = " + "]" * levels,
    }


def _absurd() -> Iterator[Case]:
    """Files that nobody would write, but a program might."""
    for levels in (50, 400, 5000):
        for shape, text in _nested(levels).items():
            yield _study(f"whole-{levels}-{shape}", "whole", f"{text}\n{WHOLE}".encode())
    yield _study(
        "whole-400-stages",
        "whole",
        WHOLE.replace("stages = ", f"stages = {'[' * 400}{']' * 400} # ").encode(),
    )
    texts = {
        "bom": b"\xef\xbb\xbf" + WHOLE.encode(),
        "utf16": WHOLE.encode("utf-16"),
        "latin1": WHOLE.replace("whole", "wh\u00f6le").encode("latin-1"),
        "crlf": WHOLE.replace("\n", "\r\n").encode(),
        "cr": WHOLE.replace("\n", "\r").encode(),
        "no_end": WHOLE.rstrip("\n").encode(),
        "blank": b" \n\t\n",
        "twice": (WHOLE + WHOLE).encode(),
        "many_keys": (WHOLE + "".join(f"k{n} = {n}\n" for n in range(3000))).encode(),
        "many_tables": (WHOLE + "[[warm_start]]\nwidth = 4\n" * 60).encode(),
        "long_string": f'note = "{"y" * 500_000}"\n{WHOLE}'.encode(),
        "long_comment": (WHOLE + "#" + "z" * 2_000_000 + "\n").encode(),
        "teacher_of_1e30_blocks": WHOLE.replace("depth = 1", "depth = 1e30").encode(),
        "teacher_of_many_blocks": WHOLE.replace("depth = 1", f"depth = {10**18}").encode(),
        "teacher_too_wide": WHOLE.replace("width = 4, k", f"width = {10**9}, k").encode(),
        "teacher_stem_too_wide": WHOLE.replace("stem_width = 4", f"stem_width = {10**15}").encode(),
        "teacher_of_unknown_block": WHOLE.replace('"basic"', '"basik"').encode(),
        "password": WHOLE.replace('"journal"', '"mysql://me:hunter2@127.0.0.1:1/db"').encode(),
        "checkpoints_nowhere": WHOLE.replace("checkpoint_every = 0", 'checkpoints = "s3://"').encode(),
        "callback_not_there": WHOLE.replace("callbacks = []", 'callbacks = ["wandbb"]').encode(),
    }
    for name, data in texts.items():
        yield _study(f"whole-{name}", "whole", data, *(["teacher: "] if name.startswith("teacher") else []))


def _files() -> Iterator[Case]:
    """What is no regular file, in place of the study file or beside it."""

    def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
        def change(folder: Path) -> None:
            (folder / name).unlink()
            make(folder / name)

        return change

    makes: dict[str, Callable[[Path], object]] = {
        "folder": Path.mkdir,
        "missing": lambda path: None,
        "dangling_link": lambda path: path.symlink_to("nowhere"),
        "link_to_itself": lambda path: path.symlink_to(path.name),
        "named_pipe": _named_pipe,
        "null_device": lambda path: path.symlink_to("/dev/null"),
        "zero_device": lambda path: path.symlink_to("/dev/zero"),
    }
    for name in ("study.toml", "space.py", "parts.py", "teacher.py", "teacher.pt"):
        base = "folder" if name.startswith("teacher") else "whole"
        for how, make in makes.items():
            yield Case(f"{base}-{name}-{how}", base, replaced(name, make), (name,))


def _named_pipe(path: Path) -> None:
    import os

    os.mkfifo(path)


def cases() -> list[Case]:
    """All of them; the same at every call."""
    return [*_by_bytes(), *_by_values(), *_by_keys(), *_absurd(), *_files()]
