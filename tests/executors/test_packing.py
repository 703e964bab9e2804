"""What travels to a worker; tests/ray/ has it arrive."""

import dataclasses
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_studies import design, given, small_context

from naskd.executors.packing import pack, unpack
from naskd.networks import BLOCKS, FAMILIES
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.study import LatencySpec, StudySpec
from naskd.store.artifacts import ArtifactStore
from naskd.testing.objectives import some_profile
from naskd.trials.measures import objective_value


def test_files_of_one_folder_stay_neighbours_and_each_travels_once_with_what_it_imports(tmp_path: Path):
    contents = {
        "space.py": "import common\n",
        "losses.py": "import common\n",
        "common.py": "import deeper.still\n",
        "deeper/still.py": "",
        "unused.py": "",
        "elsewhere/blocks.py": "import common\n",
        "elsewhere/common.py": "# another one\n",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    context = small_context(tmp_path / "run", teacher=None)
    spec = dataclasses.replace(
        context.resources.spec,
        base=tmp_path,
        space="space.py:joint",
        modules=("losses.py", "elsewhere/blocks.py"),
    )
    context = given(context, spec=spec)
    packed, _ = pack(context)
    spec = StudySpec.from_dict(packed.spec)
    assert spec.space == "0/space.py:joint"
    assert spec.modules == ("0/losses.py", "1/blocks.py")
    sent = ("space.py", "losses.py", "common.py", "deeper/still.py")
    expected = {f"0/{name}": contents[name].encode() for name in sent}
    for name in ("blocks.py", "common.py"):
        expected[f"1/{name}"] = contents[f"elsewhere/{name}"].encode()
    assert packed.files == expected


def test_what_is_foreseen_travels(tmp_path: Path) -> None:
    (tmp_path / "space.py").touch()
    context = small_context(tmp_path / "run")
    spec = dataclasses.replace(context.resources.spec, base=tmp_path, space="space.py:joint")
    states = (("teacher", 1),)
    packed, arrays = pack(given(context, spec=spec, foreseen=("hint",), foreseen_states=states))
    there = unpack(packed, arrays, ArtifactStore(tmp_path / "store"), None, tmp_path / "cache")
    assert (there.resources.foreseen, there.resources.foreseen_states) == (("hint",), states)


def test_a_latency_profile_travels(tmp_path: Path) -> None:
    (tmp_path / "space.py").touch()
    context = small_context(tmp_path / "run", teacher=None)
    profile = some_profile(context.designs.measured(design()))
    (tmp_path / "phone.json").write_text(json.dumps(profile.to_dict()))
    spec = dataclasses.replace(
        context.resources.spec, base=tmp_path, space="space.py:joint", latency=LatencySpec("phone.json")
    )
    packed, arrays = pack(given(context, spec=spec))
    (tmp_path / "phone.json").unlink()
    there = unpack(packed, arrays, ArtifactStore(tmp_path / "store"), None, tmp_path / "cache")
    measured = there.designs.measured(design())
    assert measured.latency == profile
    assert objective_value(OBJECTIVES["latency_ms"], measured) > 0


LIBRARY = """
import dataclasses
from naskd.networks import BLOCKS, FAMILIES
BLOCKS.register(dataclasses.replace(BLOCKS["basic"], name="of a library"))
FAMILIES.register(dataclasses.replace(FAMILIES["cnn"], name="of a library"))
from naskd.spec.objectives import OBJECTIVES
OBJECTIVES.register(dataclasses.replace(OBJECTIVES["macs"], name="of_a_library"))
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A package that registers a block, imported here; the function that is given makes this process forget it."""
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "__init__.py").write_text("")
    (tmp_path / "library" / "blocks.py").write_text(LIBRARY)
    (tmp_path / "space.py").write_text("from naskd.networks import BLOCKS; BLOCKS['of a library']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("library.blocks")

    def forget() -> None:
        for registry in (BLOCKS, FAMILIES, OBJECTIVES):
            for kept in (registry._cards, registry._origins):
                kept.pop("of a library", None)
                kept.pop("of_a_library", None)
        for name in ("library", "library.blocks"):
            sys.modules.pop(name, None)

    yield forget
    forget()


def test_a_worker_knows_what_a_package_of_the_driver_registered(library, tmp_path: Path):
    context = small_context(tmp_path / "run", base=tmp_path, teacher=None)
    packed, arrays = pack(context)
    assert packed.packages == {
        "library.blocks": [
            ("network family", "of a library"),
            ("block", "of a library"),
            ("objective", "of_a_library"),
        ]
    }
    library()
    unpack(packed, arrays, ArtifactStore(tmp_path / "store"), None, tmp_path / "cache")
    assert "of a library" in BLOCKS
    assert "of a library" in FAMILIES
    assert "of_a_library" in OBJECTIVES


def test_a_package_that_a_worker_lacks_is_named_and_ends_nothing(library, tmp_path: Path, caplog):
    context = small_context(tmp_path / "run", base=tmp_path, teacher=None)
    packed, arrays = pack(context)
    library()
    packed.files.update(dict.fromkeys(packed.files, b""))
    (tmp_path / "library" / "blocks.py").unlink()
    importlib.invalidate_caches()
    unpack(packed, arrays, ArtifactStore(tmp_path / "store"), None, tmp_path / "cache")
    assert (
        "does not know network family 'of a library', block 'of a library', objective 'of_a_library': "
        "library.blocks cannot be imported: ModuleNotFoundError" in caplog.text
    )


def test_a_package_that_registers_only_when_it_is_told_to_is_named(library, tmp_path: Path, caplog):
    context = small_context(tmp_path / "run", base=tmp_path, teacher=None)
    packed, arrays = pack(context)
    library()
    packed.files.update(dict.fromkeys(packed.files, b""))
    (tmp_path / "library" / "blocks.py").write_text("def setup(): ...\n")
    importlib.invalidate_caches()
    unpack(packed, arrays, ArtifactStore(tmp_path / "store"), None, tmp_path / "cache")
    assert (
        "does not know network family 'of a library', block 'of a library', objective 'of_a_library': "
        "importing library.blocks does not register it" in caplog.text
    )


def test_a_remote_store_keeps_students(tmp_path: Path) -> None:
    from naskd.executors.ray.remote_store import RemoteStore

    store = RemoteStore(
        str(tmp_path / "artifacts"), str(tmp_path / "checkpoints"), str(tmp_path / "students")
    )
    store.keep_student("design-7", b"student")
    assert (tmp_path / "students" / "design-7.safetensors").read_bytes() == b"student"
    RemoteStore(str(tmp_path / "artifacts"), str(tmp_path / "checkpoints")).keep_student(
        "design-7", b"student"
    )
