"""DGKD's loss, assistants that hear all above them, and chains of any length."""

import copy
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from pydantic import TypeAdapter
from small_studies import TEACHER, TRAINING, design, make, small_context
from torch import Tensor

import naskd
from naskd.knowledge.base import Lesson, LossInputs
from naskd.knowledge.response.dgkd import DgkdLoss, dgkd_loss
from naskd.knowledge.response.logits import logits_loss
from naskd.nn.taps import Taps
from naskd.spaces import suggest_chain
from naskd.spec.design import (
    ArchitectureSpec,
    AssistantSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrialConfig,
    content_id,
)
from naskd.spec.errors import InputError
from naskd.study.admission import problems
from naskd.trials.context import StudyContext
from naskd.trials.jobs import TrialResult
from naskd.trials.run import start_run

from .responses import random_logits, slope


def several(n: int = 3) -> Tensor:
    return torch.stack([random_logits(seed=1 + i) for i in range(n)])


def value(loss: DgkdLoss, student: Tensor, teachers: Tensor) -> Tensor:
    said = {f"{i}/logits": z for i, z in enumerate(teachers)}
    labels = torch.zeros(len(student), dtype=torch.long)
    return loss(Taps(student, (), (), student), said, Lesson(labels, labels)).term


def build(drop: float) -> DgkdLoss:
    z = random_logits()
    shapes = Taps(z, (), (), z).shapes
    term = KnowledgeTerm("dgkd", temperature=2.0, options=(("drop", drop),))
    return DgkdLoss(term, shapes, shapes, LossInputs(teachers=(shapes,) * 3))


def test_it_is_the_sum_of_what_each_teaches_alone() -> None:
    student, teachers = random_logits(), several()
    alone = [lambda x, t=teacher: logits_loss(x, t, 2.0) for teacher in teachers]
    heard = torch.ones(3)
    expected = sum(one(student) for one in alone)
    torch.testing.assert_close(dgkd_loss(student, teachers, 2.0, heard), expected)
    found = slope(lambda x: dgkd_loss(x, teachers, 2.0, heard), student)
    torch.testing.assert_close(found, sum(slope(one, student) for one in alone))
    torch.testing.assert_close(dgkd_loss(student, teachers[:1], 2.0, heard[:1]), alone[0](student))


def test_each_network_is_left_out_of_its_share_of_the_steps() -> None:
    student, teachers = random_logits(), several()
    torch.manual_seed(0)
    loss = build(0.25).train()
    values = torch.stack([value(loss, student, teachers) for _ in range(2000)])
    assert len(values.unique()) == 8, "each on its own"
    expected = value(loss.eval(), student, teachers)
    torch.testing.assert_close(expected, 0.75 * dgkd_loss(student, teachers, 2.0, torch.ones(3)))
    assert abs(values.mean() - expected) < 4 * values.std() / len(values) ** 0.5
    whole = build(0.0).train()
    assert {float(value(whole, student, teachers)) for _ in range(20)} == {
        float(value(whole, student, teachers))
    }


# --- assistants ---------------------------------------------------------------------------------------------------

ONE_EPOCH = replace(TRAINING, epochs=1)
LOGITS, DGKD = KnowledgeTerm("logits"), KnowledgeTerm("dgkd")
LARGE = AssistantSpec(replace(TEACHER, stem_width=5), ONE_EPOCH)
SMALL = AssistantSpec(replace(TEACHER, stem_width=4), ONE_EPOCH, (DGKD,))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("dgkd"))


def guided(*assistants: AssistantSpec, term: KnowledgeTerm = DGKD, **changes: float) -> TrialConfig:
    config = design(term, epochs=2)
    return replace(config, distillation=replace(config.distillation, assistants=assistants, **changes))


def made(context: StudyContext, config: TrialConfig) -> list[TrialResult]:
    results = make(context, config)
    assert {result.status for result in results} == {"complete"}
    return results


def test_an_assistant_hears_all_that_stand_above_it_and_pays_for_all(context: StudyContext) -> None:
    config = guided(LARGE, SMALL)
    assert problems(context.designs.measured(config), context.resources.spec) == []
    teacher, large, small = context.designs.recipes(config)
    assert large.requires == (teacher.artifact_id,)
    assert small.requires == (large.artifact_id, teacher.artifact_id)
    result = made(context, config)[-1]
    assert {"ce", "dgkd"} <= set(result.curve[0])
    above, own = (
        sum(context.sources.online(r).macs for r in (teacher, large)),
        context.sources.online(small).macs,
    )
    assert result.train_macs == 120 * (3 * own + above) + 288 * own

    run, compared = start_run(config, context, seed=1)
    assert compared == small
    heard = [source.network for source in run.scheme.inputs.sources]
    assert heard == [context.sources.online(recipe).network for recipe in (small, large, teacher)]
    run.advance(2)
    assert run.curve[1]["dgkd"] < run.curve[0]["dgkd"]


def test_what_it_hears_is_part_of_its_name_and_old_names_stay(context: StudyContext) -> None:
    """The second assistant is one that hears all, or the last alone; the first one is the same in both chains.

    The name of one below the teacher is worked out here as it was before assistants could hear several.
    """
    densely = context.designs.recipes(guided(LARGE, SMALL))
    plain = context.designs.recipes(guided(LARGE, replace(SMALL, terms=(LOGITS,)), term=LOGITS))
    assert densely[:2] == plain[:2]
    described = TypeAdapter(AssistantSpec).dump_python(LARGE, mode="json", exclude_defaults=True)
    data = context.resources.data
    known = ["assistant", [described, plain[0].artifact_id], data.data_hash, data.split_hash]
    assert plain[1].artifact_id == content_id(known)
    assert plain[2].requires == (plain[1].artifact_id,)
    other = replace(LARGE, architecture=replace(TEACHER, stem_width=3))
    deeper = context.designs.recipes(guided(other, LARGE, SMALL))
    assert len({densely[2].artifact_id, plain[2].artifact_id, deeper[3].artifact_id}) == 3
    assert deeper[3].requires == tuple(recipe.artifact_id for recipe in (deeper[2], deeper[1], deeper[0]))


def test_a_state_of_the_teacher_is_above_too(context: StudyContext) -> None:
    """So that an assistant below it may hear two networks already."""
    spec = replace(
        context.resources.spec,
        teacher=replace(context.resources.spec.teacher, training=replace(ONE_EPOCH, epochs=2)),
    )
    config = guided(SMALL, teacher_state=0.5)
    assert problems(context.designs.measured(config), spec) == []


def test_one_network_above_is_too_few_and_said_before_anything_trains(context: StudyContext) -> None:
    found = problems(context.designs.measured(guided(SMALL)), context.resources.spec)
    assert found == [
        "assistant: knowledge 'dgkd' needs at least 2 teachers, got 1; name another teacher in the design, "
        "or add a teacher assistant"
    ]


def test_who_was_left_out_is_the_same_after_a_checkpoint(context: StudyContext) -> None:
    config = guided(LARGE, SMALL, term=replace(DGKD, options=(("drop", 0.5),)))
    made(context, config)
    run, again = (start_run(config, context, seed=1)[0] for _ in range(2))
    run.advance(1)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert again.advance(2) == run.advance(2)


# --- chains of any length -----------------------------------------------------------------------------------------

WIDE = ArchitectureSpec(
    stem_width=16, stages=(StageSpec("basic", 2, 16), StageSpec("basic", 2, 32, stride=2))
)
STUDENT = ArchitectureSpec(
    stem_width=4, stages=(StageSpec("basic", 1, 8), StageSpec("basic", 1, 16, stride=2))
)


def chain(*shares: float, length: int = 2, **changes: object) -> tuple[AssistantSpec, ...]:
    params = {f"kd.chain.{i}": share for i, share in enumerate(shares, 1)} | {"kd.chain.length": length}
    return suggest_chain(optuna.trial.FixedTrial(params), WIDE, TRAINING, **{"most": len(shares), **changes})


def widths(assistants: tuple[AssistantSpec, ...]) -> list[tuple[int, ...]]:
    return [(a.architecture.stem_width, *(s.width for s in a.architecture.stages)) for a in assistants]


def test_chains_go_from_large_to_small_between_teacher_and_student() -> None:
    assert widths(chain(0.25, 0.75)) == [(12, 12, 24), (4, 4, 8)]
    assert widths(chain(0.25, 0.75, length=1)) == [(4, 4, 8)], "the first ones are taken"
    assert widths(chain(0.5, 0.5)) == [(8, 8, 16)], "the same network twice is once"
    assert widths(chain(0.25, 0.75, student=STUDENT)) == [(12, 12, 24)], "no larger than the student"
    assert widths(chain(0.5, student=WIDE, length=1)) == []
    assert {a.training for a in chain(0.75, 0.5)} == {TRAINING}


def test_all_trials_have_the_same_parameters_and_all_lengths() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trials = [study.ask() for _ in range(60)]
    found = [suggest_chain(trial, WIDE, TRAINING, most=3) for trial in trials]
    assert {len(one) for one in found} == {0, 1, 2, 3}
    assert all(trial.distributions == trials[0].distributions for trial in trials)
    assert set(trials[0].distributions) == {"kd.chain.length", "kd.chain.1", "kd.chain.2", "kd.chain.3"}
    assert {spec.architecture for one in found for spec in one} == {
        spec.architecture for one in (chain(share, length=1) for share in (0.75, 0.5, 0.25)) for spec in one
    }, "few assistants, which trials share"


def test_a_chain_of_no_assistants_is_plain_distillation() -> None:
    empty = chain(0.75, 0.5, length=0, dense=True)
    assert empty == ()
    plain, chained = (
        TrialConfig(STUDENT, DistillationSpec((LOGITS,), assistants=assistants)) for assistants in ((), empty)
    )
    assert plain.config_id == chained.config_id


def test_in_a_dense_chain_all_but_the_first_hear_all() -> None:
    kinds = [
        [term.kind for term in a.terms] for a in chain(0.25, 0.75, 0.5, length=3, dense=True, temperature=2.0)
    ]
    assert kinds == [["logits"], ["dgkd"], ["dgkd"]]
    assert [[t.kind for t in a.terms] for a in chain(0.75, 0.5)] == [["logits"], ["logits"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"most": 0}, "most is 0; allowed: at least 1"),
        ({"shares": (0.5, 1.0)}, "1; allowed: above 0 and below 1"),
    ],
)
def test_what_is_no_chain_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chain(0.5, **changes)


SPACE = """
from naskd.config import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig
from naskd.spaces import suggest_chain

STAGES = (StageSpec("basic", 1, 12), StageSpec("basic", 1, 16, stride=2))
TEACHER = ArchitectureSpec(STAGES, stem_width=12)
STUDENT = ArchitectureSpec((StageSpec("basic", 1, 4), StageSpec("basic", 1, 4, stride=2)), stem_width=4)
TRAINING = TrainingSpec(epochs=1, batch_size=32, learning_rate=0.01)

def space(trial):
    chain = suggest_chain(trial, TEACHER, TRAINING, student=STUDENT, shares=(0.75, 0.5), dense=True)
    term = KnowledgeTerm("dgkd" if chain else "logits")
    return TrialConfig(STUDENT, DistillationSpec((term,), assistants=chain), TRAINING)
"""

STUDY = """
name = "chains"
space = "space.py:space"
epochs = 1
[data]
kind = "digits"
max_train = 120
[sampler]
name = "random"
[budget]
trials = 4
[execution]
device = "cpu"
[teacher]
training = {epochs = 1, batch_size = 32}
[teacher.architecture]
stem_width = 12
stages = [{block = "basic", depth = 1, width = 12}, {block = "basic", depth = 1, width = 16, stride = 2}]
"""


def test_a_search_chooses_chains_and_makes_each_assistant_once(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "study.toml").write_text(STUDY)
    run = naskd.search(tmp_path / "study.toml", out=tmp_path / "run")
    found = [t["config"]["distillation"] for t in run.trials() if t["state"] == "COMPLETE"]
    lengths = {len(d["assistants"]) for d in found}
    assert lengths == {0, 1, 2}
    assert {(len(d["assistants"]) > 0, d["terms"][0]["kind"]) for d in found} == {
        (True, "dgkd"),
        (False, "logits"),
    }
    # The larger one, the smaller one below the teacher, and the smaller one that hears both.
    stored = [path for path in (tmp_path / "artifacts").iterdir() if path.is_dir()]
    assert len(stored) <= 1 + 3
