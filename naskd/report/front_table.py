"""The front in the terminal."""

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from naskd.report import summary
from naskd.report.footer import Footer
from naskd.report.record import (
    Record,
    Trial,
    cost,
    front,
    how_retrained,
    is_complete,
    other_costs,
    retrained,
    trained_in,
    trials,
)
from naskd.report.units import count, finite, flops, macs, measure, percent, percent_with_sd, volume
from naskd.spec.objectives import Objective

_WIDE = 118


def front_table(record: Record) -> "FrontTable":
    """The front as a table, cheapest first, the teacher last, warnings below.

    Args:
        record: A run record, of all trials or of the front only.

    Returns:
        A rich renderable; it drops columns rather than squeeze accuracy and MACs when the terminal is narrow.
    """
    return FrontTable(record)


class FrontTable:
    """Renders itself for the width it is given.

    Args:
        record: A run record.
    """

    def __init__(self, record: Record) -> None:
        self.record = record

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(f"Front of {self.record.get('study', 'the study')}", style="bold")
        yield self._table(wide=options.max_width >= _WIDE)
        yield Footer(self._facts())
        yield from self._below()

    def _table(self, wide: bool) -> RenderableType:
        record, designs = self.record, retrained(self.record)
        chosen = front(record)
        extra = other_costs(record)
        table = Table(
            box=None,
            pad_edge=False,
            header_style="bold",
            expand=False,
        )
        more = ("test acc",) if designs else ("expected",) if self._expects else ()
        for title in ("trial", "val acc", *more, "MACs"):
            table.add_column(title, justify="right", no_wrap=True)
        if wide:
            table.add_column("FLOPs", justify="right", no_wrap=True)
        for title in ("params", *(objective.title for objective in extra)):
            table.add_column(title, justify="right", no_wrap=True)
        for title in ("student", "taught by") if wide else ("student ← taught by",):
            table.add_column(title, ratio=1, overflow="fold")
        for trial in chosen:
            table.add_row(*self._row(trial, extra, wide))
        teachers = record.get("teachers") or [record["teacher"]] if record.get("teacher") else []
        for position, teacher in enumerate(teachers):
            if chosen and not position:
                table.add_section()
            named = {**teacher, "number": "T"}
            table.add_row(
                *self._row(named, extra, wide, teacher=str(teacher.get("name", ""))), style="italic"
            )
        return table

    def _row(
        self, trial: Trial, extra: list[Objective], wide: bool, teacher: str | None = None
    ) -> list[Text]:
        record, designs, one_image = self.record, retrained(self.record), trial.get("macs")
        replicates = trial.get("replicates") or {}
        accuracy = (
            percent_with_sd(replicates.get("mean"), replicates.get("sd"))
            if (replicates.get("n") or 0) > 1
            else percent(trial.get("val_accuracy"))
        )
        cells = [Text(str(trial.get("number", ""))), Text(accuracy, style="bold")]
        if designs:
            if teacher is None:
                test = designs.get(trial.get("number", -1), {})
                cells.append(
                    Text(percent_with_sd(test.get("test_accuracy_mean"), test.get("test_accuracy_sd")))
                )
            else:
                compared = trial.get("name") == (record.get("teacher") or {}).get("name")
                found = (record.get("retrained") or {}).get("teacher_test_accuracy")
                cells.append(Text(percent(found if compared else None)))
        elif self._expects:
            expected = trial.get("expected") or {}
            cells.append(Text(percent_with_sd(expected.get("mean"), expected.get("sd") if wide else None)))
        cells.append(Text(count(one_image), style="bold"))
        if wide:
            cells.append(Text(flops(one_image)))
        cells.append(Text(count(trial.get("n_params"))))
        cells += [Text(measure(trial.get(objective.name), objective.unit)) for objective in extra]
        if teacher is not None:
            return [
                *cells,
                Text("the teacher" if teacher in ("", "teacher") else f"the teacher, {teacher}"),
                *([Text("")] if wide else []),
            ]
        config = trial.get("config")
        design, distillation = summary.student(config), summary.taught_by(config) if config else ""
        if shared := trained_in(trial):
            distillation = f"{distillation} ({shared})"
        if wide:
            return [*cells, Text(design), Text(distillation, style="cyan")]
        return [*cells, Text.assemble(design, ("\n← " + distillation if config else "", "cyan"))]

    @property
    def _expects(self) -> bool:
        """Whether designs have an expected accuracy: once they are retrained, test images say more."""
        return not retrained(self.record) and any(trial.get("expected") for trial in front(self.record))

    def _facts(self) -> list[str]:
        record = self.record
        if not front(record):
            states = record.get("counts") or {}
            complete = states.get("complete", sum(map(is_complete, trials(record))))
            return [
                "No trial on the front yet." if not complete else "No complete trial has finite objectives."
            ]
        parts = ["FLOPs = 2 × MACs, one image"]
        if self._expects:
            parts.append("expected: of new images, by what all trials say")
        if finite(record.get("hypervolume")) is not None:
            parts.append(f"hypervolume {volume(record['hypervolume'])}")
        if finite(record.get("train_macs")) is not None:
            parts.append(f"search spent {macs(record['train_macs'])}")
            whole = finite(record.get("train_macs_with_teachers"))
            if whole is not None and whole > record["train_macs"]:
                parts.append(f"{macs(whole)} with the teacher's training")
        counts = record.get("counts") or {}
        told = [(counts.get("complete"), "trials"), (counts.get("again"), "of them with a further seed")]
        told.append((counts.get("siblings"), "of them trained in another"))
        told.append((counts.get("stopped"), "stopped early"))
        told.append((counts.get("failed"), "failed"))
        told.append((counts.get("turned_away"), "turned away"))
        parts += [f"{number} {what}" for number, what in told if number]
        if unlabelled := record.get("unlabelled"):
            parts.append(f"{unlabelled['used']} unlabelled images")
        if copies := record.get("copies"):
            val, test = (
                copies.get("val in train", 0),
                copies.get("test in train", 0) + copies.get("test in val", 0),
            )
            parts.append(f"left out as copies: {val} validation and {test} test images")
        if modality := record.get("modality"):
            labels = "with" if modality.get("labels") else "without"
            parts.append(f"students see {modality['name']!r}, {labels} labels")
        if (first := cost(record)).name != "macs":
            parts.append(f"{'best' if first.maximise else 'cheapest'} by {first.title}")
        return parts + self._tests()

    def _tests(self) -> list[str]:
        """How designs were retrained, where not all were in one way: such accuracies are not compared lightly."""
        designs, ways = retrained(self.record), dict[str, list[str]]()
        for trial in front(self.record):
            if (number := trial.get("number", -1)) in designs:
                ways.setdefault(how_retrained(designs[number]), []).append(str(number))
        if len(ways) < 2:
            return []
        return [
            f"test acc of trial{'s' * (len(numbers) > 1)} {', '.join(numbers)}: {way}"
            for way, numbers in ways.items()
        ]

    def _below(self) -> RenderResult:
        for warning in self.record.get("warnings") or ():
            yield Text.assemble(("warning: ", "bold yellow"), str(warning))
