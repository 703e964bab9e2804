"""Parts from which search spaces are made.

A search space is a function from a trial to a :class:`~naskd.spec.design.TrialConfig`: pure (the same values
give the same design), fast, without torch. The parts here keep two rules that samplers need:

- Every parameter is suggested in every trial, with the same range. NSGA-II crosses only parameters that all
  trials have in common and draws the rest anew; TPE does as well or better that way. What a choice
  switches off (the width of a third stage in a network of two) is left out of the design instead.
- Designs are canonical: whatever does not change the training is at its default, so that trials which
  differ in inactive parameters only have one ``config_id`` and are trained once.

Parameter names have dots (``stage1.width``, ``kd.logits.temperature``), never slashes. A range with one
value is a constant and no parameter.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal

from naskd.reducing import suggest_from_module as suggest_from_module
from naskd.resnets import resnet_like as resnet_like
from naskd.spec.canonical import canonical as canonical  # part of this face: spaces call it
from naskd.spec.design import (
    CONVOLUTION,
    FLOAT_BITS,
    OWN,
    STRIDED,
    ArchitectureSpec,
    AssistantSpec,
    Bits,
    BlockActivation,
    DistillationSpec,
    Downsampling,
    KnowledgeTerm,
    Pairs,
    StageSpec,
    Stem,
    TrainingSpec,
    Weighting,
)
from naskd.spec.errors import InputError, UnknownNameError
from naskd.spec.option import Options
from naskd.spec.registry import nearest
from naskd.suggesting import OptionRange as OptionRange
from naskd.suggesting import Range as Range
from naskd.suggesting import RealRange as RealRange
from naskd.suggesting import SearchSpace as SearchSpace
from naskd.suggesting import Trial as Trial
from naskd.suggesting import choose, suggest_int, suggest_log, suggest_option
from naskd.supervising import check_has_stages
from naskd.supervising import suggest_chain as suggest_chain
from naskd.supervising import suggest_teachers as suggest_teachers
from naskd.teachings import Beside as Beside
from naskd.teachings import Response as Response
from naskd.teachings import TeachingPreset as TeachingPreset
from naskd.teachings import suggest_teaching as suggest_teaching

Stride = Literal[1, 2]
StemStride = Literal[1, 2, 4]


@dataclass(frozen=True)
class BlockChoice:
    """A block that stages may be made of.

    Args:
        name: Of a registered block.
        expansions: Values to choose from, for blocks that have a hidden width; empty where it has none.
        squeeze_excitation: Whether channel attention is a choice.
        repeats: How many of them stand for one of a stage's depth: 2 of one convolution for a ``basic`` block of two.
    """

    name: str
    expansions: tuple[float, ...] = ()
    squeeze_excitation: bool = False
    repeats: int = 1


@dataclass(frozen=True)
class StageChoice:
    """What one stage may be.

    Args:
        width: Range of output channels, searched on a logarithmic scale.
        depth: Range of the number of blocks.
        strides: Of its first block, to choose from.
        multiple: Widths are rounded to multiples of this, which hardware likes; bounds are multiples of it.
    """

    width: Range
    depth: Range = (1, 2)
    strides: tuple[Stride, ...] = (2,)
    multiple: int = 4


@dataclass(frozen=True)
class KnowledgeChoice:
    """A kind of knowledge that may be taught.

    Args:
        kind: Name of a registered knowledge loss.
        weight: Range of the multiplier, searched on a logarithmic scale.
        temperature: Range, searched on a logarithmic scale; None for kinds that have no temperature.
        pairs: Which stages are matched, to choose from; leave it at its default for kinds on logits or
            pooled features.
        weighting: ``balanced`` by default: students of many sizes need factors of many sizes.
        options: Fixed settings of the loss, sorted by name.
        ranges: Settings that are searched, each with its range above 0, on a logarithmic scale.
    """

    kind: str
    weight: RealRange = (0.1, 10.0)
    temperature: RealRange | None = None
    pairs: tuple[Pairs, ...] = ("last",)
    weighting: Weighting = "balanced"
    options: Options = ()
    ranges: tuple[tuple[str, RealRange], ...] = ()


def suggest_architecture(
    trial: Trial,
    stages: Sequence[StageChoice],
    *,
    blocks: Sequence[BlockChoice],
    min_stages: int | None = None,
    kernels: Sequence[int] = (3,),
    stem_width: Range = (8, 16),
    stem_strides: Sequence[StemStride] = (1,),
    shared_block: bool = True,
    bits: Sequence[Bits] = (FLOAT_BITS,),
    activations: Sequence[BlockActivation] = (OWN,),
    downsamplings: Sequence[Downsampling] = (STRIDED,),
    stems: Sequence[Stem] = (CONVOLUTION,),
    resolutions: Sequence[int | None] = (None,),
) -> ArchitectureSpec:
    """Suggest a convolutional network.

    Parameters: ``stages``, ``stem.width``, ``stem.stride``, ``stem.form``, ``activation``, ``downsampling`` and
    ``resolution`` of the network; for each stage i from 1 ``stage<i>.width``,
    ``.depth``, ``.stride`` and ``.bits``; ``block``, ``kernel``, ``block.<name>.expansion`` and
    ``block.<name>.squeeze_excitation``, once for the network, or for each stage as ``stage<i>.block``...

    Args:
        trial: Where values come from.
        stages: All stages that there may be, shallow to deep.
        blocks: To choose from.
        min_stages: Fewest stages; None takes all of them always.
        kernels: Sides of the kernels, odd.
        stem_width: Channels after the stem, rounded to even numbers.
        stem_strides: To choose from.
        shared_block: One block, kernel and expansion for the whole network: a much smaller space. False
            lets every stage choose its own.
        bits: Of each stage's weights, to choose from: 32, 8, 4.
        activations: Of the whole network, to choose from: ``own`` leaves each block that of its paper, and the stem
            ReLU.
        downsamplings: Of all stages with a stride of 2, to choose from: ``strided``, ``average_pooling``,
            ``max_pooling``.
        stems: To choose from: ``convolution`` or ``patches`` of the stem's stride.
        resolutions: Sides to which a student resizes its images, to choose from; None: not at all.
    """
    n_stages = suggest_int(trial, "stages", (len(stages) if min_stages is None else min_stages, len(stages)))
    width = _rounded(suggest_int(trial, "stem.width", stem_width, log=True), 2)
    stride = choose(trial, "stem.stride", stem_strides)
    form = choose(trial, "stem.form", stems)
    activation = choose(trial, "activation", activations)
    downsampling = choose(trial, "downsampling", downsamplings)
    resolution = choose(trial, "resolution", resolutions)
    shared = _suggest_block(trial, "", blocks, kernels) if shared_block else None
    suggested = []
    for number, stage in enumerate(stages, start=1):
        chosen = shared or _suggest_block(trial, f"stage{number}.", blocks, kernels)
        found = StageSpec(
            width=_rounded(suggest_int(trial, f"stage{number}.width", stage.width, log=True), stage.multiple),
            depth=chosen.repeats * suggest_int(trial, f"stage{number}.depth", stage.depth),
            stride=choose(trial, f"stage{number}.stride", stage.strides),
            bits=choose(trial, f"stage{number}.bits", bits),
            **chosen.settings,
        )
        pooled = downsampling if found.stride > 1 else STRIDED
        suggested.append(replace(found, activation=activation, downsampling=pooled))
    return ArchitectureSpec(
        stages=tuple(suggested[:n_stages]),
        stem_width=width,
        stem_stride=stride,
        stem=form,
        stem_activation="relu" if activation == OWN else activation,
        resolution=resolution,
    )


def suggest_transformer(
    trial: Trial,
    *,
    patches: Sequence[int] = (4,),
    depth: Range = (2, 8),
    heads: Range = (1, 4),
    head_widths: Sequence[int] = (16, 32),
    mlp_ratios: Sequence[float] = (2.0, 4.0),
    stages: int = 3,
    resolutions: Sequence[int | None] = (None,),
) -> ArchitectureSpec:
    """Suggest a vision transformer, of the family ``vit``.

    Parameters: ``vit.patch``, ``vit.depth``, ``vit.heads``, ``vit.head_width``, ``vit.mlp_ratio`` and
    ``vit.resolution``. So the width, heads times their width, can always be shared by the heads.

    Args:
        trial: Where values come from.
        patches: Sides of the patches in pixels.
        depth: Range of the number of layers.
        heads: Range of their number.
        head_widths: Features of a head, multiples of 4.
        mlp_ratios: Hidden features of the MLP as a multiple of the width.
        stages: Groups of layers that are shown to losses; a shallower student has as many as layers.
        resolutions: Sides to which a student resizes its images, to choose from; None: not at all.
    """
    layers = suggest_int(trial, "vit.depth", depth)
    n_heads = suggest_int(trial, "vit.heads", heads)
    width = n_heads * choose(trial, "vit.head_width", head_widths)
    options: Options = (
        ("depth", layers),
        ("heads", n_heads),
        ("mlp_ratio", choose(trial, "vit.mlp_ratio", mlp_ratios)),
        ("patch", choose(trial, "vit.patch", patches)),
        ("stages", min(stages, layers)),
        ("width", width),
    )
    return ArchitectureSpec(
        family="vit", options=options, resolution=choose(trial, "vit.resolution", resolutions)
    )


def suggest_simplified(
    trial: Trial,
    teacher: ArchitectureSpec,
    *,
    least: float = 0.25,
    most: float = 1.0,
    multiple: int = 4,
    strides: Sequence[Stride] = (),
    bits: Sequence[Bits] = (),
    blocks: Sequence[BlockChoice] = (),
    fewer_blocks: bool = True,
) -> ArchitectureSpec:
    """Suggest a simplified version of a teacher: fewer channels, fewer blocks, coarser maps, cheaper blocks.

    Such a student can begin with the teacher's strongest filters: see `starts` of :func:`suggest_training`.

    Parameters: ``stem.width``, and for each stage i from 1 ``stage<i>.width``, ``.depth``, ``.stride``, ``.bits`` and
    ``.block``; for each of `blocks` that has them ``stage<i>.block.<name>.expansion`` and ``.squeeze_excitation``.

    Args:
        trial: Where values come from.
        teacher: Students have at most its widths and depths; kernels are its own. Of a teacher of torchvision or timm
            it is :func:`resnet_like`.
        least: Share of the teacher's channels, above 0, searched from there up on a logarithmic scale.
        most: To which share, at most 1.
        multiple: Widths are rounded to multiples of this, but for the teacher's own.
        strides: Of each stage's first block, to choose from; empty: the teacher's.
        bits: Of each stage's weights, to choose from: 32, 8, 4; empty: the teacher's.
        blocks: What stages may be made of in place of the teacher's blocks. One stage always keeps those: the first,
            where all were to have others. A stage of others begins with random weights. Empty: the teacher's.
        fewer_blocks: Whether depths are searched. False: students have the teacher's, so that their stages see as many
            pixels; the scheme ``progressive_blockwise`` asks for that.

    Raises:
        InputError: `least` and `most` are no such shares, or the teacher has no stages.
    """
    check_has_stages(teacher, "suggest_simplified")
    if not 0 < least <= most <= 1:
        raise InputError(
            f"least is {least:g} and most is {most:g}; allowed: above 0 and at most 1, and least no more than most"
        )

    def width(name: str, full: int) -> int:
        low, high = (min(full, _rounded(round(share * full), multiple)) for share in (least, most))
        return min(full, _rounded(suggest_int(trial, name, (low, high), log=True), multiple))

    def simplified(number: int, stage: StageSpec) -> tuple[StageSpec, StageSpec]:
        """With the teacher's blocks, and with those that are chosen."""
        kept = replace(
            stage,
            width=width(f"stage{number}.width", stage.width),
            depth=suggest_int(
                trial, f"stage{number}.depth", (1 if fewer_blocks else stage.depth, stage.depth)
            ),
            stride=choose(trial, f"stage{number}.stride", tuple(strides) or (stage.stride,)),
            bits=choose(trial, f"stage{number}.bits", tuple(bits) or (stage.bits,)),
        )
        offered = [BlockChoice(stage.block), *(block for block in blocks if block.name != stage.block)]
        chosen = _suggest_block(trial, f"stage{number}.", offered, (stage.kernel,))
        if chosen.settings["block"] == stage.block:
            return kept, kept
        plain = {"expansion": StageSpec.expansion, "squeeze_excitation": StageSpec.squeeze_excitation}
        return kept, replace(kept, depth=chosen.repeats * kept.depth, **(plain | dict(chosen.settings)))

    both = [simplified(number, stage) for number, stage in enumerate(teacher.stages, start=1)]
    stages = [chosen for _, chosen in both]
    if all(mine.block != theirs.block for mine, theirs in zip(stages, teacher.stages, strict=True)):
        stages[0] = both[0][0]
    return replace(teacher, stages=tuple(stages), stem_width=width("stem.width", teacher.stem_width))


def suggest_distillation(
    trial: Trial,
    kinds: Sequence[KnowledgeChoice],
    *,
    slots: int | None = None,
    assistants: Mapping[str, AssistantSpec] | None = None,
    schemes: Sequence[str] = ("offline",),
    ce_weight: float = 1.0,
    teachers: Sequence[str] = ("teacher",),
    scheme_options: Mapping[str, Mapping[str, OptionRange]] | None = None,
    alone: Sequence[str] = (),
) -> DistillationSpec:
    """Suggest how a student is taught: any subset of `kinds`, the empty one (no distillation) included.

    Parameters: for each kind ``kd.<kind>.use``, ``.weight``, ``.temperature`` and ``.pairs``; ``kd.assistant``,
    ``none`` or a key of `assistants`; ``kd.scheme``; ``kd.<kind>.<option>`` for each of a kind's `ranges`; and
    ``kd.<scheme>.<option>`` for each of `scheme_options`.

    With `slots`, at most that many kinds, for long lists of them: for each slot i from 1 ``kd.<i>.kind`` (``none`` or a
    kind), ``.weight``, ``.temperature`` and ``.pairs``. A slot's ranges are those of all kinds together; a weight or
    temperature outside of its kind's own range is moved to the nearer end, and pairs that its kind does not offer
    become the kind's first.

    Args:
        trial: Where values come from.
        kinds: Kinds of knowledge, each at most once.
        slots: Most kinds at once, at least 1; None for any number.
        assistants: Intermediate networks by name.
        schemes: Names of registered schemes, to choose from.
        ce_weight: Of the cross-entropy with the labels; each kind has a weight of its own beside it.
        teachers: Names of the study's teachers, to choose one from: ``kd.teacher``.
        scheme_options: For each scheme, settings that are searched: by name, what each may be. A design keeps those of
            its own scheme.
        alone: Schemes among `schemes` that take no knowledge terms. Where one of them is chosen, no kind is used.

    Raises:
        InputError: `scheme_options` or `alone` names a scheme that is no choice, or a kind of knowledge has such a
            parameter.
    """
    terms = _any_subset(trial, kinds) if slots is None else _some(trial, kinds, slots)
    for name in alone:
        _check_scheme(name, "alone", schemes)
    named = dict(assistants or {})
    assistant = choose(trial, "kd.assistant", ("none", *named))
    chain = () if assistant == "none" else (named[assistant],)
    scheme = choose(trial, "kd.scheme", schemes)
    teacher = choose(trial, "kd.teacher", teachers)
    taken = {f"{choice.kind}.{name}" for choice in kinds for name in _settings_of(choice)}
    settings = _suggest_scheme_options(trial, scheme_options or {}, schemes, taken)
    spec = DistillationSpec(
        terms=() if scheme in alone else tuple(terms),
        ce_weight=1.0 if scheme in alone else ce_weight,
        scheme=scheme,
        teachers=(teacher,),
        assistants=chain,
        scheme_options=settings.get(scheme, ()),
    )
    return spec.canonical()


def _settings_of(choice: KnowledgeChoice) -> tuple[str, ...]:
    return ("use", "weight", "temperature", "pairs", *(name for name, _ in choice.ranges))


def _suggest_scheme_options(
    trial: Trial,
    searched: Mapping[str, Mapping[str, OptionRange]],
    schemes: Sequence[str],
    taken: Set[str],
) -> dict[str, Options]:
    """Of each scheme, whichever is chosen, so that all trials have the same parameters."""
    found: dict[str, Options] = {}
    for scheme, options in searched.items():
        _check_scheme(scheme, "scheme_options", schemes)
        if clash := sorted(name for name in options if f"{scheme}.{name}" in taken):
            raise InputError(f"kd.{scheme}.{clash[0]} is a parameter of the knowledge {scheme!r} already")
        found[scheme] = tuple(
            (name, suggest_option(trial, f"kd.{scheme}.{name}", options[name])) for name in sorted(options)
        )
    return found


def _check_scheme(name: str, where: str, schemes: Sequence[str]) -> None:
    if name not in schemes:
        raise UnknownNameError(
            f"{where} names {name!r}; the schemes to choose from are {', '.join(schemes)}{nearest(name, schemes)}"
        )


def _any_subset(trial: Trial, kinds: Sequence[KnowledgeChoice]) -> list[KnowledgeTerm]:
    terms = []
    for choice in kinds:
        prefix = f"kd.{choice.kind}"
        use = choose(trial, f"{prefix}.use", (False, True))
        weight = suggest_log(trial, f"{prefix}.weight", choice.weight)
        pairs = choose(trial, f"{prefix}.pairs", choice.pairs)
        temperature = None
        if choice.temperature is not None:
            temperature = suggest_log(trial, f"{prefix}.temperature", choice.temperature)
        term = _term(choice, weight, pairs, temperature, _suggest_options(trial, choice))
        if use:
            terms.append(term)
    return terms


def _some(trial: Trial, kinds: Sequence[KnowledgeChoice], slots: int) -> list[KnowledgeTerm]:
    by_name = {choice.kind: choice for choice in kinds}
    options = {choice.kind: _suggest_options(trial, choice) for choice in kinds}
    weights = [choice.weight for choice in kinds]
    weight_range = (min(low for low, _ in weights), max(high for _, high in weights))
    warm = [choice.temperature for choice in kinds if choice.temperature is not None]
    pairs = tuple(dict.fromkeys(pair for choice in kinds for pair in choice.pairs))
    terms: dict[str, KnowledgeTerm] = {}
    for slot in range(1, slots + 1):
        kind = choose(trial, f"kd.{slot}.kind", ("none", *by_name))
        weight = suggest_log(trial, f"kd.{slot}.weight", weight_range)
        chosen = choose(trial, f"kd.{slot}.pairs", pairs)
        temperature = None
        if warm:
            bounds = (min(low for low, _ in warm), max(high for _, high in warm))
            temperature = suggest_log(trial, f"kd.{slot}.temperature", bounds)
        if kind == "none" or kind in terms:
            continue
        choice = by_name[kind]
        if chosen not in choice.pairs:
            chosen = choice.pairs[0]
        weight = _within(weight, choice.weight)
        own = None
        if choice.temperature is not None and temperature is not None:
            own = _within(temperature, choice.temperature)
        terms[kind] = _term(choice, weight, chosen, own, options[kind])
    return list(terms.values())


def _within(value: float, bounds: RealRange) -> float:
    return min(max(value, bounds[0]), bounds[1])


def _suggest_options(trial: Trial, choice: KnowledgeChoice) -> Options:
    searched = {
        name: suggest_log(trial, f"kd.{choice.kind}.{name}", bounds) for name, bounds in choice.ranges
    }
    return tuple(sorted({**dict(choice.options), **searched}.items()))


def _term(
    choice: KnowledgeChoice, weight: float, pairs: Pairs, temperature: float | None, options: Options
) -> KnowledgeTerm:
    term = KnowledgeTerm(choice.kind, weight=weight, weighting=choice.weighting, pairs=pairs, options=options)
    return term if temperature is None else replace(term, temperature=temperature)


def suggest_training(
    trial: Trial,
    base: TrainingSpec,
    *,
    learning_rates: Mapping[str, RealRange] | None = None,
    weight_decay: RealRange | None = None,
    batch_sizes: Sequence[int] = (),
    augmentations: Sequence[str] = (),
    mixings: Sequence[str] = (),
    starts: Sequence[str] = (),
    class_weights: Sequence[str] = (),
) -> TrainingSpec:
    """Suggest how a student is trained.

    Parameters: ``train.optimizer``, ``train.<optimizer>.learning_rate``, ``train.weight_decay``,
    ``train.batch_size``, ``train.augmentation``, ``train.mixing``, ``train.start``, ``train.class_weights``.

    Args:
        trial: Where values come from.
        base: What is not searched.
        learning_rates: For each optimizer to choose from, its range, searched on a logarithmic scale. Each
            has its own parameter, since the same value means different things to them.
        weight_decay: Range, searched on a logarithmic scale.
        batch_sizes: To choose from.
        augmentations: To choose from.
        mixings: To choose from; of all but ``none`` the teacher is run at every step.
        starts: To choose from: ``scratch`` and names of teachers, such as ``teacher``, of which students are simplified
            versions; a design that is none is turned away.
        class_weights: To choose from: ``none`` and ``balanced``.
    """
    changes: dict[str, Any] = {}
    if learning_rates:
        optimizer = choose(trial, "train.optimizer", tuple(learning_rates))
        rates = {
            name: suggest_log(trial, f"train.{name}.learning_rate", rate)
            for name, rate in learning_rates.items()
        }
        changes |= {"optimizer": optimizer, "learning_rate": rates[optimizer]}
    if weight_decay is not None:
        changes["weight_decay"] = suggest_log(trial, "train.weight_decay", weight_decay)
    if batch_sizes:
        changes["batch_size"] = choose(trial, "train.batch_size", batch_sizes)
    if augmentations:
        changes["augmentation"] = choose(trial, "train.augmentation", augmentations)
    if mixings:
        changes["mixing"] = choose(trial, "train.mixing", mixings)
    if starts:
        changes["start"] = choose(trial, "train.start", starts)
    if class_weights:
        changes["class_weights"] = choose(trial, "train.class_weights", class_weights)
    return replace(base, **changes)


@dataclass(frozen=True)
class _Chosen:
    """A block: fields of its stage, and how many stand for one."""

    settings: Mapping[str, Any]
    repeats: int


def _suggest_block(
    trial: Trial, prefix: str, blocks: Sequence[BlockChoice], kernels: Sequence[int]
) -> _Chosen:
    name = choose(trial, f"{prefix}block", [block.name for block in blocks])
    chosen: dict[str, Any] = {"block": name, "kernel": choose(trial, f"{prefix}kernel", kernels)}
    repeats = 1
    for block in blocks:
        settings: dict[str, Any] = {}
        if block.expansions:
            settings["expansion"] = choose(trial, f"{prefix}block.{block.name}.expansion", block.expansions)
        if block.squeeze_excitation:
            parameter = f"{prefix}block.{block.name}.squeeze_excitation"
            settings["squeeze_excitation"] = choose(trial, parameter, (False, True))
        if block.name == name:
            chosen |= settings
            repeats = block.repeats
    return _Chosen(chosen, repeats)


def _rounded(width: int, multiple: int) -> int:
    return max(multiple, (width + multiple // 2) // multiple * multiple)
