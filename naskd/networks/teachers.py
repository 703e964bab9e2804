"""Teachers: built from a design, a user's file or torchvision, and frozen.

Accuracy of a foreign teacher stands and falls with its preprocessing, its resolution and its class order;
all three are part of the network here, so that everything else gives it the study's images and reads the
study's classes.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.hub import get_dir

from naskd.networks import FAMILIES
from naskd.networks.fitting import FittedState, fit_checkpoint, load_strictly, shortened
from naskd.networks.foreign import ForeignNetwork, Preprocessing
from naskd.networks.student import Student, build_student
from naskd.networks.student_file import class_names, fresh_student, probe_shape
from naskd.nn.deployed import Description, as_deployed, linear_head
from naskd.nn.taps import TappedNetwork, Taps
from naskd.spec.design import FIRST_FAMILY
from naskd.spec.errors import USERS, InputError, one_line
from naskd.spec.paths import absolute
from naskd.spec.registry import nearest
from naskd.spec.sizes import Size, sides
from naskd.spec.teachers import TEACHER_SOURCES, TeacherSpec
from naskd.spec.userfile import load_function
from naskd.store.checkpoint_file import CheckpointFile

_LOG = logging.getLogger(__name__)


class Teacher(nn.Module):
    """A network that teaches and never learns: evaluation mode, its parameters fixed, whatever is called on it.

    Gradients pass through it to the images that it is given, where whoever asks wants them; see
    :meth:`naskd.knowledge.source.KnowledgeSource.taps`. Teachers in training mode would drift: BatchNorm would
    follow the student's batches (OFD's published code does this).

    Args:
        network: A tapped network; it is frozen in place, not copied.

    Raises:
        InputError: `network` shows no taps.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, TappedNetwork):
            raise InputError(f"{type(network).__name__} shows no taps; wrap it in a ForeignNetwork")
        self.network = network.requires_grad_(False)
        self._read: dict[str, Student] = {}
        self.train(False)

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode; `mode` is taken for the sake of ``nn.Module`` and ignored."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> "Teacher":
        """Stay without gradients; the argument is ignored."""
        return super().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` in the study's class order, of images in [0, 1]."""
        logits: Tensor = self.network(images)
        return logits

    def taps(self, images: Tensor) -> Taps:
        """Logits and stages."""
        assert isinstance(self.network, TappedNetwork)
        return self.network.taps(images)

    @property
    def head(self) -> nn.Linear | None:
        """The classifier that turns `pooled` into the logits; None where the network ends otherwise."""
        return linear_head(as_deployed(self.network))

    def as_student(self, family: str = FIRST_FAMILY) -> Student:
        """The same network as one of a family of naskd's, frozen; it is read once, see :meth:`Student.read`.

        Args:
            family: Of the student that begins with it. A network of naskd is what it is, whatever is asked for.

        Raises:
            InputError: It cannot be read as one.
        """
        if family not in self._read:
            found = self.network
            if not isinstance(found, Student):
                found = FAMILIES.load(family).read(family, found)
            self._read[family] = found.to(next(self.parameters()).device).requires_grad_(False).eval()
        return self._read[family]

    def __getstate__(self) -> dict[str, Any]:
        # Whoever copies it copies what it is, and not what was read of it.
        return {**vars(self), "_read": {}}

    def pre_activation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """For each stage, the BatchNorm before its pre-activation; None where it is not known."""
        return as_deployed(self.network).pre_activation_norms()

    def describe(self) -> dict[str, Any]:
        """Of the network; that it is frozen is no part of it."""
        return as_deployed(self.network).describe()


def build_teacher_network(
    spec: TeacherSpec,
    given: "TeacherInputs",
    state: Mapping[str, Tensor] | None = None,
    begins: CheckpointFile | None = None,
) -> nn.Module:
    """The teacher's network on the CPU, tapped and trainable; :class:`Teacher` freezes it.

    Args:
        spec: Its description. Without a `mean`, a builder's network is given images in [0, 1], and a
            torchvision network the normalisation of its `weights`, or else the study's. Without a
            `resolution`, images are resized to that of the `weights`, or else not at all.
        given: Of the study.
        state: With a ``spec.checkpoint`` that is not fine-tuned: what that file holds, the state of the bare network.
            Otherwise: the state of what this function returned, trained by naskd. None leaves the weights fresh (or
            ``spec.weights``, downloaded).
        begins: The checkpoint with which a fine-tuning begins, of which the classifier is left out.

    Raises:
        InputError: The builder, the model's name, its weights, its number of classes, its class names, its
            taps or `state` do not fit. The message says what was found and what was wanted.
    """
    built = _built(spec, given, fresh=state is None and begins is None)
    if isinstance(built.network, TappedNetwork):
        if begins is not None:
            raise InputError(
                f"fine_tune is not for a {type(built.network).__name__}, which says itself how it begins"
            )
        if state is not None:
            _load_own(built.network, state)
        return built.network
    bare = spec.holds_state and not spec.trained_here
    if state is not None and bare:
        load_strictly(built.network, state)
    network = _tapped(built, spec, given)
    if state is not None and not bare:
        load_strictly(network, state)
    if begins is not None:
        _begin_with(network, begins, spec.state)
    return network


def _begin_with(network: ForeignNetwork, file: CheckpointFile, wanted: str | None) -> None:
    """Load a checkpoint but its classifier.

    Raises:
        InputError: There is no classifier, or the file does not fit what comes before it.
    """
    if network.points.head is None:
        raise InputError(
            f"fine_tune: {type(network.network).__name__} does not end in an nn.Linear, which would be replaced"
        )
    head = network.points.head[0]
    names = frozenset(f"{head}.{name}" for name in network.network.get_submodule(head).state_dict())
    fitted = fit_checkpoint(file, network.network, wanted, without=names)
    for note in fitted.notes:
        _LOG.warning("%s", note)
    network.network.load_state_dict(fitted.tensors, strict=False)


def checkpoint_state(spec: TeacherSpec, given: "TeacherInputs", file: CheckpointFile) -> FittedState:
    """What a teacher's checkpoint holds of the network that its source builds; the network is not kept.

    Raises:
        InputError: It cannot be built, or the file holds no state of it.
    """
    return fit_checkpoint(file, _built(spec, given, fresh=False).network, spec.state)


def _built(spec: TeacherSpec, given: "TeacherInputs", *, fresh: bool) -> "Bare":
    source: TeacherSource = TEACHER_SOURCES.load(spec.source_name)()
    built = source.build(spec, given, fresh=fresh)
    return built if isinstance(built, Bare) else Bare(built)


def _tapped(built: "Bare", spec: TeacherSpec, given: "TeacherInputs") -> ForeignNetwork:
    """A network that does not show its taps, with what it wants of an image."""
    if not isinstance(given.resolution, int) and not (spec.resolution or built.resolution):
        height, width = given.resolution
        raise InputError(
            f"the study's images are {width}x{height} pixels, and stages of a network that naskd has not made are "
            "found on squares: give the teacher a resolution, to which it has images resized"
        )
    network = ForeignNetwork(
        built.network,
        Preprocessing(
            spec.resolution or built.resolution,
            _input_channels(built.network, given.in_channels),
            spec.mean or built.mean,
            spec.std or built.std,
        ),
        (given.in_channels, *sides(given.resolution)),
        class_order(spec.classes or built.classes, given.class_names),
        spec.taps or built.taps,
        origin=origin_of(spec, given),
    )
    if network.n_classes != given.n_classes:
        raise InputError(
            f"the teacher has {network.n_classes} outputs, the study has {given.n_classes} classes; "
            f"wanted: one output for each of {shortened(given.class_names)}"
            f"{'; fine_tune = true trains a new classifier' if spec.checkpoint else ''}"
        )
    return network


def origin_of(spec: TeacherSpec, given: "TeacherInputs") -> dict[str, Any]:
    """What made a network that naskd has not, for its description; :func:`rebuild_foreign` reads it."""
    return {
        "teacher": _TEACHER.dump_python(spec, mode="json", exclude_defaults=True),
        "given": {**asdict(given), "base": str(given.base.resolve())},
    }


def rebuild_foreign(description: Description) -> nn.Module:
    """The inverse of :func:`origin_of`; no weights are looked for.

    Raises:
        InputError: What made the network is no longer there, or makes another.
    """
    spec = _TEACHER.validate_python(description["teacher"])
    given = _GIVEN.validate_python(description["given"])
    built = _built(spec, given, fresh=False)
    return built.network if isinstance(built.network, TappedNetwork) else _tapped(built, spec, given)


@dataclass(frozen=True)
class TeacherInputs:
    """What a teacher source may build from beside its own settings.

    Args:
        base: Folder of the study file, to which paths are relative.
        in_channels, resolution: Of the study's images; a network of three channels is given one channel three times.
        n_classes: ``K``.
        mean, std: Of the study's images, per channel, on the [0, 1] scale.
        class_names: In the study's order.
    """

    base: Path
    in_channels: int
    n_classes: int
    resolution: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Bare:
    """A network as somebody else made it, ``(B, C, H, W)`` to logits ``(B, K)``, and what it expects.

    Args:
        network: On the CPU.
        mean, std: Of its input, per channel, on the [0, 1] scale; None for images in [0, 1] as they are.
        resolution: To which images are resized; None for none.
        taps: Modules that are the stages, where its source knows; empty: found.
        classes: Names of its outputs, where its source knows that they are the study's in some order; None otherwise.
    """

    network: nn.Module
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resolution: int | None = None
    taps: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None


LOCAL_FILE = (
    "name a local file: checkpoint = 'FILE' for one that knows these classes already and is not trained, with "
    "fine_tune = true beside it for one of other classes, in the place of"
)
"""What can be done where a network's weights cannot be fetched."""

_TEACHER = TypeAdapter(TeacherSpec)
_GIVEN = TypeAdapter(TeacherInputs)


class TeacherSource(Protocol):
    """Where a teacher's network comes from. Its `mean`, `std`, `resolution`, `classes` and `taps` hold for any."""

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> nn.Module | Bare:
        """The network, with the weights that training begins with, or with which the source says that it comes.

        Args:
            spec: The teacher; ``spec.option(name)`` is a setting of this source.
            given: Of the study.
            fresh: False where a stored state is loaded afterwards, so that weights need not be looked for.

        Raises:
            InputError: It cannot be built.
        """


class ArchitectureSource:
    """A student's architecture, as a teacher."""

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> nn.Module:
        """See :class:`TeacherSource`."""
        assert spec.architecture is not None
        return build_student(spec.architecture, given.in_channels, given.n_classes, given.mean, given.std)


class BuilderSource:
    """A function of the user's. Without a `mean`, its network is given images in [0, 1]."""

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> nn.Module:
        """See :class:`TeacherSource`."""
        assert spec.builder is not None
        return _call_builder(spec.builder, given.base)


class TorchvisionSource:
    """A model of torchvision with a head of the study's classes.

    Without a `mean` it is given the normalisation of its `weights`, or else the study's; without a `resolution`, images
    are resized to that of the `weights`, or else not at all.
    """

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> Bare:
        """See :class:`TeacherSource`."""
        assert spec.torchvision is not None
        weights = _torchvision_weights(spec.torchvision, spec.weights)
        network = _torchvision_network(spec.torchvision, weights, given.n_classes, fetched=fresh)
        if weights is None:
            return Bare(network, given.mean, given.std)
        preset = weights.transforms()
        return Bare(network, tuple(preset.mean), tuple(preset.std), preset.crop_size[0])


class RunSource:
    """A student of a finished run, in the file that is the teacher's `checkpoint`; it knows how it sees an image."""

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> nn.Module:
        """See :class:`TeacherSource`."""
        own = [key for key in ("mean", "std", "resolution", "classes", "taps") if getattr(spec, key)]
        if own:
            raise InputError(f"a student of a run knows its own {', '.join(own)}: leave them out")
        if spec.checkpoint is None:
            raise InputError("the student of the run has not been looked for, which opening the study does")
        path = absolute(spec.checkpoint, given.base)
        if (known := class_names(path)) != given.class_names:
            raise InputError(
                f"{path} is of a run of other classes: {shortened(known)}; the study's are "
                f"{shortened(given.class_names)}; allowed: the same in the same order"
            )
        shape = probe_shape(path)
        if shape is not None and shape[0] != given.in_channels:
            raise InputError(
                f"{path} takes images of {shape[0]} channels, the study's have {given.in_channels}"
            )
        return fresh_student(path)


def _load_own(student: nn.Module, state: Mapping[str, Tensor]) -> None:
    try:
        student.load_state_dict(dict(state))  # it reads what earlier versions wrote, too
    except RuntimeError:
        load_strictly(student, state)  # says what does not fit
        raise


def _call_builder(reference: str, base: Path) -> nn.Module:
    build = load_function(reference, base)
    try:
        network = build()
    except USERS as error:  # whatever a user's function does, the answer names it
        raise InputError(f"builder {reference!r} failed: {one_line(error)}") from error
    if isinstance(network, type):
        raise InputError(
            f"builder {reference!r} returns the class {network.__name__}, not a network: call it in the function"
        )
    if not isinstance(network, nn.Module):
        raise InputError(f"builder {reference!r} returns {type(network).__name__}; wanted a torch.nn.Module")
    # Compiled, it would hide its modules; images come in 32 bits.
    bare: nn.Module = getattr(network, "_orig_mod", network)
    return bare.float()


def _models() -> Any:
    """Torchvision's, imported when a study first names one: its import takes as long as torch's."""
    import torchvision

    return torchvision.models


def _check_torchvision_name(name: str) -> None:
    known = _models().list_models(module=_models())
    if name not in known:
        raise InputError(
            f"torchvision has no classification model {name!r}{nearest(name, known)}; "
            f"torchvision.models.list_models(module=torchvision.models) names all {len(known)}"
        )


def torchvision_weights(name: str) -> str:
    """Name of the weights that torchvision recommends for a classification model.

    Raises:
        InputError: It has no such model.
    """
    _check_torchvision_name(name)
    return str(_models().get_model_weights(name).DEFAULT.name)


def _torchvision_weights(name: str, weights: str | None) -> Any:
    _check_torchvision_name(name)
    if weights is None:
        return None
    known = _models().get_model_weights(name).__members__
    short = weights.rpartition(".")[2]
    if short not in known:
        raise InputError(
            f"torchvision's {name} has no weights {weights!r}; "
            f"known: {', '.join(known)}{nearest(short, known)}"
        )
    return known[short]


def _made_for(name: str, weights: Any) -> dict[str, Any]:
    """Arguments that torchvision sets where it makes a model with its weights: without them it is another network."""
    if name == "googlenet":
        return {"transform_input": True, "aux_logits": False, "init_weights": False}
    if name == "inception_v3":
        return {"transform_input": True, "init_weights": False}
    if name.startswith("vit_"):
        return {"image_size": weights.meta["min_size"][0]}
    if name.startswith("maxvit"):
        return {"input_size": weights.meta["min_size"]}
    return {}


def _fetched(name: str, weights: Any, made_for: Mapping[str, Any]) -> nn.Module:
    """A network of torchvision, with weights from its cache or from the network."""
    try:
        network: nn.Module = _models().get_model(name, weights=weights, **made_for)
    except (OSError, RuntimeError) as error:
        if weights is None:
            raise
        file = Path(get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        raise InputError(
            f"{weights.name} of torchvision's {name} cannot be had ({one_line(error)}); without a network, fetch "
            f"{weights.url} elsewhere and put it here as {file}, or {LOCAL_FILE} weights"
        ) from error
    return network


def _torchvision_network(name: str, weights: Any, n_classes: int, *, fetched: bool) -> nn.Module:
    made_for = {} if fetched or weights is None else _made_for(name, weights)
    network = _fetched(name, weights if fetched else None, made_for)
    linear = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise InputError(
            f"torchvision's {name} does not end in a Linear, so its head cannot be adapted; "
            f"choose another model, or build it yourself with builder = 'file.py:function'"
        )
    head_name, head = linear[-1]
    parent, _, attribute = head_name.rpartition(".")
    replacement = nn.Linear(head.in_features, n_classes, head.bias is not None)
    setattr(network.get_submodule(parent), attribute, replacement)
    return network


def _input_channels(network: nn.Module, in_channels: int) -> int:
    conv = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    wanted = conv.in_channels if conv is not None else in_channels
    if wanted != in_channels and not (wanted == 3 and in_channels == 1):
        raise InputError(
            f"the teacher takes images of {wanted} channels, the study's have {in_channels}; "
            f"allowed: the same number, or 1 for a teacher of 3 (set channels in [data])"
        )
    return wanted


def class_order(own: Sequence[str] | None, wanted: Sequence[str]) -> list[int] | None:
    """Position, among outputs of named classes, of each class that is wanted; None where they agree, or have no names.

    Raises:
        InputError: They are not the same classes.
    """
    if own is None:
        return None
    strange = [name for name in own if name not in wanted]
    absent = [name for name in wanted if name not in own]
    repeated = sorted({name for name in own if list(own).count(name) > 1})
    if strange or absent or repeated:
        problems = (("unknown to the study", strange), ("missing", absent), ("repeated", repeated))
        listed = "; ".join(f"{what}: {shortened(names)}" for what, names in problems if names)
        raise InputError(f"classes of the teacher are not those of the study; {listed}")
    order = [list(own).index(name) for name in wanted]
    return None if order == list(range(len(order))) else order
