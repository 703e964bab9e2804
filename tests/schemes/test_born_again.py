"""Born-again networks, and what all generations have in common."""

import copy
from pathlib import Path

import pytest
import torch
from by_loops import cross_entropy, divergence, mean, softened
from small_studies import by_scheme, design, searched, small_context
from torch import Tensor, nn

from naskd.schemes.born_again import BornAgainScheme
from naskd.schemes.earlier_self import equal_parts
from naskd.schemes.scheme import Batch
from naskd.spec.design import KnowledgeTerm, TrialConfig
from naskd.study.admission import problems
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.run import TrialRun, start_run
from naskd.trials.steps import run_job


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("born_again"))


def born_again(*terms: KnowledgeTerm, epochs: int = 4, **options: int) -> TrialConfig:
    return by_scheme("born_again", *terms, training={"epochs": epochs}, **options)


def start(context: StudyContext, config: TrialConfig) -> tuple[TrialRun, BornAgainScheme]:
    run = start_run(config, context, seed=2)[0]
    assert isinstance(run.scheme, BornAgainScheme)
    return run, run.scheme


def batch(context: StudyContext, epoch: int) -> Batch:
    index = torch.arange(32)
    images, view = context.images.views("none").batch(index, epoch)
    return Batch(images, context.resources.data.train.labels[:32], index, view, epoch)


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("epochs", "parts", "lengths"), [(4, 2, [2, 2]), (5, 2, [2, 3]), (20, 3, [6, 7, 7]), (2, 4, [1, 1])]
)
def test_the_epochs_are_split(epochs, parts, lengths, context) -> None:
    assert equal_parts(epochs, parts) == lengths
    _, scheme = start(context, born_again(epochs=epochs, generations=parts))
    assert [phase.epochs for phase in scheme.phases()] == lengths


def test_the_loss_by_loops(context) -> None:
    """``CE(p, y) + KL(p_before || p)``, of whole batches."""
    _, scheme = start(context, born_again())
    phase, given = scheme.phases()[1], batch(context, 2)
    (update,) = phase.step(given, phase.ask(given))
    own = scheme.student(1).network(given.images).double().tolist()
    before = scheme.student(0).network.eval()(given.images).double().tolist()
    apart = mean([divergence(softened(t), softened(z)) for t, z in zip(before, own, strict=True)])
    labels = mean([cross_entropy(z, y) for z, y in zip(own, given.labels.tolist(), strict=True)])
    assert update.terms["earlier"].item() == pytest.approx(apart, rel=1e-4)
    assert update.loss.item() == pytest.approx(labels + apart, rel=1e-5)


def test_with_one_generation_it_is_plain_training(context) -> None:
    run, scheme = start(context, born_again(epochs=1, generations=3))
    plain = start_run(design(epochs=1), context, seed=2)[0]
    assert run.advance(1) == plain.advance(1)
    assert same(copied(scheme.deployed), copied(plain.scheme.deployed))
    assert run.train_macs == plain.train_macs


@pytest.mark.parametrize(
    ("config", "earlier"),
    [
        (born_again(epochs=6, generations=3), 4),
        (by_scheme("tf_kd_self", training={"epochs": 4}, share=0.25), 1),
        (born_again(epochs=1), 0),
    ],
)
def test_the_best_epoch_is_one_of_the_last_generation(config, earlier, context) -> None:
    """It leaves; those before it have weights of their own."""
    epochs = config.training.epochs
    result = run_job(Job("0", "trial", config, 2, epochs), context, lambda *_: Decision.CONTINUE)
    assert result.status == "complete", result.error
    assert ["other_network" in point for point in result.curve] == [e < earlier for e in range(epochs)]
    last = [point["val_accuracy"] for point in result.curve[earlier:]]
    assert result.metrics["best_val_accuracy"] == max(last)


def test_the_first_generation_is_trained_as_the_design_says(context) -> None:
    """As in a training of so many epochs."""
    run, scheme = start(context, born_again(KnowledgeTerm("logits"), epochs=4))
    plain = start_run(design(KnowledgeTerm("logits"), epochs=2), context, seed=2)[0]
    assert run.advance(2) == {**plain.advance(2), "other_network": 1.0}
    assert scheme.deployed is scheme.student(0).deployed


def test_a_generation_learns_from_the_one_before_and_not_from_itself(context) -> None:
    _, scheme = start(context, born_again(generations=3, epochs=6))
    for i, phase in enumerate(scheme.phases()):
        given = batch(context, 2 * i)
        asked = phase.ask(given)
        heard = [] if i == 0 else [scheme.student(i - 1).network.eval()(given.images)]
        assert [torch.equal(said["logits"], z) for said, z in zip(asked, heard, strict=True)] == [True] * len(
            heard
        )
        (update,) = phase.step(given, asked)
        assert ("earlier" in update.terms) is (i > 0)
        scheme.zero_grad()
        update.loss.backward()
        for k in range(3):
            gradients = [p.grad is not None for p in scheme.student(k).network.parameters()]
            assert all(gradients) if k == i else not any(gradients)


def test_an_earlier_generation_stands_still_in_evaluation_mode(context) -> None:
    """Its parameters and BatchNorm's statistics; the next one begins with other weights."""
    run, scheme = start(context, born_again())
    first, second = scheme.student(0).network, scheme.student(1).network
    fresh = copied(second)
    run.advance(2)
    done = copied(first)
    assert same(copied(second), fresh)
    assert not same(done, fresh)
    run.advance(3)
    assert same(copied(first), done)
    assert not any(module.training for module in first.modules())
    assert not same(copied(second), fresh)
    assert scheme.deployed is second
    assert {p for group in run.loop._optimizers["student"].param_groups for p in group["params"]} == set(
        second.parameters()
    )


def test_what_it_hears_matters(context) -> None:
    """The second generation of another first one is another network."""
    run, scheme = start(context, born_again())
    other, changed = start(context, born_again())
    run.advance(2)
    other.advance(2)
    with torch.no_grad():
        changed.student(0).network.head.bias += torch.arange(10.0)
    run.advance(3)
    other.advance(3)
    assert not same(copied(scheme.deployed), copied(changed.deployed))


def test_only_passes_that_are_made_are_booked(context) -> None:
    run, _ = start(context, born_again())
    plain = start_run(design(epochs=4), context, seed=2)[0]
    run.advance(4)
    plain.advance(4)
    heard = sum(run.loop.images_per_epoch(epoch) for epoch in (2, 3)) * run.cost.macs
    assert run.train_macs - plain.train_macs == run.spent_macs - plain.spent_macs == heard
    assert run.cost == context.designs.design_cost(design())


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_checkpoint_keeps_all_generations(stop, context) -> None:
    (run, scheme), (again, resumed) = (
        start(context, born_again(KnowledgeTerm("attention"))) for _ in range(2)
    )
    run.advance(stop)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert resumed.present == scheme.present == (stop > 2)
    assert again.advance(4) == run.advance(4)
    assert same(copied(scheme), copied(resumed))


def test_each_generation_has_its_initial_stage_and_its_progress(context) -> None:
    """Two epochs each at least, so that there are fewer generations where there are fewer epochs."""
    staged = KnowledgeTerm("ab", options=(("initial_share", 0.5),))
    _, scheme = start(context, born_again(staged, epochs=5, generations=4))
    names = ["generation 1 (initial)", "generation 1", "generation 2 (initial)", "generation 2"]
    assert [phase.name for phase in scheme.phases()] == names
    assert [phase.epochs for phase in scheme.phases()] == [1, 1, 2, 1]
    progress = []
    for phase, epoch in zip(scheme.phases(), (0, 1, 3, 4), strict=True):
        student = scheme.student(phase.name.startswith("generation 2"))
        lessons = []
        learn = student.objective.initial if "initial" in phase.name else student.objective.forward

        def spy(taps, asked, lesson, learn=learn, lessons=lessons):
            lessons.append(lesson.progress)
            return learn(taps, asked, lesson)

        name = "initial" if "initial" in phase.name else "forward"
        setattr(student.objective, name, spy)
        list(phase.step(batch(context, epoch), phase.ask(batch(context, epoch))))
        progress += lessons
        delattr(student.objective, name)
    assert progress == [0.0, 0.0, pytest.approx(1 / 3), 0.0]
    assert not problems(context.designs.measured(born_again(staged)), context.resources.spec)


def test_a_part_that_stays_is_each_generations_own(context) -> None:
    run, scheme = start(context, born_again(KnowledgeTerm("simkd")))
    assert run.cost.macs > context.designs.design_cost(design()).macs
    run.advance(4)
    assert scheme.deployed is scheme.student(1).deployed
    assert not set(scheme.deployed.parameters()) & set(scheme.student(0).deployed.parameters())


def test_generations_are_two_to_four(context) -> None:
    found = problems(context.designs.measured(born_again(generations=1)), context.resources.spec)
    assert "option 'generations'" in found[0]


def test_a_search_offers_it(tmp_path: Path) -> None:
    found = searched(tmp_path, "born_again")
    assert found.keys() == {"offline", "born_again"}
    taught, plain = found["born_again"], found["offline"]
    assert taught["macs"] == plain["macs"]
    assert taught["train_macs"] - plain["train_macs"] == 2 * 120 * plain["macs"]
    assert ["earlier" in point for point in taught["curve"]] == [False, False, True, True]
