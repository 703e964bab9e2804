import math
from dataclasses import replace

import pytest
import torch
from small_studies import TEACHER, TRAINING, design, make, open_context, small_context
from torch import Tensor

from naskd.knowledge.base import Lesson, LossInputs
from naskd.knowledge.relation.teacher_graph import TeacherGraphLoss, teacher_graph_loss
from naskd.knowledge.response.logits import logits_loss
from naskd.nn.taps import Taps
from naskd.spec.design import AssistantSpec, KnowledgeTerm, TrialConfig
from naskd.testing.taps import random_taps, shapes
from naskd.trials.context import StudyContext
from naskd.trials.run import start_run

from .test_pkt import EQUAL, ORTHOGONAL, rotation
from .test_similarity import vectors

STUDENT = shapes((4, 4))
TEACHERS = (shapes((8, 4)), shapes((12, 4)), shapes((6, 2)))


def log(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def build(**settings: object) -> TeacherGraphLoss:
    term = KnowledgeTerm("teacher_graph", **settings)
    return TeacherGraphLoss(term, STUDENT, TEACHERS[0], LossInputs(teachers=TEACHERS))


def value(loss: TeacherGraphLoss, student: Taps, teachers: list[Taps]) -> Tensor:
    summaries = {f"{i}/{name}": x for i, t in enumerate(teachers) for name, x in loss.summarise(t).items()}
    labels = torch.zeros(len(student.logits), dtype=torch.long)
    return loss(student, summaries, Lesson(labels, labels)).term


def test_the_graph_of_logits_by_hand() -> None:
    """Teachers say (1/2, 1/2) and (3/4, 1/4), the student (1/2, 1/2): it is wrong by the second one's divergence.

    A teacher's weight falls with the divergence of the other from it, which is not symmetric. One sample has cosine 1
    with itself in all networks.
    """
    first, second = log(0.5, 0.5), log(0.75, 0.25)
    to_first = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    to_second = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    weight = math.exp(-to_second) / (math.exp(-to_first) + math.exp(-to_second))
    one = torch.ones(1, 3, dtype=torch.float64)
    found = teacher_graph_loss(first, torch.stack([first, second]), one, [one, one], temperature=1.0)
    assert found.item() == pytest.approx(weight * to_first)


def test_the_graph_of_representations_by_hand() -> None:
    """Cosines off the diagonal: student 0, teachers 0, 0 and 1, of which the last is 1/2 (two of four) from all others.

    Of the first two, a mean of 0 and 1/2 over the others. The student is wrong by 1/2 about the last one.
    """
    logits = torch.zeros(2, 3, dtype=torch.float64)
    pooled = [ORTHOGONAL, 2 * ORTHOGONAL, EQUAL]
    weight = math.exp(-1 / 2) / (math.exp(-1 / 2) + 2 * math.exp(-1 / 4))
    found = teacher_graph_loss(logits, logits.expand(3, -1, -1), ORTHOGONAL, pooled, 4.0, representation=6.0)
    assert found.item() == pytest.approx(6 * weight / 2)


def test_equal_teachers_are_one_teacher() -> None:
    student, teacher = vectors(5, 4), vectors(5, 4, seed=1)
    pooled = vectors(5, 3)
    found = teacher_graph_loss(student, teacher.expand(3, -1, -1), pooled, [pooled] * 3, 3.0)
    torch.testing.assert_close(found, logits_loss(student, teacher, 3.0))


def test_is_zero_when_all_agree_whatever_is_added_to_the_logits_of_a_sample() -> None:
    logits, pooled = vectors(5, 4), vectors(5, 3)
    teachers = torch.stack([logits + 3, logits - 1])
    same = [pooled @ rotation(3), 7 * pooled]
    assert abs(teacher_graph_loss(logits, teachers, pooled, same, 2.0)) < 1e-12
    assert teacher_graph_loss(2 * logits, teachers, pooled, same, 2.0) > 1e-3


@pytest.mark.parametrize("graph", ["logits", "representations"])
def test_who_agrees_with_the_others_is_heard_more(graph: str) -> None:
    """Two of three teachers agree. With equal weights a student that sides with the third is wrong twice as much."""
    logits, pooled = torch.stack([log(0.01, 0.99)] * 2 + [log(0.99, 0.01)]), [EQUAL, EQUAL, ORTHOGONAL]
    logits = logits.expand(3, 2, 2)
    if graph == "logits":
        wrong = [teacher_graph_loss(z, logits, EQUAL, pooled, 1.0, 0.0) for z in (logits[0], logits[2])]
        assert wrong[1] > 15 * wrong[0]
    else:
        same = torch.zeros(3, 2, 2)
        wrong = [teacher_graph_loss(same[0], same, f, pooled, 1.0) for f in (EQUAL, ORTHOGONAL)]
        assert wrong[1] > 2.5 * wrong[0]


def test_each_sample_weighs_the_teachers_anew() -> None:
    student, teachers, pooled = vectors(4, 3), vectors(2, 4, 3, seed=1), vectors(4, 2)
    whole = teacher_graph_loss(student, teachers, pooled, [pooled] * 2, 2.0)
    alone = [
        teacher_graph_loss(student[i : i + 1], teachers[:, i : i + 1], pooled[:1], [pooled[:1]] * 2, 2.0)
        for i in range(4)
    ]
    torch.testing.assert_close(whole, torch.stack(alone).mean())


def test_the_order_of_the_teachers_does_not_matter() -> None:
    student, teachers = random_taps(STUDENT), [random_taps(of, seed=1 + i) for i, of in enumerate(TEACHERS)]
    logits, pooled = torch.stack([t.logits for t in teachers]), [t.pooled for t in teachers]
    order = [2, 0, 1]
    found = [
        teacher_graph_loss(student.logits, z, student.pooled, f, 4.0)
        for z, f in ((logits, pooled), (logits[order], [pooled[i] for i in order]))
    ]
    torch.testing.assert_close(*found)


def test_gradient_is_that_of_the_value_and_none_of_the_teachers() -> None:
    teachers = vectors(2, 4, 3, seed=1).requires_grad_()
    pooled = [vectors(4, size, seed=2).requires_grad_() for size in (2, 5)]
    inputs = vectors(4, 3).requires_grad_(), vectors(4, 3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z, f: teacher_graph_loss(z, teachers.detach(), f, [x.detach() for x in pooled], 2.0, 3.0),
        inputs,
    )
    teacher_graph_loss(inputs[0], teachers, inputs[1], pooled, 2.0).backward()
    assert teachers.grad is None
    assert all(x.grad is None for x in pooled)


def test_all_teachers_are_heard_with_the_term_s_settings() -> None:
    student, teachers = random_taps(STUDENT), [random_taps(of, seed=1 + i) for i, of in enumerate(TEACHERS)]
    loss = build(temperature=2.0, options=(("representation", 5.0),))
    expected = teacher_graph_loss(
        student.logits,
        torch.stack([t.logits for t in teachers]),
        student.pooled,
        [t.pooled for t in teachers],
        2.0,
        5.0,
    )
    torch.testing.assert_close(value(loss, student, teachers), expected)


def test_representations_without_weight_are_not_read() -> None:
    student, loss = random_taps(STUDENT), build(options=(("representation", 0.0),))
    value(loss, student, [random_taps(of, seed=1) for of in TEACHERS]).backward()
    assert student.pooled.grad is None
    assert [id(x) for x in loss.student_tensors(student)] == [id(student.logits)]
    assert len(build().student_tensors(student)) == 2


def test_a_teacher_of_other_classes_is_refused_wherever_it_stands() -> None:
    other = LossInputs(teachers=(TEACHERS[0], replace(TEACHERS[1], n_classes=7)))
    with pytest.raises(ValueError, match="compares classes: the student has 5, the teacher 7"):
        TeacherGraphLoss(KnowledgeTerm("teacher_graph"), STUDENT, TEACHERS[0], other)


# --- in a training ------------------------------------------------------------------------------------------------

ASSISTANT = AssistantSpec(replace(TEACHER, stem_width=5), replace(TRAINING, epochs=1))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("teacher_graph"))


def assisted(*assistants: AssistantSpec) -> TrialConfig:
    config = design(KnowledgeTerm("teacher_graph"), epochs=2)
    return replace(config, distillation=replace(config.distillation, assistants=assistants))


def test_a_student_learns_from_the_teacher_and_its_assistant(context: StudyContext) -> None:
    config = assisted(ASSISTANT)
    assert context.designs.design_problems(config) == []
    make(context, config)
    run, supervisor = start_run(config, context, seed=1)
    teacher, assistant = context.designs.recipes(config)
    assert supervisor == assistant
    networks = [source.source.network for source in run._sources]
    assert networks == [context.sources.online(assistant).network, context.sources.online(teacher).network]
    run.advance(2)
    first, second = run.curve
    assert 0 < second["teacher_graph"] < first["teacher_graph"]

    # A bank rounds what it remembers, so the networks are heard without one.
    execution = replace(context.resources.spec.execution, bank_bytes=0)
    unrounded = open_context(replace(context.resources.spec, execution=execution), context.resources.store)
    run, _ = start_run(config, unrounded, seed=1)
    networks = [source.source.network for source in run._sources]
    images, index = unrounded.images.views("translate").batch(torch.arange(16), 0)[0], torch.arange(16)
    (heard,) = run.scheme.taught.objective.summaries(images, index, epoch=0)
    assert len(heard) == 4
    for i, network in enumerate(networks):
        with torch.no_grad():
            taps = network.taps(images)
        torch.testing.assert_close(heard[f"{i}/logits"], taps.logits)
        torch.testing.assert_close(heard[f"{i}/pooled"], taps.pooled)


def test_without_an_assistant_there_is_no_training(context: StudyContext) -> None:
    problem = (
        "knowledge 'teacher_graph' needs at least 2 teachers, got 1; name another teacher in the design, "
        "or add a teacher assistant"
    )
    assert context.designs.design_problems(assisted()) == [problem]
    with pytest.raises(ValueError, match=problem):
        start_run(assisted(), context, seed=1)
