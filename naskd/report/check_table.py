"""What a check has found of a study that is in order, in a few lines."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from naskd.report.units import about, count, epochs_of, macs, size


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
    if (disk := checked.get("disk")) and disk["bank_tensor"]:
        known = "" if disk["bank"] is None else f"about {size(disk['bank'])}, "
        yield (
            f"disk: what teachers say is kept, {known}at most {size(disk['bank_tensor'])} a tensor "
            f"(execution.bank_bytes), larger maps at most {size(disk['bank_map'])} (execution.bank_disk_bytes)"
        )
    if (steps := checked.get("steps")) and (few := checked["threads_that_help"]) < (
        many := max(map(int, steps))
    ):
        took = " and ".join(f"{steps[str(n)]:.2g} s with {n}" for n in (few, many))
        yield f"threads: a step of a student takes {took} here and now; set execution.threads = {few}"
    if cost := checked["cost"]:
        yield from cost_lines(cost, checked["epochs"])
    elif built:
        yield "cost: not timed, since one step takes long here; naskd search --dry-run times it"


def _of_space(space: Mapping[str, Any]) -> str:
    turned_away = [
        f"{n} {kind} (such as: {space['example'][kind]})" for kind, n in space["turned_away"].items()
    ]
    of = space["macs"]
    again = space["drawn"] - space["designs"] - sum(space["turned_away"].values())
    sizes = f", {macs(of['min'])} to {macs(of['max'])}, half of them below {macs(of['median'])}" if of else ""
    return (
        f"space: {space['drawn']} random designs drawn, {space['designs']} distinct ones can be trained{sizes}; "
        f"turned away: {'; '.join(turned_away) or 'none'}"
        + (f"; drawn a second time: {again}" if again else "")
    )


def cost_lines(cost: Mapping[str, Any], epochs: int) -> Iterator[str]:
    """What a trial and the whole budget cost.

    Args:
        cost: See :func:`~naskd.runs.estimate.estimate_search`. ``teachers_timed``: false where they were not.
        epochs: Of a trial.
    """
    seconds, each = cost["trial_seconds"], macs(cost["own_train_macs"])
    # The mean, not the median: so many times that as there are trials is what the budget takes.
    once_seconds = sum(cost[key] for key in ("teacher_seconds", "assistant_seconds", "bank_seconds"))
    one = about((cost["seconds"] - once_seconds) / max(1, math.ceil(cost["trials"] / cost["workers"])))
    some = about(seconds["min"], seconds["max"])
    by_design = f" ({some} by design)" if " to " in some else ""
    with_threads = f" with {cost['threads']} threads" if cost.get("threads", 1) > 1 else ""
    yield (
        f"a trial: about {one}{by_design} and {each} of training, {epochs_of(epochs)}, "
        f"by {cost['n_timed']} random students timed here{with_threads}"
    )
    once = [
        f"{about(cost[key])} {what}"
        for key, what in (
            ("teacher_seconds", "to train the teacher"),
            ("assistant_seconds", "to train assistants"),
            ("bank_seconds", "to note what it says of the images"),
        )
        if cost[key]
    ]
    before = f" ({', '.join(once)})" if once else ""
    if not cost.get("teachers_timed", True):
        before += ", without the training of teachers, of which one step takes long here"
    at_once = f", {cost['workers']} at once" if cost["workers"] > 1 else ""
    whole, least = about(cost["seconds"]), about(cost["least_seconds"])
    undisturbed = (
        f", or {least} by the fastest steps"
        if " to " in about(cost["least_seconds"], cost["seconds"])
        else ""
    )
    yield (
        f"the whole budget: {count(cost['trials'])} trials{at_once}, about {whole}{undisturbed}{before}; "
        f"{macs(cost['train_macs'])} of training"
    )
    if cost.get("busy"):
        yield cost["busy"]
