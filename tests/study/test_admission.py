"""Which designs a study takes, under which name, and what a run from before has trained already."""

import pytest
from fake_world import drive, make_spec, make_study, reasons, states, student
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from naskd.networks import FAMILIES, FamilyCard
from naskd.networks.student import Student
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    Cost,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrialConfig,
)
from naskd.spec.errors import UnknownNameError
from naskd.spec.option import Option
from naskd.spec.seeds import trial_seed
from naskd.study import admission
from naskd.study.admission import design_today, problems, settle
from naskd.trials.measures import Measured

COST = Cost(1000, 100, 400)


def measured(config: TrialConfig) -> Measured:
    """What a design costs does not matter here."""
    return Measured(config, COST, 1, 8, 10)


ODD = ArchitectureSpec((StageSpec("basicc", 1, 8),))


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> FamilyCard:
    """A family without stages of its design, with one option."""
    card = FamilyCard("plain", "", "", Student, options={"depth": Option(2, "layers", 1, 8)})
    monkeypatch.setitem(FAMILIES._cards, "plain", card)
    return card


def twice(trial) -> TrialConfig:
    """Every design in two writings: an option that is left out, or written at its default."""
    width = trial.suggest_int("width", 1, 3)
    options = (("distance_weight", 25.0),) if trial.suggest_categorical("written", [True, False]) else ()
    return TrialConfig(student(width), DistillationSpec((KnowledgeTerm("rkd", options=options),)))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (TrialConfig(ODD), "unknown block 'basicc'"),
        (TrialConfig(ArchitectureSpec(family="cnnn")), "unknown network family 'cnnn'"),
        (TrialConfig(student(8), DistillationSpec((KnowledgeTerm("logit"),))), "unknown knowledge loss 'logit'"),
        (TrialConfig(student(8), DistillationSpec(scheme="ofline")), "unknown scheme 'ofline'"),
        (TrialConfig(student(8), DistillationSpec(assistants=(AssistantSpec(ODD),))), "unknown block 'basicc'"),
        (
            TrialConfig(
                student(8),
                DistillationSpec(assistants=(AssistantSpec(student(8), terms=(KnowledgeTerm("logit"),)),)),
            ),
            "unknown knowledge loss 'logit'",
        ),
    ],
)  # fmt: skip
def test_unknown_names_are_unknown_wherever_they_stand(config: TrialConfig, what: str) -> None:
    with pytest.raises(UnknownNameError, match=what):
        settle(config, make_spec())


def test_a_card_of_a_family_turns_designs_and_assistants_away(family: FamilyCard) -> None:
    wrong = ArchitectureSpec(family="plain", options=(("depth", 9),))
    (found,) = problems(measured(settle(TrialConfig(wrong), make_spec())), make_spec())
    assert found.startswith("option 'depth' of network family 'plain' is 9; allowed:")
    taught = DistillationSpec((KnowledgeTerm("logits"),), assistants=(AssistantSpec(wrong),))
    (found,) = problems(measured(settle(TrialConfig(student(8), taught), make_spec())), make_spec())
    assert found.startswith("assistant: option 'depth' of network family 'plain' is 9")


def test_stages_are_counted_by_the_familys_card(family: FamilyCard, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrialConfig(
        ArchitectureSpec(family="plain"), DistillationSpec((KnowledgeTerm("fsp", weighting="balanced"),))
    )
    (found,) = problems(measured(settle(config, make_spec())), make_spec())
    assert "at least 2 stages, got 0" in found
    monkeypatch.setattr(FamilyCard, "n_stages", lambda self, architecture: 4)
    assert problems(measured(settle(config, make_spec())), make_spec()) == []
    pairs = DistillationSpec((KnowledgeTerm("hint", pairs="middle"),))
    assert (
        settle(TrialConfig(config.architecture, pairs), make_spec()).distillation.terms[0].pairs == "middle"
    )


def test_a_scheme_that_reads_the_design_takes_the_families_that_it_knows(family: FamilyCard) -> None:
    config = TrialConfig(ArchitectureSpec(family="plain"), DistillationSpec(scheme="parameter_sharing"))
    found = problems(measured(settle(config, make_spec())), make_spec())
    assert "trains students of 'cnn', not of the network family 'plain'" in found[0]
    config = TrialConfig(
        ArchitectureSpec((StageSpec("basic", 1, 8),) * 2), DistillationSpec(scheme="parameter_sharing")
    )
    assert problems(measured(settle(config, make_spec())), make_spec()) == []


def test_a_design_written_in_two_ways_is_trained_once() -> None:
    study = make_study(make_spec(trials=3), space=twice)
    drive(study)
    assert states(study).count("COMPLETE") == 3
    assert {r.partition(":")[0] for r in reasons(study) if r} <= {"duplicate"}
    trained = [t.params["width"] for t in study.optuna_study.get_trials(states=(TrialState.COMPLETE,))]
    assert sorted(trained) == [1, 2, 3]


@pytest.mark.parametrize("written", [True, False])
def test_a_run_from_before_does_not_train_again_what_had_another_name(
    written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only(trial) -> TrialConfig:
        width = trial.suggest_int("width", 1, 64)
        options = (("distance_weight", 25.0),) if before or written else ()
        return TrialConfig(student(width), DistillationSpec((KnowledgeTerm("rkd", options=options),)))

    storage, before = InMemoryStorage(), True
    with monkeypatch.context() as patched:
        patched.setattr(admission, "canonical", lambda config: config)  # as it was before cards were asked
        study = make_study(make_spec(trials=2), storage, space=only)
        drive(study)
    old = study.optuna_study.get_trials()
    before = False
    assert (
        old[0].user_attrs["config_id"]
        != settle(TrialConfig.from_dict(old[0].user_attrs["config"]), make_spec()).config_id
    )
    study = make_study(make_spec(trials=3), storage, space=only)
    study.optuna_study.enqueue_trial(old[1].params)
    drive(study)
    assert states(study)[:3] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert reasons(study)[2].endswith("is trial 1")
    assert states(study).count("COMPLETE") == 3


def test_a_stored_design_that_cannot_be_read_has_no_name_today() -> None:
    config = TrialConfig(student(8), DistillationSpec((KnowledgeTerm("rkd", pairs="all"),)))
    plain = TrialConfig(student(8), DistillationSpec((KnowledgeTerm("rkd"),))).config_id
    assert design_today(config.to_dict(), 5) == (plain, trial_seed(5, plain))
    assert design_today({}, 5) is None
    assert design_today({**config.to_dict(), "later": 1}, 5) is None
