"""Cheap convolutions: Xie, Lin, Zhang, Luo. 2019, arXiv 1909.13063.

Training convolutional neural networks with cheap convolutions and online distillation. The student is a network with
cheap convolutions. The same network with standard ones is trained beside it, and not before. Both learn from the labels
and from each other, as in :mod:`naskd.schemes.co_teacher`. The student leaves.

Here the design is the student's, and the other network follows from it. Stages of depthwise separable convolutions and
of inverted residuals become basic residual blocks of the same depth, width, kernel and stride. All else is the same in
both, blocks that users register too. A design without cheap blocks has another of its own kind beside it.

Both directions weigh 1, since the paper has mutual learning; the temperature 4 is Hinton's. Neither is tuned. Left out:
group and shift convolutions, which are no blocks here.
"""

from dataclasses import replace

from naskd.schemes.co_teacher import CoTeacherScheme
from naskd.schemes.scheme import SchemeInputs
from naskd.spec.design import ArchitectureSpec, StageSpec

CHEAP = ("depthwise_separable", "inverted_residual")
STANDARD = "basic"


def standard(architecture: ArchitectureSpec) -> ArchitectureSpec:
    """The same network with standard convolutions in place of cheap ones."""
    return replace(architecture, stages=tuple(map(_standard, architecture.stages)))


def _standard(stage: StageSpec) -> StageSpec:
    if stage.block not in CHEAP:
        return stage
    return replace(
        stage, block=STANDARD, expansion=StageSpec.expansion, squeeze_excitation=StageSpec.squeeze_excitation
    )


class CheapConvolutionScheme(CoTeacherScheme):
    """A student of cheap convolutions, and the same network with standard ones."""

    def __init__(self, inputs: SchemeInputs) -> None:
        assert inputs.architecture is not None, "cheap convolutions are a student's"
        super().__init__(inputs, standard(inputs.architecture))
