"""What every second modality must do that is a function of the images, whoever registered it."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from naskd.data.raw import MIN_RESOLUTION
from naskd.spec.modalities import MODALITIES
from naskd.spec.option import option_problems
from naskd.testing.suite import Suite, where


class ModalitySuite(Suite):
    """Tests of second modalities.

    Example::

        class TestMine(ModalitySuite):
            names = "my_modality"

    They make it of a few made-up images of 32x32 pixels. Of one whose images are files of their own, its card alone is
    tested.

    Attributes:
        options: Those of its card that differ from their defaults.
        channels: Of the images, 1 or 3.
    """

    registry = MODALITIES
    options: ClassVar[Mapping[str, Any]] = {}
    channels: ClassVar[int] = 3

    @pytest.fixture
    @classmethod
    def images(cls) -> Tensor:
        """Noise, ``(6, C, 32, 32)``."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(256, (6, cls.channels, 32, 32), dtype=torch.uint8, generator=generator)

    def made(self, name: str, images: Tensor) -> Tensor:
        """The second modality of images."""
        defaults = {key: option.default for key, option in MODALITIES[name].options.items()}
        found: Tensor = MODALITIES.load(name)(images.clone(), **{**defaults, **self.options})
        return found

    def test_the_card_says_what_it_is(self, name: str) -> None:
        """A title for listings, an implementation that can be called, and options that are right."""
        card = MODALITIES[name]
        assert card.name == name
        assert card.title
        assert callable(MODALITIES.load(name))
        assert not option_problems(card.options, tuple(self.options.items()), name)

    @where(lambda name: not MODALITIES[name].files)
    def test_students_can_be_shown_it(self, name: str, images: Tensor) -> None:
        """Bytes of square images, one for each, of which a pixel is a whole number of the first one's along a side."""
        found = self.made(name, images)
        assert found.dtype == torch.uint8
        assert found.ndim == 4
        assert len(found) == len(images)
        assert found.shape[2] == found.shape[3] >= MIN_RESOLUTION
        assert images.shape[2] % found.shape[2] == 0

    @where(lambda name: not MODALITIES[name].files)
    def test_each_image_is_looked_at_by_itself(self, name: str, images: Tensor) -> None:
        """Whatever others are beside it: images come in parts, and test images apart from the others."""
        whole = self.made(name, images)
        assert torch.equal(self.made(name, images), whole)
        assert torch.equal(self.made(name, images.flip(0)), whole.flip(0))
        for image, found in zip(images, whole, strict=True):
            assert torch.equal(self.made(name, image[None])[0], found)

    @where(lambda name: not MODALITIES[name].files)
    def test_it_is_not_what_teachers_see(self, name: str, images: Tensor) -> None:
        """Of images that differ it shows something, and something else than they."""
        found = self.made(name, images)
        assert found.shape != images.shape or not torch.equal(found, images)
        assert not torch.equal(found[0], found[1])
