"""One trial in the terminal: its numbers, its whole design and its learning curve."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from naskd.report import summary
from naskd.report.bank import answers
from naskd.report.record import (
    Record,
    how_retrained,
    other_costs,
    retrained,
    trained_in,
    training_seconds,
    trial_by_number,
)
from naskd.report.units import count, duration, finite, flops, macs, measure, percent, percent_with_sd, size
from naskd.spec.chance import guessed_at_most, may_guess
from naskd.spec.design import FLOAT_BITS

# What is left of a row when all of its values are missing.
_GAP = "–,() MACs"
_BARS = "▁▂▃▄▅▆▇█"
_KNOWN = {
    "val_accuracy",
    "macs",
    "n_params",
    "size_bytes",
    "number",
    "state",
    "reason",
    "config",
    "config_id",
    "seed",
    "curve",
    "wall_seconds",
    "train_macs",
    "teacher_agreement",
    "on_front",
    "replicates",
    "failed_again",
    "replicate_of",
    "trained_in",
    "siblings",
    "continues",
    "continued_by",
    "own",
    "expected",
    "error",
    "environment",
    "measures",
    "best_val_accuracy",
    "spent_macs",
    "lost_macs",
    "lost_epochs",
    "asked_images",
    "forward_images",
    "bank_bytes",
    "retry_of",
    "retried",
    "parameters",
}


def trial_table(record: Record, number: int) -> Group:
    """Everything about one trial.

    Args:
        record: A run record that holds the trial.
        number: Of the trial.

    Raises:
        InputError: The record has no such trial.
    """
    trial = trial_by_number(record, number)
    heading = Text.assemble((f"Trial {number} of {record.get('study', 'the study')}", "bold"))
    state = str(trial.get("state", "COMPLETE"))
    heading.append(f"  {state}" + (", on the front" if trial.get("on_front") else ""), style="dim")
    parts: list[Any] = [heading]
    if (first := trial.get("replicate_of")) is not None:
        parts.append(Text(f"trains the design of trial {first} once more, with another seed", style="dim"))
    if shared := trained_in(trial):
        parts.append(
            Text(f"{shared}, whose training gives this design, too: nothing was spent on it", style="dim")
        )
    if siblings := trial.get("siblings"):
        many = "s" * (len(siblings) > 1)
        told = f"its training also gives the design{many} of trial{many} {', '.join(map(str, siblings))}"
        parts.append(Text(told, style="dim"))
    if (paused := trial.get("continues")) is not None:
        parts.append(Text(f"goes on with trial {paused}, which was paused", style="dim"))
    if trial.get("reason"):
        parts.append(Text(str(trial["reason"]), style="yellow"))
    parts += [Text(), _grid(row for row in _numbers(record, trial) if row[1].strip(_GAP))]
    config = trial.get("config") or {}
    if config:
        parts += [Text(), Text("Student", style="bold"), Text(summary.student(config)), _stages(config)]
        distillation = config.get("distillation") or {}
        parts += [
            Text(),
            Text("Taught by", style="bold"),
            Text(summary.taught_by(config)),
            _terms(distillation),
        ]
        for assistant in distillation.get("assistants") or ():
            parts.append(Text(f"assistant: {summary.student(assistant)}"))
        training = config.get("training") or {}
        parts += [Text(), Text("Training", style="bold"), _grid((k, _plain(v)) for k, v in training.items())]
    curve = _curve(trial.get("curve") or ())
    if curve:
        parts += [Text(), Text("Learning curve", style="bold"), *curve]
    if trial.get("error"):
        parts += [Text(), Text("Error", style="bold"), Text(str(trial["error"]).rstrip(), style="dim")]
    return Group(*parts)


def _numbers(record: Record, trial: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    own = trial.get("own") or trial
    accuracy = finite(own.get("val_accuracy"))
    images, note = record.get("images") or {}, ""
    if accuracy is not None and may_guess(accuracy, images):
        n, classes = int(images["val"]), int(images["classes"])
        most = percent(guessed_at_most(n, classes) / n)
        note = f", not surely better than guessing: {percent(1 / classes)}, and up to {most} by accident"
    yield "validation accuracy", percent(accuracy) + note
    replicates = trial.get("replicates") or {}
    if (replicates.get("n") or 0) > 1:
        mean = percent_with_sd(replicates.get("mean"), replicates.get("sd"))
        yield (
            f"mean over {replicates['n']} seeds",
            f"{mean}, trials {', '.join(map(str, replicates.get('trials', ())))}",
        )
    if failed := trial.get("failed_again"):
        yield "with other seeds it failed", f"trials {', '.join(map(str, failed))}, which are in no mean"
    if expected := trial.get("expected"):
        yield "expected of it, luck aside", percent_with_sd(expected.get("mean"), expected.get("sd"))
    test = retrained(record).get(trial.get("number", -1))
    if test:
        mean = percent_with_sd(test.get("test_accuracy_mean"), test.get("test_accuracy_sd"))
        yield "test accuracy, retrained", f"{mean} over {how_retrained(test)}"
    yield "in its best epoch", percent(trial.get("best_val_accuracy"))
    yield "agrees with the teacher", percent(trial.get("teacher_agreement"))
    yield "MACs (FLOPs)", f"{count(trial.get('macs'))} ({flops(trial.get('macs'))})"
    yield "parameters", f"{count(trial.get('n_params'))}, {size(trial.get('size_bytes'))}"
    shown = [
        objective for objective in other_costs(record) if objective.name not in ("size_bytes", "train_macs")
    ]
    for objective in shown:
        value = measure(own.get(objective.name), objective.unit)
        mean = measure(trial.get(objective.name), objective.unit)
        yield objective.title, value if value == mean else f"{value}, mean over seeds {mean}"
    for name, value in trial.items():
        if name not in _KNOWN | {objective.name for objective in shown} and finite(value) is not None:
            yield name, f"{value:.4g}"
    for name, value in (trial.get("measures") or {}).items():
        if name not in {objective.name for objective in shown}:
            yield name.replace("_", " "), _plain(value)
    yield "trained for", f"{macs(trial.get('train_macs'))}, {duration(training_seconds(record, trial))}"
    lost = f", of which {macs(trial['lost_macs'])} died with workers" if trial.get("lost_macs") else ""
    yield "executed, with what is remembered", macs(trial.get("spent_macs")) + lost
    yield "teacher", answers(trial)
    yield "seed, design", f"{trial.get('seed', '')}, {trial.get('config_id', '')}"


def _grid(rows: Any) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(str(name)), Text(str(value)))
    return grid


def _listing(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table with a column for every key of `rows`."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_plain(row.get(name))) for name in names))
    return table


def _stages(config: Mapping[str, Any]) -> Table:
    stages = (config.get("architecture") or {}).get("stages") or ()
    if any("bits" in stage for stage in stages):
        stages = [{**stage, "bits": stage.get("bits", FLOAT_BITS)} for stage in stages]
    return _listing(stages)


def _terms(distillation: Mapping[str, Any]) -> Table:
    rows = []
    for term in distillation.get("terms") or ():
        options = ", ".join(f"{name}={_plain(value)}" for name, value in term.get("options") or ())
        rows.append(
            {**{k: v for k, v in term.items() if k != "options"}, **({"options": options} if options else {})}
        )
    rows.append({"kind": "cross-entropy", "weight": distillation.get("ce_weight", 1.0)})
    return _listing(rows)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _curve(curve: Sequence[Mapping[str, Any]]) -> list[Text]:
    lines = []
    for name, show in (("val_accuracy", percent), ("loss", _plain)):
        values = [value for value in (finite(point.get(name)) for point in curve) if value is not None]
        if values:
            low, high = min(values), max(values)
            # At most 40 bars, so that a curve fits a narrow terminal beside its numbers.
            steps = min(len(values), 40)
            shown = [values[round(i * (len(values) - 1) / max(steps - 1, 1))] for i in range(steps)]
            span = (high - low) or 1.0
            bars = "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in shown)
            lines.append(Text(f"{name:13s}{bars}  {show(values[0])} → {show(values[-1])}"))
    return lines
