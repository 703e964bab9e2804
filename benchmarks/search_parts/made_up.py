"""A made-up table of the recorded space, for trying the benchmark itself."""

import math
import random
from collections.abc import Iterator
from pathlib import Path

from naskd.networks.student import design_cost
from naskd.spec.design import TrialConfig
from naskd.tables import Training, write_table
from table_parts import publishing, space

GAINS = {
    "none": 0.0,
    "logits": 0.03,
    "dist": 0.01,
    "dkd": 0.035,
    "hint": 0.07,
    "attention": -0.01,
    "rkd": 0.02,
}
BLOCKS = {"basic": 0.0, "inverted_residual": 0.02, "depthwise_separable": -0.03}
N_TRAIN, N_VAL, N_TEST, CLASSES = 2500, 2000, 3000, 10
NETWORKS = {
    "teacher": {"macs": 12_300_000, "train_macs": 14 * 10**12},
    "assistant": {"macs": 3_100_000, "train_macs": 370 * 10**9},
}


def training(config: TrialConfig, replicate: int) -> Training:
    """Larger students are better, hints help large ones more, and curves of hints start more slowly."""
    cost = design_cost(config.architecture, 3, CLASSES, 32)
    terms = config.distillation.terms
    kind = terms[0].kind if terms else "none"
    design, seed = random.Random(config.config_id), random.Random(f"{config.config_id} {replicate}")
    final = (
        0.62 - 0.12 * (6.7 - math.log10(cost.macs)) + GAINS[kind] * (0.5 + 0.25 * math.log10(cost.macs / 1e5))
    )
    final += BLOCKS[config.architecture.stages[0].block] + design.gauss(0, 0.01)
    if terms and config.distillation.ce_weight == 0:
        final += 0.01
    slow = 0.6 if kind == "hint" else 1.0
    curve = [
        final * (1 - math.exp(-slow * 4 * e / space.EPOCHS)) / (1 - math.exp(-slow * 4))
        for e in range(1, space.EPOCHS + 1)
    ]
    test = tuple(range(4, space.EPOCHS + 1, 4))
    return Training(
        config,
        replicate,
        replicate,
        cost,
        3 * cost.macs * N_TRAIN * space.EPOCHS,
        cost.macs * N_VAL * space.EPOCHS,
        NETWORKS["teacher"]["macs"] * N_TRAIN * space.EPOCHS if terms else 0,
        tuple(value + seed.gauss(0, 0.01) for value in curve),
        test,
        tuple(curve[epoch - 1] + seed.gauss(0, 0.007) for epoch in test),
        5.0,
    )


def trainings(levels: int) -> Iterator[Training]:
    for level in range(levels):
        for values in space.points(level):
            config = space.joint(space.Point(values))
            yield from (training(config, replicate) for replicate in range(2))


def write(folder: Path, levels: int = 2) -> None:
    """A table in `folder`."""
    students = {
        tuple(values[name] for name in publishing.STUDENT)
        for level in range(levels)
        for values in space.points(level)
    }
    choices = {name: sorted({s[n] for s in students}) for n, name in enumerate(publishing.STUDENT)}
    taught = {"kd.kind": space.KINDS, "kd.temperature": space.TEMPERATURES, "kd.ce_weight": space.CE_WEIGHTS}
    card = {
        "what": "made up",
        "parameters": {**choices, **{name: list(values) for name, values in taught.items()}},
        "epochs": space.EPOCHS,
        "images": {
            "student": N_TRAIN,
            "val": N_VAL,
            "test": N_TEST,
            "channels": 3,
            "resolution": 32,
            "classes": CLASSES,
        },
        "networks": NETWORKS,
    }
    write_table(folder, card, publishing.grid(students), trainings(levels))
