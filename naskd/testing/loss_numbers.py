"""What the numbers of every knowledge loss must be like: finite, wide enough, the same under autocast."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from naskd.knowledge import KNOWLEDGE
from naskd.nn.taps import taps_like
from naskd.testing.losses import (
    BATCH,
    STUDENT,
    TEACHER,
    assert_finite,
    back_propagate,
    build,
    evaluate,
    lesson,
    networks,
    pairs_of,
    summary_of,
)
from naskd.testing.suite import Suite
from naskd.testing.taps import STUDENTS, TEACHERS, changed, gradient, hard_cases, random_taps

HARD_CASES = {
    name: (student, teacher)
    for name, student, teacher in hard_cases(
        random_taps(STUDENT, BATCH, seed=3), random_taps(TEACHER, BATCH, seed=4)
    )
}
"""Student and teacher by case. Thousands of tests share them: each takes a copy."""


def _exact(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def exact(layer: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(layer, x)

    return exact


@contextmanager
def _adapters_without_autocast() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for layer in (nn.Conv2d, nn.Linear):
            patch.setattr(layer, "forward", _exact(layer.forward))
        yield


class LossNumbers(Suite):
    """The part of :class:`~naskd.testing.knowledge.KnowledgeLossSuite` that looks at numbers."""

    registry = KNOWLEDGE
    argument = "kind"

    @pytest.mark.parametrize("case", HARD_CASES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_hard_inputs_give_finite_losses_and_gradients(
        self, kind: str, case: str, dtype: torch.dtype
    ) -> None:
        """Dead networks, equal samples, huge logits: what a training meets in its worst moments."""
        student, teacher = HARD_CASES[case]
        teacher_shapes = STUDENT if case == "student equal to itself" else TEACHER
        student, teacher = changed(student, lambda x: x.to(dtype)), changed(teacher, lambda x: x.to(dtype))
        for pairs in pairs_of(kind):
            for temperature in (1.0, 4.0) if KNOWLEDGE[kind].uses_temperature else (4.0,):
                loss = build(kind, STUDENT, teacher_shapes, pairs=pairs, temperature=temperature)
                assert_finite(loss, student, evaluate(loss, student, teacher))

    @pytest.mark.parametrize("batch", [1, 2, 3])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_small_batches_are_finite(self, kind: str, batch: int, dtype: torch.dtype) -> None:
        """Below ``card.min_batch`` the loss and its gradients are 0."""
        for name in ("three stages", "1x1 maps only"):
            if KNOWLEDGE[kind].min_stages > len(STUDENTS[name].stages):
                continue
            loss = build(kind, STUDENTS[name], TEACHERS[name], pairs="all")
            student = random_taps(STUDENTS[name], batch, dtype=dtype)
            term = evaluate(loss, student, random_taps(TEACHERS[name], batch, seed=1, dtype=dtype))
            assert term.dtype == torch.float32
            assert_finite(loss, student, term)
            if batch < KNOWLEDGE[kind].min_batch:
                assert abs(term) < 1e-9
                assert all(gradient(x).abs().max() < 1e-6 for x in loss.student_tensors(student))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_narrow_inputs_are_widened_first(self, kind: str, dtype: torch.dtype) -> None:
        """The same numbers in 16 and in 32 bits give the same loss, and gradients that differ by their rounding."""
        spacing = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # 6e-8 in float16
        loss = build(kind, pairs="all")
        student, teacher = networks(dtype=dtype)
        wide_student, wide_teacher = changed(student, Tensor.float), changed(teacher, Tensor.float)
        torch.testing.assert_close(
            evaluate(loss, student, teacher), evaluate(loss, wide_student, wide_teacher), rtol=1e-6, atol=0
        )
        for x, wide in zip(loss.student_tensors(student), loss.student_tensors(wide_student), strict=True):
            tolerance = 1e-2 * float(gradient(wide).abs().max()) + 2 * spacing
            torch.testing.assert_close(gradient(x).float(), gradient(wide), rtol=1e-2, atol=tolerance)

    def test_autocast_changes_nothing_but_the_rounding_of_adapters(self, kind: str) -> None:
        """A loss computes in float32 under autocast too."""
        loss = build(kind, pairs="all")
        has_adapters = any(True for _ in loss.parameters())
        (plain, teacher), (cast, _) = networks(), networks()
        expected = evaluate(loss, plain, teacher)
        with torch.autocast("cpu", torch.bfloat16):
            found = evaluate(loss, cast, teacher)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=2e-2 if has_adapters else 1e-6, atol=0)
        if has_adapters:
            # Gradients jump where rounding moves an adapter's output over a kink (a ReLU, an absolute value); so
            # they are compared with adapters that do not round.
            loss.zero_grad(set_to_none=True)
            cast, _ = networks()
            with _adapters_without_autocast():
                with torch.autocast("cpu", torch.bfloat16):
                    term = loss(cast, summary_of(loss, teacher), lesson()).term
                back_propagate(term)
            torch.testing.assert_close(term.detach(), expected, rtol=1e-6, atol=0)
        for x, y in zip(loss.student_tensors(cast), loss.student_tensors(plain), strict=True):
            tolerance = 1e-6 * float(gradient(y).abs().max())
            torch.testing.assert_close(gradient(x), gradient(y), rtol=1e-6, atol=tolerance)

    def test_float64_stays_float64(self, kind: str) -> None:
        """So that gradients can be checked numerically."""
        student, teacher = networks(dtype=torch.float64)
        assert evaluate(build(kind, pairs="all").double(), student, teacher).dtype == torch.float64

    def test_needs_no_values_so_that_it_never_waits_for_a_device(self, kind: str) -> None:
        """On the meta device, where tensors have no values, a branch on one raises."""
        loss = build(kind, pairs="all").to("meta")
        student, teacher = taps_like(STUDENT, BATCH, "meta"), taps_like(TEACHER, BATCH, "meta")
        labels = torch.zeros(BATCH, dtype=torch.long, device="meta")
        given = replace(lesson(), labels=labels, index=labels)
        for mode in (True, False):
            loss.train(mode)
            assert loss(student, summary_of(loss, teacher), given).term.shape == ()
        if loss.card.initial_stage == "modules":
            assert loss.initial_term(summary_of(loss, teacher), given).shape == ()
