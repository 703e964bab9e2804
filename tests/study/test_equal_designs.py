"""Designs that mean the same have one name: settings left out or at their default, spelled or ordered otherwise."""

from dataclasses import replace
from typing import Any

import pytest
from fake_world import make_spec, student

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
from naskd.spec.executors import EXECUTORS
from naskd.spec.option import Option, canonical_options
from naskd.spec.samplers import SAMPLERS
from naskd.spec.stopping import STOPPING_RULES
from naskd.spec.study import ExecutionSpec, SamplerSpec, StoppingSpec
from naskd.study.admission import design_today, settle

TWO = ArchitectureSpec((StageSpec("basic", 1, 8), StageSpec("basic", 1, 16, stride=2)))


def options_of(registry: Any) -> list[Any]:
    return [
        pytest.param(card, name, option, id=f"{card.name}.{name}")
        for card in registry
        for name, option in card.options.items()
        if option.default is not None
    ]


def spellings(value: Any) -> list[Any]:
    """Of a default: as it is, as a whole number, as the zero that is not quite one."""
    if type(value) is not float:
        return [value]
    return [value, *([int(value)] if value.is_integer() else []), *([-0.0] if value == 0 else [])]


def another(option: Option) -> Any:
    """A value beside the default."""
    tried = (True, False, *option.choices, option.low, option.high, 1, 2, 3, 0.5, 2.5)
    return next((v for v in tried if option.fits(v) and v != option.default), option.default)


def name_of(*terms: KnowledgeTerm, architecture: ArchitectureSpec = TWO, **taught: Any) -> str:
    config = settle(TrialConfig(architecture, DistillationSpec(terms=terms, **taught)), make_spec())
    assert settle(config, make_spec()) == config, "written in one way is written in one way"
    assert design_today(config.to_dict(), 0) is not None
    return config.config_id


@pytest.mark.parametrize(("card", "name", "option"), options_of(KNOWLEDGE))
def test_an_option_of_knowledge_at_its_default_is_left_out(card, name, option):
    plain = name_of(KnowledgeTerm(card.name))

    def assisted(term: KnowledgeTerm) -> str:
        return name_of(KnowledgeTerm("logits"), assistants=(AssistantSpec(TWO, terms=(term,)),))

    for value in spellings(option.default):
        written = KnowledgeTerm(card.name, options=((name, value),))
        assert name_of(written) == plain
        assert assisted(written) == assisted(KnowledgeTerm(card.name))
    assert name_of(KnowledgeTerm(card.name, options=((name, another(option)),))) != plain
    settings = [(n, another(o)) for n, o in card.options.items() if another(o) != o.default]
    backwards = name_of(KnowledgeTerm(card.name, options=tuple(reversed(settings))))
    assert backwards == name_of(KnowledgeTerm(card.name, options=tuple(settings)))


@pytest.mark.parametrize(("card", "name", "option"), options_of(SCHEMES))
def test_an_option_of_a_scheme_at_its_default_is_left_out(card, name, option):
    plain = name_of(KnowledgeTerm("logits"), scheme=card.name)
    for value in spellings(option.default):
        assert name_of(KnowledgeTerm("logits"), scheme=card.name, scheme_options=((name, value),)) == plain


@pytest.mark.parametrize("card", FAMILIES, ids=lambda card: card.name)
def test_an_option_of_a_family_at_its_default_is_left_out(card):
    network = ArchitectureSpec(TWO.stages, family=card.name)
    for name, option in card.options.items():
        for value in spellings(option.default):
            assert name_of(architecture=replace(network, options=((name, value),))) == name_of(
                architecture=network
            )


@pytest.mark.parametrize("card", BLOCKS, ids=lambda card: card.name)
def test_what_a_block_does_not_read_has_no_part_in_its_name(card):
    def network(**changes: Any) -> ArchitectureSpec:
        return ArchitectureSpec((StageSpec(card.name, 1, 8, **changes),))

    plain = name_of(architecture=network())
    assert (name_of(architecture=network(expansion=3)) == plain) is not card.uses_expansion
    assert (
        name_of(architecture=network(squeeze_excitation=True)) == plain
    ) is not card.uses_squeeze_excitation


@pytest.mark.parametrize("card", KNOWLEDGE, ids=lambda card: card.name)
def test_what_a_loss_does_not_read_has_no_part_in_its_name(card):
    plain = name_of(KnowledgeTerm(card.name))
    assert (name_of(KnowledgeTerm(card.name, temperature=2)) == plain) is not card.uses_temperature
    assert (name_of(KnowledgeTerm(card.name, pairs="all")) == plain) is not card.uses_pairs
    assert name_of(KnowledgeTerm(card.name, weight=-0.0)) == name_of()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TrainingSpec(learning_rate=1), TrainingSpec(learning_rate=1.0)),
        (TrainingSpec(weight_decay=0), TrainingSpec(weight_decay=-0.0)),
        (TrainingSpec(momentum=0.0), TrainingSpec(momentum=-0.0)),
        (TrainingSpec(batch_size=32), TrainingSpec(batch_size=32.0)),
        (TrainingSpec(mixing_alpha=2.0), TrainingSpec()),
    ],
)
def test_numbers_have_one_spelling_in_a_name(one, other):
    names = [settle(TrialConfig(student(4), training=t), make_spec()).config_id for t in (one, other)]
    assert names[0] == names[1]


def test_order_and_sequence_types_have_no_part_in_a_name():
    logits, rkd = KnowledgeTerm("logits"), KnowledgeTerm("rkd", weight=2)
    assert name_of(logits, rkd) == name_of(rkd, replace(logits, weight=1))
    assert name_of(logits, ce_weight=0) == name_of(logits, ce_weight=-0.0)
    listed = ArchitectureSpec(list(TWO.stages), options=[])
    assert name_of(architecture=listed) == name_of()
    twice = KnowledgeTerm("rkd", options=[("angle_weight", 7.0), ("angle_weight", 9)])
    assert name_of(twice) == name_of(KnowledgeTerm("rkd", options=(("angle_weight", 9.0),)))


@pytest.mark.parametrize(
    ("kind", "chooser", "registry"),
    [
        (SamplerSpec, "name", SAMPLERS),
        (StoppingSpec, "name", STOPPING_RULES),
        (ExecutionSpec, "executor", EXECUTORS),
    ],
)
def test_options_of_a_study_at_their_default_are_left_out(kind, chooser, registry):
    for card in registry:
        for name, option in card.options.items():
            for value in spellings(option.default) if option.default is not None else ():
                chosen = {chooser: card.name}
                assert kind(**chosen, options=((name, value),)) == kind(**chosen)


def test_a_zero_is_written_in_one_way():
    known = {"x": Option(1.0, "a number")}
    assert str(canonical_options(known, (("x", -0.0),))) == str(canonical_options(known, (("x", 0),)))
