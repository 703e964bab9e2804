"""Every study file that is shipped is checked, and searched for two trials of one step."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from data.files import CIFAR_CLASSES, write_cifar10, write_cifar100, write_images
from torchvision.datasets import CIFAR10, CIFAR100

import naskd
from naskd.runs import opening
from naskd.spec.parse import parse_study
from naskd.spec.userfile import import_file

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.toml"))
SPACES = ("joint", "architecture_only", "distillation_only")
PARTS = [study for study in STUDIES if study.stem not in ("cluster", "images_96")]
"""Those that are searched: of the others one is `cifar10` on other machines, and one has larger images."""


@pytest.fixture
def settings_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Overrides that shrink a shipped study to two trials of one step on generated data of its format."""

    def write(dataset: type[CIFAR10], files: Callable[[Path], dict[str, str]]) -> None:
        hashes = files(tmp_path / "data")
        for name in ("train_list", "test_list"):
            monkeypatch.setattr(dataset, name, [[file, hashes[file]] for file, _ in getattr(dataset, name)])
        monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": hashes[dataset.meta["filename"]]})

    def settings(study: Path) -> list[str]:
        kind = study.stem
        found = [
            "epochs=1",
            "teacher.training.epochs=1",
            "budget.trials=2",
            "budget.seconds=1e6",
            "execution.device='cpu'",
            "execution.threads=1",
            "data.max_train=60",
        ]
        if kind.startswith("cifar10") or kind == "cluster":
            few_classes = not kind.startswith("cifar100")
            write(CIFAR10, write_cifar10) if few_classes else write(CIFAR100, write_cifar100)
            found += [f"data.root={str(tmp_path / 'data')!r}", "data.download=false"]
        if kind.endswith("_small"):
            # Its teacher is a large one.
            found += ["execution.trials_per_device=1", "data.resolution=8"]
            found[found.index("data.max_train=60")] = "data.max_train=100"
        if kind == "image_folder":
            classes = dict.fromkeys(CIFAR_CLASSES[:4], 25)
            write_images(tmp_path / "images", classes, size=(40, 36), suffix=".jpg")
            found += [f"data.root={str(tmp_path / 'images')!r}"]
        elif kind == "images_96":
            write_images(
                tmp_path / "images", dict.fromkeys(CIFAR_CLASSES[:2], 20), size=(100, 96), suffix=".jpg"
            )
            found += [f"data.root={str(tmp_path / 'images')!r}"]
        elif kind == "own_teacher":
            write_images(tmp_path / "images", dict.fromkeys(CIFAR_CLASSES, 12), size=(40, 36), suffix=".jpg")
            teacher = import_file(study.parent / "own_teacher" / "teacher.py").build()
            torch.save({"state_dict": teacher.state_dict()}, tmp_path / "teacher.pt")
            found = [setting for setting in found if not setting.startswith("teacher")]
            found += ["teacher.resolution=32", "teacher.saw='train'"]  # a quarter of the work, and no warning
            found += [f"teacher.checkpoint={str(tmp_path / 'teacher.pt')!r}"]
            found += [f"data.root={str(tmp_path / 'images')!r}"]
        elif kind == "few_labels":
            import_file(study.parent / "few_labels" / "teacher.py").write(tmp_path, epochs=6)
            found = [setting for setting in found if not setting.startswith("teacher")]
            found += [f"teacher.checkpoint={str(tmp_path / 'teacher.pt')!r}"]
            found += [f"data.unlabelled={str(tmp_path / 'unlabelled')!r}"]
        return found

    return settings


def test_the_studies_that_are_promised_are_there():
    assert [study.stem for study in STUDIES] == [
        "cifar10",
        "cifar100_small",
        "cifar10_small",
        "cluster",
        "digits",
        "everything",
        "few_labels",
        "image_folder",
        "images_96",
        "integers",
        "own_teacher",
    ]


def test_every_study_is_in_the_table_of_what_to_begin_with():
    page = (STUDIES[0].parents[1] / "docs" / "start" / "first-search.md").read_text()
    table = page[page.index("## Which study to begin with") :].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| .* \| `studies/(\w+)\.toml`", table, re.MULTILINE)) == [
        s.stem for s in STUDIES
    ]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.stem)
def test_a_shipped_study_parses_and_names_what_is_there(study: Path, settings_of):
    spec = parse_study(study, settings_of(study))
    assert spec.name == study.stem
    for named in re.findall(r"\b(?:studies|search_spaces)/[\w./-]+\w", study.read_text()):
        path = study.parents[1] / named
        assert path.exists() or path.suffix == ".pt", named


def test_the_study_of_a_cluster_is_for_several_machines(settings_of, tmp_path):
    study = STUDIES[0].parent / "cluster.toml"
    settings = settings_of(study)
    spec = parse_study(study, settings)
    assert spec.execution.executor == "ray"
    assert dict(spec.execution.options)["gpus_per_trial"] < 1
    assert spec.execution.checkpoint_every
    storage = f"sqlite:///{tmp_path}/study.db"  # of a database of a server, the driver must be there
    assert parse_study(study, [*settings, f"storage={storage}"]).storage == storage


def test_the_space_of_larger_images_has_students_of_several_sizes(settings_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = STUDIES[0].parent / "images_96.toml"
    found = opening.describe_space(study, settings_of(study), samples=40)
    assert found["space"].endswith("search_spaces/images_96.py:joint"), "the one that is made for such images"
    assert found["distinct_designs"] >= 15
    assert found["macs"]["max"] > 10 * found["macs"]["min"]


@pytest.mark.parametrize("study", PARTS, ids=lambda study: study.stem)
def test_a_shipped_study_is_right_and_its_space_gives_designs(
    study: Path, settings_of, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = settings_of(study)
    spec = opening.check(study, settings)
    assert spec.name == study.stem
    for space in SPACES:
        file = spec.space.rpartition(":")[0]
        described = opening.describe_space(study, [*settings, f"space='{file}:{space}'"], samples=60)
        assert described["distinct_designs"] >= 20
        if space == "joint":
            assert described["macs"]["max"] > 10 * described["macs"]["min"]
            assert described["n_parameters"] >= 20


@pytest.mark.parametrize("study", PARTS, ids=lambda study: study.stem)
def test_a_shipped_study_runs(study: Path, settings_of, tmp_path: Path):
    run = naskd.search(study, out=tmp_path / "runs" / "one", settings=settings_of(study))
    record = run.to_dict(everything=True)
    assert [t["state"] for t in record["trials"] if t["state"] != "PRUNED"] == ["COMPLETE"] * 2
    assert run.stop_reason == "all 2 trials done"
    for trial in record["trials"]:
        assert trial["state"] == "PRUNED" or len(trial["curve"]) == 1, "one epoch of one step"
    assert record["teacher"]["macs"] > max(t["macs"] or 0 for t in record["trials"])
    # After one step a teacher and its students may guess.
    guessing = ("no better than guessing", "No student is surely better than guessing")
    assert all(any(said in warning for said in guessing) for warning in record["warnings"])
    assert run.front()


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.stem)
def test_a_shipped_study_says_all_that_it_means(study: Path):
    """Without overrides: what the file says by itself, where its data is not needed for that."""
    text = study.read_text()
    assert f"naskd search studies/{study.name}" in text
    if study.stem == "digits":
        spec = parse_study(study)
        assert (spec.budget.trials, len(spec.warm_start), spec.retrain.seeds) == (60, 2, 5)
