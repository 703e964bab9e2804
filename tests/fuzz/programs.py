"""What may be wrong with the Python that a study names: its space, and a module of the user's."""

from collections.abc import Callable, Iterator
from pathlib import Path

from .study_files import SPACE, Case

PROGRAMS = {
    "syntax": "def joint(trial:\n",
    "nul": "NUMBER = 1\0\n",
    "not_utf8": b"# \xff\xfe\nNUMBER = 1\n",
    "raises": "raise ValueError()\n",
    "raises_escape": "raise ValueError('\\x1b[2J')\n",
    "exits": "import sys\n\nsys.exit(0)\n",
    "exits_in_words": "import sys\n\nsys.exit('bye')\n",
    "imports_nothing_known": "import naskd_no_such_module\n",
    "deep": "x = " + "(" * 500 + ")" * 500 + "\n",
    "recursion": "def f():\n    return f()\n\n\nf()\n",
}

SPACES = {
    "nothing": "    return None\n",
    "number": "    return 3\n",
    "raises": "    raise ValueError()\n",
    "raises_later": "    raise ValueError('a reason')\n",
    "exits": "    import sys\n    sys.exit(0)\n",
    "generator": "    yield 1\n",
    "unknown_block": "    return joint_of(trial, block='basik')\n",
    "unknown_knowledge": "    return joint_of(trial, kind='logitz')\n",
    "unknown_knowledge_sometimes": "    kind = trial.suggest_categorical('kd', ['logits', 'logitz'])\n"
    "    return joint_of(trial, kind=kind)\n",
    "unknown_teacher": "    return joint_of(trial, teachers=('techer',))\n",
    "unknown_scheme": "    return joint_of(trial, scheme='offlin')\n",
    "unknown_optimizer": "    return joint_of(trial, optimizer='adamm')\n",
    "unknown_augmentation": "    return joint_of(trial, augmentation='transalte')\n",
    "width_of_text": "    return joint_of(trial, width='8')\n",
    "width_zero": "    return joint_of(trial, width=0)\n",
    "width_absurd": "    return joint_of(trial, width=10**18)\n",
    "depth_absurd": "    return joint_of(trial, depth=10**12)\n",
    "rate_nan": "    return joint_of(trial, rate=float('nan'))\n",
    "other_range": "    import random\n    trial.suggest_int('width', 1, random.randint(2, 10**6))\n"
    "    return joint_of(trial)\n",
    "empty_choice": "    trial.suggest_categorical('width', [])\n    return joint_of(trial)\n",
    "wrong_range": "    trial.suggest_int('width', 9, 1)\n    return joint_of(trial)\n",
    "choice_of_objects": "    trial.suggest_categorical('width', [object()])\n    return joint_of(trial)\n",
    "no_argument": None,
}

WORDS = {
    "unknown_block": ("basik",),
    "unknown_knowledge": ("logitz",),
    "unknown_knowledge_sometimes": ("logitz",),
    "unknown_teacher": ("techer",),
    "unknown_scheme": ("offlin",),
    "unknown_optimizer": ("adamm",),
    "unknown_augmentation": ("transalte",),
    "width_of_text": ("width",),
    "width_zero": ("width",),
    "width_absurd": ("macs", "width"),
    "depth_absurd": ("macs", "depth"),
    "rate_nan": ("learning_rate",),
    "wrong_range": ("width",),
    "other_range": ("width",),
    "empty_choice": ("width",),
    "choice_of_objects": ("width",),
}
"""What else helps to find the mistake in a space."""

PROLOGUE = """\
from naskd.config import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig


def joint_of(trial, block="basic", kind="logits", width=4, depth=1, rate=1e-3, optimizer="adamw",
             augmentation="none", **teaching):
    trial.suggest_categorical("wide", [4, 6])
    stages = (StageSpec(block, depth=depth, width=width),)
    training = TrainingSpec(batch_size=32, learning_rate=rate, optimizer=optimizer, augmentation=augmentation)
    architecture = ArchitectureSpec(stem_width=4, stages=stages)
    return TrialConfig(architecture, DistillationSpec((KnowledgeTerm(kind),), **teaching), training)


"""


def cases() -> Iterator[Case]:
    """All of them; the same at every call."""

    def writing(name: str, text: str | bytes) -> Callable[[Path], object]:
        return lambda folder: (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)

    for how, text in PROGRAMS.items():
        for name in ("space.py", "parts.py"):
            whole = text if isinstance(text, bytes) else text + (SPACE if name == "space.py" else "")
            whole = whole + SPACE.encode() if isinstance(whole, bytes) and name == "space.py" else whole
            yield Case(f"plain-{name}-{how}", "plain", writing(name, whole), (name,))
    for how, body in SPACES.items():
        head = "def joint():\n    return None\n" if body is None else f"def joint(trial):\n{body}"
        yield Case(
            f"plain-space-{how}",
            "plain",
            writing("space.py", PROLOGUE + head),
            ("space.py", *WORDS.get(how, ())),
        )
