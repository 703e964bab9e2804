"""The design of one trial: architecture, distillation, training. Frozen, validated, JSON round trip.

Everything here is plain data: no torch, no optuna, no ray. Construction validates, so that an impossible value
never travels further than the line that wrote it.
"""

import hashlib
import json
import math
from dataclasses import field, replace
from functools import cache, cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from naskd.spec.errors import InputError
from naskd.spec.option import Options

STRICT = ConfigDict(extra="forbid", validate_default=True, defer_build=True)
"""Validators are built when a type is first used: most commands use few of the types that they import."""


def _plain_zero(value: float) -> float:
    return value + 0.0  # -0.0 is 0.0, and has another name in JSON


def _whole(value: Any) -> Any:
    """1e6 is the natural way to write a million; TOML reads it as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Large = BeforeValidator(_whole)
"""Of a whole number that is often a large one: it may be written as 2e6."""

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1), AfterValidator(_plain_zero)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_plain_zero)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Pairs = Literal["last", "middle", "first", "all", "learned"]
Weighting = Literal["paper", "balanced"]
Bits = Literal[32, 8, 4]
Activation = Literal["relu", "relu6", "silu", "hardswish", "gelu"]
BlockActivation = Literal["own", "relu", "relu6", "silu", "hardswish", "gelu"]
Downsampling = Literal["strided", "average_pooling", "max_pooling"]
Stem = Literal["convolution", "patches"]

FLOAT_BITS: Literal[32] = 32
"""Of a weight or an activation in floating point."""

INTEGER_BITS: Literal[8] = 8
"""Of every activation between integer layers, and of the weights of a network's first and last one."""

MOST_BLOCKS, MOST_CHANNELS, MOST_TIMES, MOST_STAGES = 1000, 65536, 1000.0, 100
"""Of a stage and of a network: far above what anybody trains, so that a slip is an error and no endless build."""

MOST_UNLABELLED = 100
"""Unlabelled images that come with each labelled one, at most."""

FIRST_FAMILY = "cnn"
"""The family of networks of an architecture that names none."""

OWN: Literal["own"] = "own"
"""The activation of a stage whose blocks have that of their paper."""

STRIDED: Literal["strided"] = "strided"
"""The down-sampling of a stage whose first block has the stride."""

CONVOLUTION: Literal["convolution"] = "convolution"
"""The stem whose windows overlap."""

MOST_RESOLUTION = 4096
"""Side to which a student resizes its images, at most."""

SCRATCH = "scratch"
"""The start of a training that begins with random weights."""


@dataclass(frozen=True, config=STRICT)
class StageSpec:
    """A run of blocks at one resolution.

    Args:
        block: Name of a registered block.
        depth: Number of blocks, 1 to 1,000; the first one carries the stride.
        width: Output channels of the stage, 1 to 65,536.
        kernel: Side of the square kernel, odd.
        expansion: Ratio of a block's hidden width to its output width (``bottleneck``: below 1; to its input width for
            ``inverted_residual``: above 1); blocks without a hidden width ignore it.
        stride: Of the first block, 1 or 2.
        squeeze_excitation: Channel attention (Hu et al., 2018, arXiv 1709.01507) where the block has a place for it.
        bits: Of the stage's weights: 32 for floating point, or 8 or 4 for integers. Below 32 its layers read and hand
            on maps of 8 bits, and so do the network's first and last layer, whose weights then have 8 bits.
        activation: Of the blocks: ``own`` for that of their paper, ``relu``, ``relu6``, ``silu`` (swish: Ramachandran
            et al., 2017, arXiv 1710.05941), ``hardswish`` (Howard et al., ICCV 2019, arXiv 1905.02244), or ``gelu``
            (Hendrycks & Gimpel, 2016, arXiv 1606.08415).
        downsampling: What a stride of 2 means: ``strided``, the first block's convolutions have it. ``average_pooling``
            of 2x2 (He et al., CVPR 2019, arXiv 1812.01187, section 4) or ``max_pooling`` of 3x3 (He et al., CVPR 2016,
            arXiv 1512.03385, table 1): the map is pooled before the first block, which then has no stride.
    """

    block: str
    depth: Annotated[int, Field(ge=1, le=MOST_BLOCKS)]
    width: Annotated[int, Field(ge=1, le=MOST_CHANNELS)]
    kernel: Annotated[int, Field(ge=1, le=15)] = 3
    expansion: Annotated[float, Field(gt=0, le=MOST_TIMES, allow_inf_nan=False)] = 1.0
    stride: Literal[1, 2] = 1
    squeeze_excitation: bool = False
    # Written only where it says something, like the family of an architecture.
    bits: Annotated[Bits, Field(exclude_if=lambda bits: bits == FLOAT_BITS)] = FLOAT_BITS
    activation: Annotated[BlockActivation, Field(exclude_if=lambda name: name == OWN)] = OWN
    downsampling: Annotated[Downsampling, Field(exclude_if=lambda name: name == STRIDED)] = STRIDED

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise InputError(
                f"kernel must be odd, got {self.kernel}; use {self.kernel - 1} or {self.kernel + 1}"
            )


@dataclass(frozen=True, config=STRICT)
class ArchitectureSpec:
    """A classifier of a family of networks.

    The first family is ``cnn``: a stem, stages, global average pooling and a linear classifier.

    Args:
        stages: Shallow to deep; ``cnn`` needs at least one, other families as their card says.
        stem_width: Channels after the stem's convolution.
        stem_kernel: Side of the stem's kernel, odd.
        stem_stride: 1, 2 or 4.
        stem_pool: Whether 3x3 max-pooling of stride 2 follows the stem, as in ResNets for large images.
        family: Name of a registered network family.
        options: Further settings of the family as (name, value) pairs, sorted by name; its card lists them.
        stem_activation: After the stem's convolution; for the names see :class:`StageSpec`.
        stem: ``convolution``, or ``patches`` that do not overlap, of ``stem_stride`` pixels a side, each turned into a
            vector (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929; Liu et al., CVPR 2022, arXiv 2201.03545, section
            2.2). ``stem_kernel`` then means nothing.
        resolution: Side of the square to which the student resizes its images, 1 to 4,096; None for as they are.
            Teachers see them as they are, and so does whoever uses the student.
    """

    stages: Annotated[tuple[StageSpec, ...], Field(max_length=MOST_STAGES)] = ()
    stem_width: Annotated[int, Field(ge=1, le=MOST_CHANNELS)] = 16
    stem_kernel: Literal[1, 3, 5, 7] = 3
    stem_stride: Literal[1, 2, 4] = 1
    # Written only where they say something: what was written before there were families is still what is written.
    stem_pool: Annotated[bool, Field(exclude_if=lambda pool: not pool)] = False
    family: Annotated[str, Field(exclude_if=lambda name: name == FIRST_FAMILY)] = FIRST_FAMILY
    options: Annotated[Options, Field(exclude_if=lambda options: not options)] = ()
    stem_activation: Annotated[Activation, Field(exclude_if=lambda name: name == "relu")] = "relu"
    stem: Annotated[Stem, Field(exclude_if=lambda name: name == CONVOLUTION)] = CONVOLUTION
    resolution: Annotated[
        Annotated[int, Field(ge=1, le=MOST_RESOLUTION)] | None, Field(exclude_if=lambda side: side is None)
    ] = None

    def __post_init__(self) -> None:
        if self.family == FIRST_FAMILY and not self.stages:
            raise InputError(f"an architecture of the family {FIRST_FAMILY!r} needs stages, at least one")

    @property
    def is_quantized(self) -> bool:
        """Whether a stage has weights of less than 32 bits."""
        return any(stage.bits < FLOAT_BITS for stage in self.stages)


@dataclass(frozen=True, config=STRICT)
class KnowledgeTerm:
    """One kind of knowledge that the student is taught.

    Args:
        kind: Name of a registered knowledge loss.
        weight: Multiplier of the loss, in [0, inf). What it multiplies is said by `weighting`.
        weighting: ``"paper"``: the published constant of the method, valid at its batch size and resolution.
            ``"balanced"``: the factor that gives the term, at step 0 and at its tap, a gradient of the norm of
            cross-entropy's.
        temperature: Softmax temperature; losses without one ignore it.
        pairs: Which stages are matched, for losses on stages: the ``last``, the ``middle`` or ``first``
            pair, ``all``, or ``learned`` (every stage with every other, by weights that are trained).
        source: Index into ``DistillationSpec.teachers``.
        options: Further settings of the loss as (name, value) pairs, sorted by name; its card lists them.
    """

    kind: str
    weight: NonNegative = 1.0
    weighting: Weighting = "paper"
    temperature: Positive = 4.0
    pairs: Pairs = "last"
    source: Annotated[int, Field(ge=0)] = 0
    options: Options = ()

    def canonical(self, n_stages: int | None) -> "KnowledgeTerm":
        """Of pairs that mean the same on a network of `n_stages` (None: not known), one."""
        if n_stages is None or self.pairs == "learned":
            return self
        if n_stages <= 1:
            return replace(self, pairs=KnowledgeTerm.pairs)
        return replace(self, pairs="first") if n_stages == 2 and self.pairs == "middle" else self


def _check_terms(terms: tuple[KnowledgeTerm, ...], ce_weight: float, n_teachers: int) -> None:
    for index, term in enumerate(terms):
        if term.source >= n_teachers:
            raise InputError(
                f"terms[{index}].source is {term.source}, but there are {n_teachers} teachers; "
                f"allowed: 0 to {n_teachers - 1}"
            )
    if ce_weight == 0 and not any(term.weight > 0 for term in terms):
        raise InputError(
            "ce_weight is 0 and no knowledge term has a positive weight: nothing would be learned"
        )


def _canonical_terms(terms: tuple[KnowledgeTerm, ...]) -> tuple[KnowledgeTerm, ...]:
    # All fields are in the key: two terms of one kind with two temperatures are a design that spaces can propose.
    return tuple(
        sorted((t for t in terms if t.weight > 0), key=lambda t: (t.kind, t.source, t.pairs, repr(t)))
    )


@dataclass(frozen=True, config=STRICT)
class TrainingSpec:
    """How a network is trained.

    Args:
        epochs: The horizon of the schedule. Rung epochs of a stopping rule are not part of a design.
        batch_size: At least 2, since a batch of one has no batch statistics.
        optimizer: ``adamw`` (Loshchilov & Hutter, 2019, arXiv 1711.05101) or ``sgd`` with Nesterov momentum.
        learning_rate: Peak of the schedule.
        weight_decay: Decoupled for ``adamw``, L2 for ``sgd``; never of biases, normalisation, scales, tokens,
            embeddings and positions.
        momentum: Of ``sgd``; ``adamw`` uses it as its first beta.
        schedule: ``one_cycle`` (linear warm-up, then cosine to zero; Smith & Topin, 2018, arXiv 1708.07120) or
            ``cosine`` (no warm-up; Loshchilov & Hutter, 2017, arXiv 1608.03983).
        augmentation: Which views of an image are drawn: ``none``, ``translate``, ``flip``, ``flip_translate``, or
            ``resized_crop`` for larger images (a crop of 25 to 100 % of the area, resized, mirrored or not).
        mixing: ``mixup`` (Zhang et al., ICLR 2018, arXiv 1710.09412) or ``cutmix`` (Yun et al., ICCV 2019, arXiv
            1905.04899) of pairs of images and their labels, after the views. A mixed image is never seen twice, so
            that nothing that a teacher said of it can be remembered: it is run at every step.
        mixing_alpha: Both parameters of the Beta distribution that an image's share is drawn from, in (0, 100].
        class_weights: What an image counts in the cross-entropy with its label, by its class: all the same (``none``),
            as much as all images of another class together (``balanced``: N / (K n_k), as in scikit-learn; King & Zeng,
            Political Analysis 9, 2001), or one number for each class in the order of the classes. Only their
            proportions count: over the training split the mean weight is 1. What teachers say is not weighted.
            Differs: torch's weighted mean divides by the weights of each batch, which changes the step with the batch.
        start: Which weights a student begins with: ``scratch``, random ones; or those of the study's teacher of that
            name, of whose filters as many are kept as the student has.
    """

    epochs: PositiveInt = 20
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 3e-3
    weight_decay: NonNegative = 1e-2
    momentum: Annotated[float, Field(ge=0, lt=1), AfterValidator(_plain_zero)] = 0.9
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    augmentation: Literal["none", "translate", "flip", "flip_translate", "resized_crop"] = "translate"
    mixing: Literal["none", "mixup", "cutmix"] = "none"
    mixing_alpha: Annotated[float, Field(gt=0, le=100)] = 1.0
    # Written only where they say something: what was written before is still what is written.
    class_weights: Annotated[
        Literal["none", "balanced"] | Annotated[tuple[Positive, ...], Field(min_length=2)],
        Field(exclude_if=lambda weights: weights == "none"),
    ] = "none"
    start: Annotated[str, Field(min_length=1, exclude_if=lambda start: start == SCRATCH)] = SCRATCH

    def canonical(self) -> "TrainingSpec":
        """The same training written in one way."""
        found = self if self.mixing != "none" else replace(self, mixing_alpha=TrainingSpec.mixing_alpha)
        if isinstance(found.class_weights, tuple):
            least = min(found.class_weights)
            # Digits beyond these are rounding: 0.3 / 0.1 is not quite 3.
            proportions = tuple(float(f"{weight / least:.12g}") for weight in found.class_weights)
            if math.isfinite(max(proportions)):
                found = replace(found, class_weights="none" if set(proportions) == {1.0} else proportions)
        return found


def weights_problem(class_weights: str | tuple[float, ...], n_classes: int) -> str:
    """Why a training's `class_weights` cannot be those of the classes; empty where they can."""
    if isinstance(class_weights, str) or len(class_weights) == n_classes:
        return ""
    return (
        f"class_weights has {len(class_weights)} numbers, the data {n_classes} classes; allowed: one for each, in "
        "their order"
    )


def check_starts_from_scratch(training: TrainingSpec, whose: str) -> None:
    """Refuse another start of what students learn from.

    Raises:
        InputError: It is another.
    """
    if training.start != SCRATCH:
        raise InputError(
            f"training.start of {whose} is {training.start!r}; allowed: {SCRATCH!r}: only students start from a teacher"
        )


@dataclass(frozen=True, config=STRICT)
class AssistantSpec:
    """A teacher assistant (Mirzadeh et al., AAAI 2020, arXiv 1902.03393): an intermediate network, distilled first.

    Its training is fixed here rather than shared with the student's, so that all trials that want the same assistant
    mean the same network, which is then trained once.
    """

    architecture: ArchitectureSpec
    training: TrainingSpec = field(default_factory=TrainingSpec)
    # A factory: an instance, made here, would build validators at import.
    terms: tuple[KnowledgeTerm, ...] = field(default_factory=lambda: (KnowledgeTerm("logits"),))
    ce_weight: NonNegative = 1.0

    def __post_init__(self) -> None:
        _check_terms(self.terms, self.ce_weight, n_teachers=1)
        check_starts_from_scratch(self.training, "an assistant")

    def canonical(self) -> "AssistantSpec":
        """The same training written in one way; see :meth:`DistillationSpec.canonical`."""
        terms = _canonical_terms(self.terms)
        ce_weight = self.ce_weight if terms else 1.0
        return AssistantSpec(self.architecture, self.training.canonical(), terms, ce_weight)


@dataclass(frozen=True, config=STRICT)
class DistillationSpec:
    """How the student is taught. The total loss is ``ce_weight * CE + sum_i weight_i * K_i``.

    Args:
        scheme: Name of a registered scheme.
        terms: Knowledge losses; empty means no distillation.
        ce_weight: Weight of the cross-entropy with the labels.
        teachers: Names of the study's teachers; terms point into this tuple.
        assistants: A chain of teacher assistants from the teacher down; the student is then taught by the last one.
        scheme_options: Further settings of the scheme as (name, value) pairs, sorted by name; its card lists them.
        teacher_state: The first teacher as it was after this share of the epochs of its own training (Wang et al.,
            NeurIPS 2022, arXiv 2210.06458), above 0; 1 for its end. It stands where a first assistant would.
        unlabelled: Images of ``data.unlabelled`` that come with each labelled one, 0 to 100. An epoch has so many more,
            and others than the last one until all were shown. Terms teach on all images, labels on the labelled ones.
    """

    terms: tuple[KnowledgeTerm, ...] = ()
    ce_weight: NonNegative = 1.0
    scheme: str = "offline"
    teachers: Annotated[tuple[str, ...], Field(min_length=1)] = ("teacher",)
    assistants: tuple[AssistantSpec, ...] = ()
    scheme_options: Options = ()
    # Written only where it says something, like the family of an architecture.
    teacher_state: Annotated[float, Field(gt=0, le=1, exclude_if=lambda share: share == 1)] = 1.0
    unlabelled: Annotated[int, Field(ge=0, le=MOST_UNLABELLED, exclude_if=lambda n: n == 0)] = 0

    def __post_init__(self) -> None:
        _check_terms(self.terms, self.ce_weight, n_teachers=len(self.teachers))

    def canonical(self) -> "DistillationSpec":
        """The same training written in one way.

        Terms of weight 0 teach nothing and go; without terms no assistant, no state of a teacher and no unlabelled
        image is needed; terms are sorted, since their sum does not depend on their order. Spaces return canonical
        designs, so that ``config_id`` finds duplicates.
        """
        terms = _canonical_terms(self.terms)
        return DistillationSpec(
            terms=terms,
            ce_weight=self.ce_weight if terms else 1.0,
            scheme=self.scheme,
            teachers=self.teachers,
            assistants=tuple(a.canonical() for a in self.assistants) if terms else (),
            scheme_options=tuple(sorted(self.scheme_options)),
            teacher_state=self.teacher_state if terms else 1.0,
            unlabelled=self.unlabelled if terms else 0,
        )


@dataclass(frozen=True, config=STRICT)
class TrialConfig:
    """One design: what is trained, how it is taught, how it is trained."""

    architecture: ArchitectureSpec
    distillation: DistillationSpec = field(default_factory=DistillationSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)

    @cached_property
    def config_id(self) -> str:
        """Twelve hexadecimal digits that name the design; equal designs have equal names.

        Fields at their default are left out of the hash, so that a field added later, at a default that means "as
        before", does not rename the designs of older runs.
        """
        return content_id(_trial().dump_python(self, mode="json", exclude_defaults=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(_trial().dump_python(self, mode="json"))

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "TrialConfig":
        """The inverse of :meth:`to_dict`.

        Raises:
            InputError: A key is unknown, missing or out of range.
        """
        try:
            return _trial().validate_python(data)
        except ValidationError as error:
            raise InputError(f"no design of this version of naskd: {first_line(error)}") from error


@cache
def _trial() -> TypeAdapter[TrialConfig]:
    return TypeAdapter(TrialConfig)


@dataclass(frozen=True)
class Cost:
    """What a deployed network costs.

    Args:
        macs: Multiply-accumulates of one forward pass of one image: convolutions and matrix products only.
            FLOPs = 2 x MACs.
        n_params: Trainable parameters.
        size_bytes: Parameters and buffers as stored in 32 bits. Of an integer layer: its weights at their bits, and
            for each output channel a scale and a bias of 32 bits, into which BatchNorm is folded. Scale and zero point
            of the maps between layers, 5 bytes each, are left out.
        bit_ops: MACs, each times the bits of the weight and the bits of the activation, which are 32 in floating point.
            0 stands for 32 x 32 everywhere.
        unmerged_macs: Of the network as it trains, whose branches are merged where it leaves (``rep_vgg``); 0 stands
            for `macs`.
    """

    macs: int
    n_params: int
    size_bytes: int
    bit_ops: int = 0
    unmerged_macs: int = 0

    def __post_init__(self) -> None:
        if self.bit_ops == 0:
            object.__setattr__(self, "bit_ops", self.macs * FLOAT_BITS**2)
        if self.unmerged_macs == 0:
            object.__setattr__(self, "unmerged_macs", self.macs)

    def deployed(self) -> dict[str, int]:
        """By name, of what leaves."""
        return {name: getattr(self, name) for name in ("macs", "n_params", "size_bytes", "bit_ops")}


def first_line(error: ValidationError) -> str:
    """The first mistake that pydantic found, with its place: ``training.epochs: Input should be ...``."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def content_id(data: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of `data` as canonical JSON."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
