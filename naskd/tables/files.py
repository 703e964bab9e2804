"""Tables of recorded trainings as files: two of Parquet and a data card, no code and no pickles.

``trainings.parquet`` has a row for each training: its design, its curves, and what it cost. ``points.parquet`` has a
row for each point of the grid that was recorded, so that a table says itself which values lead to which design.
``card.json`` says of which images, by which teacher, and with which schedule.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from naskd.spec.design import Cost, TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.packages import lacks
from naskd.spec.seeds import derive_seed
from naskd.store.files import replacing
from naskd.tables.recorded import Recorded, RecordedTable

CARD, TRAININGS, POINTS = "card.json", "trainings.parquet", "points.parquet"
TABLE_FILES = (CARD, TRAININGS, POINTS)


@dataclass(frozen=True)
class Training:
    """One row.

    Args:
        config: The design.
        replicate: From 0: trainings of one design differ in their seed.
        seed: Of the training.
        cost: Of the deployed network.
        student_macs, evaluation_macs: Multiply-accumulates of training it, and of validating it after each epoch.
        teacher_macs: Of the teacher, as if nothing were remembered.
        val_accuracy: After each epoch.
        test_epochs, test_accuracy: After some epochs, the last one among them.
        seconds: Of the whole, on the machine of the card.
    """

    config: TrialConfig
    replicate: int
    seed: int
    cost: Cost
    student_macs: int
    evaluation_macs: int
    teacher_macs: int
    val_accuracy: tuple[float, ...]
    test_epochs: tuple[int, ...]
    test_accuracy: tuple[float, ...]
    seconds: float

    @staticmethod
    def from_row(config: TrialConfig, row: Mapping[str, Any]) -> "Training":
        """From plain data, as it is recorded and as a table has it.

        Args:
            config: The design.
            row: The other fields by their names, and those of the cost.

        Raises:
            KeyError: One is missing.
        """
        return Training(
            config,
            row["replicate"],
            int(row["seed"]),
            Cost(row["macs"], row["n_params"], row["size_bytes"], row.get("bit_ops") or 0),
            row["student_macs"],
            row["evaluation_macs"],
            row["teacher_macs"],
            tuple(row["val_accuracy"]),
            tuple(row["test_epochs"]),
            tuple(row["test_accuracy"]),
            row["seconds"],
        )


@dataclass(frozen=True)
class TrainingTable:
    """All that was recorded.

    Args:
        card: Of the table.
        points: Values of all parameters and the ``config_id`` that they lead to.
        trainings: By ``config_id``, all replicates of each in order.
    """

    card: Mapping[str, Any]
    points: Sequence[Mapping[str, Any]]
    trainings: Mapping[str, Sequence[Training]]

    @property
    def parameters(self) -> dict[str, list[Any]]:
        """Values that each parameter has, in the order of the card."""
        return {name: list(values) for name, values in self.card["parameters"].items()}

    @cached_property
    def _by_values(self) -> dict[tuple[Any, ...], str]:
        names = list(self.parameters)
        return {tuple(point[name] for name in names): point["config_id"] for point in self.points}

    def config(self, values: Mapping[str, Any]) -> TrialConfig | None:
        """The design at a point; None where none was recorded."""
        name = self._by_values.get(tuple(values[parameter] for parameter in self.parameters))
        return None if name is None else self.trainings[name][0].config

    def test_accuracy(self, config_id: str, without: int | None = None) -> float:
        """Mean over replicates of the test accuracy after the last epoch.

        Args:
            config_id: Of the design.
            without: A replicate that is left out, where there are others.
        """
        rows = self.trainings[config_id]
        others = [row for row in rows if row.replicate != without] or rows
        return fmean(row.test_accuracy[-1] for row in others)

    def replicate(self, config_id: str, seed: int) -> Training:
        """The training that a study of this seed sees."""
        rows = self.trainings[config_id]
        return rows[derive_seed("replicate of a table", seed, config_id) % len(rows)]

    def recorded(self, seed: int = 0) -> RecordedTable:
        """As a study replays it: one replicate of each design, chosen by the study's seed, and the others after it.

        A design that hears a teacher needs what it says of each epoch's views, once for all designs; one that hears an
        assistant needs that first.
        """
        found = {name: self._seen(name, seed) for name in self.trainings}

        def cost(config: TrialConfig) -> Cost:
            try:
                return self.trainings[config.config_id][0].cost
            except KeyError:
                raise ValueError(f"the table has no design {config.config_id}") from None

        images = self.card["images"]
        return RecordedTable(
            found,
            cost,
            in_channels=images["channels"],
            resolution=images["resolution"],
            n_classes=images["classes"],
            n_train=images["student"],
            n_val=images["val"],
        )

    def _seen(self, config_id: str, seed: int) -> Recorded:
        """A design's training as a study of this seed sees it, with its further ones."""
        first = self.replicate(config_id, seed)
        others = [row for row in self.trainings[config_id] if row is not first]
        return replace(self._replayed(first), again=tuple(map(self._replayed, others)))

    def _replayed(self, row: Training) -> Recorded:
        epochs, networks = len(row.val_accuracy), self.card["networks"]
        distillation = row.config.distillation
        who = "assistant" if distillation.assistants else "teacher"
        shared: list[dict[str, int]] = []
        if distillation.terms:
            passes = int(networks[who]["macs"]) * int(self.card["images"]["student"])
            shared = [{f"{who} on the views of epoch {epoch}": passes} for epoch in range(1, epochs + 1)]
        if who == "assistant":
            shared[0]["assistant"] = int(networks["assistant"]["train_macs"])
        return Recorded(
            tuple({"val_accuracy": value} for value in row.val_accuracy),
            {
                "val_accuracy": row.val_accuracy[-1],
                "macs": row.cost.macs,
                "n_params": row.cost.n_params,
                "size_bytes": row.cost.size_bytes,
                "bit_ops": row.cost.bit_ops,
            },
            row.student_macs + row.evaluation_macs,
            row.seconds / epochs,
            tuple(shared),
        )


def _check_packages() -> None:
    if problem := lacks("a table of trainings", ["pyarrow"]):
        raise InputError(problem)


def write_table(
    folder: Path, card: Mapping[str, Any], points: Iterable[Mapping[str, Any]], rows: Iterable[Training]
) -> None:
    """Write a table; files that are there are replaced when all are whole.

    Args:
        folder: Made where it is not there.
        card: See :class:`TrainingTable`.
        points: Likewise.
        rows: Of all trainings.

    Raises:
        OSError: It cannot be written, as on a full disk; a table that was there stays.
    """
    _check_packages()
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    plain = [dict(point) for point in points]
    flat = [
        {
            "config_id": row.config.config_id,
            "config": json.dumps(row.config.to_dict(), separators=(",", ":")),
            "replicate": row.replicate,
            "seed": str(row.seed),  # of 64 bits, which other readers take for a float
            "macs": row.cost.macs,
            "n_params": row.cost.n_params,
            "size_bytes": row.cost.size_bytes,
            "bit_ops": row.cost.bit_ops,
            **{name: getattr(row, name) for name in ("student_macs", "evaluation_macs", "teacher_macs")},
            **{name: list(getattr(row, name)) for name in ("val_accuracy", "test_epochs", "test_accuracy")},
            "seconds": row.seconds,
        }
        for row in sorted(rows, key=lambda row: (row.config.config_id, row.replicate))
    ]
    # Together: the points of one table and the trainings of another would be a third.
    with (
        replacing(folder / CARD) as text,
        replacing(folder / POINTS) as grid,
        replacing(folder / TRAININGS) as rest,
    ):
        parquet.write_table(pyarrow.Table.from_pylist(plain), grid)
        parquet.write_table(pyarrow.Table.from_pylist(flat), rest, compression="zstd")
        text.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def read_table(folder: Path | str) -> TrainingTable:
    """Read a table.

    Raises:
        InputError: A file is missing, or is none of a table.
    """
    _check_packages()
    from pyarrow import ArrowException, parquet

    folder = Path(folder)
    if missing := [name for name in TABLE_FILES if not (folder / name).is_file()]:
        raise InputError(
            f"{folder} is no table: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        points = parquet.read_table(folder / POINTS).to_pylist()
        rows = parquet.read_table(folder / TRAININGS).to_pylist()
        trainings: dict[str, list[Training]] = {}
        for row in rows:
            config = TrialConfig.from_dict(json.loads(row["config"]))
            trainings.setdefault(row["config_id"], []).append(Training.from_row(config, row))
        if lost := {"parameters", "images", "networks", "epochs"} - set(card):
            raise InputError(f"{folder / CARD} has no {', '.join(sorted(lost))}: it is no card of a table")
    except (ArrowException, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} is damaged: {error}") from error
    return TrainingTable(card, [point for point in points if point["config_id"] in trainings], trainings)
