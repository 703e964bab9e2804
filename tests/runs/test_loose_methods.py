"""Methods that a notebook defines: no file tells that one was changed, so what it does does."""

import linecache
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_studies import STUDENT, TRAINING, design, open_context, study
from test_given import images

import naskd
from naskd.networks import BLOCKS
from naskd.networks.card import BlockCard
from naskd.runs.comparing import compare
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.errors import InputError
from naskd.store.artifacts import ArtifactStore

CELL = """\
from naskd.networks.blocks.basic import Basic

SCALE = 0.5


class Mine(Basic):
    def forward(self, x):
        return SCALE * super().forward(x)
"""
NAME = "of_a_notebook"


def define(code: str = CELL, *, known: bool = True) -> None:
    """Run a cell, and register its block; of a cell that a prompt runs nobody knows the lines."""
    file = f"<cell {hash(code)}>" if known else "<stdin>"
    if known:
        linecache.cache[file] = (len(code), None, code.splitlines(True), file)
    names: dict[str, Any] = {"__name__": "cell_of_a_notebook"}
    exec(compile(code, file, "exec"), names)
    BLOCKS._cards.pop(NAME, None)
    BLOCKS.register(BlockCard(NAME, "mine", "", names["Mine"], False, False))


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    BLOCKS._cards.pop(NAME, None)
    BLOCKS._origins.pop(NAME, None)


def space(trial: Any) -> TrialConfig:
    width = trial.suggest_int("width", 4, 12)
    stage = StageSpec(NAME, 1, width, stride=2)
    return TrialConfig(
        ArchitectureSpec((stage,), stem_width=4), training=TrainingSpec(epochs=1, batch_size=32)
    )


def search(out: Path, trials: int, **tables: Any) -> naskd.Run:
    return naskd.search(
        name="loose", space=space, data=images(60), budget={"trials": trials}, epochs=1, out=out, **tables
    )


@pytest.mark.parametrize("known", [True, False])
def test_a_search_does_not_go_on_with_a_changed_block_of_a_notebook(tmp_path: Path, known: bool) -> None:
    define(known=known)
    assert len(search(tmp_path / "run", 1).trials()) == 1
    define(CELL, known=known)
    assert len(search(tmp_path / "run", 2).trials()) == 2, "the kernel was begun again, the cell is the same"
    define(CELL.replace("SCALE * super", "super") if not known else CELL.replace("0.5", "0.25"), known=known)
    with pytest.raises(InputError, match=rf"block '{NAME}'.*what this method does has changed"):
        search(tmp_path / "run", 3)


def test_a_method_that_is_beside_what_a_study_uses_tells_no_runs_apart(tmp_path: Path) -> None:
    define()
    runs = [tmp_path / f"run{seed}" for seed in (1, 2)]
    search(runs[0], 1, seed=1)
    other = BlockCard("beside", "", "", type("Beside", (BLOCKS[NAME].implementation,), {}), False, False)
    BLOCKS.register(other)
    try:
        search(runs[1], 2, seed=2)
        assert len(search(runs[0], 2, seed=1).trials()) == 2
    finally:
        BLOCKS._cards.pop("beside")
    assert [arm["runs"] for arm in compare(runs)["arms"]] == [["run1", "run2"]]


def test_an_assistant_of_a_changed_block_is_another_one(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    stages = (StageSpec(NAME, 1, 6, stride=2),)
    assistant = AssistantSpec(ArchitectureSpec(stages, stem_width=4), TRAINING)
    taught = DistillationSpec((KnowledgeTerm("logits"),), assistants=(assistant,))
    config = TrialConfig(STUDENT, taught, design().training)
    found = []
    for code in (CELL, CELL, CELL.replace("0.5", "0.25")):
        define(code)
        found.append(open_context(study(), store).designs.recipes(config)[-1].artifact_id)
    assert found[0] == found[1] != found[2]
