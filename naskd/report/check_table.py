"""What a check has found of a study that is in order, in a few lines."""

from collections.abc import Iterator, Mapping
from typing import Any

from naskd.report.units import count, duration, epochs_of, macs, size


def check_lines(checked: Mapping[str, Any]) -> Iterator[str]:
    """A line for each part of the answer; parts that could not be looked at have none.

    Args:
        checked: See :meth:`naskd.runs.checking.Checked.to_dict`.
    """
    if space := checked["space"]:
        yield _of_space(space)
    if built := checked["built"]:
        sizes = [student["macs"] for student in built]
        timed = sum(student["timed"] for student in built)
        yield (
            f"students: {len(built)} of {macs(min(sizes))} to {macs(max(sizes))} built and run, {timed} of them timed"
        )
    if memory := checked["memory"]:
        yield f"memory: images {size(memory['images'])}, this process {size(memory['process'])} at its peak"
    if cost := checked["cost"]:
        yield from _of_cost(cost, checked["epochs"])
    elif built:
        yield "cost: not timed, since one step takes long here; naskd search --dry-run times it"


def _of_space(space: Mapping[str, Any]) -> str:
    turned_away = [
        f"{n} {kind} (such as: {space['example'][kind]})" for kind, n in space["turned_away"].items()
    ]
    of = space["macs"]
    sizes = f", {macs(of['min'])} to {macs(of['max'])}, half of them below {macs(of['median'])}" if of else ""
    return (
        f"space: {space['drawn']} random designs drawn, {space['designs']} distinct ones can be trained{sizes}; "
        f"turned away: {'; '.join(turned_away) or 'none'}"
    )


def _of_cost(cost: Mapping[str, Any], epochs: int) -> Iterator[str]:
    seconds, train = cost["trial_seconds"], cost["trial_train_macs"]
    yield (
        f"a trial: {duration(seconds['median'])} ({duration(seconds['min'])} to {duration(seconds['max'])}) and "
        f"{macs(train['median'])} of training, {epochs_of(epochs)}, from {cost['n_timed']} students timed here"
    )
    before = cost["teacher_seconds"] + cost["assistant_seconds"]
    teachers = f", {duration(before)} of it before the first trial" if before else ""
    if not cost["teachers_timed"]:
        teachers = ", without the training of teachers, of which one step takes long here"
    at_once = f", {cost['workers']} at once" if cost["workers"] > 1 else ""
    yield (
        f"the whole budget: about {count(cost['trials'])} trials{at_once}, {duration(cost['seconds'])}{teachers}, and "
        f"{macs(cost['train_macs'])} of training"
    )
    if cost.get("busy"):
        yield cost["busy"]
