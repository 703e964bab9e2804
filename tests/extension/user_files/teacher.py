"""A teacher source of one's own: a plain network that naskd then trains on the study's images."""

from torch import Tensor, nn

from naskd.networks.teachers import Bare, TeacherInputs
from naskd.spec.option import Option
from naskd.spec.teachers import TEACHER_SOURCES, TeacherSourceCard, TeacherSpec


class Plain(nn.Module):
    """Two convolutions and a linear classifier."""

    def __init__(self, channels: int, width: int, n_classes: int) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Linear(width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.classifier(self.two(self.one(images)).mean((2, 3)))
        return logits


class PlainSource:
    """Makes it for the study's images."""

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> Bare:
        """See :class:`~naskd.networks.teachers.TeacherSource`."""
        network = Plain(given.in_channels, int(spec.option("width")), given.n_classes)
        return Bare(network, given.mean, given.std)


TEACHER_SOURCES.register(
    TeacherSourceCard(
        name="plain",
        title="two convolutions and a classifier",
        paper="",
        implementation=PlainSource,
        options={"width": Option(16, "channels", 1, 512)},
    )
)
