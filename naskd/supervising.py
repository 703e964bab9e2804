"""Who teaches, as a part of a search space: which of the study's teachers, and which assistants stand between."""

from collections.abc import Sequence
from dataclasses import replace

from naskd.spec.design import ArchitectureSpec, AssistantSpec, KnowledgeTerm, TrainingSpec
from naskd.spec.errors import InputError
from naskd.suggesting import Trial, choose, suggest_int


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


def suggest_chain(
    trial: Trial,
    teacher: ArchitectureSpec,
    training: TrainingSpec,
    *,
    student: ArchitectureSpec | None = None,
    most: int = 2,
    shares: Sequence[float] = (0.75, 0.5, 0.25),
    multiple: int = 4,
    temperature: float = KnowledgeTerm.temperature,
    dense: bool = False,
) -> tuple[AssistantSpec, ...]:
    """Suggest a chain of teacher assistants of any length up to `most`, none among them (Mirzadeh et al., AAAI 2020).

    An assistant is the teacher with a share of its channels. The shares are few and the same for all students, so that
    trials share their assistants: each is trained once. The first assistant learns from the teacher, each further one
    from the one before it.

    Parameters: ``kd.chain.length``, and for i from 1 to `most` ``kd.chain.<i>``, a share. As many of them as the chain
    is long are taken, the first ones; the same share twice is once.

    Args:
        trial: Where values come from.
        teacher: The study's teacher.
        training: Of the assistants.
        student: Assistants with no more channels than this one are left out, stages counted once a block; None: none
            are.
        most: Longest chain, at least 1.
        shares: Of the teacher's channels, above 0 and below 1.
        multiple: Widths are rounded to multiples of this.
        temperature: Of what assistants are taught.
        dense: Each assistant after the first hears all networks above it (``dgkd``; Son et al., ICCV 2021).

    Returns:
        Large to small, for ``DistillationSpec.assistants``. An empty chain is distillation by the teacher itself.

    Raises:
        InputError: A share is outside of (0, 1), `most` is below 1, or the teacher has no stages to narrow.
    """
    check_has_stages(teacher, "suggest_chain")
    if most < 1:
        raise InputError(f"most is {most}; allowed: at least 1")
    if wrong := [share for share in shares if not 0 < share < 1]:
        raise InputError(f"a share of the teacher's channels is {wrong[0]:g}; allowed: above 0 and below 1")
    length = suggest_int(trial, "kd.chain.length", (0, most))
    drawn = [choose(trial, f"kd.chain.{i + 1}", tuple(shares)) for i in range(most)]
    chosen = sorted(set(drawn[:length]), reverse=True)
    networks = dict.fromkeys(_narrowed(teacher, share, multiple) for share in chosen)
    least = 0 if student is None else _channels(student)
    between = [network for network in networks if least < _channels(network) < _channels(teacher)]
    return tuple(
        AssistantSpec(
            network,
            training,
            (KnowledgeTerm("dgkd" if dense and place else "logits", temperature=temperature),),
        )
        for place, network in enumerate(between)
    )


def check_has_stages(teacher: ArchitectureSpec, who: str) -> None:
    """Refuse a teacher that is made of something else: narrower versions of it would all be the same.

    Raises:
        InputError: It has no stages.
    """
    if not teacher.stages:
        raise InputError(
            f"{who} makes narrower versions of a teacher's stages, and a teacher of the family {teacher.family!r} has "
            "none; allowed: a teacher that is made of stages, such as 'cnn'"
        )


def _narrowed(teacher: ArchitectureSpec, share: float, multiple: int) -> ArchitectureSpec:
    def narrow(width: int) -> int:
        return min(width, max(multiple, round(share * width / multiple) * multiple))

    stages = tuple(replace(stage, width=narrow(stage.width)) for stage in teacher.stages)
    return replace(teacher, stages=stages, stem_width=narrow(teacher.stem_width))


def _channels(network: ArchitectureSpec) -> int:
    return network.stem_width + sum(stage.depth * stage.width for stage in network.stages)
