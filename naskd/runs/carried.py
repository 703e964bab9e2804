"""What a finished run knows, carried into another study: one of its students teaches there.

The study file says which run. Its student is found when the study is opened, and is from then on the teacher's
checkpoint, which is named by its content: the run's directory may move, or go on, and the teacher stays the same or is
refused as another.
"""

from dataclasses import replace
from pathlib import Path

from naskd.runs.moved import with_teachers
from naskd.runs.run import Run, open_run
from naskd.runs.students import STUDENTS
from naskd.runs.taking import kept_student
from naskd.spec.errors import InputError, NaskdError
from naskd.spec.objectives import ACCURACY
from naskd.spec.registry import imported
from naskd.spec.study import StudySpec
from naskd.spec.teachers import TEACHER_SOURCES, TeacherSpec, called


def with_found_checkpoints(spec: StudySpec) -> StudySpec:
    """The study, where teachers whose sources find their checkpoints have them.

    Args:
        spec: With the modules imported that register its sources.

    Raises:
        InputError: A file cannot be found, or another was given; all of them.
    """
    problems: list[str] = []

    def found(teacher: TeacherSpec) -> TeacherSpec:
        if teacher.source_name not in TEACHER_SOURCES or not teacher.card.finds:
            return teacher
        try:
            file = str(imported(teacher.card.finds)(spec, teacher))
        except (NaskdError, OSError) as error:
            problems.append(f"{called(teacher.name)}: {error}")
            return teacher
        if teacher.checkpoint not in (None, file):
            problems.append(
                f"{called(teacher.name)}: checkpoint is {teacher.checkpoint}; allowed: none, since source "
                f"{teacher.source_name!r} finds {file}"
            )
        return replace(teacher, checkpoint=file)

    complete = with_teachers(spec, found)
    if problems:
        raise InputError(problems)
    return complete


def student_file(spec: StudySpec, teacher: TeacherSpec) -> Path:
    """The file of the student that a teacher of source ``run`` is, as the study file would write it.

    Args:
        spec: To whose file the path of the run is relative.
        teacher: Its option `run` is the directory, `student` the ``config_id``; "" for the most accurate of the front.

    Raises:
        InputError: There is no such run, or no such student in it.
        DamagedError: The run is not what was written.
    """
    name, wanted = teacher.option("run"), teacher.option("student")
    run = open_run(spec.resolve(name))
    front = run.to_dict()["trials"]
    if not front:
        raise InputError(f"{run.path} has no finished training: there is no student in it")
    chosen = [trial for trial in front if trial["config_id"] == wanted]
    if not wanted:
        chosen = [max(front, key=lambda trial: float(trial[ACCURACY]))]
    if not chosen:
        raise InputError(
            f"student is {wanted!r}; allowed: the config_id of a design on the front of {run.path}, which keeps those "
            f"alone: {', '.join(trial['config_id'] for trial in front)}"
        )
    return Path(name) / STUDENTS / _file(run, chosen[0]["number"]).name


def _file(run: Run, number: int) -> Path:
    found = kept_student(run, number)
    if found is None:
        raise InputError(
            f"the student of trial {number} is not in {run.path / STUDENTS}, or is not what the search left there: "
            "restore it from a copy, or name another by student"
        )
    return found
