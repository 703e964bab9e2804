from pathlib import Path

import pytest
import torch
from by_loops import cross_entropy, divergence, mean, softened
from small_studies import by_scheme, design, searched, small_context

from naskd.schemes.scheme import Batch
from naskd.schemes.tf_kd_self import TfKdSelfScheme, copy_first
from naskd.spec.design import KnowledgeTerm
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("tf_kd_self"), teacher=None)


def start(context: StudyContext, *, epochs: int = 4, **options: float) -> tuple[TrialRun, TfKdSelfScheme]:
    run = start_run(by_scheme("tf_kd_self", training={"epochs": epochs}, **options), context, seed=2)[0]
    assert isinstance(run.scheme, TfKdSelfScheme)
    return run, run.scheme


@pytest.mark.parametrize(
    ("epochs", "share", "shortest", "lengths"),
    [
        (20, 0.5, 1, (10, 10)),
        (20, 0.25, 1, (5, 15)),
        (20, 0.01, 1, (1, 19)),
        (20, 0.99, 2, (18, 2)),
        (4, 0.1, 2, (2, 2)),
        (3, 0.5, 2, (3,)),
        (1, 0.5, 1, (1,)),
    ],
)
def test_a_share_of_the_epochs_trains_the_copy(epochs, share, shortest, lengths) -> None:
    assert copy_first(epochs, share, shortest) == lengths


def test_the_share_is_an_option(context) -> None:
    _, scheme = start(context, epochs=10, share=0.3)
    assert [phase.epochs for phase in scheme.phases()] == [3, 7]


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.25, "temperature": 3.0}])
def test_the_loss_by_loops(settings, context) -> None:
    """``(1 - alpha) CE(p, y) + alpha T^2 KL(p_copy || p)``, of a whole batch; alpha 0.95 and T 6 unless said."""
    _, scheme = start(context, **settings)
    alpha, t = settings.get("alpha", 0.95), settings.get("temperature", 6.0)
    index = torch.arange(32)
    images, view = context.images.views("none").batch(index, 2)
    given = Batch(images, context.resources.data.train.labels[:32], index, view, epoch=2)
    with torch.no_grad():
        for student, scale in zip(scheme.students, (3.0, -2.0), strict=True):  # opinions that are apart
            student.network.head.weight *= scale
    phase = scheme.phases()[1]
    (update,) = phase.step(given, phase.ask(given))
    own = scheme.student(1).network(images).double().tolist()
    before = scheme.student(0).network.eval()(images).double().tolist()
    apart = mean([divergence(softened(b, t), softened(z, t)) for b, z in zip(before, own, strict=True)])
    labels = mean([cross_entropy(z, y) for z, y in zip(own, given.labels.tolist(), strict=True)])
    assert update.terms["earlier"].item() == pytest.approx(t**2 * apart, rel=1e-4)
    assert update.loss.item() == pytest.approx((1 - alpha) * labels + alpha * t**2 * apart, rel=1e-5)


def test_at_alpha_1_the_labels_teach_the_copy_alone(context) -> None:
    """Whatever the labels, the student's loss is what the copy says."""
    _, scheme = start(context, alpha=1.0)
    images = torch.rand(8, 1, 8, 8)
    phase = scheme.phases()[1]
    losses = []
    for labels in (torch.zeros(8, dtype=torch.long), torch.arange(8)):
        given = Batch(images, labels, torch.arange(8), torch.zeros(8, dtype=torch.long), epoch=2)
        (update,) = phase.step(given, phase.ask(given))
        losses.append(update.loss.item())
    assert losses[0] == losses[1] > 0


def test_at_alpha_0_nothing_is_heard(context) -> None:
    """The student is that of whatever copy."""
    (one, _), (other, changed) = start(context, alpha=0.0), start(context, alpha=0.0)
    one.advance(2)
    other.advance(2)
    with torch.no_grad():
        changed.student(0).network.head.bias += torch.arange(10.0)
    assert [p["ce"] for p in (one.advance(3), other.advance(3))] == [one.curve[2]["ce"]] * 2
    assert one.curve[2]["earlier"] != other.curve[2]["earlier"]
    assert all(
        torch.equal(p, q)
        for p, q in zip(one.scheme.deployed.parameters(), other.scheme.deployed.parameters(), strict=True)
    )


def test_the_copy_stands_still_and_the_student_begins_anew(context) -> None:
    run, scheme = start(context)
    copied, student = scheme.student(0).network, scheme.student(1).network
    assert not torch.equal(copied.head.weight, student.head.weight)
    run.advance(2)
    weights = {name: x.clone() for name, x in copied.state_dict().items()}
    begin = student.head.weight.detach().clone()
    run.advance(4)
    assert all(torch.equal(x, weights[name]) for name, x in copied.state_dict().items())
    assert not torch.equal(student.head.weight, begin)
    assert scheme.deployed is student


def test_a_teacher_of_the_study_teaches_both(tmp_path: Path) -> None:
    context = small_context(tmp_path)
    config = by_scheme("tf_kd_self", KnowledgeTerm("logits"), training={"epochs": 4})
    run, _ = start_run(config, context, seed=2)
    points = [run.advance(epoch) for epoch in range(1, 5)]
    assert ["logits" in point for point in points] == [True] * 4
    assert ["earlier" in point for point in points] == [False, False, True, True]


def test_a_search_offers_it(tmp_path: Path) -> None:
    found = searched(tmp_path, "tf_kd_self")
    taught, plain = found["tf_kd_self"], found["offline"]
    assert taught["macs"] == plain["macs"] == design_macs(tmp_path)
    assert taught["train_macs"] - plain["train_macs"] == 2 * 120 * plain["macs"]
    assert ["earlier" in point for point in taught["curve"]] == [False, False, True, True]


def design_macs(folder: Path) -> int:
    """Of the students that are searched, as they leave."""
    return small_context(folder, teacher=None).designs.design_cost(design()).macs
