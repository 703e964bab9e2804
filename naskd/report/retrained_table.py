"""What a retraining found, in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from naskd.report.record import how_retrained
from naskd.report.units import count, measure, percent, percent_with_sd, points_with_error
from naskd.spec.objectives import Objective


def retrained_table(retrained: Mapping[str, Any], extra: Sequence[Objective] = ()) -> Group:
    """Test accuracy of each retrained design, cheapest first, and what it takes to match the teacher.

    Args:
        retrained: The ``retrained`` part of a run record, as :meth:`naskd.runs.run.Run.retrain` returns it.
        extra: Objectives to show beside accuracy, MACs and parameters.
    """
    seeds, epochs = retrained.get("seeds"), retrained.get("epochs")
    heading = (
        f"On {retrained.get('n_test')} test images: {seeds} fresh seed{'' if seeds == 1 else 's'} "
        f"of {epochs} epoch{'' if epochs == 1 else 's'} each"
    )
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    designs = retrained.get("designs") or ()
    has_alone = any(design.get("labels_alone") for design in designs)
    for title in (
        "trial",
        "test acc",
        *(("labels alone", "gain") if has_alone else ("val acc", "val acc in search")),
        "MACs",
        "params",
        *(o.title for o in extra),
        "front",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for design in designs:
        alone = design.get("labels_alone") or {}
        table.add_row(
            str(design.get("number")),
            Text(
                percent_with_sd(design.get("test_accuracy_mean"), design.get("test_accuracy_sd")),
                style="bold",
            ),
            *(
                (_alone(alone), _gain(alone))
                if has_alone
                else (percent(design.get("val_accuracy_mean")), percent(design.get("val_accuracy_search")))
            ),
            count(design.get("macs")),
            count(design.get("n_params")),
            *(measure(design.get(objective.name), objective.unit) for objective in extra),
            "yes" if design.get("on_front") else "",
        )
    if retrained.get("teacher_test_accuracy") is not None:
        table.add_section()
        table.add_row(
            "T",
            percent(retrained["teacher_test_accuracy"]),
            "",
            "",
            count(retrained.get("teacher_macs")),
            style="italic",
        )
    earlier = [
        Text(
            f"Trial {design.get('number')}, retrained earlier: "
            f"{percent_with_sd(design.get('test_accuracy_mean'), design.get('test_accuracy_sd'))} "
            f"over {how_retrained(design)}."
        )
        for design in retrained.get("earlier") or ()
    ]
    return Group(Text(heading, style="bold"), table, *_verdict(retrained), *earlier)


def _alone(alone: Mapping[str, Any]) -> str:
    return percent_with_sd(alone.get("test_accuracy_mean"), alone.get("test_accuracy_sd")) if alone else ""


def _gain(alone: Mapping[str, Any]) -> str:
    """In points, with its standard error."""
    return points_with_error(alone.get("gain"), alone.get("gain_standard_error")) if alone else ""


def _verdict(retrained: Mapping[str, Any]) -> list[Text]:
    if retrained.get("teacher_test_accuracy") is None:
        return []
    match = retrained.get("matches_teacher")
    error = percent_with_sd(retrained["teacher_test_accuracy"], retrained.get("teacher_test_standard_error"))
    if retrained.get("teacher_at_chance"):
        return [
            Text(
                f"The teacher is no better than chance on the test images ({error}): nothing is compared with it."
            )
        ]
    if match is None:
        return [Text(f"No student is within one standard error of the teacher ({error}).")]
    return [
        Text(
            f"Trial {match['number']} is the cheapest within one standard error of the teacher ({error}): "
            f"{count(match['macs'])} MACs, {_times(match['times_cheaper'])}."
        )
    ]


def _times(fewer: float) -> str:
    """A student may also have more MACs than a small teacher."""
    return f"{fewer:.3g} times fewer" if fewer >= 1 else f"{1 / fewer:.3g} times more"
