"""Who teaches, as a part of a search space: which of the study's teachers."""

from collections.abc import Sequence

from naskd.suggesting import Trial, choose


def suggest_teachers(trial: Trial, names: Sequence[str]) -> tuple[str, ...]:
    """Suggest which of the study's teachers teach together: at least one.

    Parameters: ``kd.teachers.<name>`` for each, whether it teaches. Where nobody does, the first one teaches.

    Args:
        trial: Where values come from.
        names: Of the study's teachers, at least one, distinct.

    Returns:
        Names in the order of `names`, for ``DistillationSpec.teachers``.
    """
    chosen = [name for name in names if choose(trial, f"kd.teachers.{name}", (True, False))]
    return tuple(chosen or names[:1])
