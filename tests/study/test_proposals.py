"""What a space proposes: a design, a refusal, or a mistake that ends everything before anything is trained."""

from dataclasses import replace

import pytest
from fake_world import FakeWorld, make_spec, make_study, student

from naskd.spaces import BlockChoice, KnowledgeChoice, StageChoice, suggest_architecture, suggest_distillation
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.errors import InputError, UnknownNameError
from naskd.study.space_sample import check_warm_start, sample_space

MEASURE = FakeWorld().measured


def design(*terms: KnowledgeTerm, training: dict | None = None, **taught) -> TrialConfig:
    return TrialConfig(student(4), DistillationSpec(terms=terms, **taught), TrainingSpec(**(training or {})))


ODD = (KnowledgeTerm("hint", options=(("x", 1),)),)
UNKNOWN = {
    "kind": (lambda: design(KnowledgeTerm("logit")), "unknown knowledge loss 'logit'.*did you mean 'logits'.*modules"),
    "family": (lambda: TrialConfig(ArchitectureSpec(family="cnm")), "unknown network family 'cnm'"),
    "block": (lambda: TrialConfig(ArchitectureSpec((StageSpec("Basic", 1, 8),))), "unknown block 'Basic'.*modules"),
    "scheme": (lambda: design(scheme="rc"), "unknown scheme 'rc'"),
    "teacher": (lambda: design(KnowledgeTerm("logits"), teachers=("wide",)), "unknown teacher 'wide'; known: teacher"),
    "teacher that nobody asks": (lambda: design(teachers=("wide",)), "unknown teacher 'wide'"),
    "optimizer": (lambda: design(training={"optimizer": "adam"}), "unknown optimizer 'adam' in TrainingSpec.*'adamw'"),
    "schedule": (lambda: design(training={"schedule": "cosin"}), "unknown schedule 'cosin'.*did you mean 'cosine'"),
    "augmentation": (lambda: design(training={"augmentation": "flips"}), "unknown augmentation 'flips'.*'flip'"),
    "mixing": (lambda: design(training={"mixing": "mix"}), "unknown mixing 'mix'.*'mixup'"),
    "pairs": (lambda: design(KnowledgeTerm("hint", pairs="lats")), "unknown pairs 'lats' in KnowledgeTerm.*'last'"),
    "weighting": (lambda: design(KnowledgeTerm("hint", 1.0, "papers")), "unknown weighting 'papers'.*'paper'"),
    "field": (lambda: design(training={"lr": 0.1}), "TrainingSpec has no field 'lr'; known: epochs"),
    "nothing for a field": (lambda: TrialConfig(ArchitectureSpec((StageSpec("basic", 1),))), "StageSpec: width"),
    "option": (
        lambda: design(KnowledgeTerm("rkd", options=(("distance", 1.0),))),
        "has no option 'distance'.*'distance_weight'",
    ),
    "option of a scheme": (
        lambda: design(KnowledgeTerm("logits"), scheme="rco", scheme_options=(("anchor", 4),)),
        "scheme 'rco' has no option 'anchor'",
    ),
    "option of a family": (
        lambda: TrialConfig(replace(student(4), options=(("activation", "relu"),))),
        "network family 'cnn' has no option 'activation'",
    ),
    "in an assistant": (
        lambda: design(KnowledgeTerm("logits"), assistants=(AssistantSpec(student(8), terms=ODD),)),
        "knowledge 'hint' has no option 'x'",
    ),
}  # fmt: skip


def _now_and_then(wrong, chance: int):
    """Every `chance`-th of the designs has the mistake."""

    def space(trial):
        width = trial.suggest_int("width", 1, 64)
        if trial.suggest_int("chance", 1, chance) == chance:
            return wrong()
        return TrialConfig(student(width))

    return space


@pytest.mark.parametrize("what", UNKNOWN)
def test_an_unknown_name_is_an_error_before_anything_starts(what):
    wrong, message = UNKNOWN[what]
    with pytest.raises(UnknownNameError, match=message) as caught:
        sample_space(_now_and_then(wrong, 5), make_spec(), MEASURE, 64)
    assert "the search space space.py:joint names what is not there: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_that_no_sample_meets_ends_the_search_when_it_is_met():
    space = _now_and_then(UNKNOWN["kind"][0], 1000)
    spec = make_spec(4, teacher=None, warm_start=({"width": 3, "chance": 7}, {"width": 3, "chance": 1000}))
    sample_space(space, spec, MEASURE, 64)
    study = make_study(spec, space=space)
    study.tell(job := study.ask(), study.facts.work(job))
    with pytest.raises(UnknownNameError, match="knowledge loss 'logit'"):
        study.ask()


def _behind_a_rare_choice(trial):
    """The parameter itself is there for one value in 400 only."""
    width = trial.suggest_int("width", 1, 64)
    if trial.suggest_categorical("mode", [*map(str, range(400)), "odd"]) != "odd":
        return TrialConfig(student(width))
    block = trial.suggest_categorical("block", ["basic", "bassic"])
    return TrialConfig(ArchitectureSpec((StageSpec(block, 1, width),)))


def _suggested(trial):
    """As the parts for spaces choose: kinds in slots, each switched off most of the time."""
    blocks = (BlockChoice("basic"), BlockChoice("inverted_residual", expansions=(2.0,)))
    kinds = [KnowledgeChoice(kind) for kind in ("logits", "dist", "dkd", "hint", "rkd", "pkt", "vidd")]
    return TrialConfig(
        suggest_architecture(trial, [StageChoice((4, 8))] * 2, blocks=blocks),
        suggest_distillation(trial, kinds, slots=2),
    )


@pytest.mark.parametrize(
    ("space", "message"),
    [(_behind_a_rare_choice, "unknown block 'bassic'"), (_suggested, "unknown knowledge loss 'vidd'.*'vid'")],
)
def test_words_that_are_rarely_drawn_are_tried_before_the_start(space, message):
    with pytest.raises(UnknownNameError, match=message):
        sample_space(space, make_spec(), MEASURE, 4, seed=3)


def test_every_word_is_tried_once_at_least_as_far_as_it_is_bounded():
    tried = set()

    def space(trial):
        tried.add(trial.suggest_categorical("word", [str(i) for i in range(100)]))
        return TrialConfig(student(trial.suggest_int("width", 1, 64)))

    sample_space(space, make_spec(), MEASURE, 2)
    assert len(tried) == 100


def test_a_space_that_leaves_or_says_nothing_is_one_clear_error():
    def leaves(trial):
        raise SystemExit

    def silent(trial):
        raise ValueError

    def broken(trial):
        return {}["depth"]

    with pytest.raises(
        InputError, match=r"called sys\.exit\(None\) in line \d+; it must return a TrialConfig"
    ):
        sample_space(leaves, make_spec(), MEASURE, 2)
    with pytest.raises(InputError, match=r"raised KeyError: 'depth' in line \d+$"):
        sample_space(broken, make_spec(), MEASURE, 2)
    assert sample_space(silent, make_spec(), MEASURE, 2).turned_away == ["invalid: ValueError"] * 2
    spec = make_spec(warm_start=({},))
    assert check_warm_start(silent, spec, {}) == ["warm_start[0]: invalid: ValueError"]
    with pytest.raises(InputError, match=r"called sys\.exit"):
        check_warm_start(leaves, spec, {})
