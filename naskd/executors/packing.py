"""What a worker in another process, or on another machine, needs of a study: its images, its files, its settings."""

import dataclasses
import hashlib
import importlib
import logging
import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

import naskd
from naskd.data.images import ImageSet, SearchData
from naskd.spec.design import content_id
from naskd.spec.errors import USERS, InputError, one_line
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.places import is_user_file
from naskd.spec.registry import Registry
from naskd.spec.study import StudySpec
from naskd.spec.teachers import TeacherSpec
from naskd.spec.userfile import import_file, split_reference, with_siblings
from naskd.store.artifacts import ArtifactStore
from naskd.store.checkpoints import Checkpoints
from naskd.store.files import sweep, write_whole
from naskd.store.students import Students
from naskd.trials.context import StudyContext
from naskd.trials.methods import METHODS
from naskd.trials.resources import open_resources

_LOG = logging.getLogger(__name__)


REGISTRIES: tuple[Registry[Any], ...] = (*METHODS, OBJECTIVES)
"""What users may add to and trials need: workers know of each what the driver knows."""


FACTS = (
    "class_names",
    "mean",
    "std",
    "data_hash",
    "split_hash",
    "unlabelled_hash",
    "modality_hash",
    "labels_teach",
)
"""What travels of the data beside its images."""

FIRST = "first_"
"""Before the names of arrays, and the key of the facts, of the first modality where students see a second."""

UNLABELLED = "unlabelled_images"
"""Name of the array of images that have no labels, where there are some."""


@dataclass(frozen=True)
class PackedStudy:
    """All but the images; plain and picklable.

    Args:
        spec: The study as a dictionary, its paths those of `files`.
        files: Content by path, relative to the folder that they are unpacked into.
        foreseen, foreseen_states: See :class:`~naskd.trials.resources.Resources`.
        packages: Other modules that registered methods here, with the names of these by registry.
        facts: Of the data: :data:`FACTS`, and those of a first modality under :data:`FIRST`.
        versions: Of what must be equal on both sides.
    """

    spec: dict[str, Any]
    files: dict[str, bytes]
    foreseen: tuple[str, ...]
    foreseen_states: tuple[tuple[str, int], ...]
    packages: dict[str, list[tuple[str, str]]]
    facts: dict[str, Any]
    versions: dict[str, str]


Arrays = dict[str, NDArray[Any]]
"""Images and labels of both sets, and unlabelled images; all of a first modality too, where students see a second.

Apart from the rest, so that all workers of a machine can share their memory.
"""


def pack(context: StudyContext) -> tuple[PackedStudy, Arrays]:
    """A study as it travels.

    Raises:
        InputError: A file that the study names is missing or is not valid Python.
    """
    spec, data = context.resources.spec, context.resources.data
    files: dict[str, bytes] = {}
    folders: dict[Path, str] = {}

    def sent(name: str) -> str:
        """Put a file and those that it imports into the packed study; its new path.

        Files of one folder stay in one folder: a neighbour that two of them import is imported once.
        """
        path = spec.resolve(name).resolve()
        folder = folders.setdefault(path.parent, str(len(folders)))
        for file in with_siblings(path):
            files[str(Path(folder) / file.relative_to(path.parent))] = file.read_bytes()
        return f"{folder}/{path.name}"

    space, function = split_reference(spec.space)
    changes: dict[str, Any] = {
        "modules": tuple(sent(name) for name in spec.modules),
        "space": f"{sent(space)}:{function}",
    }

    def with_files(teacher: TeacherSpec) -> TeacherSpec:
        """A teacher whose files are in the packed study."""
        moved: dict[str, Any] = {}
        if teacher.checkpoint is not None:
            moved["checkpoint"] = sent(teacher.checkpoint)
        if teacher.builder is not None:
            name, _, function = teacher.builder.rpartition(":")
            moved["builder"] = f"{sent(name)}:{function}"
        return dataclasses.replace(teacher, **moved)

    if spec.teacher is not None:
        changes["teacher"] = with_files(spec.teacher)
    changes["teachers"] = tuple(map(with_files, spec.teachers))
    if spec.latency is not None:
        changes["latency"] = dataclasses.replace(spec.latency, profile=sent(spec.latency.profile))
    packed = PackedStudy(
        spec=dataclasses.replace(spec, **changes).to_dict(),
        files=files,
        foreseen=context.resources.foreseen,
        foreseen_states=context.resources.foreseen_states,
        packages=_packages(),
        facts=_facts(data),
        versions=versions(),
    )
    return packed, _arrays(data)


def _facts(data: SearchData) -> dict[str, Any]:
    facts = {name: getattr(data, name) for name in FACTS}
    return facts if data.first is None else {**facts, FIRST: _facts(data.first)}


def _arrays(data: SearchData) -> Arrays:
    arrays = {
        f"{part}_{kind}": getattr(getattr(data, part), kind).cpu().numpy()
        for part in ("train", "val")
        for kind in ("images", "labels")
    }
    if data.unlabelled is not None:
        arrays[UNLABELLED] = data.unlabelled.cpu().numpy()
    if data.first is not None:
        arrays |= {FIRST + name: array for name, array in _arrays(data.first).items()}
    return arrays


def _data_of(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str = "") -> SearchData:
    """The inverse of both."""
    own = dict(facts)
    first = own.pop(FIRST, None)

    def images(part: str) -> ImageSet:
        return ImageSet(tensors[f"{prefix}{part}_images"], tensors[f"{prefix}{part}_labels"])

    return SearchData(
        train=images("train"),
        val=images("val"),
        **own,
        unlabelled=tensors.get(prefix + UNLABELLED),
        first=None if first is None else _data_of(first, tensors, FIRST + prefix),
    )


def deliver(packed: PackedStudy, cache: Path) -> PackedStudy:
    """The same packed study with its files written on this machine, for workers of this machine alone.

    They are the files as they were when the study was opened: who edits one while a search runs changes no trial of it.
    """
    folder = _write_files(packed.files, cache)
    return dataclasses.replace(packed, spec={**packed.spec, "base": str(folder)}, files={})


def versions() -> dict[str, str]:
    """What must be equal wherever a study is trained, for its trials to be those of one study."""
    return {"naskd": naskd.__version__, "python": ".".join(platform.python_version_tuple()[:2])}


def unpack(
    packed: PackedStudy,
    arrays: Arrays,
    store: ArtifactStore,
    checkpoints: Checkpoints | None,
    cache: Path | None,
    students: Students | None = None,
) -> StudyContext:
    """The study's context in this process.

    Args:
        packed: From :func:`pack`, or from :func:`deliver`.
        arrays: From :func:`pack`; they may be read-only and shared.
        store: Of teachers and assistants.
        checkpoints: Of running trainings.
        cache: This machine's folder; files of the study are written there once. None where they are delivered, and what
            networks say is remembered in memory.
        students: Of finished trials.

    Raises:
        InputError: naskd here is not the one that packed.
    """
    if (here := versions()) != packed.versions:
        differing = ", ".join(
            f"{name} {here[name]} where the driver has {wanted}"
            for name, wanted in packed.versions.items()
            if here[name] != wanted
        )
        raise InputError(f"{platform.node()} has {differing}; install the same on every node")
    if packed.files:
        assert cache is not None
        sweep(cache)
        packed = deliver(packed, cache)
    spec = StudySpec.from_dict(packed.spec)
    # Workers propose nothing, but a space may register what its designs are made of. It may need what packages have
    # registered, and they may be its neighbours.
    _import_packages(packed.packages, last=False)
    for file in (*spec.modules, split_reference(spec.space)[0]):
        import_file(spec.resolve(file))
    _import_packages(packed.packages, last=True)
    with warnings.catch_warnings():
        # Torch has no read-only tensors and warns of read-only arrays; nothing here writes to images or labels.
        warnings.simplefilter("ignore", category=UserWarning)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    data = _data_of(packed.facts, tensors)
    return StudyContext.of(
        open_resources(
            spec,
            store,
            cache,
            data=data,
            checkpoints=checkpoints,
            foreseen=packed.foreseen,
            students=students,
            foreseen_states=packed.foreseen_states,
        )
    )


def _packages() -> dict[str, list[tuple[str, str]]]:
    """Modules that registered methods and are neither naskd's, nor files that travel, nor the driver's script."""
    found: dict[str, list[tuple[str, str]]] = {}
    for registry in REGISTRIES:
        for name in registry.names():
            module = registry.origin(name)
            if module.partition(".")[0] not in ("naskd", "__main__") and not is_user_file(module):
                found.setdefault(module, []).append((registry.what, name))
    return found


def _import_packages(packages: dict[str, list[tuple[str, str]]], *, last: bool) -> None:
    """Have them register here what is not known yet; warn, in the end, of what still is not: it may never be wanted."""
    registries = {registry.what: registry for registry in REGISTRIES}
    for module, methods in packages.items():
        if all(name in registries[what] for what, name in methods):
            continue
        problem = f"importing {module} does not register it"
        try:
            importlib.import_module(module)
        except USERS as error:  # whatever an import may raise
            problem = f"{module} cannot be imported: {one_line(error)}"
        missing = [f"{what} {name!r}" for what, name in methods if name not in registries[what]]
        if missing and last:
            _LOG.warning("a worker on %s does not know %s: %s", platform.node(), ", ".join(missing), problem)


def _write_files(files: dict[str, bytes], cache: Path) -> Path:
    """Write the study's files once on this machine; their folder is named by what they hold."""
    name = content_id({path: hashlib.sha256(content).hexdigest() for path, content in files.items()})
    folder = cache / "files" / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "files" / f"{name}.lock"):
        for path, content in files.items():
            target = folder / path
            if not target.is_file():
                write_whole(target, content)
    return folder
