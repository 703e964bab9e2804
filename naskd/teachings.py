"""Ways of being taught, chosen by what was measured: presets with names and versions, and how a space searches one.

A preset is data, and what its name means never changes: a better one gets the next number. A student is taught by one
response kind of several, none among them, whose share against the labels is searched; by at most one kind on features
or relations beside it; and by the teacher, by a state of the teacher's own training, or by an assistant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    Pairs,
    Weighting,
)
from naskd.spec.errors import InputError
from naskd.spec.option import Options
from naskd.spec.registry import Registry
from naskd.suggesting import RealRange, Trial, choose, suggest_log

NONE = "none"
NEED_LABELS = frozenset({"ca_mkd", "conditional", "dkd", "nkd", "tf_kd", "wsld"})
"""Kinds on answers that cannot teach on unlabelled images, as their cards say, which stand on a higher floor."""

SHARE_STEP = 0.1
"""Between two shares of the labels: what lies between them was not told apart, and 0 itself must be reached."""


@dataclass(frozen=True)
class Response:
    """A kind on answers that may share the teaching with the labels.

    Args:
        kind: Name of a registered knowledge loss.
        has_temperature: Whether it reads one.
        options: Fixed settings of the loss, sorted by name.
    """

    kind: str
    has_temperature: bool = True
    options: Options = ()

    def __str__(self) -> str:
        return " ".join([self.kind, *(f"{name}={value}" for name, value in self.options)])


@dataclass(frozen=True)
class Beside:
    """A kind on features or relations that may teach beside the labels and the response.

    Args:
        kind: Name of a registered knowledge loss.
        weight: Range of its multiplier, searched on a logarithmic scale.
        pairs: Which stages are matched; its default for kinds without stages.
        weighting: What the weight multiplies; see :class:`~naskd.spec.design.KnowledgeTerm`.
        options: Fixed settings of the loss, sorted by name.
    """

    kind: str
    weight: RealRange = (0.3, 3.0)
    pairs: Pairs = "last"
    weighting: Weighting = "balanced"
    options: Options = ()

    def __str__(self) -> str:
        options = "".join(f" {name}={value}" for name, value in self.options)
        low, high = self.weight
        return f"{self.kind} ({self.pairs}) {self.weighting} {low:g} to {high:g}{options}"


@dataclass(frozen=True)
class TeachingPreset:
    """What a space offers as ways of being taught.

    Args:
        name: With its version, by which spaces choose it: ``more-images-1``.
        version: The number in its name.
        title: For which teacher it is.
        why: What its choices rest on.
        responses: Kinds on answers to choose from, beside none. The first one stands in where another is excepted.
        features: Kinds on features or relations to choose from, beside none.
        except_for: By block, responses that students with such a block are not taught by.
        temperature: Range, searched on a logarithmic scale; of all responses that have one.
        shares: Lowest and highest share of the labels against a response, in steps of 0.1; below 1.
        states: Shares of the epochs of the teacher's training, between 0 and 1: how it was then may teach, too.
        paper: Authors, title, venue, year, arXiv number of what it rests on beside measurements.
        implementation: What suggests it.
    """

    name: str
    version: int
    title: str
    why: str
    responses: tuple[Response, ...]
    features: tuple[Beside, ...] = ()
    except_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    temperature: RealRange = (2.0, 6.0)
    shares: RealRange = (0.0, 0.9)
    states: tuple[float, ...] = ()
    paper: str = ""
    implementation: str = "naskd.teachings:suggest_teaching"

    def __post_init__(self) -> None:
        low, high = self.shares
        if not 0 <= low <= high < 1:
            raise InputError(
                f"teaching preset {self.name!r}: shares {low:g} to {high:g}; allowed: from 0 to below 1, "
                "since the labels alone are the response 'none'"
            )
        if wrong := [state for state in self.states if not 0 < state < 1]:
            raise InputError(
                f"teaching preset {self.name!r}: state {wrong[0]:g} of the teacher; allowed: between 0 and 1"
            )
        if not self.responses:
            raise InputError(f"teaching preset {self.name!r} has no response")
        named = [*(one.kind for one in self.responses), *(one.kind for one in self.features), NONE]
        if twice := sorted({kind for kind in named if named.count(kind) > 1}):
            raise InputError(f"teaching preset {self.name!r} names {twice[0]!r} twice")


TEACHINGS: Registry[TeachingPreset] = Registry("teaching preset", "teaching")

TEACHINGS.register(
    TeachingPreset(
        name="more-images-1",
        version=1,
        title="for a teacher that has seen more images than its students",
        why=(
            "On CIFAR-10 images hints on all stages were best for basic and inverted residual blocks, answers at T = 2 "
            "without the labels good for all; dist fell behind for depthwise separable and inverted residual blocks; "
            "attention gave nothing, rkd and standardized logits cost accuracy; the teacher half-way through its "
            "training taught two points less than at its end"
        ),
        responses=(
            Response("logits"),
            Response("dkd", options=(("beta", 2.0),)),
            Response("dist"),
        ),
        features=(Beside("hint", pairs="all"),),
        except_for={"depthwise_separable": ("dist",), "inverted_residual": ("dist",)},
    )
)
TEACHINGS.register(
    TeachingPreset(
        name="same-images-1",
        version=1,
        title="for a teacher that has seen the images of its students alone",
        why=(
            "Such a teacher has less to add: on digits hints on all stages cost 7 points, answers changed nothing; on "
            "CIFAR-10 images hints gave basic blocks no more than answers did. So nothing is offered beside them"
        ),
        responses=(Response("logits"), Response("dist")),
    )
)


def shared_weights(share: float) -> tuple[float, float]:
    """What a share of the labels means: ``(ce_weight, weight)`` of the cross-entropy and of the response.

    ``loss = share * CE + (1 - share) * c * K`` with the constant `c` that the response's paper gives it (``weighting =
    "paper"``). At 0 the teacher's answers alone teach; at 0.5 both count as the papers' sum of the two does.

    Args:
        share: From 0 to below 1.
    """
    # Tenths have no binary fraction: rounded, they are written and hashed as what they mean.
    return round(share, 3), round(1 - share, 3)


def suggest_teaching(
    trial: Trial,
    preset: str | TeachingPreset,
    *,
    student: ArchitectureSpec | None = None,
    states: Sequence[float] | None = None,
    assistants: Mapping[str, AssistantSpec] | None = None,
    teachers: Sequence[str] = ("teacher",),
    unlabelled: Sequence[int] = (0,),
) -> DistillationSpec:
    """Suggest how a student is taught, out of a preset.

    Parameters: ``kd.response`` (``none`` or a kind), ``kd.share`` (of the labels against it, see
    :func:`shared_weights`), ``kd.temperature``; ``kd.feature`` (``none`` or a kind), ``kd.<kind>.weight`` for each of
    them; ``kd.assistant`` (``none``, ``state:0.5`` for the teacher after half of its training, or a key of
    `assistants`); ``kd.teacher``; ``kd.unlabelled`` (images without labels for each labelled one).
    Without a response the labels have weight 1.

    Args:
        trial: Where values come from.
        preset: Name of a registered preset, with its version, or one of your own.
        student: Whose blocks say what is excepted; None: nothing is.
        states: In place of the preset's; an empty one for none. A teacher that was brought along has no states: in its
            studies the teacher itself teaches instead.
        assistants: Intermediate networks by name, which are trained and cost what that costs.
        teachers: Names of the study's teachers, to choose one from.
        unlabelled: How many images of ``data.unlabelled`` may come with each labelled one, such as ``(0, 1, 3, 7)``.
            Where some do, the preset's first response stands in for those that need labels.

    Raises:
        UnknownNameError: There is no such preset.
        InputError: A state is outside of (0, 1), or an assistant has the name of another choice.
    """
    chosen = TEACHINGS[preset] if isinstance(preset, str) else preset
    if states is not None:
        chosen = replace(chosen, states=tuple(states))
    more = choose(trial, "kd.unlabelled", unlabelled)
    excepted = _excepted(chosen, student)
    if more:
        excepted |= NEED_LABELS
    terms, ce_weight = _response(trial, chosen, excepted)
    terms += _feature(trial, chosen)
    state, chain = _between(trial, chosen, dict(assistants or {}))
    return DistillationSpec(
        terms=tuple(terms),
        ce_weight=ce_weight,
        teachers=(choose(trial, "kd.teacher", teachers),),
        assistants=chain,
        teacher_state=state,
        unlabelled=more,
    ).canonical()


def _excepted(preset: TeachingPreset, student: ArchitectureSpec | None) -> set[str]:
    blocks = {stage.block for stage in student.stages} if student is not None else set()
    return {kind for block in blocks for kind in preset.except_for.get(block, ())}


def _response(trial: Trial, preset: TeachingPreset, excepted: set[str]) -> tuple[list[KnowledgeTerm], float]:
    """The response's term, if there is one, and the weight of the labels."""
    by_name = {response.kind: response for response in preset.responses}
    kind = choose(trial, "kd.response", (NONE, *by_name))
    low, high = preset.shares
    share = low if low == high else trial.suggest_float("kd.share", low, high, step=SHARE_STEP)
    temperature = KnowledgeTerm.temperature
    if any(response.has_temperature for response in preset.responses):
        temperature = suggest_log(trial, "kd.temperature", preset.temperature)
    if kind == NONE:
        return [], 1.0
    response = by_name[kind] if kind not in excepted else preset.responses[0]
    ce_weight, weight = shared_weights(share)
    term = KnowledgeTerm(response.kind, weight=weight, options=response.options)
    return [replace(term, temperature=temperature) if response.has_temperature else term], ce_weight


def _feature(trial: Trial, preset: TeachingPreset) -> list[KnowledgeTerm]:
    kind = choose(trial, "kd.feature", (NONE, *(beside.kind for beside in preset.features)))
    terms = {}
    for beside in preset.features:
        weight = suggest_log(trial, f"kd.{beside.kind}.weight", beside.weight)
        terms[beside.kind] = KnowledgeTerm(
            beside.kind,
            weight=weight,
            weighting=beside.weighting,
            pairs=beside.pairs,
            options=beside.options,
        )
    return [] if kind == NONE else [terms[kind]]


def _between(
    trial: Trial, preset: TeachingPreset, assistants: Mapping[str, AssistantSpec]
) -> tuple[float, tuple[AssistantSpec, ...]]:
    """Which state of the teacher teaches, and which assistants stand below it."""
    states = {f"state:{state:g}": state for state in preset.states}
    if clash := sorted({NONE, *states} & set(assistants)):
        raise InputError(f"an assistant named {clash[0]!r}: that is another choice already; rename it")
    name = choose(trial, "kd.assistant", (NONE, *states, *assistants))
    return states.get(name, 1.0), (assistants[name],) if name in assistants else ()
