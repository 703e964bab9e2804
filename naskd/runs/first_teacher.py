"""The teacher of a first study: one by its name, a file of weights, or one that is trained from nothing."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from naskd.data.recognising import ImagesFound
from naskd.networks.student import design_cost
from naskd.networks.teachers import torchvision_weights
from naskd.report.units import count
from naskd.runs.first_space import TOPS, Shape
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError, one_line
from naskd.spec.registry import nearest
from naskd.spec.sizes import Size, sides
from naskd.store.checkpoint_file import read_checkpoint

TEACHER_SHARE = 3
"""A teacher that is trained here has at least so many times the MACs of the largest student."""
FORMS = (
    "timm:NAME, torchvision:NAME, or a file of weights .pt, .pth, .ckpt, .safetensors or .onnx; of a network of theirs "
    "with weights of yours timm:NAME=FILE or torchvision:NAME=FILE"
)
_FILES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")

TEACHER_PY = '''"""The teacher's network: `build` is called without arguments, and {checkpoint} goes into it."""


def build():
    raise NotImplementedError("return the network of {checkpoint} here, as an nn.Module")

    # For example:
    # import torchvision
    # return torchvision.models.resnet18(num_classes={n_classes})
    #
    # A network of timm or of torchvision needs no function. In study.toml, write in the place of builder
    #     source = "timm"
    #     model = "NAME"
    # or torchvision = "NAME", and leave checkpoint as it is. `naskd init --teacher timm:NAME=FILE` writes that.
'''


@dataclass(frozen=True)
class FirstTeacher:
    """What a study says of its teacher.

    Args:
        lines: Of ``[teacher]``, without the table's head.
        trained: Whether it is trained here, or fine-tuned.
        fine_tuned: Which of the two.
        saw_more: Whether it has seen other images than its students.
        needs_colour: Whether it takes three channels alone.
        code: Of a file ``teacher.py``; empty where none is needed.
        to_do: See :class:`FirstStudy`.
    """

    lines: tuple[str, ...]
    trained: bool = True
    fine_tuned: bool = True
    saw_more: bool = True
    needs_colour: bool = False
    code: str = ""
    to_do: str = ""

    def table(
        self, epochs: int, batch_size: int, augmentation: str, weight_decay: float, *, skewed: bool
    ) -> str:
        """The tables of the study.

        Args:
            epochs: Of a student.
            batch_size: Likewise.
            augmentation: Likewise.
            weight_decay: Likewise.
            skewed: Whether classes are of very different sizes.
        """
        lines = [*self.lines, ""]
        if self.trained:
            lines.append("[teacher.training]")
            if self.fine_tuned:
                lines += ["# Less than from nothing, since its weights know much already.", "epochs = 10"]
                lines += ["learning_rate = 1e-3"]
            else:
                lines += ["# Twice those of a student: it is trained once, for all of them."]
                lines += [f"epochs = {2 * epochs}", f"weight_decay = {weight_decay:g}"]
            lines += [f"batch_size = {batch_size}", f'augmentation = "{augmentation}"']
            if skewed:
                lines += ["# Each class counts as much as any other.", 'class_weights = "balanced"']
            lines.append("")
        return "\n".join(lines)


def teacher_for(
    wanted: str | None, folder: Path, images: ImagesFound, shape: Shape, size: Size, target: int
) -> FirstTeacher:
    """What is to be written of a teacher.

    Raises:
        InputError: There is no such teacher, or its file cannot be read.
    """
    if wanted is None:
        return _trained_here(shape, images, size, target)
    source, colon, name = wanted.partition(":")
    if colon and source in ("timm", "torchvision") and name:
        name, equals, file = name.partition("=")
        if equals:
            return _named_with_file(wanted, source, name, file, folder, images, size)
        head = _of_name(source, name, its_weights=True)
        if source == "timm":
            fetched = ["# timm's weights are fetched at the first use.", "pretrained = true"]
            return FirstTeacher((*head, *fetched, *_fine_tuned(size)))
        fetched = [
            "# Fetched at the first use; its classifier is made anew for these classes.",
            f"weights = {text(torchvision_weights(name))}",
        ]
        return FirstTeacher((*head, *fetched, *_fine_tuned(size)), needs_colour=True)
    path = _weights_file(wanted, wanted, (*_FILES, ".onnx"))
    checkpoint, n_classes = f"checkpoint = {text(near(str(path.absolute()), folder))}", len(images.counts)
    if path.suffix.lower() == ".onnx":
        head, colour = ["[teacher]", 'source = "onnx"', checkpoint], _onnx_channels(path) != 1
        normalised = _normalised(gray=not colour)
        return FirstTeacher((*head, *normalised, *_unsaid(images)), trained=False, needs_colour=colour)
    outputs = _outputs(path)
    head = [
        "[teacher]",
        "# A function without arguments in teacher.py that returns the network, whose weights are in the file.",
        'builder = "teacher.py:build"',
        checkpoint,
    ]
    tuned = outputs is not None and outputs != n_classes
    if tuned:
        head += [_other_classes(outputs, n_classes), "fine_tune = true", "head_share = 0.3"]
    colour = _takes_colour(path)
    return FirstTeacher(
        (*head, *_normalised(gray=images.channels == 1 and not colour), *_unsaid(images)),
        trained=tuned,
        needs_colour=colour,
        code=TEACHER_PY.format(checkpoint=path.name, n_classes=n_classes),
        to_do=(
            f"{folder / 'teacher.py'} must return the network of {path.name}, and [teacher] in "
            f"{folder / 'study.toml'} asks for what the file does not say: mean, std, saw"
        ),
    )


def _named_with_file(
    wanted: str, source: str, name: str, file: str, folder: Path, images: ImagesFound, size: Size
) -> FirstTeacher:
    """A network of timm or torchvision with weights of the user's: fine-tuned where its classes are others."""
    path, head = _weights_file(wanted, file, _FILES), _of_name(source, name)
    head.append(f"checkpoint = {text(near(str(path.absolute()), folder))}")
    outputs, n_classes = _outputs(path), len(images.counts)
    # Of timm, normalisation and size of its own weights of that name are known.
    colour = _takes_colour(path)
    normalised = _normalised(gray=images.channels == 1 and not colour) if source == "torchvision" else ()
    unsaid = [*normalised, *_unsaid(images)]
    tuned = outputs is not None and outputs != n_classes
    if tuned:
        head += [_other_classes(outputs, n_classes), "fine_tune = true", *_fine_tuned(size)]
        unsaid = [line for line in unsaid if "resolution" not in line and "side of the images" not in line]
    else:
        head += ["# It knows these classes already, and is not trained."]
    return FirstTeacher((*head, *unsaid), trained=tuned, needs_colour=colour)


def _of_name(source: str, name: str, *, its_weights: bool = False) -> list[str]:
    """The beginning of the table of a network of timm or torchvision.

    Args:
        source: Which of the two.
        name: Of the network there.
        its_weights: Whether weights of the source are wanted.

    Raises:
        InputError: The source has no such network, or none of its weights.
    """
    if source == "timm":
        _check_timm(name, its_weights=its_weights)
        return ["[teacher]", 'source = "timm"', f"model = {text(name)}"]
    torchvision_weights(name)  # which says what is known
    return ["[teacher]", f"torchvision = {text(name)}"]


def _check_timm(name: str, *, its_weights: bool) -> None:
    """See that timm has a network; where timm is not installed, the check of the study says so.

    Raises:
        InputError: It has none of that name, or no weights for it.
    """
    try:
        import timm
    except ImportError:
        return
    if not timm.is_model(name):
        raise InputError(
            f"--teacher timm:{name}: timm {timm.__version__} has no model {name!r}{nearest(name, timm.list_models())}"
        )
    try:
        known = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # no such tag behind the dot; a model without any has none to be wrong
        known = None
    tags = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
    if known is None and "." in name:
        raise InputError(f"--teacher timm:{name}: timm has no such weights{nearest(name, tags)}")
    if its_weights and not (known and known.has_weights):
        raise InputError(
            f"--teacher timm:{name}: timm has no weights of this model{nearest(name, tags)}; give some of yours, as in "
            f"timm:{name}=FILE, or another model"
        )


def _fine_tuned(size: Size) -> list[str]:
    return [
        "# It was made for larger images, which cost more; a study of its own may show what they are worth.",
        f"resolution = {max(96, min(sides(size)))}",
        "# For a share of the epochs its new classifier is trained alone, then everything.",
        "head_share = 0.3",
    ]


def _weights_file(wanted: str, file: str, suffixes: Sequence[str]) -> Path:
    """The file that ``--teacher`` names.

    Raises:
        InputError: It is none of weights, or not there.
    """
    path = Path(file).expanduser()
    if path.suffix.lower() not in suffixes:
        raise InputError(f"--teacher {wanted}: allowed: {FORMS}")
    if not path.is_file():
        raise InputError(f"--teacher {wanted}: there is no such file; allowed: {FORMS}")
    return path


def _other_classes(outputs: int | None, n_classes: int) -> str:
    return f"# Its last layer has {outputs} outputs, and there are {n_classes} classes: so it is fine-tuned."


def _normalised(*, gray: bool) -> list[str]:
    """What a network's input is normalised with, to be replaced: ImageNet's, or the mean of its channels."""
    mean, std = ("[0.449]", "[0.226]") if gray else ("[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]")
    return [
        "# Of its input on the [0, 1] scale. These are ImageNet's; give those of its own training.",
        f"mean = {mean}",
        f"std = {std}",
    ]


def _unsaid(images: ImagesFound) -> list[str]:
    """What a file of weights does not say."""
    names = [*map(text, list(images.counts)[:3]), *["..."][: len(images.counts) > 3]]
    return [
        "# What it was trained on: train (these training images alone), other (other images), train+val, or unknown.",
        'saw = "unknown"',
        "# Its outputs in their order, where that is not the order of the class folders:",
        f"# classes = [{', '.join(names)}]",
        "# The side of the images that it was trained on, where that is not theirs:",
        "# resolution = 224",
    ]


def _trained_here(shape: Shape, images: ImagesFound, size: Size, target: int) -> FirstTeacher:
    """The narrowest of a row of networks that has enough MACs."""
    stride = {3: 1 if shape.min_stages == 1 else 2, 4: shape.stem_strides[0]}[shape.n_stages]
    macs = 0
    for top in TOPS:
        stages = tuple(
            StageSpec("basic", depth=2 if i < 2 else 1, width=top * 2**i, stride=1 if i == 0 else 2)
            for i in range(shape.n_stages)
        )
        network = ArchitectureSpec(stages=stages, stem_width=top, stem_stride=stride)
        macs = design_cost(network, images.channels, len(images.counts), size).macs
        if macs >= TEACHER_SHARE * target:
            break
    written = ",\n".join(
        f'    {{block = "{s.block}", depth = {s.depth}, width = {s.width}, stride = {s.stride}}}'
        for s in stages
    )
    return FirstTeacher(
        (
            "# Trained here on the training images, once; later runs with the same teacher reuse it. Your own instead:",
            '# builder = "file.py:function" and checkpoint = "file.pt", or torchvision = "resnet18".',
            "[teacher.architecture]",
            f"# {count(macs)}MACs, {macs / target:.1f} times those of the largest student.",
            f"stem_width = {network.stem_width}",
            f"stem_stride = {network.stem_stride}",
            f"stages = [\n{written},\n]",
        ),
        fine_tuned=False,
        saw_more=False,
    )


def _outputs(path: Path) -> int | None:
    """Of the classifier in a file of weights: its last matrix, where the order of its names tells.

    Files of safetensors have them sorted. Then it is the one that is called as classifiers are; None where none is.

    Raises:
        InputError: The file cannot be read.
    """
    largest = _largest(path)
    matrices = {name: tensor for name, tensor in largest.items() if tensor.ndim == 2}
    names = list(matrices)
    if names == sorted(names) and len(names) > 1:
        names = sorted(filter(_CLASSIFIER.search, names), key=lambda name: -name.count("."))
    return int(matrices[names[-1]].shape[0]) if names else None


def _takes_colour(path: Path) -> bool:
    """Whether a convolution in a file of weights reads three channels, as only the first one does."""
    return any(tensor.ndim == 4 and tensor.shape[1] == 3 for tensor in _largest(path).values())


def _onnx_channels(path: Path) -> int:
    """Channels of the images that an ONNX file takes; 0 where it takes any, or where nothing here reads such files.

    Raises:
        InputError: It cannot be read.
    """
    try:
        import onnx
    except ImportError:  # the check of the study says what it needs
        return 0
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf raises errors of its own
        raise InputError(f"--teacher {path}: the file cannot be read: {one_line(error)}") from error
    given = {tensor.name for tensor in graph.initializer}
    shapes = [each.type.tensor_type.shape.dim for each in graph.input if each.name not in given]
    return int(shapes[0][1].dim_value) if shapes and len(shapes[0]) == 4 else 0


def _largest(path: Path) -> Mapping[str, Tensor]:
    """The state in a file of weights that has the most tensors.

    Raises:
        InputError: The file cannot be read, or has none.
    """
    states = read_checkpoint(path).states
    if not states:
        raise InputError(f"--teacher {path}: the file holds no weights by name")
    return max(states, key=lambda state: len(state.tensors)).tensors


_CLASSIFIER = re.compile(r"(^|\.)(head|heads|fc|classifier|last_linear|logits)\.([\w.]*\.)?weight$")
"""Names of the matrix that gives the logits, as torchvision, timm and transformers have them."""


def near(path: str, folder: Path) -> str:
    """Relative to the study where it lies beside it or above it by one folder, so that both can be moved together."""
    above = os.path.abspath(folder.parent)
    return os.path.relpath(path, folder) if os.path.commonpath([above, path]) == above != "/" else path


def text(value: str) -> str:
    """As TOML writes it."""
    return json.dumps(value, ensure_ascii=False)
