"""Images that stay in a mapped file teach as those in memory do, with the same bits and without a second copy."""

from pathlib import Path

import numpy as np
import pytest
from small_studies import design, open_context, study
from test_skewed import skewed

from naskd.data.views import StreamedImages, ViewedImages
from naskd.store.artifacts import ArtifactStore
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job

MODULES = ("naskd.data.raw", "naskd.data.decoded_cache", "naskd.trials.resources")


def trained(folder: Path, name: str):
    context = open_context(
        study(data=skewed(folder), teacher=None), ArtifactStore(folder / name), folder / f"{name} cache"
    )
    job = Job("0", "trial", design(epochs=2, augmentation="flip_translate"), 1, 2)
    result = run_job(job, context, lambda *_: Decision.CONTINUE)
    assert result.status == "complete", result.error
    return context, result


def test_mapped_images_teach_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, expected = trained(tmp_path, "plain")
    assert isinstance(plain.images.views("flip_translate"), ViewedImages)
    for module in MODULES:
        monkeypatch.setattr(f"{module}.MAPPED_BYTES", 1)
    mapped, found = trained(tmp_path, "mapped")
    assert isinstance(mapped.images.views("flip_translate"), StreamedImages)
    images = mapped.resources.data.train.images.numpy()
    stored = [np.load(path, mmap_mode="r") for path in (tmp_path / "mapped cache").glob("*.npy")]
    assert any(np.array_equal(images, array[: len(images)]) for array in stored)
    assert found.curve == expected.curve
    assert found.metrics == expected.metrics
