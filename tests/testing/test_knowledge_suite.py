"""The suite of losses fails for losses that are wrong in one way each."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from naskd.knowledge import KNOWLEDGE, KnowledgeCard
from naskd.knowledge.base import KnowledgeLoss, KnowledgeOutput, Lesson, Summary
from naskd.nn.taps import Taps
from naskd.testing import KnowledgeLossSuite

from .broken import assert_caught, registered


class Good(KnowledgeLoss):
    """Mean absolute difference of the logits."""

    def summarise(self, teacher: Taps) -> Summary:
        return {"logits": teacher.logits.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        return (student.logits,)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        own, other = self.widened(student.logits), self.widened(teacher["logits"])
        return KnowledgeOutput(self.compare(own, other))

    def widened(self, logits: Tensor) -> Tensor:
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def compare(self, own: Tensor, other: Tensor) -> Tensor:
        return (own - other).abs().mean()


class FirstSampleCountsTwice(Good):
    def compare(self, own, other):
        return (own - other).abs().mean() + (own[0] - other[0]).abs().mean()


class Logarithm(Good):
    def compare(self, own, other):
        return (own - other).abs().log().mean()


class Narrow(Good):
    def widened(self, logits):
        return logits


class Waiting(Good):
    def compare(self, own, other):
        return super().compare(own, other) * (1 if float(own.detach().sum()) > 0 else 2)


class Undetached(Good):
    def summarise(self, teacher):
        return {"logits": teacher.logits}


class MeanOfTheBatch(Good):
    def summarise(self, teacher):
        return {"logits": teacher.logits.detach() - teacher.logits.detach().mean(0)}


class ReadsMore(Good):
    def forward(self, student, teacher, lesson):
        found = super().forward(student, teacher, lesson)
        return replace(found, term=found.term + self.widened(student.pooled).mean())


class NeverTrained(Good):
    def __init__(self, *inputs):
        super().__init__(*inputs)
        self.adapter = torch.nn.Linear(2, 2)


class Unpicklable(Good):
    def __init__(self, *inputs):
        super().__init__(*inputs)
        self.widen = lambda x: x


def card(implementation: type[KnowledgeLoss], **changes: object) -> KnowledgeCard:
    found = KnowledgeCard(
        name=implementation.__name__,
        family="response",
        title="mean absolute difference of the logits",
        paper="",
        equation="mean_bk |z_s - z_t|",
        implementation=implementation,
        taps=("logits",),
        paper_weight=1.0,
        paper_setting="",
    )
    return replace(found, **changes)


BROKEN = (
    FirstSampleCountsTwice,
    Logarithm,
    Narrow,
    Waiting,
    Undetached,
    MeanOfTheBatch,
    ReadsMore,
    NeverTrained,
    Unpicklable,
)


@pytest.fixture(autouse=True)
def cards() -> Iterator[None]:
    temperature = card(Good, name="Temperature", uses_temperature=True)
    early = card(Good, name="Early", min_batch=4)
    labelled = card(Good, name="Titleless", title="")
    with registered(KNOWLEDGE, card(Good), *map(card, BROKEN), temperature, early, labelled):
        yield


@pytest.mark.parametrize(
    ("bad", "check", "others"),
    [
        ("FirstSampleCountsTwice", "test_order_of_the_batch_does_not_matter", ()),
        ("Logarithm", "test_hard_inputs_give_finite_losses_and_gradients", ("both zero", torch.float32)),
        ("Narrow", "test_narrow_inputs_are_widened_first", (torch.bfloat16,)),
        ("Narrow", "test_small_batches_are_finite", (2, torch.float16)),
        ("Waiting", "test_needs_no_values_so_that_it_never_waits_for_a_device", ()),
        ("Undetached", "test_teacher_gets_no_gradient", ()),
        ("MeanOfTheBatch", "test_summary_is_one_row_a_sample_and_the_same_for_all_students", ()),
        ("ReadsMore", "test_the_card_says_truly_what_the_loss_reads", ()),
        ("ReadsMore", "test_any_student_learns_from_any_teacher", ("three stages", "three stages")),
        ("NeverTrained", "test_any_student_learns_from_any_teacher", ("three stages", "three stages")),
        ("Unpicklable", "test_travels_to_another_process", ()),
        ("Temperature", "test_the_card_says_truly_which_settings_matter", ()),
        ("Early", "test_small_batches_are_finite", (2, torch.float32)),
        ("Titleless", "test_the_card_says_what_it_is", ()),
    ],
)
def test_a_broken_loss_is_caught(bad: str, check: str, others: tuple[object, ...]) -> None:
    assert_caught(getattr(KnowledgeLossSuite(), check), "Good", bad, *others)
