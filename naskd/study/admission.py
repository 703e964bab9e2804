"""Which proposed designs are worth training. Whatever is turned away here has cost nothing."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from naskd.knowledge import KNOWLEDGE
from naskd.networks import FAMILIES
from naskd.schemes import NO_TEACHER, SCHEMES
from naskd.schemes.prerequisites import Assistant, state_epoch
from naskd.spec.design import (
    SCRATCH,
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    TrainingSpec,
    TrialConfig,
    weights_problem,
)
from naskd.spec.errors import InputError, UnknownNameError
from naskd.spec.modalities import mixed_problem
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.registry import nearest
from naskd.spec.study import StudySpec
from naskd.trials.measures import Measured, ObjectiveError, objective_value
from naskd.trials.methods import canonical, methods_of, seed_of, unknown_settings

REGISTERED_BY_MODULES = "a method of your own is known when its file is named in the study's modules"


def settle(config: TrialConfig, spec: StudySpec) -> TrialConfig:
    """The design that a proposal means in this study.

    The study's epochs are the horizon of every schedule. A teacher that was brought along has no states of its
    training: where one is asked for, it teaches itself. A study without unlabelled images has none to show. One whose
    students have no labels weighs them by 0.
    Settings that the cards call meaningless are set to their defaults, so that designs that train equally have one
    ``config_id``.

    Raises:
        UnknownNameError: A network family, block, knowledge loss, scheme, option or teacher is unknown.
    """
    for registry, name in methods_of(config):
        try:
            registry[name]
        except UnknownNameError as error:
            raise UnknownNameError(f"{error} ({REGISTERED_BY_MODULES})") from None
    if unknown := unknown_settings(config):
        raise UnknownNameError(unknown[0])
    training = dataclasses.replace(config.training, epochs=spec.epochs)
    taught = _with_states_there(config.distillation, spec)
    if taught.unlabelled and spec.data.unlabelled is None:
        taught = dataclasses.replace(taught, unlabelled=0)
    if _without_labels(spec):
        taught = _unweighed(taught)
    settled = canonical(dataclasses.replace(config, distillation=taught, training=training))
    _check_teachers(config.distillation, settled.distillation, spec)
    if settled.training.start != SCRATCH:
        _check_teacher(
            settled.training.start, spec, f"training.start may be {SCRATCH!r} or a teacher of the study"
        )
    return settled


def _without_labels(spec: StudySpec) -> bool:
    """Whether students see a modality without labels."""
    return spec.data.modality is not None and not spec.data.modality.labels


def _unweighed(taught: DistillationSpec) -> DistillationSpec:
    """The same with no weight on the labels; where no term is there to teach instead, that is said later."""

    def weight(of: DistillationSpec | AssistantSpec) -> float:
        return 0.0 if any(term.weight > 0 for term in of.terms) else of.ce_weight

    assistants = tuple(
        dataclasses.replace(assistant, ce_weight=weight(assistant)) for assistant in taught.assistants
    )
    return dataclasses.replace(taught, ce_weight=weight(taught), assistants=assistants)


def _with_states_there(distillation: DistillationSpec, spec: StudySpec) -> DistillationSpec:
    if distillation.teacher_state == 1 or state_epoch(distillation, spec):
        return distillation
    return dataclasses.replace(distillation, teacher_state=1.0)


def _check_teachers(given: DistillationSpec, settled: DistillationSpec, spec: StudySpec) -> None:
    scheme, known = SCHEMES[settled.scheme], spec.teacher_specs()
    if given.unlabelled and not known:
        raise UnknownNameError(
            f"the design asks for unlabelled images (distillation.unlabelled = {given.unlabelled}), of which a teacher "
            "alone speaks, but the study file has no [teacher]"
        )
    asked = scheme.asks_teachers(settled) or scheme.needs_teacher
    if asked and not known:
        raise UnknownNameError(NO_TEACHER)
    # A design that asks nobody names the default; whoever writes another name means a teacher of the study.
    for name in given.teachers if asked or given.teachers != DistillationSpec().teachers else ():
        _check_teacher(name, spec)


def _check_teacher(name: str, spec: StudySpec, allowed: str = "") -> None:
    known = spec.teacher_specs()
    if name not in known:
        listed = f"unknown teacher {name!r}; known: {', '.join(known) or 'none'}{nearest(name, known)}"
        raise UnknownNameError(f"{listed} ({allowed})" if allowed else listed)


def design_today(stored: Mapping[str, Any], study_seed: int) -> tuple[str, int] | None:
    """The ``config_id`` and the seed that a design of a run would have today; None where it cannot be read any more.

    They differ from those of a run that began before cards or defaults were what they are now.

    Args:
        stored: As :meth:`~naskd.spec.design.TrialConfig.to_dict` wrote it.
        study_seed: Of the study.
    """
    try:
        written = canonical(TrialConfig.from_dict(dict(stored)))
    except InputError:
        return None
    return written.config_id, seed_of(written, study_seed)


def problems(measured: Measured, spec: StudySpec) -> list[str]:
    """Why a settled design cannot or must not be trained; empty when it can."""
    config = measured.config
    found = FAMILIES[config.architecture.family].problems(config.architecture)
    found += outside(measured, spec)
    scheme = SCHEMES[config.distillation.scheme]
    n_stages = _n_stages(config.architecture)
    if scheme.families and config.architecture.family not in scheme.families:
        found.append(
            f"scheme {scheme.name!r} trains students of {' or '.join(map(repr, scheme.families))}, "
            f"not of the network family {config.architecture.family!r}"
        )
    found += scheme.problems(config.distillation, n_stages=n_stages, study=spec)
    found += _knowledge_problems(config.distillation, n_stages, config.training)
    found += _unlabelled_problems(config.distillation, config.training)
    found += _twice_one_teacher(config.distillation, spec)
    if spec.data.modality is not None:
        found += _modality_problems(config, spec)
    if problem := weights_problem(config.training.class_weights, measured.n_classes):
        found.append(f"training.{problem}")
    for assistant in config.distillation.assistants if config.distillation.terms else ():
        partial = DistillationSpec(terms=assistant.terms, ce_weight=assistant.ce_weight)
        found += [
            f"assistant: {p}"
            for p in FAMILIES[assistant.architecture.family].problems(assistant.architecture)
        ]
        stages = _n_stages(assistant.architecture)
        found += [f"assistant: {p}" for p in _knowledge_problems(partial, stages, assistant.training)]
        if problem := weights_problem(assistant.training.class_weights, measured.n_classes):
            found.append(f"assistant: training.{problem}")
    for network in scheme.prerequisites(config.distillation, spec).made:
        if isinstance(network, Assistant):
            n = 1 + len(network.above)
            found += [
                f"assistant: {p}" for t in network.spec.terms for p in KNOWLEDGE[t.kind].few_teachers(n)
            ]
    return found


def _n_stages(architecture: ArchitectureSpec) -> int:
    return FAMILIES[architecture.family].n_stages(architecture)


def outside(measured: Measured, spec: StudySpec) -> list[str]:
    """Which of the study's limits a design breaks, and which objectives it has no value of.

    Objectives that are known before training are computed here, those of the limits and those of the study.
    """
    limits, found = spec.limits.all(), []
    values: dict[str, float] = {}
    for name in dict.fromkeys([*(limit.objective for limit in limits), *spec.objectives]):
        if OBJECTIVES[name].known == "before":
            try:
                values[name] = objective_value(OBJECTIVES[name], measured)
            except ObjectiveError as error:
                found.append(str(error))
    for limit in limits:
        value = values.get(limit.objective)
        if value is None:
            continue
        if limit.at_most and value > limit.bound:
            found.append(f"over {limit.key}: {_number(value)} > {_number(limit.bound)}")
        elif not limit.at_most and value < limit.bound:
            found.append(f"under {limit.key}: {_number(value)} < {_number(limit.bound)}")
    return found


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def _knowledge_problems(spec: DistillationSpec, n_stages: int, training: TrainingSpec) -> list[str]:
    found = []
    for term in spec.terms:
        card = KNOWLEDGE[term.kind]
        found += card.problems(term, n_stages=n_stages, batch_size=training.batch_size)
        if training.mixing != "none" and (card.needs_labels or card.needs_index):
            found.append(
                f"knowledge {term.kind!r} needs to know whose image it sees, and {training.mixing} mixes two"
            )
    stages = {KNOWLEDGE[term.kind].initial_stage for term in spec.terms}
    if spec.terms and spec.ce_weight == 0 and stages == {"term"}:
        found.append("after the initial stage nothing teaches: ce_weight is 0 and no other term is there")
    if training.epochs < 2 and stages - {""}:
        found.append("an initial stage needs a training of at least 2 epochs, got 1")
    return found


def _twice_one_teacher(taught: DistillationSpec, spec: StudySpec) -> list[str]:
    """That a loss of several teachers would hear one network more than once, which is no second opinion."""
    kinds = [term.kind for term in taught.terms if KNOWLEDGE[term.kind].several_teachers]
    known = spec.teacher_specs()
    named = [name for name in taught.teachers if name in known]
    for i, name in enumerate(named if kinds else ()):
        for other in named[:i]:
            if known[name].is_trained_as(known[other]):
                who = (
                    f"{other!r} twice" if name == other else f"{other!r} and {name!r}, which are one network"
                )
                what = "give one another seed" if known[name].trained_here else "name another one"
                return [f"knowledge {kinds[0]!r} hears several teachers, and the design names {who}; {what}"]
    return []


def _unlabelled_problems(spec: DistillationSpec, training: TrainingSpec) -> list[str]:
    if not spec.unlabelled:
        return []
    found = [
        f"knowledge {term.kind!r} needs labels, and distillation.unlabelled = {spec.unlabelled} shows images without"
        for term in spec.terms
        if KNOWLEDGE[term.kind].needs_labels or KNOWLEDGE[term.kind].needs_index
    ]
    if training.batch_size < 2 * (1 + spec.unlabelled):
        found.append(
            f"distillation.unlabelled = {spec.unlabelled} needs batches of at least {2 * (1 + spec.unlabelled)}, so "
            f"that each has a labelled image, got {training.batch_size}"
        )
    return found


def _modality_problems(config: TrialConfig, spec: StudySpec) -> list[str]:
    """Why a student of a second modality cannot learn so; what its scheme alone must know is said by that."""
    taught, found = config.distillation, list[str]()
    if config.training.start != SCRATCH:
        found.append(
            f"training.start = {config.training.start!r}: a student of another modality does not start from a teacher"
        )
    asks = SCHEMES[taught.scheme].asks_teachers(taught)
    trainings = [config.training] if asks else []
    trainings += [assistant.training for assistant in taught.assistants]
    found += [mixed_problem(t.mixing) for t in dict.fromkeys(trainings) if t.mixing != "none"]
    if not _without_labels(spec):
        return found
    if not asks:
        found.append("data.modality has no labels, and the design asks no teacher: nothing teaches")
    terms = [*taught.terms, *(term for assistant in taught.assistants for term in assistant.terms)]
    found += [
        f"knowledge {kind!r} needs labels, and data.modality.labels is false"
        for kind in dict.fromkeys(term.kind for term in terms)
        if KNOWLEDGE[kind].needs_labels
    ]
    return found


def reason_kind(reason: str) -> str:
    """The part of a reason that is the same for many designs, for counting."""
    return reason.partition(":")[0]


def count_kinds(reasons: Mapping[int, str]) -> dict[str, int]:
    """How often each kind of reason occurred, most frequent first."""
    counts: dict[str, int] = {}
    for reason in reasons.values():
        counts[reason_kind(reason)] = counts.get(reason_kind(reason), 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
