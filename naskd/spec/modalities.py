"""A second modality of a study's images, which students see in place of the first: what a study says of it, and cards.

Cross-modal distillation: Gupta, Hoffman, Malik: Cross modal distillation for supervision transfer. CVPR 2016, arXiv
1507.00448.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from naskd.spec.design import STRICT
from naskd.spec.errors import InputError
from naskd.spec.option import Configured, Option, Options, either
from naskd.spec.paths import absolute, elsewhere
from naskd.spec.registry import Registry
from naskd.spec.validation import Problem, format_value

PLACES = ("root", "test_root")
"""Fields of :class:`ModalitySpec` that some modalities take and others do not."""


@plain_dataclass(frozen=True)
class ModalityCard:
    """The torch-free description of a second modality.

    Args:
        name: As studies say it in ``data.modality.name``.
        title: One line for a listing.
        paper: See :class:`~naskd.spec.registry.Card`.
        implementation: ``"module:function"``, or the function. It gets images ``(N, C, H, W)`` uint8 and the options by
            name, and returns ``(N, C2, H2, W2)`` uint8, square, of whose sides those of the first modality are whole
            multiples. It looks at each image by itself: images come in parts. Of a modality of `files`, see there.
        options: Settings that it alone reads, keys of a study's ``[data.modality]``.
        takes: Which of `root` and `test_root` mean anything.
        files: Its images are files of their own, and no function of the first modality's. `implementation` then opens
            them: it gets the folder, the key that names it, the source of the first modality, the
            :class:`~naskd.spec.datasets.DataSpec` and the cache, and returns a :class:`~naskd.data.raw.Source` with an
            image at each position of the first one's.
        check: As of :class:`~naskd.spec.datasets.DataCard`, of ``[data.modality]``.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    files: bool = False
    check: str | Callable[[Mapping[str, Any], Path], Iterable[Problem]] = ""


MODALITIES: Registry[ModalityCard] = Registry("modality")


@dataclass(frozen=True, config=STRICT)
class ModalitySpec(Configured):
    """The modality that students see, of the same samples that teachers see in the first.

    Args:
        name: Of a registered modality.
        labels: Whether students may learn from the labels of the training images. Without them teachers alone teach:
            the weight of cross-entropy is 0 in every design.
        root: ``paired`` only: a folder that holds, for each file of ``data.root``, one of the same relative name.
        test_root: The same of ``data.test_root``.
        options: Of the modality's card.
    """

    CARDS = MODALITIES

    name: str
    labels: bool = False
    root: str | None = None
    test_root: str | None = None
    options: Options = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in MODALITIES:
            return  # whoever registers it may not be imported yet
        for place in PLACES:
            if getattr(self, place) is not None and place not in self.card.takes:
                takers = [repr(card.name) for card in MODALITIES if place in card.takes]
                raise InputError(f"{place} is for name = {either(takers)} only, not {self.name!r}")
        if "root" in self.card.takes and self.root is None:
            raise InputError(f"name = {self.name!r} needs root, the folder of its images")

    def identity(self) -> dict[str, Any]:
        """What two runs of one study must have in common; where files lie is no part of it."""
        return {"name": self.name, "labels": self.labels, **dict(self.options)}


def mixed_problem(mixing: str) -> str:
    """Why a student of a second modality cannot be taught with mixed images."""
    return (
        f"training.mixing = {mixing!r} makes images of two, and a teacher of another modality is asked about images by "
        "their positions, which these have not"
    )


def _check_paired(given: Mapping[str, Any], base: Path) -> list[Problem]:
    found = []
    for key in PLACES:
        folder = given.get(key)
        if folder is not None and not (path := absolute(folder, base)).is_dir():
            allowed = f"an existing folder; there is no {path}"
            found.append(Problem(key, format_value(folder), allowed, elsewhere(folder, base)))
    return found


MODALITIES.register(
    ModalityCard(
        name="gray",
        title="luminance: one channel, what is left of an image without its colours",
        paper="ITU-R Recommendation BT.601",
        implementation="naskd.data.modalities:gray",
    )
)
MODALITIES.register(
    ModalityCard(
        name="edges",
        title="how steep the luminance is at each pixel, by Sobel's operator: one channel",
        paper="Sobel, Feldman: A 3x3 isotropic gradient operator for image processing. Stanford Artificial "
        "Intelligence Project, 1968",
        implementation="naskd.data.modalities:edges",
    )
)
MODALITIES.register(
    ModalityCard(
        name="low_resolution",
        title="smaller images, each pixel the mean of a square of pixels",
        paper="",
        implementation="naskd.data.modalities:low_resolution",
        options={"factor": Option(2, "pixels of the image along each side of one that students see", 2, 64)},
    )
)
MODALITIES.register(
    ModalityCard(
        name="paired",
        title="images of your own, one for each: depth beside colour, say, in a folder of the same file names",
        paper="Gupta, Hoffman, Malik: Cross modal distillation for supervision transfer. CVPR 2016, arXiv 1507.00448",
        implementation="naskd.data.kinds.image_folder:open_paired",
        takes=PLACES,
        files=True,
        check=_check_paired,
    )
)
