"""The order of compression: which network trains when, what it begins with, and what it costs."""

from dataclasses import replace

import pytest
import torch
from small_studies import STUDENT, TEACHER, by_scheme, design, small_context

from naskd.networks.student import design_cost
from naskd.schemes.compression_order import CompressionOrderScheme, Part, parts
from naskd.spec.design import KnowledgeTerm, TrialConfig
from naskd.spec.errors import InputError
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.run import TrialRun, start_run
from naskd.trials.steps import run_job

LOGITS = KnowledgeTerm("logits")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("order"))


def ordered(*terms: KnowledgeTerm, bits: int = 32, epochs: int = 4, **options: float) -> TrialConfig:
    config = by_scheme("compression_order", *terms, training={"epochs": epochs}, **options)
    stages = tuple(replace(stage, bits=bits) for stage in config.architecture.stages)
    return replace(config, architecture=replace(config.architecture, stages=stages))


def start(context: StudyContext, config: TrialConfig) -> tuple[TrialRun, CompressionOrderScheme]:
    run = start_run(config, context, seed=2)[0]
    assert isinstance(run.scheme, CompressionOrderScheme)
    return run, run.scheme


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({"distil": 0, "shrink": 0, "quantize": 0}, [(10, "distil+shrink+quantize")]),
        (
            {"distil": 0, "shrink": 0.3, "quantize": 0.7},
            [(3, "distil"), (4, "distil+shrink"), (3, "distil+shrink+quantize")],
        ),
        (
            {"distil": 0.5, "shrink": 0.2, "quantize": 0},
            [(2, "quantize"), (3, "shrink+quantize"), (5, "distil+shrink+quantize")],
        ),
        ({"distil": 0.9, "shrink": 0.9, "quantize": 0.88}, [(9, "alone"), (1, "distil+shrink+quantize")]),
    ],
)
def test_the_parts_of_an_order(after, expected) -> None:
    assert [(part.epochs, part.name) for part in parts(10, after)] == expected


def test_the_student_always_has_an_epoch() -> None:
    for epochs in range(1, 6):
        found = parts(epochs, {"distil": 0.9, "shrink": 0.5, "quantize": 0.1})
        assert sum(part.epochs for part in found) == epochs
        assert found[-1] == Part(found[-1].epochs, frozenset({"distil", "shrink", "quantize"}))
        assert all(part.epochs >= 1 for part in found)


@pytest.mark.parametrize("terms", [(), (LOGITS,)])
def test_all_at_once_is_offline(terms, context) -> None:
    """With its bits; what cannot happen changes nothing."""
    plain = start_run(design(*terms, epochs=3), context, seed=2)[0]
    plain.advance(3)
    impossible = {"quantize": 0.5} | ({} if terms else {"distil": 0.5})
    for options in ({}, {"shrink": 0.5, "width": 1.0}, impossible):
        run, _ = start(context, ordered(*terms, epochs=3, **options))
        run.advance(3)
        state = plain.scheme.deployed.state_dict()
        assert all(torch.equal(x, state[name]) for name, x in run.scheme.deployed.state_dict().items())
        assert run.train_macs == plain.train_macs


def test_each_network_begins_as_the_last_one_ended(context) -> None:
    run, scheme = start(context, ordered(LOGITS, bits=8, shrink=0.25, quantize=0.5))
    wide, small, integer = (taught.network for taught in scheme.students)
    assert [part.epochs for part in scheme.parts] == [1, 1, 2]
    assert [network.spec.stem_width for network in (wide, small, integer)] == [
        2 * STUDENT.stem_width,
        *[STUDENT.stem_width] * 2,
    ]
    assert [network.spec.is_quantized for network in (wide, small, integer)] == [False, False, True]
    seen = {}

    def note(number: int) -> None:
        before(number)
        seen[number] = {name: x.clone() for name, x in scheme.students[number].network.state_dict().items()}

    before, scheme._begin = scheme._begin, note
    run.advance(1)
    assert scheme.deployed is wide
    run.advance(2)
    kept = small.stem[0].weight.shape[0]
    norms = wide.stem[0].weight.detach().abs().flatten(1).sum(1)
    tied = (
        norms + sum(block.importance() for block in wide.stages[0])
        if wide.stages[0][0].passes_on()
        else norms
    )
    strongest = tied.topk(kept).indices.sort().values
    assert torch.equal(seen[1]["stem.0.weight"], wide.stem[0].weight[strongest])
    last_float = {name: x.clone() for name, x in small.state_dict().items()}
    run.advance(4)
    assert scheme.deployed is integer
    shared = last_float.keys() & seen[2].keys()
    assert {name for name in shared if name.endswith("weight")} == {
        name for name, _ in small.named_parameters() if name.endswith("weight")
    }
    assert all(torch.equal(seen[2][name], last_float[name]) for name in shared)


def test_every_part_is_paid_for_at_its_own_size(context) -> None:
    run, scheme = start(context, ordered(width=2.0, shrink=0.5))
    run.advance(4)
    wide, small = (taught.network.spec for taught in scheme.students)
    macs = [design_cost(spec, 1, 10, 8).macs for spec in (wide, small)]
    n = run.loop.images_per_epoch(0)
    n_val = len(context.resources.data.val)
    assert run.train_macs == run.spent_macs == sum(2 * (3 * n + n_val) * each for each in macs)
    assert run.cost.macs == macs[1] < macs[0]


def test_the_best_epoch_is_one_of_the_network_that_leaves(context) -> None:
    """A wider one was better before; that is no number of this design, whose cost it does not have."""
    config = ordered(bits=4, epochs=6, shrink=0.5, quantize=0.8, width=4.0)
    result = run_job(Job("0", "trial", config, 2, 6), context, lambda *_: Decision.CONTINUE)
    assert result.status == "complete", result.error
    reached = [point["val_accuracy"] for point in result.curve]
    assert (
        max(reached[:5]) > reached[5] == result.metrics["best_val_accuracy"] == result.metrics["val_accuracy"]
    )
    late = start(context, ordered(LOGITS, epochs=6, shrink=0.5, distil=0.8))[1]
    assert [part.epochs for part in late.parts] == [3, 2, 1]
    assert late.leaves_from == 3, "hearing a teacher makes no other network"
    assert start(context, ordered(epochs=6))[1].leaves_from == 0
    assert ["other_network" in point for point in result.curve] == [True] * 5 + [False]


def test_labels_alone_come_before_the_teacher(context) -> None:
    run, _ = start(context, ordered(LOGITS, distil=0.5))
    run.advance(4)
    assert ["logits" in point for point in run.curve] == [False, False, True, True]
    assert run.asked_images == 2 * run.loop.images_per_epoch(0)
    # One network throughout, and its labels' loss goes on falling.
    assert run.curve[2]["ce"] < run.curve[0]["loss"]


def test_the_first_network_begins_with_the_teachers_weights(context) -> None:
    config = ordered(LOGITS, bits=8, quantize=0.5)
    config = replace(
        config,
        architecture=replace(TEACHER, stages=tuple(replace(stage, bits=8) for stage in TEACHER.stages)),
        training=replace(config.training, start="teacher"),
    )
    assert context.designs.design_problems(config) == []
    _, scheme = start(context, config)
    first, recipe = scheme.students[0].network, context.prerequisites.teacher()
    state = context.resources.store.load(recipe.artifact_id)[0]
    own = first.state_dict()
    assert not first.spec.is_quantized
    assert all(torch.equal(own[name], state[name].to(own[name])) for name in own.keys() & state.keys())
    assert len(own.keys() & state.keys()) == len(own)


def test_what_cannot_be_is_turned_away_before_it_trains(context) -> None:
    def reasons(config: TrialConfig) -> str:
        return " ".join(context.designs.design_problems(config))

    started = ordered(LOGITS, shrink=0.5)
    started = replace(started, architecture=TEACHER, training=replace(started.training, start="teacher"))
    assert "the stem has more channels than the teacher's" in reasons(started)
    assert "'simkd' stays in one network" in reasons(ordered(KnowledgeTerm("simkd"), shrink=0.5))
    short = ordered(KnowledgeTerm("factor"), shrink=0.5, epochs=2)
    assert "a part of 1 epochs is too short" in reasons(short)
    with pytest.raises(InputError, match=r"scheme_options|compression_order"):
        start(context, short)


def test_a_checkpoint_goes_on_in_any_part(context) -> None:
    config = ordered(LOGITS, bits=8, shrink=0.25, quantize=0.5, distil=0.25)
    straight, _ = start(context, config)
    straight.advance(4)
    for stop in (1, 2, 3):
        stopped, _ = start(context, config)
        stopped.advance(stop)
        resumed, _ = start(context, config)
        resumed.load_state_dict(stopped.state_dict())
        resumed.advance(4)
        assert resumed.curve == straight.curve
