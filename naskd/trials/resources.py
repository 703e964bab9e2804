"""What all trials of a study are given in one process. Everything is there at construction, and nothing changes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from naskd.data.decoded_cache import MAPPED_BYTES
from naskd.data.images import SearchData
from naskd.data.load import load_search_data
from naskd.knowledge import KNOWLEDGE
from naskd.networks import BLOCKS, FAMILIES
from naskd.spec.code_identity import foreign_code
from naskd.spec.registry import code_of
from naskd.spec.sizes import Size
from naskd.spec.study import StudySpec
from naskd.spec.userfile import own_code
from naskd.store.artifacts import ArtifactStore
from naskd.store.checkpoints import Checkpoints
from naskd.store.students import Students
from naskd.training.compute import Compute

DATA_SHARE = 0.1
"""Of a device's free memory that images may take; beside them is a padded copy for each of up to four augmentations."""

_LEAST_OF_A_BANK = 2**30


@dataclass(frozen=True, eq=False)
class Resources:
    """A study with its images, what computes, and where things are kept.

    Args:
        spec: The study.
        data: Its images as students see them, and beside them as teachers do where that is another modality: on the
            device, or in the host's memory where the device has no room for them.
        compute: Device, precision, threads.
        store: Of teachers and assistants.
        checkpoints: Where running trainings leave their state; None where they leave none.
        cache: Folder for decoded images and for what networks said of them; None keeps both in memory.
        foreseen: Kinds of knowledge that trials of the study may ask for, so that a bank can remember them all in one
            pass over the images. A kind that is not named costs a pass of its own when it first comes.
        foreseen_states: States of the study's teachers that trials may ask for, by name and epoch: kept when the
            teacher passes through them. One that is not named is trained again when it first comes.
        code: Hashes of the code that decides what networks say; None where some of it has no file, as in a notebook.
        students: Where finished trials leave their students; None where they leave none.
        searched: Seconds that earlier sessions of the search took, which count in ``budget.seconds``, too.
        test_hash: Names the content of the test images, of which nothing else is known here; empty where nobody looked.
    """

    spec: StudySpec
    data: SearchData
    compute: Compute
    store: ArtifactStore
    checkpoints: Checkpoints | None = None
    cache: Path | None = None
    foreseen: tuple[str, ...] = ()
    code: tuple[str, ...] | None = None
    students: Students | None = None
    test_hash: str = ""
    foreseen_states: tuple[tuple[str, int], ...] = ()
    searched: float = 0.0

    @property
    def input_shape(self) -> tuple[int, Size]:
        """Channels and resolution of the images that students see."""
        return self.data.in_channels, self.data.resolution

    @property
    def teacher_data(self) -> SearchData:
        """The images as teachers see them; assistants see what students do."""
        return self.data.for_teachers

    @property
    def bank_device_bytes(self) -> int:
        """Of what networks said, at most so much is held on the device."""
        given = self.spec.execution.bank_device_bytes
        return max(_LEAST_OF_A_BANK, _room(self.compute)) if given is None else given


def seen(resources: Resources) -> dict[str, Any]:
    """What a student's file says of the modality that it was trained on; nothing where that is the images' own."""
    modality = resources.spec.data.modality
    if modality is None:
        return {}
    return {"modality": {"name": modality.name, **dict(modality.options)}}


def open_resources(
    spec: StudySpec,
    store: ArtifactStore,
    cache: Path | None = None,
    *,
    data: SearchData | None = None,
    checkpoints: Checkpoints | None = None,
    foreseen: tuple[str, ...] = (),
    students: Students | None = None,
    test_hash: str = "",
    foreseen_states: tuple[tuple[str, int], ...] = (),
) -> Resources:
    """Choose the device and load the images.

    Args:
        spec: The study.
        store: Of teachers and assistants.
        cache: See :class:`Resources`.
        data: The images, where somebody has loaded them already.
        checkpoints: See :class:`Resources`.
        foreseen: Likewise.
        students: Likewise.
        test_hash: Likewise.
        foreseen_states: Likewise.

    Raises:
        InputError: The images cannot be used, or the device is not there.
    """
    execution = spec.execution
    compute = Compute.resolve(
        execution.device,
        execution.precision,
        execution.channels_last,
        execution.threads,
        execution.cuda_graphs,
    )
    if data is None:
        data = load_search_data(spec.data, spec.base, cache=cache)
    return Resources(
        spec,
        data.to(compute.device, streamed=_streams(data, spec, compute)),
        compute,
        store,
        checkpoints,
        cache,
        foreseen,
        _code(),
        students,
        test_hash,
        foreseen_states,
    )


def _code() -> tuple[str, ...] | None:
    """Now, since files may be edited while a search runs on what was imported."""
    cards = [
        code for registry in (BLOCKS, FAMILIES, KNOWLEDGE) for card in registry for code in code_of(card)
    ]
    foreign = foreign_code(cards)
    return None if foreign is None else (own_code(), *foreign)


def _streams(data: SearchData, spec: StudySpec, compute: Compute) -> bool:
    """Whether images stay where they are, because the device has no room for them, or memory none beside them."""
    if compute.device.type == "cpu":
        return data.n_bytes >= MAPPED_BYTES  # views of all at once would be a second copy, in memory
    given = spec.execution.device_data_bytes
    return data.n_bytes > (_room(compute) if given is None else given)


def _room(compute: Compute) -> int:
    """What images, or a bank, may take of a device that others use too; 0 on a CPU, where nothing is copied."""
    if compute.device.type == "cpu":
        return 0
    free, _ = torch.cuda.mem_get_info(compute.device)
    return int(free * DATA_SHARE)
