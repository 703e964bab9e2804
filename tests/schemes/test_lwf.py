import copy
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from by_loops import mean
from rich.console import Console
from small_studies import SEARCHED, SEARCHED_SPACE, by_scheme, design, small_context

import naskd
from naskd.report.trial_table import trial_table
from naskd.runs.results import load_results
from naskd.schemes import SCHEMES
from naskd.schemes.lwf import LwfScheme, forgetting, old_tasks_loss, split_classes
from naskd.schemes.scheme import Batch
from naskd.spec.design import KnowledgeTerm, TrialConfig
from naskd.spec.errors import InputError
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, start_run


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("lwf"))


def config(
    *terms: KnowledgeTerm, training: dict[str, object] | None = None, **options: object
) -> TrialConfig:
    return by_scheme("lwf", *terms, training={"epochs": 4, **(training or {})}, **options)


def start(
    context: StudyContext, *terms: KnowledgeTerm, training: dict[str, object] | None = None, **options: object
) -> tuple[TrialRun, LwfScheme]:
    run = start_run(config(*terms, training=training, **options), context, seed=2)[0]
    assert isinstance(run.scheme, LwfScheme)
    return run, run.scheme


def in_task(context: StudyContext, scheme: LwfScheme, task: int, n: int = 24) -> Batch:
    index = scheme.phases()[task].samples[:n]
    images, view = context.images.views("none").batch(index, 2)
    return Batch(images, context.resources.data.train.labels[index], index, view, epoch=2)


# --- the loss ----------------------------------------------------------------------------------------------------


def said_of(logits: list[float], classes: list[int]) -> list[float]:
    """A softmax over some classes alone."""
    powers = [math.exp(logits[k]) for k in classes]
    return [power / sum(powers) for power in powers]


def modified(y: list[float], temperature: float) -> list[float]:
    """Eq. 4: probabilities to the power of 1/T, over their sum."""
    powers = [p ** (1 / temperature) for p in y]
    return [power / sum(powers) for power in powers]


def old_loss(z: list[float], before: list[float], groups: list[list[int]], temperature: float) -> float:
    """Eq. 3, summed over the old tasks, of one image."""
    total = 0.0
    for classes in groups:
        target, own = (modified(said_of(each, classes), temperature) for each in (before, z))
        total -= sum(y * math.log(p) for y, p in zip(target, own, strict=True))
    return total


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("groups", [[[0, 3, 4]], [[0, 4], [1, 2, 5]]])
def test_what_keeps_the_old_tasks_by_loops(groups, temperature) -> None:
    generator = torch.Generator().manual_seed(0)
    student, earlier = torch.randn(2, 6, 7, generator=generator, dtype=torch.float64) * 3
    expected = mean(
        [
            old_loss(z, before, groups, temperature)
            for z, before in zip(student.tolist(), earlier.tolist(), strict=True)
        ]
    )
    found = old_tasks_loss(student, earlier, [torch.tensor(classes) for classes in groups], temperature)
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("heads", "new", "old"),
    [("multi", [6, 7, 8, 9], [[0, 1, 2], [3, 4, 5]]), ("single", list(range(10)), [[0, 1, 2, 3, 4, 5]])],
)
def test_a_step_of_a_later_task(heads, new, old, context) -> None:
    """Eq. 2 over the new task's classes, or all so far, and eq. 3 of the copy, which gets no gradient."""
    _, scheme = start(context, tasks=3, heads=heads, weight=0.5, temperature=3.0)
    given = in_task(context, scheme, 2)
    assert given.labels.min() >= 6
    with torch.no_grad():
        scheme.earlier.network.head.weight *= -2
    phase = scheme.phases()[2]
    (update,) = phase.step(given, phase.ask(given))
    own = scheme.deployed(given.images).double().tolist()
    said = scheme.earlier(given.images)
    before = said.double().tolist()
    labels = mean(
        [-math.log(said_of(z, new)[new.index(y)]) for z, y in zip(own, given.labels.tolist(), strict=True)]
    )
    apart = mean([old_loss(z, b, old, 3.0) for z, b in zip(own, before, strict=True)])
    assert update.loss.item() == pytest.approx(labels + 0.5 * apart, rel=1e-5)
    assert update.terms["ce"].item() == pytest.approx(labels, rel=1e-5)
    update.loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in scheme.earlier.parameters())
    scheme.train()
    assert scheme.earlier(given.images).tolist() == said.tolist()
    assert scheme.earlier.network.eval()(given.images).tolist() == said.tolist()


@pytest.mark.parametrize(("heads", "untouched"), [("multi", [0, 1, 2, 3, 4]), ("single", [])])
def test_labels_move_no_class_that_they_are_not_told_from(heads, untouched, context) -> None:
    """A class of a later task, and of another task where each has a softmax of its own, has a gradient of 0."""
    _, scheme = start(context, heads=heads, weight=0.0)
    for task, still in enumerate(([5, 6, 7, 8, 9], untouched)):
        given = in_task(context, scheme, task)
        phase = scheme.phases()[task]
        (update,) = phase.step(given, phase.ask(given))
        scheme.zero_grad()
        update.loss.backward()
        moved = scheme.deployed.head.weight.grad.abs().sum(1) > 0
        assert [k for k in range(10) if not moved[k]] == still


# --- the tasks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_classes", "tasks"), [(10, 1), (10, 3), (7, 7)])
def test_each_class_is_in_one_task(n_classes, tasks) -> None:
    for order in (0, 1, 2):
        found = split_classes(n_classes, tasks, order)
        assert sorted(k for classes in found for k in classes) == list(range(n_classes))
        assert len(found) == tasks
        assert max(map(len, found)) - min(map(len, found)) <= 1
        assert all(list(classes) == sorted(classes) for classes in found)
    plain = split_classes(10, 2, 0)
    assert plain == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert split_classes(10, 2, 1) not in (plain, split_classes(10, 2, 2))


def test_each_task_is_trained_on_its_own_images(context) -> None:
    run, scheme = start(context, tasks=3, order=4)
    labels = context.resources.data.train.labels
    shown = []
    for epoch in range(4):
        lessons = run.loop._feeding[run.loop.phase_of(epoch).name].lessons(epoch)
        shown.append(torch.cat([batch.index for batch, _ in lessons]))
    assert [phase.epochs for phase in scheme.phases()] == [1, 1, 2]
    for task, epoch in enumerate((0, 1, 2)):
        wanted = [i for i, label in enumerate(labels.tolist()) if label in scheme.classes[task]]
        assert sorted(shown[epoch].tolist()) == wanted
    assert shown[2].tolist() != shown[3].tolist()


def test_one_task_is_plain_training(context) -> None:
    """With the same bits as ``offline``."""
    terms = (KnowledgeTerm("logits"), KnowledgeTerm("attention", weighting="balanced"))
    for given in ((), terms):
        run, scheme = start(context, *given, tasks=1)
        plain = start_run(design(*given, epochs=4), context, seed=2)[0]
        run.advance(4)
        plain.advance(4)
        assert [{k: row[k] for k in plain.curve[0]} for row in run.curve] == plain.curve
        assert run.train_macs == plain.train_macs
        state = plain.scheme.deployed.state_dict()
        assert all(torch.equal(x, state[name]) for name, x in scheme.deployed.state_dict().items())
        assert {row["forgetting"] for row in run.curve} == {0.0}
        assert all(row["accuracy_task_1"] == row["val_accuracy"] for row in run.curve)


def test_the_copy_is_the_network_at_the_end_of_the_task_before(context) -> None:
    run, scheme = start(context)
    run.advance(2)
    reached = {name: x.clone() for name, x in scheme.deployed.state_dict().items()}
    for epoch in (3, 4):
        run.advance(epoch)
        assert all(torch.equal(x, reached[name]) for name, x in scheme.earlier.network.state_dict().items())
    assert not torch.equal(scheme.deployed.head.weight, reached["head.weight"])
    assert ["old_tasks" in point for point in run.curve] == [False, False, True, True]


def test_without_weight_the_copy_is_not_heard(context) -> None:
    (one, _), (other, changed) = start(context, weight=0.0), start(context, weight=0.0)
    said = changed.earlier.forward
    changed.earlier.forward = lambda images: said(images) + torch.arange(10.0)
    assert one.advance(4)["ce"] == other.advance(4)["ce"]
    assert one.curve[-1]["old_tasks"] != other.curve[-1]["old_tasks"]
    heard, _ = start(context)
    assert heard.advance(4)["ce"] != one.curve[-1]["ce"]


@pytest.mark.parametrize("stop", [2, 3])
def test_a_checkpoint_keeps_the_copy_and_what_was_reached(stop, context) -> None:
    (run, _), (again, _) = start(context, order=1), start(context, order=1)
    run.advance(stop)
    again.load_state_dict(copy.deepcopy(run.state_dict()))
    assert again.advance(4) == run.advance(4)
    assert again.measures == run.measures != {}


def test_an_initial_stage_sees_the_first_task_alone(context) -> None:
    _, scheme = start(context, KnowledgeTerm("ab", options=(("initial_share", 0.5),)), training={"epochs": 8})
    phases = scheme.phases()
    assert [(phase.name, phase.epochs) for phase in phases] == [("initial", 4), ("task 1", 2), ("task 2", 2)]
    assert torch.equal(phases[0].samples, phases[1].samples)
    assert scheme.ends == [6, 8]


# --- what it costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [(), (KnowledgeTerm("logits"),)])
@pytest.mark.parametrize("mixing", ["none", "mixup"])
def test_the_books_count_the_images_of_the_tasks(terms, mixing, context) -> None:
    """Before a trial and after it: three passes of the student, one of the copy in later tasks, and the teacher's."""
    given = config(*terms, tasks=3, training={"mixing": mixing, "batch_size": 4})
    run = start_run(given, context, seed=2)[0]
    run.advance(4)
    labels = context.resources.data.train.labels
    n = [int(torch.isin(labels, torch.tensor(classes)).sum()) for classes in run.scheme.classes]
    passes, macs = n[0] * 3 + (n[1] + 2 * n[2]) * 4, run.cost.macs
    teacher = context.sources.online(context.prerequisites.teacher()).macs if terms else 0
    adapters = 3 * (run.scheme.step_macs(4, run.scheme.phases()[0])[0] - macs) * (n[0] + n[1] + 2 * n[2])
    own = passes * macs + 4 * len(context.resources.data.val) * macs
    asked = teacher * (n[0] + n[1] + 2 * n[2])
    assert run.train_macs == pytest.approx(own + adapters + asked, abs=4)
    foreseen = context.designs.training_macs(given)
    assert foreseen.own == pytest.approx(own + (asked if mixing == "mixup" else 0), rel=1e-9)


def test_what_a_teacher_says_of_the_images_of_a_task_is_remembered(context) -> None:
    given = config(KnowledgeTerm("logits"))
    for run in (start_run(given, context, seed=seed)[0] for seed in (2, 3)):
        run.advance(4)
    assert run.asked_images == sum(run.loop.images_per_epoch(epoch) for epoch in range(4)) > 0
    assert run.forward_images == 0


# --- what is measured --------------------------------------------------------------------------------------------


def test_forgetting_of_hand_made_matrices() -> None:
    """Chaudhry et al., eq. 3: from the best of before, averaged over the old tasks."""
    assert forgetting([{0: 0.9}]) == 0.0
    assert forgetting([{0: 0.9}, {0: 0.4, 1: 0.8}]) == pytest.approx(0.5)
    third = [{0: 0.7}, {0: 0.9, 1: 0.6}, {0: 0.5, 1: 0.8, 2: 1.0}]
    assert forgetting(third) == pytest.approx(((0.9 - 0.5) + (0.6 - 0.8)) / 2)
    assert forgetting([{0: 0.5}, {0: 0.75, 1: 1.0}]) == -0.25
    assert forgetting([{1: 0.5}, {1: 0.5, 2: 1.0}]) == 0.0
    assert forgetting([{}, {1: 1.0}]) == 0.0


def test_accuracies_of_hand_made_answers(context) -> None:
    """Five images of classes 0, 1, 4, 5 and 9: told among the classes of their task, and among all so far."""
    _, scheme = start(context, tasks=2)
    labels = torch.tensor([0, 1, 4, 5, 9])
    logits = torch.zeros(5, 10)
    logits[[0, 1, 2, 3, 4], [0, 2, 4, 5, 9]] = 1.0  # the second is wrong in its task
    logits[[0, 3], [7, 1]] = 2.0  # the first and the fourth are wrong among all
    logits[2, 8] = 2.0
    first = scheme.measures(logits, labels, [])
    assert first == pytest.approx(
        {
            "average_accuracy": 2 / 3,
            "average_accuracy_seen": 2 / 3,
            "forgetting": 0,
            "forgetting_seen": 0,
            "accuracy_task_1": 2 / 3,
            "accuracy_task_1_seen": 2 / 3,
        }
    )
    curve = [{"accuracy_task_1": a, "accuracy_task_1_seen": b} for a, b in ((1.0, 1.0), (0.9, 0.5))]
    assert scheme.measures(logits, labels, curve) == pytest.approx(
        {
            "average_accuracy": (2 / 3 + 1) / 2,
            "average_accuracy_seen": (0 + 1 / 2) / 2,
            "forgetting": 0.9 - 2 / 3,
            "forgetting_seen": 0.5,
            "accuracy_task_1": 2 / 3,
            "accuracy_task_1_seen": 0,
            "accuracy_task_2": 1,
            "accuracy_task_2_seen": 1 / 2,
        }
    )
    assert scheme.measures(logits[3:], labels[3:], curve)["average_accuracy"] == 1.0
    assert "accuracy_task_1" not in scheme.measures(logits[3:], labels[3:], curve)


def test_all_classes_so_far_are_all_in_the_end(context) -> None:
    run, _ = start(context, tasks=2, heads="single")
    run.advance(4)
    val = context.resources.data.val.labels
    last, n = run.curve[-1], [int((val < 5).sum()), int((val >= 5).sum())]
    seen = [last["accuracy_task_1_seen"], last["accuracy_task_2_seen"]]
    assert sum(a * b for a, b in zip(seen, n, strict=True)) / sum(n) == pytest.approx(last["val_accuracy"])
    assert last["forgetting"] == pytest.approx(run.curve[1]["accuracy_task_1"] - last["accuracy_task_1"])
    assert list(run.measures) == [name for name in run.scheme.measured if name in last]


# --- what cannot be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "epochs", "says"),
    [
        (
            {"tasks": 6},
            8,
            "tasks = 6; allowed: from 1 to 5: there are 10 classes, of which a task of heads = 'multi'",
        ),
        ({"tasks": 11, "heads": "single"}, 20, "tasks = 11; allowed: from 1 to 10: there are 10 classes"),
        ({"tasks": 4}, 3, "tasks = 4; allowed: from 1 to 3: there are 3 epochs, of which a task takes one"),
    ],
)
def test_more_tasks_than_there_can_be_are_refused_before_a_trial(options, epochs, says, context) -> None:
    (problem,) = context.designs.design_problems(config(training={"epochs": epochs}, **options))
    assert says in problem
    assert context.designs.design_problems(config(tasks=5, training={"epochs": 5})) == []
    assert context.designs.design_problems(config(tasks=10, heads="single", training={"epochs": 10})) == []


def test_a_task_without_images_is_refused(context) -> None:
    _, scheme = start(context)
    labels = scheme.inputs.labels.clamp(max=7)
    with pytest.raises(InputError, match="task 5 has 0 training images, classes 8, 9; allowed: at least 2"):
        LwfScheme(replace(scheme.inputs, distillation=config(tasks=5).distillation, epochs=5, labels=labels))


def test_unlabelled_images_belong_to_no_task() -> None:
    taught = replace(config(KnowledgeTerm("logits")).distillation, unlabelled=1)
    (problem,) = SCHEMES["lwf"].problems(taught, n_stages=2)
    assert "'lwf' needs a label of each image" in problem


# --- in a search -------------------------------------------------------------------------------------------------


def test_a_search_judges_by_forgetting(tmp_path: Path) -> None:
    """Beside a scheme that learns all classes at once, and has nothing to forget."""
    study = 'objectives = ["val_accuracy", "macs", "forgetting"]\n' + SEARCHED
    (tmp_path / "study.toml").write_text(study)
    (tmp_path / "space.py").write_text(SEARCHED_SPACE.replace("SCHEME", "lwf"))
    run = naskd.search(tmp_path / "study.toml", out=tmp_path / "run")
    record = run.to_dict(everything=True)
    found = {t["config"]["distillation"]["scheme"]: t for t in record["trials"] if t["state"] == "COMPLETE"}
    tasks, plain = found["lwf"], found["offline"]
    assert (plain["forgetting"], plain["measures"]) == (0.0, {})
    assert tasks["forgetting"] == tasks["measures"]["forgetting"] == tasks["curve"][-1]["forgetting"]
    assert tasks["measures"]["accuracy_task_2"] == tasks["curve"][-1]["accuracy_task_2"]
    assert record["reference_point"]["forgetting"] == 1.0
    assert tasks["train_macs"] < plain["train_macs"]
    page = run.write_html().read_text()
    assert "accuracy_task_2_seen" in page
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(trial_table(record, tasks["number"]))
    assert "accuracy task 2 seen" in console.export_text()
    rows = {row["number"]: row for row in run.retrain([tasks["number"], plain["number"]], seeds=1)["designs"]}
    (training,) = [t for t in load_results(run.path)["trainings"].values() if "accuracy_task_2" in t]
    assert rows[plain["number"]]["forgetting"] == 0.0
    assert rows[tasks["number"]]["forgetting"] == training["forgetting"]
    last = training["accuracy_task_1"], training["accuracy_task_2"]
    assert training["average_accuracy"] == pytest.approx(sum(last) / 2), "what its scheme measured is kept"
