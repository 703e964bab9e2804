"""What must exist before a design trains, and who then supervises it: said by its scheme, without torch.

A scheme names networks by what they are; :mod:`naskd.trials.prerequisites` knows how each is made and kept.
"""

from dataclasses import dataclass

from naskd.knowledge import KNOWLEDGE, needs_teacher
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm
from naskd.spec.study import StudySpec


@dataclass(frozen=True)
class StudyTeacher:
    """A teacher of the study, or a state that its training passes through.

    Args:
        name: In the study file.
        epoch: After which of its training; 0 for the end.
    """

    name: str
    epoch: int = 0


@dataclass(frozen=True)
class Assistant:
    """A teacher assistant.

    Args:
        spec: What it is and how it is trained.
        parent: The network above it, which teaches it.
        above: Those above that one, the nearest first, where its losses hear several; else nobody.
    """

    spec: AssistantSpec
    parent: "StudyTeacher | Assistant"
    above: tuple["StudyTeacher | Assistant", ...] = ()


Supervisor = StudyTeacher | Assistant


@dataclass(frozen=True)
class Prerequisites:
    """The networks that a design needs.

    Args:
        made: In the order in which they must be made; each after its parent.
        heard: In the order of the student's sources of knowledge; some of `made`, or the same one twice.
        compared: With whose answers the student's are compared in the end; None without one.
    """

    made: tuple[Supervisor, ...] = ()
    heard: tuple[Supervisor, ...] = ()
    compared: Supervisor | None = None


def nothing(distillation: DistillationSpec, study: StudySpec) -> Prerequisites:
    """For networks that teach each other, or themselves, or are trained with the labels."""
    return Prerequisites()


def first_teacher(distillation: DistillationSpec) -> Prerequisites:
    """The first of the design's teachers, whom its scheme asks whatever the terms are."""
    teacher = (StudyTeacher(distillation.teachers[0]),)
    return Prerequisites(teacher, teacher, *teacher)


def teachers(distillation: DistillationSpec, study: StudySpec) -> Prerequisites:
    """The design's teachers, the chain of its state and of assistants below the first of them, and who is heard.

    The first source is the last of the chain, the others are the other teachers. A loss of several teachers hears the
    rest of the chain too, the nearest first. So does one that an assistant is taught by.
    """
    if not needs_teacher(distillation):
        return Prerequisites()
    chain: list[Supervisor] = [StudyTeacher(distillation.teachers[0])]
    if epoch := state_epoch(distillation, study):
        chain.append(StudyTeacher(distillation.teachers[0], epoch))
    for spec in distillation.assistants:
        above = tuple(reversed(chain[:-1])) if _hears_several(spec.terms) else ()
        chain.append(Assistant(spec, chain[-1], above))
    others = [StudyTeacher(name) for name in distillation.teachers[1:]]
    heard = [chain[-1], *others]
    if _hears_several(distillation.terms):
        heard += reversed(chain[:-1])
    return Prerequisites(tuple(dict.fromkeys([*chain, *others])), tuple(heard), chain[-1])


def _hears_several(terms: tuple[KnowledgeTerm, ...]) -> bool:
    return any(KNOWLEDGE[term.kind].several_teachers for term in terms)


def state_epoch(distillation: DistillationSpec, study: StudySpec) -> int:
    """After which epoch of its training the first teacher teaches, the nearest to its share; 0 for the end.

    A teacher that was brought along has no states: its end is meant.
    """
    teacher = study.teacher_specs().get(distillation.teachers[0])
    if teacher is None or not teacher.trained_here or distillation.teacher_state == 1:
        return 0
    epochs = teacher.training.epochs
    reached = max(1, round(epochs * distillation.teacher_state))
    return reached if reached < epochs else 0


def trajectory(distillation: DistillationSpec, study: StudySpec, anchors: int) -> Prerequisites:
    """States of the teacher's training at equal epoch intervals, early to late, the last of which is the teacher.

    Args:
        distillation: Of the design.
        study: Whose teacher is trained here.
        anchors: States, the last one included, at most.
    """
    if not needs_teacher(distillation):
        return Prerequisites()
    name = distillation.teachers[0]
    known = study.teacher_specs()
    epochs = known[name].training.epochs if name in known else 0
    reached = dict.fromkeys(max(1, round(epochs * i / anchors)) for i in range(1, anchors))
    states = [StudyTeacher(name, epoch) for epoch in reached if epoch < epochs]
    teacher = StudyTeacher(name)
    # The latest first: making it stores the earlier ones on the way.
    return Prerequisites((*reversed(states), teacher), (*states, teacher), teacher)
