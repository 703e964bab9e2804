import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from by_loops import cross_entropy, divergence
from online_schemes import search, softmax, start
from small_studies import ALL_TERMS, by_scheme, design, small_context

from naskd.nn.cost import network_cost
from naskd.schemes.co_teacher import CoTeacherScheme
from naskd.testing.schemes import batches
from naskd.training.loop import NonFiniteError
from naskd.trials.context import StudyContext
from naskd.trials.run import start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("co_teacher"))


def started(context: StudyContext, **options: object) -> CoTeacherScheme:
    scheme = start(context, "co_teacher", **options).scheme
    assert isinstance(scheme, CoTeacherScheme)
    return scheme.train()


def test_the_step_by_the_definition(context) -> None:
    scheme = started(context, weight=0.5, reverse=0.25, temperature=2.0)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    small, large = (
        student.taps(batch.images).logits.detach().double().numpy()
        for student in (scheme.taught, scheme.teacher)
    )
    expected = np.zeros(2)
    for own, other, label in zip(small, large, batch.labels.tolist(), strict=True):
        low, high = softmax(own, 2.0), softmax(other, 2.0)
        expected[0] += cross_entropy(own, label) + 0.5 * 4 * divergence(high, low)
        expected[1] += cross_entropy(other, label) + 0.25 * 4 * divergence(low, high)
    found = {update.optimizer: update.loss.item() for update in phase.step(batch, phase.ask(batch))}
    assert found["student"] == pytest.approx(expected[0] / len(batch.labels), rel=1e-4)
    assert found["co_teacher"] == pytest.approx(expected[1] / len(batch.labels), rel=1e-4)


def test_neither_moves_the_other(context) -> None:
    scheme = started(context, reverse=1.0)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    for update in phase.step(batch, phase.ask(batch)):
        mine, other = scheme.taught, scheme.teacher
        if update.optimizer == "co_teacher":
            mine, other = other, mine
        scheme.zero_grad()
        update.loss.backward()
        assert all(p.grad is None for p in other.parameters())
        assert any(p.grad.abs().max() > 0 for p in mine.parameters() if p.grad is not None)


def student_of(run) -> dict[str, torch.Tensor]:
    return {key: value for key, value in run.scheme.state_dict().items() if key.startswith("taught.network.")}


def test_who_does_not_listen_is_trained_as_without_a_co_teacher(context) -> None:
    """The same bits, in all epochs: what is beside it draws and changes nothing of its."""
    alone, plain = start(context, "co_teacher", weight=0.0), start_run(design(), context, seed=2)[0]
    alone.advance(3)
    plain.advance(3)
    assert [point["ce"] for point in alone.curve] == [point["ce"] for point in plain.curve]
    expected = student_of(plain)
    found = student_of(alone)
    assert found.keys() == expected.keys() != set()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    heard = start(context, "co_teacher")
    heard.advance(3)
    assert heard.curve[0]["co_teacher.ce"] == alone.curve[0]["co_teacher.ce"], "it never hears the student"
    assert heard.curve[2]["co_teacher.ce"] == alone.curve[2]["co_teacher.ce"]
    assert heard.curve[2]["ce"] != alone.curve[2]["ce"]


def test_the_co_teacher_listens_if_it_is_told_to(context) -> None:
    one, other = start(context, "co_teacher"), start(context, "co_teacher", reverse=1.0)
    one.advance(2)
    other.advance(2)
    assert one.curve[1]["co_teacher.ce"] != other.curve[1]["co_teacher.ce"]


@pytest.mark.parametrize("width", [1.0, 3.0])
def test_it_is_as_wide_as_asked_for_and_booked(context, width: float) -> None:
    run, plain = start(context, "co_teacher", peer_width=width), start_run(design(), context, seed=2)[0]
    run.advance(1)
    plain.advance(1)
    network = run.scheme.teacher.network
    assert [part.out_channels for part in network.stem if hasattr(part, "out_channels")] == [4 * width]
    large = network_cost(network, 1, 8).macs
    assert run.train_macs - plain.train_macs == 120 * 3 * large
    assert run.cost == plain.cost
    assert not set(run.scheme.deployed.parameters()) & set(network.parameters())


def test_a_teacher_of_the_study_teaches_the_student_alone(context) -> None:
    run = start(context, "co_teacher", *ALL_TERMS)
    metrics = run.advance(1)
    assert {term.kind for term in ALL_TERMS} <= set(metrics)
    assert {key for key in metrics if key.startswith("co_teacher")} == {
        *("co_teacher", "co_teacher.ce", "co_teacher.reverse")
    }
    assert (
        run.scheme.step_macs(32, run.scheme.phases()[-1])[1]
        == context.sources.online(context.prerequisites.teacher()).macs
    )
    assert not run.scheme.teacher.objective.losses


def test_a_design_without_labels_has_a_co_teacher_that_reads_them(context) -> None:
    config = by_scheme("co_teacher", *ALL_TERMS)
    config = replace(config, distillation=replace(config.distillation, ce_weight=0.0))
    run = start_run(config, context, seed=2)[0]
    first, last = run.advance(1), run.advance(3)
    assert last["co_teacher.ce"] < first["co_teacher.ce"]


def test_a_co_teacher_that_diverges_ends_the_training(context) -> None:
    run = start(context, "co_teacher")
    with torch.no_grad():
        run.scheme.teacher.network.head.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match=r"co_teacher"):
        run.advance(1)


def test_a_checkpoint_keeps_the_co_teacher(context) -> None:
    run, again = start(context, "co_teacher"), start(context, "co_teacher")
    run.advance(1)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert again.advance(2) == run.advance(2)


def test_a_search_chooses_it(tmp_path: Path) -> None:
    trials = search(tmp_path, "co_teacher").trials()
    found = {trial["config"]["distillation"]["scheme"] for trial in trials if trial["state"] == "COMPLETE"}
    assert found == {"offline", "co_teacher"}
