"""Every trial of a run in one line each, in the terminal."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from naskd.report import summary
from naskd.report.record import Record, other_costs, trained_in, trials
from naskd.report.units import count, measure, percent


def trials_table(record: Record) -> Group:
    """All trials by number, with their states and reasons.

    Args:
        record: A run record of all trials.
    """
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    extra = other_costs(record)
    for title in ("trial", "val acc", "MACs", *(objective.title for objective in extra)):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("design or reason", ratio=1, overflow="fold")
    for trial in sorted(trials(record), key=lambda trial: trial.get("number", -1)):
        config, on_front = trial.get("config"), bool(trial.get("on_front"))
        design = f"{summary.student(config)} ← {summary.taught_by(config)}" if config else ""
        if (first := trial.get("replicate_of")) is not None:
            design = f"trial {first} with another seed"
        if (seeds := (trial.get("replicates") or {}).get("n") or 0) > 1:
            design = f"{design} (mean over {seeds} seeds)"
        if shared := trained_in(trial):
            design = f"{design} ({shared})"
        table.add_row(
            Text(("* " if on_front else "") + str(trial.get("number", ""))),
            Text(percent(trial.get("val_accuracy"))),
            Text(count(trial.get("macs"))),
            *(Text(measure(trial.get(objective.name), objective.unit)) for objective in extra),
            Text(str(trial.get("state", ""))),
            Text(str(trial.get("reason") or design)),
            style="bold" if on_front else "",
        )
    title = f"Trials of {record.get('study', 'the study')}; * is on the front"
    return Group(Text(title, style="bold"), table)
