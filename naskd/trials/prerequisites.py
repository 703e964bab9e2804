"""What must exist before a design can be trained: the shared networks that its scheme names, and how they are made."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from naskd.data.views import count_views
from naskd.knowledge import KNOWLEDGE
from naskd.networks import BLOCKS, FAMILIES
from naskd.schemes import NO_TEACHER, SCHEMES
from naskd.schemes.prerequisites import Assistant, StudyTeacher, Supervisor
from naskd.spec.code_identity import code_id, foreign_code, is_installed
from naskd.spec.compiled_identity import method_id
from naskd.spec.design import SCRATCH, ArchitectureSpec, AssistantSpec, TrialConfig, content_id
from naskd.spec.errors import InputError, UnknownNameError
from naskd.spec.registry import code_of, imported, nearest
from naskd.spec.seeds import derive_seed
from naskd.spec.sizes import sides
from naskd.spec.study import StudySpec
from naskd.spec.teachers import DEFAULT_NAME, OWN_KEYS, TEACHER_SOURCES, TeacherSpec
from naskd.spec.userfile import file_content_id
from naskd.store.checkpoint_file import CheckpointFile, has_average_beside, read_checkpoint
from naskd.store.files import file_hash
from naskd.trials.resources import Resources

_TEACHER = TypeAdapter(TeacherSpec)
_ASSISTANT = TypeAdapter(AssistantSpec)

_Implementation = str | Callable[..., Any]
"""As a card names it."""


@dataclass(frozen=True)
class ArtifactRecipe:
    """How a shared network is made.

    Args:
        artifact_id: Content id: the recipe, its parent and the data.
        assistant: What to distil; None for a teacher, which the study file describes.
        requires: Ids of the artifacts that supervise it, in the order of its sources.
        seed: Of its training.
        label: For messages.
        epoch: Of a teacher's training whose state it is; 0 for the end.
        teacher: Name of the study's teacher that it is, or descends from.
        trained: Whether making it is a training; otherwise it is loaded.
    """

    artifact_id: str
    assistant: AssistantSpec | None
    requires: tuple[str, ...]
    seed: int
    label: str
    epoch: int = 0
    teacher: str = DEFAULT_NAME
    trained: bool = True


@dataclass(frozen=True)
class Supervision:
    """The shared networks of one design.

    Args:
        made: Everything that must exist before it can be trained, in the order in which it must be made.
        heard: Whom the student hears, in the order of its sources.
        compared: With whose answers the student's are compared in the end; None without a teacher.
        start: Whose weights the student begins with; None from scratch.
    """

    made: tuple[ArtifactRecipe, ...] = ()
    heard: tuple[ArtifactRecipe, ...] = ()
    compared: ArtifactRecipe | None = None
    start: ArtifactRecipe | None = None


@dataclass(frozen=True)
class _Known:
    """A teacher whose files have been looked at.

    Args:
        recipe: Of its final state.
        identity: What names it: its description with its files by content.
        checkpoint: SHA-256 of its checkpoint, where it has one.
    """

    recipe: ArtifactRecipe
    identity: Any
    checkpoint: str | None


def foreseen_states(designs: Iterable[TrialConfig], spec: StudySpec) -> tuple[tuple[str, int], ...]:
    """States of teachers that a study's designs ask for, by name and epoch: whoever trains the teachers keeps them.

    Args:
        designs: Settled ones, many.
        spec: The study.
    """
    found = {
        (network.name, network.epoch)
        for distillation in {design.distillation for design in designs}
        for network in SCHEMES[distillation.scheme].prerequisites(distillation, spec).made
        if isinstance(network, StudyTeacher) and network.epoch
    }
    return tuple(sorted(found))


class PrerequisiteRecipes:
    """Recipes of a study's shared networks; each teacher's files, and those of losses, are hashed once.

    Args:
        resources: Of the study.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._teachers: dict[str, _Known] = {}
        self._code: dict[tuple[_Implementation, ...], list[str]] = {}
        self._files: dict[tuple[_Implementation, ...], bool] = {}

    def of(self, config: TrialConfig) -> Supervision:
        """What a design needs.

        Raises:
            InputError: It names a teacher that the study does not have, or one whose files are not what the study says.
        """
        scheme = SCHEMES[config.distillation.scheme]
        named = scheme.prerequisites(config.distillation, self._resources.spec)
        made = tuple(map(self._recipe, named.made))
        start = None if config.training.start == SCRATCH else self.teacher(config.training.start)
        return Supervision(
            made if start is None or start in made else (start, *made),
            tuple(map(self._recipe, named.heard)),
            None if named.compared is None else self._recipe(named.compared),
            start,
        )

    def teachers(self) -> list[ArtifactRecipe]:
        """All teachers of the study, in its order.

        Raises:
            InputError: Their files are not what the study says.
        """
        return [self.teacher(name) for name in self._resources.spec.teacher_specs()]

    def foreseen_states(self) -> list[ArtifactRecipe]:
        """States of the study's teachers that trials may ask for, which whoever trains the teacher keeps on the way."""
        return [self._state(StudyTeacher(*state)) for state in self._resources.foreseen_states]

    def teacher(self, name: str = DEFAULT_NAME) -> ArtifactRecipe:
        """A teacher of the study.

        Raises:
            InputError: The study has none of that name, or its files are not what the study says.
        """
        return self._known(name).recipe

    def checkpoint(self, name: str) -> CheckpointFile:
        """The file of a teacher that was brought along with a checkpoint.

        Raises:
            InputError: The file is missing, or not the one that the study names, or that gave the teacher its id.
        """
        spec = self._resources.spec
        given = spec.teacher_specs()[name].checkpoint
        assert given is not None
        return read_checkpoint(spec.resolve(given), self._known(name).checkpoint)

    def _recipe(self, supervisor: Supervisor) -> ArtifactRecipe:
        if isinstance(supervisor, Assistant):
            return self._assistant(supervisor)
        return self._state(supervisor) if supervisor.epoch else self.teacher(supervisor.name)

    def _assistant(self, assistant: Assistant) -> ArtifactRecipe:
        parent, *above = (self._recipe(network) for network in (assistant.parent, *assistant.above))
        described = _ASSISTANT.dump_python(assistant.spec, mode="json", exclude_defaults=True)
        # Who else is above follows from its parent, whose id says who that one's parent is.
        identity = [described, parent.artifact_id, *self._bound(assistant.spec), *self._modality()]
        losses = [
            KNOWLEDGE[kind].implementation for kind in dict.fromkeys(t.kind for t in assistant.spec.terms)
        ]
        # Earlier versions did not name the code of blocks, or none at all: what they have made is not made again.
        all_code = (*losses, *_code_of_network(assistant.spec.architecture))
        found = [self._foreign(all_code)]
        if self._in_files(all_code):  # of what is in no file, those versions did not know anything
            found += [self._foreign(losses), []]
        names = [
            self._artifact_id("assistant", [*identity, {"code": code}] if code else identity)
            for code in found
        ]
        artifact_id = next((name for name in names if name in self._resources.store), names[0])
        return ArtifactRecipe(
            artifact_id=artifact_id,
            assistant=assistant.spec,
            requires=(parent.artifact_id, *(recipe.artifact_id for recipe in above)),
            seed=derive_seed("assistant", artifact_id),
            label="assistant",
            teacher=parent.teacher,
        )

    def _foreign(self, implementations: Iterable[_Implementation]) -> list[str]:
        """What of these is not naskd's, by its content: of their files, or where something has none, of each."""
        key = tuple(dict.fromkeys(implementations))
        if key not in self._code:
            self._code[key] = _contents(key, code_id)
        return self._code[key]

    def _in_files(self, implementations: tuple[_Implementation, ...]) -> bool:
        if implementations not in self._files:
            self._files[implementations] = foreign_code(implementations) is not None
        return self._files[implementations]

    def _bound(self, assistant: AssistantSpec) -> list[dict[str, int]]:
        """How many views an assistant is shown; nothing where it is shown as many as without a bound.

        So assistants of earlier versions are found.
        """
        most, training = self._resources.spec.data.most_views, assistant.training
        there = count_views(training.augmentation, min(sides(self._resources.data.resolution)))
        return [] if most is None or most >= min(there, training.epochs) else [{"views": most}]

    def _modality(self) -> list[dict[str, Any]]:
        """What an assistant sees where that is a second modality, and whether labels teach it; nothing otherwise."""
        data = self._resources.data
        return [{"modality": data.modality_hash, "labels": data.labels_teach}] if data.modality_hash else []

    def _state(self, state: StudyTeacher) -> ArtifactRecipe:
        known = self._known(state.name)
        epochs = self._resources.spec.teacher_specs()[state.name].training.epochs
        return replace(
            known.recipe,
            artifact_id=self._artifact_id("teacher state", [known.identity, state.epoch]),
            label=f"teacher after {state.epoch} of {epochs} epochs",
            epoch=state.epoch,
        )

    def _artifact_id(self, kind: str, identity: Any) -> str:
        data = self._resources.data
        return content_id([kind, identity, data.data_hash, data.split_hash])

    def _known(self, name: str) -> _Known:
        if name not in self._teachers:
            specs = self._resources.spec.teacher_specs()
            if not specs:
                raise UnknownNameError(NO_TEACHER)
            if name not in specs:
                raise UnknownNameError(
                    f"the study has no teacher {name!r}; known: {', '.join(specs)}{nearest(name, specs)}"
                )
            self._teachers[name] = self._look_at(specs[name])
        return self._teachers[name]

    def _look_at(self, teacher: TeacherSpec) -> _Known:
        file: dict[str, str] = {}
        if teacher.checkpoint is not None:
            path = self._resources.spec.resolve(teacher.checkpoint)
            file["checkpoint"] = _pinned(path, teacher.checkpoint, teacher.sha256)
            if teacher.holds_state and teacher.state is None and has_average_beside(path):
                file["state"] = "average"  # earlier versions took the other weights of such a file
        code = [] if teacher.architecture is None else self._foreign(_code_of_network(teacher.architecture))
        own = {"code": code} if code else {}
        identity = {**self._identity(teacher.network, file, code_id), **own}
        # Earlier versions named a teacher that comes trained by a seed and a recipe, too, before by the bytes of its
        # code, and not by that of blocks. What is kept under such a name is not made again.
        whole = self._identity(teacher, file, code_id)
        said = {key: value for key, value in whole.items() if key not in ("sha256", "saw")}
        before = [{**said, **own}, self._identity(teacher, file, file_content_id)]
        store = self._resources.store
        if self._artifact_id("teacher", identity) not in store:
            identity = next((one for one in before if self._artifact_id("teacher", one) in store), identity)
        artifact_id = self._artifact_id("teacher", identity)
        recipe = ArtifactRecipe(
            artifact_id=artifact_id,
            assistant=None,
            requires=(),
            seed=derive_seed("teacher", teacher.seed),
            label="teacher",
            teacher=teacher.name,
            trained=teacher.trained_here,
        )
        return _Known(recipe, identity, file.get("checkpoint"))

    def _identity(
        self, teacher: TeacherSpec, file: Mapping[str, str], content: Callable[[Path], str]
    ) -> dict[str, Any]:
        """A teacher's description, its files by content; of its checkpoint, what `file` says."""
        identity: dict[str, Any] = _TEACHER.dump_python(teacher, mode="json", exclude_defaults=True)
        # What it is called, asked of it, or allowed is not what it is.
        for key in ("name", "min_accuracy", "license"):
            identity.pop(key, None)
        identity.update(file)
        if teacher.builder is not None:
            path, _, function = teacher.builder.rpartition(":")
            identity["builder"] = [content(self._resources.spec.resolve(path)), function]
        if teacher.card.finds:  # they say where the file is, whose content is there
            identity.pop("options", None)
        if teacher.source is not None and teacher.source not in OWN_KEYS:
            identity["code"] = _contents([TEACHER_SOURCES[teacher.source].implementation], content)
        return identity


def _contents(implementations: Sequence[_Implementation], content: Callable[[Path], str]) -> list[str]:
    """What of these is not naskd's, by the content of its files; where something has no file, by what each does."""
    if (files := foreign_code(implementations, content)) is not None:
        return files
    return sorted(method_id(imported(each)) for each in implementations if not is_installed(each))


def _code_of_network(architecture: ArchitectureSpec) -> list[_Implementation]:
    """What a network is made by: its initialisation and its passes follow from more than its description."""
    cards = [
        FAMILIES[architecture.family],
        *(BLOCKS[name] for name in sorted({stage.block for stage in architecture.stages})),
    ]
    return [code for card in cards for code in code_of(card)]


def _pinned(path: Path, given: str, sha256: str | None) -> str:
    """The hash of a checkpoint, which is the expected one where one is."""
    if not path.is_file():
        raise InputError(f"teacher.checkpoint {path} does not exist")
    found = file_hash(path)
    if sha256 is not None and found != sha256.lower():
        raise InputError(f"teacher.checkpoint {given} has SHA-256 {found}, the study expects {sha256}")
    return found
