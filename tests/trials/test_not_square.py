"""Images that are not square: they are fitted, priced, taught, trained and exported as others are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_studies import ALL_TERMS, by_scheme, design, make, small_context
from torch import nn

import naskd
from naskd.config import ArchitectureSpec, KnowledgeTerm, StageSpec
from naskd.data.load import load_search_data
from naskd.data.raw import fit
from naskd.networks import BLOCKS
from naskd.networks.student import build_student, design_cost, student_shapes
from naskd.networks.teachers import TeacherInputs, build_teacher_network
from naskd.nn.cost import network_cost
from naskd.nn.taps import tap_shapes
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError
from naskd.spec.parse import StudyFileError, parse_study
from naskd.spec.sizes import sides, size_of
from naskd.spec.teachers import TeacherSpec
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job

WIDE = DataSpec("digits", resolution=(8, 12), max_train=120)


def test_an_image_is_resized_until_both_sides_reach_the_size_and_cut_in_the_middle():
    columns = np.repeat(np.arange(40, dtype=np.uint8)[None] * 6, 20, axis=0)
    image = Image.fromarray(columns)
    found = fit(image, (10, 30), 1)[0]
    assert found.shape == (10, 30)
    # 40x20 becomes 30x15: the width is whole, and of the height the middle is kept.
    assert found[0, 0] < 10
    assert found[0, -1] > 225
    tall = fit(image, (20, 10), 1)[0]
    assert tall.shape == (20, 10)
    assert np.array_equal(tall, columns[:, 15:25])
    assert np.array_equal(fit(image, (12, 12), 3), fit(image, 12, 3))


def test_a_pair_of_equal_sides_is_a_number_and_sizes_have_bounds():
    assert DataSpec("digits", resolution=(16, 16)) == DataSpec("digits", resolution=16)
    assert (sides(5), sides((4, 6)), size_of(4, 4), size_of(4, 6)) == ((5, 5), (4, 6), 4, (4, 6))
    for wrong in ((4, 16), (16, 2000), (16,), (8, 8, 8)):
        with pytest.raises((InputError, ValueError)):
            DataSpec("digits", resolution=wrong)


def test_images_of_one_shape_keep_it(tmp_path):
    for number in range(12):
        path = tmp_path / "images" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 14, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    data = load_search_data(DataSpec("image_folder", root="images"), tmp_path)
    assert data.train.images.shape[1:] == (3, 9, 14)
    assert data.resolution == (9, 14)
    with pytest.raises(InputError, match=r"14x7 pixels; at least 8x8"):
        load_search_data(DataSpec("npz", root=write(tmp_path, (20, 7, 14))), tmp_path)


def write(folder: Path, shape: tuple[int, ...]) -> str:
    np.savez(
        folder / "a.npz",
        images=np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        labels=np.arange(shape[0]) % 2,
    )
    return "a.npz"


@pytest.mark.parametrize("block", BLOCKS.names())
def test_costs_and_shapes_in_closed_form_are_those_of_the_network(block):
    spec = ArchitectureSpec(
        (StageSpec(block, 2, 8, stride=2), StageSpec(block, 1, 12, stride=2)), stem_width=4, stem_stride=2
    )
    student = build_student(spec, 3, 5, (0.5,) * 3, (0.5,) * 3)
    for size in ((17, 40), (40, 17)):
        assert design_cost(spec, 3, 5, size) == network_cost(student, 3, size)
        assert student_shapes(spec, 5, size) == tap_shapes(student, 3, size)
    assert design_cost(spec, 3, 5, (17, 17)) == design_cost(spec, 3, 5, 17)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return small_context(tmp_path_factory.mktemp("wide"), data=WIDE)


def trained(context, config):
    make(context, config)
    result = run_job(
        Job("0", "trial", config, 1, config.training.epochs), context, lambda *_: Decision.CONTINUE
    )
    assert result.status == "complete", result.reason
    return result


@pytest.mark.parametrize("augmentation", ["none", "flip_translate", "resized_crop"])
def test_a_student_learns_from_a_teacher_of_such_images(context, augmentation):
    result = trained(context, design(*ALL_TERMS, augmentation=augmentation, epochs=1))
    cost = design_cost(design().architecture, 1, 10, (8, 12))
    assert result.metrics["macs"] == cost.macs


@pytest.mark.parametrize("scheme", ["dafl", "deep_inversion", "blockwise", "byot"])
def test_schemes_that_make_images_or_look_at_maps_know_both_sides(context, scheme):
    terms = [KnowledgeTerm("logits")] if scheme == "blockwise" else []
    config = by_scheme(scheme, *terms, training={"epochs": 2})
    trained(context, config)


STUDY = """
name = "wide"
space = "space.py:joint"
epochs = 1
[data]
kind = "digits"
resolution = [8, 12]
max_train = 60
[budget]
trials = 2
[sampler]
name = "random"
[execution]
device = "cpu"
threads = 1
"""
SPACE = """
from naskd.config import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig

def joint(trial):
    stage = StageSpec("basic", 1, trial.suggest_categorical("width", (4, 5)), stride=2)
    return TrialConfig(ArchitectureSpec((stage,), stem_width=4), DistillationSpec(), TrainingSpec(batch_size=32))
"""


def test_a_study_file_says_height_and_width_and_its_students_are_loaded(tmp_path):
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    run = naskd.search(tmp_path / "study.toml", out=tmp_path / "run")
    assert "COMPLETE" in {trial["state"] for trial in run.trials()}
    assert parse_study(tmp_path / "study.toml").data.resolution == (8, 12)
    number = min(trial["number"] for trial in run.trials() if trial["on_front"])
    run.export(number, "safetensors", tmp_path / "student.safetensors")
    network = naskd.load(tmp_path / "student.safetensors")
    assert network(torch.rand(2, 1, 8, 12)).shape == (2, 10)
    with pytest.raises(StudyFileError, match=r"data\.resolution: got \[8\]"):
        parse_study(tmp_path / "study.toml", ["data.resolution=[8]"])


def test_a_network_from_elsewhere_needs_a_resolution(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))\n"
    )
    inputs = TeacherInputs(tmp_path, 1, 3, (8, 12), (0.5,), (0.5,), ("a", "b", "c"))
    spec = TeacherSpec(builder="net.py:build", checkpoint="x.pt")
    with pytest.raises(InputError, match=r"12x8 pixels.*give the teacher a resolution"):
        build_teacher_network(spec, inputs)
    network = build_teacher_network(replace(spec, resolution=16), inputs)
    assert isinstance(network, nn.Module)
    assert network.taps(torch.rand(2, 1, 8, 12)).stages[0].tensor.shape[2:] == (8, 8)
