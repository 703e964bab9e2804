"""How many trials a first study has: as many as fit a stated time, and what they take, in words."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from naskd.report.units import about
from naskd.runs.checking import Checked

SECONDS = 3600
"""That a search may take, about, on this machine when it does nothing else."""
TRIALS = (10, 100)


def with_budget(checked: Checked) -> Checked:
    """The same with as many trials as an hour has, and what they cost.

    Args:
        checked: With the cost of one budget, where it could be timed.
    """
    if not checked.cost:
        return checked
    cost = checked.cost
    before, trials = _before(cost), cost["trials"]
    each = (cost["seconds"] - before) / trials
    idle = cost["least_seconds"] / cost["seconds"]  # of what the same takes now
    low, high, shared = *TRIALS, cost.get("shared_train_macs", 0.0)
    fit = int(max(0.0, SECONDS / idle - before) / each)
    wanted = min(high, max(low, fit if fit < 2 * low else fit // 10 * 10))
    seconds = before + wanted * each
    changed = {
        "trials": wanted,
        "seconds": seconds,
        "least_seconds": seconds * idle,
        "train_macs": (cost["train_macs"] - shared) / trials * wanted + shared,
    }
    return replace(checked, cost={**cost, **changed})


def _before(cost: Mapping[str, Any]) -> float:
    """Seconds of what is made once for all trials."""
    return float(cost["teacher_seconds"] + cost["assistant_seconds"] + cost["bank_seconds"])


def why_budget(cost: Mapping[str, Any]) -> str:
    """What the budget takes, for a comment.

    Args:
        cost: See :func:`with_budget`; empty where nothing was timed.
    """
    if not cost:
        return "Nothing was timed yet: naskd search study.toml --dry-run says what this takes."
    before, idle = _before(cost), cost["least_seconds"] / cost["seconds"]
    each = (cost["seconds"] - before) / cost["trials"]
    untimed = "" if cost["teachers_timed"] else "; the teacher's training comes on top and was not timed"
    of = cost["trial_seconds"]
    whole = about(cost["least_seconds"], cost["seconds"])
    lines = [
        f"About {whole} on this machine: {about(idle * each, each)} a trial on average, and "
        f"{about(idle * before, before)} for what is made once{untimed}."
    ]
    usual = ""
    if " to " in whole:
        lines.append(
            "Of two times the first is for a machine that does nothing else, the second as it was timed."
        )
        usual = ", as it was timed"
    lines.append(
        f"From design to design a trial takes {about(of['min'], of['max'])}{usual}: a sampler that minds what a "
        "training takes chooses shorter ones."
    )
    if cost["trials"] == TRIALS[0] and cost["least_seconds"] > SECONDS:
        lines.append(
            "More than an hour, and fewer trials say little: a lower max_macs, resolution or epochs makes it less."
        )
    if busy := cost.get("busy"):
        lines.append(f"As it was timed, {busy}.")
    return "\n# ".join(lines)
