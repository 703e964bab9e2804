from dataclasses import replace
from pathlib import Path

import pytest
import torch
from online_schemes import SPACE, STUDY
from small_studies import STUDENT, TRAINING, by_scheme, small_context

import naskd
from naskd.nn.cost import network_cost
from naskd.schemes.cheap_convolution import CheapConvolutionScheme, standard
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run

CHEAP = ArchitectureSpec(
    stem_width=4,
    stages=(
        StageSpec("depthwise_separable", 1, 4, kernel=5),
        StageSpec("inverted_residual", 2, 6, expansion=3.0, stride=2, squeeze_excitation=True),
    ),
)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("cheap"), teacher=None)


def begun(context: StudyContext, **options: object) -> TrialRun:
    config = replace(by_scheme("cheap_convolution", **options), architecture=CHEAP)
    return start_run(config, context, seed=2)[0]


def test_cheap_stages_become_basic_ones_of_the_same_shape() -> None:
    assert standard(CHEAP) == ArchitectureSpec(
        stem_width=4, stages=(StageSpec("basic", 1, 4, kernel=5), StageSpec("basic", 2, 6, stride=2))
    )


def test_other_stages_and_the_rest_stay() -> None:
    assert standard(STUDENT) == STUDENT
    mixed = replace(CHEAP, stages=(StageSpec("bottleneck", 1, 8, expansion=0.5), CHEAP.stages[0]))
    assert standard(mixed).stages == (mixed.stages[0], StageSpec("basic", 1, 4, kernel=5))


def test_the_student_is_the_design_and_the_other_is_paid_for(context) -> None:
    run = begun(context)
    plain = start_run(replace(by_scheme("offline"), architecture=CHEAP), context, seed=2)[0]
    scheme = run.scheme
    assert isinstance(scheme, CheapConvolutionScheme)
    run.advance(1)
    plain.advance(1)
    other = network_cost(context.networks.student(standard(CHEAP)), 1, 8)
    assert network_cost(scheme.teacher.network, 1, 8) == other
    assert run.train_macs - plain.train_macs == 120 * 3 * other.macs
    assert run.cost == plain.cost
    assert run.cost.macs < other.macs


def test_alone_the_student_is_trained_as_without_the_other(context) -> None:
    """The same bits where it does not listen; and each may hear the other."""
    alone = begun(context, weight=0.0, reverse=0.0)
    plain = start_run(replace(by_scheme("offline"), architecture=CHEAP), context, seed=2)[0]
    mutual, one_way = begun(context), begun(context, reverse=0.0)
    for run in (alone, plain, mutual, one_way):
        run.advance(TRAINING.epochs)
    found, expected = alone.scheme.deployed.state_dict(), plain.scheme.deployed.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    curves = [run.curve[-1] for run in (alone, one_way, mutual)]
    assert curves[0]["co_teacher.ce"] == curves[1]["co_teacher.ce"] != curves[2]["co_teacher.ce"]
    assert curves[0]["ce"] != curves[1]["ce"]


def test_a_search_chooses_it(tmp_path: Path) -> None:
    space = SPACE.format(scheme="cheap_convolution").replace('"basic", 1, 4)', '"depthwise_separable", 1, 4)')
    (tmp_path / "space.py").write_text(space)
    (tmp_path / "study.toml").write_text(STUDY.format(scheme="cheap_convolution"))
    trials = naskd.search(tmp_path / "study.toml", out=tmp_path / "run").trials()
    found = {trial["config"]["distillation"]["scheme"] for trial in trials if trial["state"] == "COMPLETE"}
    assert found == {"offline", "cheap_convolution"}
