"""Presets of ways of being taught, and how a space searches one."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import optuna
import pytest

from naskd.knowledge import KNOWLEDGE
from naskd.networks import BLOCKS
from naskd.spaces import Beside, Response, TeachingPreset, canonical, suggest_teaching
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrialConfig,
    content_id,
)
from naskd.spec.errors import InputError, UnknownNameError
from naskd.teachings import TEACHINGS, shared_weights

STUDENT = ArchitectureSpec((StageSpec("basic", 1, 8), StageSpec("basic", 1, 16, stride=2)))
THREE = ArchitectureSpec((*STUDENT.stages, StageSpec("depthwise_separable", 1, 16)))

NEVER_CHANGED = {"more-images-1": "ee00076ae2de", "same-images-1": "f9fd4c4bd3d4"}
"""What the published presets hold. A new choice is a new preset, under the next number."""


def draws(preset: Any, n: int = 200, **given: Any) -> list[tuple[optuna.Trial, DistillationSpec]]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [(trial, suggest_teaching(trial, preset, **given)) for trial in (study.ask() for _ in range(n))]


def taught(preset: Any, params: dict[str, Any], **given: Any) -> DistillationSpec:
    base = draws(preset, 1, **given)[0][0].params
    return suggest_teaching(optuna.trial.FixedTrial({**base, **params}), preset, **given)


@pytest.mark.parametrize("preset", list(TEACHINGS), ids=lambda preset: preset.name)
class TestEveryPreset:
    def test_its_name_has_its_version_and_it_says_why(self, preset: TeachingPreset) -> None:
        assert preset.name.endswith(f"-{preset.version}")
        assert preset.why
        assert preset.title

    def test_what_a_name_means_never_changes(self, preset: TeachingPreset) -> None:
        said = ("title", "why", "paper", "implementation")
        held = {key: value for key, value in dataclasses.asdict(preset).items() if key not in said}
        assert content_id(held) == NEVER_CHANGED[preset.name], "give a changed preset the next number"

    def test_its_kinds_are_what_their_cards_say(self, preset: TeachingPreset) -> None:
        for response in preset.responses:
            card = KNOWLEDGE[response.kind]
            assert card.family == "response"
            assert card.uses_temperature == response.has_temperature
        for feature in preset.features:
            assert KNOWLEDGE[feature.kind].family in ("feature", "relation")
        assert set(preset.except_for) <= set(BLOCKS.names())
        known = {response.kind for response in preset.responses[1:]}
        assert all(set(kinds) <= known for kinds in preset.except_for.values())

    def test_every_trial_has_the_same_parameters_and_a_canonical_design(self, preset: TeachingPreset) -> None:
        for student in (STUDENT, THREE, None):
            found = draws(preset.name, student=student)
            assert all(trial.distributions == found[0][0].distributions for trial, _ in found)
            for _, spec in found:
                config = TrialConfig(student or STUDENT, spec)
                assert canonical(config, knowledge=KNOWLEDGE, blocks=BLOCKS).distillation == spec
                for term in spec.terms:
                    assert not KNOWLEDGE[term.kind].problems(term, n_stages=2, batch_size=64)

    def test_at_most_one_response_and_one_kind_beside_it(self, preset: TeachingPreset) -> None:
        for _, spec in draws(preset):
            families = [KNOWLEDGE[term.kind].family == "response" for term in spec.terms]
            assert families.count(True) <= 1
            assert families.count(False) <= 1
            assert spec.ce_weight == 1 or True in families, "without a response the labels are whole"
            assert 0 <= spec.ce_weight <= 1


class TestShare:
    @pytest.mark.parametrize("tenths", range(10))
    def test_labels_and_response_share_a_whole(self, tenths: int) -> None:
        spec = taught(
            "more-images-1", {"kd.response": "logits", "kd.share": tenths * 0.1, "kd.feature": "none"}
        )
        (term,) = spec.terms
        assert spec.ce_weight == tenths / 10
        assert term.weight == pytest.approx(1 - tenths / 10, abs=1e-12)
        assert term.weighting == "paper", "the share is of the loss as its paper scales it"
        assert shared_weights(tenths * 0.1) == (spec.ce_weight, term.weight)

    def test_all_tenths_are_drawn_zero_among_them(self) -> None:
        weights = {
            spec.ce_weight
            for trial, spec in draws("more-images-1", 400)
            if trial.params["kd.response"] != "none"
        }
        assert weights == {tenth / 10 for tenth in range(10)}

    def test_the_kind_beside_keeps_its_own_weight(self) -> None:
        params = {"kd.response": "logits", "kd.share": 0.0, "kd.feature": "hint", "kd.hint.weight": 0.5}
        hint, logits = taught("more-images-1", params).terms
        assert (hint.kind, hint.weight, hint.weighting, hint.pairs) == ("hint", 0.5, "balanced", "all")
        assert (logits.kind, logits.weight) == ("logits", 1.0)


class TestChoices:
    def test_a_block_that_is_excepted_gets_the_first_response(self) -> None:
        params = {"kd.response": "dist", "kd.feature": "none"}
        assert taught("more-images-1", params, student=STUDENT).terms[0].kind == "dist"
        assert taught("more-images-1", params, student=THREE).terms[0].kind == "logits"

    def test_states_and_assistants_are_choices_of_one_parameter(self) -> None:
        assistant = AssistantSpec(STUDENT)
        given = {"assistants": {"medium": assistant}, "states": (0.25, 0.5)}
        trial = draws("same-images-1", 1, **given)[0][0]
        choices = trial.distributions["kd.assistant"].choices
        assert choices == ("none", "state:0.25", "state:0.5", "medium")
        found = {
            name: taught("same-images-1", {"kd.response": "logits", "kd.assistant": name}, **given)
            for name in choices
        }
        assert {n: s.teacher_state for n, s in found.items()} == {
            "none": 1.0, "state:0.25": 0.25, "state:0.5": 0.5, "medium": 1.0
        }  # fmt: skip
        assert [n for n, s in found.items() if s.assistants] == ["medium"]
        for preset in TEACHINGS:
            assert "kd.assistant" not in draws(preset.name, 1)[0][0].params, (
                "no preset offers states by itself"
            )

    def test_the_teacher_is_a_choice_where_there_are_several(self) -> None:
        found = draws("same-images-1", teachers=("teacher", "wide"))
        assert {spec.teachers for _, spec in found} == {("teacher",), ("wide",)}

    def test_a_preset_of_ones_own(self) -> None:
        mine = TeachingPreset(
            "mine-1",
            1,
            "mine",
            "tried",
            responses=(Response("logit_mse", has_temperature=False),),
            features=(Beside("hint"), Beside("rkd", weight=(1.0, 1.0))),
            shares=(0.5, 0.5),
        )
        found = draws(mine)
        assert set(found[0][0].params) == {"kd.response", "kd.feature", "kd.hint.weight"}
        terms = {term for _, spec in found for term in spec.terms if term.kind != "hint"}
        assert terms == {KnowledgeTerm("logit_mse", 0.5), KnowledgeTerm("rkd", weighting="balanced")}


class TestMistakes:
    def test_an_unknown_preset_lists_close_ones(self) -> None:
        with pytest.raises(UnknownNameError, match=r"unknown teaching preset 'more-images'.*'more-images-1'"):
            draws("more-images", 1)

    def test_an_assistant_may_not_be_called_as_another_choice(self) -> None:
        with pytest.raises(InputError, match=r"assistant named 'state:0\.5'"):
            draws("same-images-1", 1, states=(0.5,), assistants={"state:0.5": AssistantSpec(STUDENT)})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"shares": (0.0, 1.0)}, "shares 0 to 1; allowed: from 0 to below 1"),
            ({"states": (1.0,)}, "state 1 of the teacher; allowed: between 0 and 1"),
            ({"responses": ()}, "has no response"),
            ({"features": (Beside("logits"),)}, "names 'logits' twice"),
            ({"responses": (Response("none"),)}, "names 'none' twice"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            dataclasses.replace(TEACHINGS["same-images-1"], **changes)


def test_the_guide_lists_every_parameter_of_a_teaching() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "guides" / "knowledge.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(kd\.[^`]+)` \|", guide, re.MULTILINE)
    assert set(listed) == set(re.findall(r"``(kd\.[^`]+)``", suggest_teaching.__doc__ or ""))
