"""A student that leaves with another network's classifier, and the projector between the two.

Chen, Mei, Zhang, Wang, Feng, Chen: Knowledge Distillation with the Reused Teacher Classifier. CVPR 2022, arXiv
2203.14001.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from naskd.nn.deployed import Description, as_deployed, rebuild, without_classifier
from naskd.nn.layout import spatial_mean
from naskd.nn.taps import TappedNetwork, Taps, as_map


@dataclass(frozen=True)
class ProjectorShape:
    """What a projector is built from; kept beside the weights.

    Args:
        student: Channels of the student's last stage.
        inner: Channels between.
        teacher: Features of the classifier.
        grid: ``(H, W)`` on which it works, at most the student's.
        n_classes: ``K``, of the classifier.
    """

    student: int
    inner: int
    teacher: int
    grid: tuple[int, int]
    n_classes: int


_SHAPE = TypeAdapter(ProjectorShape)


class Projector(nn.Module):
    """Three convolutions, 1x1, 3x3 and 1x1, each with BatchNorm and ReLU: ``(B, C_s, H, W)`` to ``(B, D_t, h, w)``.

    A student's map that is larger than the grid is pooled to it first.
    """

    def __init__(self, shape: ProjectorShape) -> None:
        super().__init__()
        self.shape = shape
        widths = [
            (shape.student, shape.inner, 1),
            (shape.inner, shape.inner, 3),
            (shape.inner, shape.teacher, 1),
        ]
        self.pool = nn.AdaptiveAvgPool2d(shape.grid)
        self.layers = nn.Sequential(
            *(
                layer
                for inputs, outputs, kernel in widths
                for layer in (
                    nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                )
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        projected: Tensor = self.layers(self.pool(features))
        return projected


class ReusedClassifier(nn.Module):
    """The teacher's classifier, fixed: ``(B, D_t, h, w)`` to pooled features ``(B, D_t)`` and logits ``(B, K)``."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        # Parameters and not buffers, since they are part of what the deployed network counts.
        self.weight = nn.Parameter(weight.clone(), requires_grad=False)
        self.bias = nn.Parameter(bias.clone(), requires_grad=False)

    def forward(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        pooled = spatial_mean(projected)
        return pooled, nn.functional.linear(pooled, self.weight.to(pooled.dtype), self.bias.to(pooled.dtype))


class ProjectedStudent(nn.Module):
    """A student without a classifier of its own, a projector, and the teacher's classifier.

    Args:
        student: Shows its stages; its own logits are not used.
        projector: Trained with it.
        classifier: Of the teacher.
    """

    def __init__(self, student: nn.Module, projector: Projector, classifier: ReusedClassifier) -> None:
        super().__init__()
        assert isinstance(student, TappedNetwork)
        self.student: TappedNetwork = student
        self.projector = projector
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images in [0, 1]."""
        return self.taps(images).logits

    def taps(self, images: Tensor) -> Taps:
        """The student's, but for logits and pooled features, which are those that the classifier has."""
        return with_classifier(self.student.taps(images), self.projector, self.classifier)

    @property
    def head(self) -> nn.Linear:
        """The teacher's classifier, its weights shared."""
        n_classes, n_features = self.classifier.weight.shape
        # torch's is not annotated.
        head: nn.Linear = nn.utils.skip_init(nn.Linear, n_features, n_classes)  # type: ignore[no-untyped-call]
        head.weight, head.bias = self.classifier.weight, self.classifier.bias
        return head

    def pre_activation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The student's."""
        return as_deployed(self._student()).pre_activation_norms()

    def describe(self) -> dict[str, Any]:
        """See :class:`~naskd.nn.deployed.DeployedNetwork`."""
        student = as_deployed(self._student()).describe()
        return {"kind": "projected", "student": student, "projector": asdict(self.projector.shape)}

    def _student(self) -> nn.Module:
        return self.get_submodule("student")


def rebuild_projected(description: Description) -> ProjectedStudent:
    """The inverse of :meth:`ProjectedStudent.describe`."""
    shape = _SHAPE.validate_python(description["projector"])
    student = rebuild(description["student"])
    without_classifier(student, "a projected student")
    weight = torch.zeros(shape.n_classes, shape.teacher)
    return ProjectedStudent(student, Projector(shape), ReusedClassifier(weight, weight[:, 0]))


def with_classifier(taps: Taps, projector: nn.Module, classifier: nn.Module) -> Taps:
    """Taps whose logits and pooled features come from the last stage through projector and classifier."""
    pooled, logits = classifier(projector(as_map(taps.stages[-1])))
    return replace(taps, logits=logits, pooled=pooled)
