"""A design in one line, and the choices it is made of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from naskd.knowledge import KNOWLEDGE
from naskd.networks import FAMILIES, FamilyCard
from naskd.schemes import SCHEMES
from naskd.spec.design import CONVOLUTION, FIRST_FAMILY, FLOAT_BITS, OWN, SCRATCH, STRIDED
from naskd.spec.teachers import DEFAULT_NAME, called

Config = Mapping[str, Any]


def student(config: Config | None) -> str:
    """The network as its family says it: ``basic 16×2 → 32×1 → bottleneck 64×1``; see :meth:`FamilyCard.summary`."""
    architecture = (config or {}).get("architecture") or {}
    name = architecture.get("family", FIRST_FAMILY)
    # A page may be made where the user's family is not registered.
    card = FAMILIES[name] if name in FAMILIES else FamilyCard(name, "", "", "", uses_stages=True)
    return card.summary(architecture)


def taught_by(config: Config | None) -> str:
    """The distillation in one line: ``logits T4 + attention (all) via assistant, started from teacher``."""
    distillation = _distillation(config)
    terms = distillation.get("terms") or ()
    teachers = distillation.get("teachers") or ()
    text = " + ".join(_term(term, teachers) for term in terms) or "labels only"
    scheme = distillation.get("scheme", "offline")
    if scheme != "offline":
        text = f"{scheme}{_leaving(distillation)}: {text}"
    if (state := distillation.get("teacher_state", 1)) < 1:
        text += f" via teacher at {100 * state:.3g}%"
    assistants = len(distillation.get("assistants") or ())
    if assistants:
        text += " via assistant" if assistants == 1 else f" via {assistants} assistants"
    if unlabelled := distillation.get("unlabelled", 0):
        text += f", {unlabelled}× unlabelled"
    start = _start(config)
    return text if start == SCRATCH else f"{text}, started from {called(start)}"


def _leaving(distillation: Mapping[str, Any]) -> str:
    """Which network of a training leaves, where that is not the one that does by default: ``, exit 1``."""
    scheme = str(distillation.get("scheme"))
    options = SCHEMES[scheme].options if scheme in SCHEMES else {}
    told = (
        f", {name} {value}"
        for name, value in distillation.get("scheme_options") or ()
        if name in options and options[name].leaves
    )
    return "".join(told)


def _start(config: Config | None) -> str:
    return str(((config or {}).get("training") or {}).get("start", SCRATCH))


def choices(config: Config | None) -> dict[str, str | list[str]]:
    """The categorical choices of a design by name; empty without a design.

    A choice of which a design can make several at once, such as kinds of knowledge, is a sorted list.
    """
    if not config:
        return {}
    distillation, training, stages = _distillation(config), config.get("training") or {}, _stages(config)
    architecture = config.get("architecture") or {}
    terms = distillation.get("terms") or ()
    known = [(term, KNOWLEDGE[term["kind"]]) for term in terms if term.get("kind") in KNOWLEDGE]
    assistants = len(distillation.get("assistants") or ())
    between = "none" if not assistants else "one" if assistants == 1 else f"chain of {assistants}"
    if distillation.get("teacher_state", 1) < 1:
        between = "state of the teacher" if not assistants else f"state of the teacher, {between}"
    found: dict[str, str | list[str]] = {
        "knowledge": _distinct(term.get("kind") for term in terms) or ["labels only"],
        "assistant": between,
        "temperature": _distinct(
            _bucket(term["temperature"]) for term, card in known if card.uses_temperature
        ),
        "matched stages": _distinct(term.get("pairs") for term, card in known if card.uses_pairs),
        "weighting": _distinct(term.get("weighting") for term in terms),
        "cross-entropy": ""
        if not terms
        else "with labels"
        if distillation.get("ce_weight", 1)
        else "no labels",
        "scheme": str(distillation.get("scheme", "")),
        "teacher": _distinct(distillation.get("teachers") or ()),
        "unlabelled for each labelled": str(distillation.get("unlabelled") or ""),
        "network family": str(architecture.get("family", FIRST_FAMILY)),
        "blocks": _distinct(stage.get("block") for stage in stages),
        "last block": str(stages[-1].get("block")) if stages else "",
        "stages": str(len(stages)) if stages else "",
        "squeeze-excitation": _squeeze_excitation(stages),
        "bits": _unusual(stages, "bits", FLOAT_BITS),
        "activation": _unusual(stages, "activation", OWN),
        "down-sampling": _unusual(
            [stage for stage in stages if stage.get("stride", 1) > 1], "downsampling", STRIDED
        ),
        "stem": "" if architecture.get("stem", CONVOLUTION) == CONVOLUTION else str(architecture["stem"]),
        "resolution": str(architecture.get("resolution") or ""),
        "largest kernel": str(max((stage.get("kernel", 3) for stage in stages), default="")),
        "optimizer": str(training.get("optimizer", "")),
        "schedule": str(training.get("schedule", "")),
        "augmentation": str(training.get("augmentation", "")),
        "batch size": str(training.get("batch_size", "")),
        "start": _start(config),
    }
    return {name: value for name, value in found.items() if value}


def _stages(config: Config | None) -> Sequence[Mapping[str, Any]]:
    return ((config or {}).get("architecture") or {}).get("stages") or ()


def _distillation(config: Config | None) -> Mapping[str, Any]:
    return (config or {}).get("distillation") or {}


def _term(term: Mapping[str, Any], teachers: Sequence[str]) -> str:
    kind = str(term.get("kind"))
    text = kind
    if kind in KNOWLEDGE and KNOWLEDGE[kind].uses_temperature:
        text += f" T{term.get('temperature', 4.0):.3g}"
    if kind in KNOWLEDGE and KNOWLEDGE[kind].uses_pairs:
        text += f" ({term.get('pairs', 'last')})"
    source = term.get("source", 0)
    if kind in KNOWLEDGE and KNOWLEDGE[kind].several_teachers:
        text += f" from {' and '.join(teachers)}" if len(teachers) > 1 else ""
    elif source < len(teachers) and (len(teachers) > 1 or teachers[source] != DEFAULT_NAME):
        text += f" from {teachers[source]}"
    return text


def _squeeze_excitation(stages: Sequence[Mapping[str, Any]]) -> str:
    if not stages:
        return ""
    return "yes" if any(stage.get("squeeze_excitation") for stage in stages) else "no"


def _unusual(stages: Sequence[Mapping[str, Any]], field: str, usual: object) -> list[str]:
    """What stages choose; nothing is said of a network that has what all had before there was a choice."""
    found = _distinct(stage.get(field, usual) for stage in stages)
    return [] if found == [str(usual)] else found


def _distinct(values: Iterable[Any]) -> list[str]:
    return sorted({str(value) for value in values})


def _bucket(temperature: float) -> str:
    """Octaves, since a temperature is searched on a logarithmic scale."""
    for low, high in ((1, 2), (2, 4), (4, 8)):
        if temperature < high:
            return f"T {low} to {high}" if temperature >= low else "T below 1"
    return "T from 8"
