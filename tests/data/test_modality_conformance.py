"""Every registered modality passes the suite that users' modalities pass, and what breaks its promises does not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from naskd.spec.modalities import MODALITIES, ModalityCard
from naskd.testing import ModalitySuite


class TestCatalogue(ModalitySuite):
    names = MODALITIES.names()


class TestSmaller(ModalitySuite):
    names = "low_resolution"
    options = {"factor": 4}  # noqa: RUF012 -- as a user writes it
    channels = 1


BROKEN: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "compares with others": ("each_image_is_looked_at_by_itself", lambda x: x - x[:1]),
    "is no bytes": ("students_can_be_shown_it", lambda x: x.float()),
    "has another size": ("students_can_be_shown_it", lambda x: x[..., :9, :9]),
    "is not square": ("students_can_be_shown_it", lambda x: x[..., :16]),
    "is the first": ("it_is_not_what_teachers_see", lambda x: x),
    "shows nothing": ("it_is_not_what_teachers_see", torch.zeros_like),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_promise_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODALITIES, "_cards", dict(MODALITIES._cards))
    check, function = BROKEN[name]
    MODALITIES.register(ModalityCard(name, "broken", "", function))
    images = torch.arange(6 * 3 * 32 * 32).view(6, 3, 32, 32).to(torch.uint8) + torch.arange(6)[
        :, None, None, None
    ].to(torch.uint8)
    with pytest.raises(AssertionError):
        getattr(ModalitySuite(), f"test_{check}")(name, images)
