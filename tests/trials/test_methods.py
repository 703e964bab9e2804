"""One way of writing a design: what trains equally has one ``config_id``."""

from dataclasses import replace

import pytest

from naskd.knowledge import KNOWLEDGE
from naskd.networks import BLOCKS, FAMILIES
from naskd.schemes import SCHEMES
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.trials.methods import METHODS, canonical, methods_of

LOGITS = KnowledgeTerm("logits")
STAGES = tuple(StageSpec("basic", 1, width) for width in (8, 12, 16))


def taught(*terms: KnowledgeTerm, n_stages: int = 3, **changes: object) -> TrialConfig:
    return TrialConfig(ArchitectureSpec(STAGES[:n_stages]), DistillationSpec(terms, **changes))


def assistant(*terms: KnowledgeTerm, **changes: object) -> AssistantSpec:
    return AssistantSpec(ArchitectureSpec(STAGES[:2]), terms=terms, **changes)


def with_stage(block: str, **changes: object) -> TrialConfig:
    return TrialConfig(ArchitectureSpec((StageSpec(block, 1, 8, **changes),)))


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        (taught(KnowledgeTerm("rkd", options=(("distance_weight", 25.0),))), taught(KnowledgeTerm("rkd"))),
        (taught(KnowledgeTerm("rkd", options=(("distance_weight", 25),))), taught(KnowledgeTerm("rkd"))),
        (taught(KnowledgeTerm("rkd", pairs="all", temperature=2.0)), taught(KnowledgeTerm("rkd"))),
        (
            taught(KnowledgeTerm("hint", pairs="middle"), n_stages=2),
            taught(KnowledgeTerm("hint", pairs="first"), n_stages=2),
        ),
        (
            taught(KnowledgeTerm("label_smoothing", source=1), teachers=("teacher", "other")),
            taught(KnowledgeTerm("label_smoothing")),
        ),
        (taught(LOGITS, KnowledgeTerm("rkd", weight=0.0)), taught(LOGITS)),
        (taught(KnowledgeTerm("rkd"), LOGITS), taught(LOGITS, KnowledgeTerm("rkd"))),
        (with_stage("basic", expansion=3.0, squeeze_excitation=True), with_stage("basic")),
        (taught(scheme="rco"), taught()),
        (
            taught(LOGITS, scheme="rco", scheme_options=(("anchors", 4),)),
            taught(LOGITS, scheme="rco"),
        ),
        (
            taught(KnowledgeTerm("label_smoothing"), assistants=(assistant(LOGITS),)),
            taught(KnowledgeTerm("label_smoothing")),
        ),
        (
            taught(KnowledgeTerm("label_smoothing"), replace(LOGITS, weight=0.0), assistants=(assistant(LOGITS),)),
            taught(KnowledgeTerm("label_smoothing")),
        ),
        (
            taught(
                LOGITS,
                assistants=(assistant(replace(LOGITS, pairs="all"), training=TrainingSpec(mixing_alpha=0.3)),),
            ),
            taught(LOGITS, assistants=(assistant(LOGITS),)),
        ),
        (
            taught(LOGITS, assistants=(assistant(KnowledgeTerm("hint", pairs="middle", temperature=2.0)),)),
            taught(LOGITS, assistants=(assistant(KnowledgeTerm("hint", pairs="first")),)),
        ),
    ],
)  # fmt: skip
def test_equal_trainings_have_one_name(written: TrialConfig, plain: TrialConfig) -> None:
    assert written.config_id != plain.config_id
    assert canonical(written) == plain
    assert canonical(plain) == plain


@pytest.mark.parametrize(
    "config",
    [
        taught(KnowledgeTerm("rkd", options=(("distance_weight", 24.0),))),
        taught(KnowledgeTerm("hint", pairs="middle")),
        taught(KnowledgeTerm("hint", pairs="learned"), n_stages=1),
        taught(LOGITS, replace(LOGITS, temperature=2.0, source=1), teachers=("teacher", "other")),
        taught(LOGITS, assistants=(assistant(replace(LOGITS, temperature=2.0)),)),
        with_stage("inverted_residual", expansion=3.0, squeeze_excitation=True),
        TrialConfig(ArchitectureSpec(STAGES, stem_width=7, stem_kernel=5, stem_stride=2)),
    ],
)
def test_what_matters_stays(config: TrialConfig) -> None:
    assert canonical(config) == config


def test_what_has_no_card_stays_for_others_to_report() -> None:
    odd = KnowledgeTerm("odd", temperature=2.0, options=(("x", 1),))
    config = TrialConfig(
        ArchitectureSpec((StageSpec("odd", 1, 8, expansion=3.0),), stem_width=7, family="odd"),
        DistillationSpec((odd,), scheme="odd", assistants=(assistant(odd),)),
    )
    assert canonical(config) == config


def test_every_method_of_a_design_is_named_with_its_registry() -> None:
    other = AssistantSpec(
        ArchitectureSpec((StageSpec("bottleneck", 1, 8),)), terms=(KnowledgeTerm("attention"),)
    )
    found = set(methods_of(taught(LOGITS, scheme="rco", assistants=(other,))))
    assert found == {
        (SCHEMES, "rco"),
        (FAMILIES, "cnn"),
        (BLOCKS, "basic"),
        (BLOCKS, "bottleneck"),
        (KNOWLEDGE, "logits"),
        (KNOWLEDGE, "attention"),
    }
    assert {registry for registry, _ in found} == set(METHODS)
