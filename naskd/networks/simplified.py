"""Whether a student is a simplified version of a teacher, so that it can begin with the teacher's weights.

Torch-free; :mod:`naskd.networks.inheriting` is what then happens.
"""

from collections.abc import Iterator

from naskd.networks import BLOCKS
from naskd.spec.design import CONVOLUTION, OWN, ArchitectureSpec, StageSpec


def problems(student: ArchitectureSpec, teacher: ArchitectureSpec) -> list[str]:
    """Why a student of the family ``cnn`` is no simplified version of a teacher; empty when it is one.

    It has the teacher's stages, and nowhere more channels. At least one stage has the teacher's blocks, of its kernel
    and activation and of no larger number; a stage of others begins with random weights. Strides, what halves a map and
    the stem's max-pooling may differ: the same filters then read a coarser or finer map.
    """
    if len(student.stages) != len(teacher.stages):
        return [f"the student has {len(student.stages)} stages, the teacher {len(teacher.stages)}"]
    found = list(_differences("the stem", student.stem_kernel, teacher.stem_kernel, "kernel"))
    found += _differences("the stem", student.stem, teacher.stem, "form")
    if student.stem != CONVOLUTION:
        found += _differences("the stem", student.stem_stride, teacher.stem_stride, "patch")
    found += _differences("the stem", student.stem_activation, teacher.stem_activation, "activation")
    found += _more("the stem", student.stem_width, teacher.stem_width, "channels")
    for number, (mine, theirs) in enumerate(zip(student.stages, teacher.stages, strict=True), start=1):
        found += _stage_problems(f"stage {number}", mine, theirs)
    pairs = zip(student.stages, teacher.stages, strict=True)
    if all(mine.block != theirs.block for mine, theirs in pairs):
        blocks = [", ".join(stage.block for stage in one.stages) for one in (student, teacher)]
        found.append(f"no stage has the teacher's blocks: {blocks[0]}, the teacher {blocks[1]}")
    return found


def _stage_problems(place: str, student: StageSpec, teacher: StageSpec) -> Iterator[str]:
    card = BLOCKS[teacher.block]
    if not card.takes_weights:
        yield f"{place} of the teacher is made of {teacher.block!r} blocks, which give no weights to others"
    yield from _more(place, student.width, teacher.width, "channels")
    if student.block != teacher.block:
        return
    yield from _differences(place, student.kernel, teacher.kernel, "kernel")
    if card.activation:
        mine, theirs = (
            card.activation if one.activation == OWN else one.activation for one in (student, teacher)
        )
        yield from _differences(place, mine, theirs, "activation")
    yield from _more(place, student.depth, teacher.depth, "blocks")
    if card.uses_expansion:
        yield from _more(place, student.expansion, teacher.expansion, "expansion")
    if card.uses_squeeze_excitation:
        yield from _differences(
            place, student.squeeze_excitation, teacher.squeeze_excitation, "squeeze_excitation"
        )


def _differences(place: str, student: object, teacher: object, what: str) -> Iterator[str]:
    if student != teacher:
        yield f"{place} has {what} {student}, the teacher's {teacher}"


def _more(place: str, student: float, teacher: float, what: str) -> Iterator[str]:
    if student > teacher:
        yield f"{place} has more {what} than the teacher's: {student:g} > {teacher:g}"
