"""The teachers of a study, and where they come from: cards of teacher sources."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from naskd.spec.design import (
    STRICT,
    ArchitectureSpec,
    Fraction,
    Positive,
    TrainingSpec,
    check_starts_from_scratch,
)
from naskd.spec.errors import InputError
from naskd.spec.held import CONTENT
from naskd.spec.option import Configured, Option, Options
from naskd.spec.registry import Registry
from naskd.spec.validation import Problem

DEFAULT_NAME = "teacher"
"""Of a teacher that the study file gives no name, and of the one that a design means which names none."""


def called(name: str) -> str:
    """A teacher for people: ``teacher``, or ``teacher 'wide'`` where it has a name of its own."""
    return "teacher" if name == DEFAULT_NAME else f"teacher {name!r}"


def leak(teacher: "TeacherSpec", own_test: bool) -> str:
    """What is in doubt since a teacher that was trained elsewhere saw validation images, or may have; else empty.

    Args:
        teacher: Of a study.
        own_test: Whether the test images lie apart, rather than being cut from the same images.
    """
    if teacher.saw_elsewhere not in ("unknown", "train+val"):
        return ""
    seen = "has seen" if teacher.saw == "train+val" else "may have seen"
    test = (
        "The test images lie apart: naskd retrain judges by them"
        if own_test
        else "The test images were cut from the same images: it may have seen them, too, and accuracies of naskd "
        "retrain may be too high as well"
    )
    return (
        f"it {seen} the validation images (saw = {teacher.saw!r}), so that accuracies of the search may be too high. "
        f"{test}."
    )


@plain_dataclass(frozen=True)
class TeacherSourceCard:
    """The torch-free description of a way to a teacher.

    Args:
        name: As ``source`` says it; those that come with naskd are chosen by the key of the same name.
        title: One line for a listing.
        paper: See :class:`~naskd.spec.registry.Card`.
        implementation: ``"module:Class"`` of the :class:`~naskd.networks.teachers.TeacherSource`, or the class.
        options: Settings, further keys of the teacher's table.
        comes_trained: Its networks know the study's classes already; naskd trains nothing.
        finds: ``"module:function"``, or a function of a :class:`~naskd.spec.study.StudySpec` and a
            :class:`TeacherSpec`: the file that its options mean, which becomes the teacher's `checkpoint` when the
            study is opened. The options are then no part of what the teacher is, and the file is. "" where nothing
            is looked for.
        own_file: Its `checkpoint` is a file that it reads itself, with what else belongs to it.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    comes_trained: bool = False
    finds: str | Callable[..., Any] = ""
    own_file: bool = False


TEACHER_SOURCES: Registry[TeacherSourceCard] = Registry("teacher source", "teacher")

TEACHER_SOURCES.register(
    TeacherSourceCard(
        name="architecture",
        title="a network that naskd trains on the training split",
        paper="",
        implementation="naskd.networks.teachers:ArchitectureSource",
    )
)
TEACHER_SOURCES.register(
    TeacherSourceCard(
        name="builder",
        title="a function of your own that returns an nn.Module, with its checkpoint",
        paper="",
        implementation="naskd.networks.teachers:BuilderSource",
    )
)
TEACHER_SOURCES.register(
    TeacherSourceCard(
        name="torchvision",
        title="a classification model of torchvision, fine-tuned or with a checkpoint",
        paper="",
        implementation="naskd.networks.teachers:TorchvisionSource",
    )
)
TEACHER_SOURCES.register(
    TeacherSourceCard(
        name="timm",
        title="a model of timm, fine-tuned or with a checkpoint (needs timm)",
        paper="Wightman: PyTorch image models. 2019, doi 10.5281/zenodo.4414861",
        implementation="naskd.networks.sources.timm_model:TimmSource",
        options={
            "model": Option(None, "its name, such as resnet18 or resnet18.a1_in1k", kind=str, required=True),
            "pretrained": Option(False, "fetch timm's weights, with which a fine-tuning begins"),
        },
    )
)
TEACHER_SOURCES.register(
    TeacherSourceCard(
        name="transformers",
        title="an image classifier in a folder of Hugging Face's transformers (needs transformers)",
        paper="Wolf et al.: Transformers: state-of-the-art natural language processing. EMNLP 2020, arXiv 1910.03771",
        implementation="naskd.networks.sources.transformers_model:TransformersSource",
        finds="naskd.networks.sources.transformers_model:weights_file",
        own_file=True,
        options={
            "model": Option(
                None,
                "folder with config.json and weights, relative to the study file",
                kind=str,
                path=True,
                required=True,
            ),
        },
    )
)
TEACHER_SOURCES.register(
    TeacherSourceCard(
        name="onnx",
        title="a classifier in an ONNX file, the checkpoint, run on the CPU (needs onnx and onnxruntime)",
        paper="",
        implementation="naskd.networks.sources.onnx_model:OnnxSource",
        own_file=True,
        options={
            "logits": Option("", "name of the output of logits (B, K); none for the first of two dimensions"),
        },
    )
)
TEACHER_SOURCES.register(
    TeacherSourceCard(
        name="python",
        title="a trained nn.Module, given to naskd.search in Python",
        paper="",
        implementation="naskd.networks.sources.held_module:HeldSource",
        comes_trained=True,
        options={
            "content": Option(
                None,
                "hash of what was given, which naskd.search writes",
                pattern=CONTENT,
                kind=str,
                required=True,
            ),
        },
    )
)
TEACHER_SOURCES.register(
    TeacherSourceCard(
        name="run",
        title="a student of a finished run, on other images of the same classes or on the same",
        paper="",
        implementation="naskd.networks.teachers:RunSource",
        comes_trained=True,
        finds="naskd.runs.carried:student_file",
        options={
            "run": Option(
                None, "directory of the run, relative to the study file", kind=str, path=True, required=True
            ),
            "student": Option(
                "",
                "config_id of a design on its front; none for the most accurate",
                pattern="(?:[0-9a-f]{12})?",
            ),
        },
    )
)


OWN_KEYS = ("architecture", "builder", "torchvision")
"""Sources that have a key of their own."""


def normalisation_problems(place: str, teacher: Any) -> list[Problem]:
    """What is wrong with the `mean` and `std` of a teacher that may come from tools that count colours from 0 to 255.

    Args:
        place: Key of the teacher in the study file.
        teacher: Its `mean` and `std`, each a sequence of numbers or None.
    """
    found, (mean, std) = [], (teacher.get("mean"), teacher.get("std"))
    large = mean is not None and max(mean, default=0) > 1
    for key, values in (("mean", mean), ("std", std)):
        if not values or (key == "mean" and min(values) >= 0 and not large):
            continue
        if key == "std" and max(values) <= 1 and not (large and min(values) == 1):
            continue
        got = f"[{', '.join(f'{value:g}' for value in values)}]"
        hint = ""
        if min(values) >= 0:
            scaled = ", ".join(f"{round(value / 255, 6):g}" for value in values)
            hint = f"on the scale 0 to 255? Divided by 255 it is [{scaled}]"
        low = "from 0 to 1" if key == "mean" else "above 0, to 1"
        found.append(Problem(f"{place}.{key}", got, f"numbers {low}, of images on the [0, 1] scale", hint))
    return found


@dataclass(frozen=True, config=STRICT)
class TeacherSpec(Configured):
    """A teacher: exactly one of `architecture`, `builder`, `torchvision` and `source` says where it comes from.

    Args:
        name: By which designs mean it, distinct among the study's teachers.
        architecture: Trained by naskd on the training split alone, as `training` says.
        builder: ``"file.py:function"``; the function takes no argument and returns an ``nn.Module`` whose
            output is ``(B, K)`` logits.
        torchvision: Name of a classification model of torchvision.
        weights: ``torchvision`` only: a weights name such as ``IMAGENET1K_V1``; the head is then replaced by
            one of the study's classes and the network is fine-tuned on the training split as `training` says.
        checkpoint: File of weights of a network of `builder`, `torchvision` or timm that knows the study's classes
            already, or with `fine_tune` others; of the source ``onnx`` the network itself.
        state: Where in `checkpoint` the weights lie, such as ``state_dict_ema``; ``.`` is its top level. Without one
            they are found by the network's names; where several fit, an average over the training (EMA) is taken.
        sha256: Expected hash of `checkpoint`; without one, the hash found at the first use is pinned in the run.
        fine_tune: `checkpoint` is where a training on the training split begins, as `training` says, with a new
            classifier of the study's classes: the file's own may have others.
        head_share: Of the epochs, in which the classifier alone is trained before all is; see
            :mod:`naskd.schemes.head_first`. For networks that begin with weights from elsewhere.
        training: For what naskd trains.
        seed: Of that training, apart from the study's so that several studies share a teacher.
        mean, std: Of the foreign network's input, per channel, on the [0, 1] scale. Default: as weights of torchvision
            or timm, or a folder of transformers, say; of a torchvision network without `weights` those of the training
            images; of any other images stay in [0, 1].
        resolution: What the foreign network expects; images are resized to it. Default: as such weights say, or an
            ``onnx`` file; else images keep their size.
        classes: The foreign network's class names in the order of its outputs; reordered to the data's.
        taps: Names of modules whose outputs are the stages; empty: found at each change of resolution.
        min_accuracy: On the validation images, a fraction: a teacher with a `checkpoint` that has less is refused.
        saw: What the foreign teacher was trained on: ``train`` (this training split alone), ``other`` (other data),
            ``unknown`` or ``train+val``; the last two put a warning on the report that validation may have leaked.
        license: Under which its weights are given, such as ``apache-2.0``; the model card of a student names it.
        source: Name of a registered teacher source, such as one of your own.
        options: Settings of that source as (name, value) pairs, sorted by name; its card lists them.
    """

    CARDS = TEACHER_SOURCES
    CHOOSER = "source"

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = DEFAULT_NAME
    architecture: ArchitectureSpec | None = None
    builder: str | None = None
    torchvision: str | None = None
    weights: str | None = None
    checkpoint: str | None = None
    state: Annotated[str, Field(min_length=1)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    training: TrainingSpec = field(default_factory=TrainingSpec)
    seed: Annotated[int, Field(ge=0)] = 0
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
    resolution: Annotated[int, Field(ge=8, le=1024)] | None = None
    classes: tuple[str, ...] | None = None
    taps: tuple[str, ...] = ()
    saw: Literal["train", "other", "train+val", "unknown"] = "unknown"
    min_accuracy: Fraction | None = None
    license: Annotated[str | None, Field(min_length=1, exclude_if=lambda text: text is None)] = None
    fine_tune: bool = False
    head_share: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    source: str | None = None
    options: Options = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [n for n in (*OWN_KEYS, "source") if getattr(self, n) is not None]
        if len(given) != 1:
            raise InputError(
                "a teacher needs exactly one of architecture, builder, torchvision and source, "
                f"got {', '.join(given) or 'none'}"
            )
        if self.builder is not None and self.checkpoint is None:
            raise InputError("a teacher with a builder needs a checkpoint, its trained weights")
        if self.architecture is not None and (self.checkpoint or self.weights):
            raise InputError(
                "a teacher with an architecture is trained by naskd: checkpoint and weights do not apply"
            )
        if self.weights is not None and (self.torchvision is None or self.checkpoint is not None):
            raise InputError("weights names torchvision weights: give torchvision, and no checkpoint")
        if self.fine_tune and self.checkpoint is None and not self._finds:
            raise InputError("fine_tune begins with checkpoint, which is missing")
        if self.head_share and self.architecture is not None:
            raise InputError(
                "head_share is for networks with weights from elsewhere; an architecture has none"
            )
        if self.head_share and self.training.epochs < 2:
            raise InputError("head_share divides the epochs of training, which must be at least 2")
        check_starts_from_scratch(self.training, "a teacher")
        if (self.mean is None) != (self.std is None):
            raise InputError("mean and std go together")
        if self.sha256 is not None and self.checkpoint is None:
            raise InputError("sha256 is the hash of checkpoint, which is missing")
        if self.state is not None and self.checkpoint is None:
            raise InputError("state is a place in checkpoint, which is missing")

    @property
    def source_name(self) -> str:
        """Under which its source is registered."""
        return self.source or next(key for key in OWN_KEYS if getattr(self, key) is not None)

    @property
    def network(self) -> "TeacherSpec":
        """What it is: without what it is called, checked against, and said to be, and what it has no use for."""
        bare = replace(self, name=DEFAULT_NAME, sha256=None, saw="unknown", min_accuracy=None, license=None)
        if self.trained_here:
            return bare
        # Of one that comes trained neither a seed nor a recipe changes anything.
        return replace(bare, training=TrainingSpec(), seed=0, head_share=0.0, fine_tune=False)

    def is_trained_as(self, other: "TeacherSpec") -> bool:
        """Whether both are one network."""
        return self.network == other.network

    @property
    def trained_here(self) -> bool:
        """Whether naskd trains it (from scratch, or fine-tunes it) on the training split alone."""
        return (self.checkpoint is None or self.fine_tune) and not self.card.comes_trained

    @property
    def saw_elsewhere(self) -> str | None:
        """See `saw`; None of a network that naskd trains, unless the study says what its weights saw before."""
        return None if self.trained_here and self.saw == TeacherSpec.saw else self.saw

    @property
    def holds_state(self) -> bool:
        """Whether `checkpoint` holds weights that naskd loads into the network that the source builds."""
        return self.checkpoint is not None and not self.card.own_file

    @property
    def _finds(self) -> bool:
        """Whether the source looks for the checkpoint, or may: who registers it may not be imported yet."""
        return self.source is not None and (self.source not in TEACHER_SOURCES or bool(self.card.finds))

    @property
    def card(self) -> TeacherSourceCard:
        """Of its source, a key of its own or a registered one.

        Raises:
            UnknownNameError: Nothing is registered under that name.
        """
        return TEACHER_SOURCES[self.source_name]
