"""What every knowledge loss must do, whoever registered it."""

import math
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import KnowledgeLoss, Lesson, LossInputs
from naskd.knowledge.card import INITIAL_SHARE
from naskd.nn.taps import Taps
from naskd.spec.design import KnowledgeTerm
from naskd.spec.option import Option, OptionValue
from naskd.testing.loss_numbers import LossNumbers
from naskd.testing.losses import (
    BATCH,
    STUDENT,
    TEACHER,
    answers,
    assert_finite,
    back_propagate,
    build,
    evaluate,
    lesson,
    networks,
    pairs_of,
    remember,
    summary_of,
    taught,
)
from naskd.testing.suite import where
from naskd.testing.taps import STUDENTS, TEACHERS, changed, given, gradient, random_taps, tensors


def other_values(option: Option) -> list[OptionValue]:
    """Values of an option beside its default, one of which must make a difference."""
    default = option.default
    others: list[OptionValue] = list(option.choices)
    if isinstance(default, bool):
        others = [not default]
    elif isinstance(default, int | float):
        step = 1 if option.high is None else (option.high - default) / 2
        # The lowest too, since a bound on a number of things says nothing where there are fewer.
        lowest = [] if option.low is None else [type(default)(option.low)]
        others = [type(default)(default + step), *lowest]
    return [other for other in others if other != default]


class KnowledgeLossSuite(LossNumbers):
    """Tests of knowledge losses.

    Example::

        class TestMine(KnowledgeLossSuite):
            names = "my_loss"

    They build the loss on imaginary taps (:mod:`naskd.testing.taps`), maps and tokens, of one to four stages. They
    need no images and no GPU.
    """

    # --- the card --------------------------------------------------------------------------------------------------

    def test_the_card_says_what_it_is(self, kind: str) -> None:
        """Name, title and equation for listings; taps that exist; a weight; options whose defaults are allowed."""
        card = KNOWLEDGE[kind]
        assert card.name == kind
        assert card.title
        assert card.equation
        assert card.paper_weight > 0
        assert math.isfinite(card.paper_weight)
        assert set(card.taps) <= set(Taps.__dataclass_fields__)
        for option in card.options.values():
            assert not option.problem(option.default)
            assert option.meaning

    def test_the_card_lets_a_default_term_pass(self, kind: str) -> None:
        """On the smallest network and batch that it asks for."""
        card = KNOWLEDGE[kind]
        n_stages, batch = max(card.min_stages, 1), card.min_batch
        assert card.problems(KnowledgeTerm(kind), n_stages=n_stages, batch_size=batch) == []

    def test_an_unknown_option_is_named(self, kind: str) -> None:
        """By the card and by the loss."""
        term = KnowledgeTerm(kind, options=(("no such option", 1.0),))
        assert "no such option" in KNOWLEDGE[kind].problems(term, n_stages=4, batch_size=64)[0]
        with pytest.raises(ValueError, match="no such option"):
            build(kind, options=(("no such option", 1.0),))

    def test_the_card_describes_a_loss(self, kind: str) -> None:
        """Its implementation is a :class:`~naskd.knowledge.base.KnowledgeLoss` that knows its card."""
        assert issubclass(KNOWLEDGE.load(kind), KnowledgeLoss)
        assert build(kind).card is KNOWLEDGE[kind]

    def test_the_card_says_truly_which_settings_matter(self, kind: str) -> None:
        """Temperature and pairs change the loss if and only if the card says so; each option does."""

        def value(**settings: Any) -> float:
            loss = build(kind, **settings)
            if KNOWLEDGE[kind].needs_index:
                remember(loss)
            return float(evaluate(loss, *networks()))

        card = KNOWLEDGE[kind]
        assert (value(temperature=2.0) != value(temperature=5.0)) == card.uses_temperature
        assert (value(pairs="first") != value(pairs="last")) == card.uses_pairs
        expected = value()
        for name, option in card.options.items():
            assert name == INITIAL_SHARE or any(
                value(options=((name, other),)) != expected for other in other_values(option)
            ), f"option {name} changes nothing"

    def test_the_card_says_truly_what_the_loss_reads(self, kind: str) -> None:
        """What the card does not name may be anything, NaN too."""
        card, loss = KNOWLEDGE[kind], build(kind)
        student, teacher = networks()
        expected = evaluate(loss, student, teacher)
        assert not {
            name
            for name, x in tensors(student).items()
            if x.grad is not None and name.split(".")[0] not in card.taps
        }

        def unread(taps: Taps) -> Taps:
            spoiled = changed(taps, lambda x: x * math.nan)
            return replace(spoiled, **{name: getattr(taps, name) for name in card.taps})

        torch.testing.assert_close(evaluate(loss, unread(student), unread(teacher)), expected)
        if not card.needs_labels:
            labels = torch.full((BATCH,), 4)
            torch.testing.assert_close(evaluate(loss, student, teacher, labels), expected)

    def test_the_card_says_truly_on_which_batch_it_teaches(self, kind: str) -> None:
        """``min_batch`` samples are enough for a gradient."""
        student, teacher = networks(KNOWLEDGE[kind].min_batch)
        loss = build(kind)
        evaluate(loss, student, teacher, answers(teacher))
        assert any(x.grad.abs().max() > 1e-6 for x in loss.student_tensors(student) if x.grad is not None)

    def test_the_card_says_truly_what_is_needed(self, kind: str) -> None:
        """Without what its card asks for, a loss is not built; without what it does not ask for, it is."""
        card = KNOWLEDGE[kind]
        full = given(TEACHER)
        lacking = {
            "needs_teacher_head": replace(full, parts=replace(full.parts, head=None)),
            "needs_teacher_norms": replace(full, parts=replace(full.parts, norms=())),
            "needs_index": replace(full, n_samples=0),
            "several_teachers": replace(full, teachers=(TEACHER,)),
        }
        for need, inputs in lacking.items():
            if getattr(card, need):
                with pytest.raises(ValueError, match=kind):
                    KNOWLEDGE.load(kind)(KnowledgeTerm(kind), STUDENT, TEACHER, inputs)
            else:
                KNOWLEDGE.load(kind)(KnowledgeTerm(kind), STUDENT, TEACHER, inputs)
        if not any(getattr(card, need) for need in lacking):
            KNOWLEDGE.load(kind)(KnowledgeTerm(kind), STUDENT, TEACHER, LossInputs())

    def test_progress_matters_where_the_card_says_so(self, kind: str) -> None:
        """``uses_progress``: the loss changes in the course of a training."""
        student, teacher = networks()
        loss = build(kind)
        values = {
            float(
                loss(student, summary_of(loss, teacher), replace(lesson(), progress=progress)).term.detach()
            )
            for progress in (0.0, 0.02, 0.6)
        }
        assert (len(values) > 1) == KNOWLEDGE[kind].uses_progress

    # --- the loss --------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("student_name", STUDENTS)
    @pytest.mark.parametrize("teacher_name", TEACHERS)
    def test_any_student_learns_from_any_teacher(
        self, kind: str, student_name: str, teacher_name: str
    ) -> None:
        """A finite scalar whose gradient reaches what the loss says that it reads, and all that learns beside it."""
        student_shapes, teacher_shapes = STUDENTS[student_name], TEACHERS[teacher_name]
        n_stages = min(len(student_shapes.stages), len(teacher_shapes.stages))
        if n_stages < KNOWLEDGE[kind].min_stages:
            with pytest.raises(ValueError, match="stages"):
                build(kind, student_shapes, teacher_shapes)
            return
        flat = "1x1" in student_name or "1x1" in teacher_name  # some losses have nothing to say on a 1x1 map
        for pairs in pairs_of(kind):
            loss = build(kind, student_shapes, teacher_shapes, pairs=pairs)
            student, teacher = random_taps(student_shapes, BATCH), random_taps(teacher_shapes, BATCH, seed=1)
            term = evaluate(loss, student, teacher, answers(teacher))
            assert term.shape == ()
            assert term.dtype == torch.float32
            assert_finite(loss, student, term)
            declared = loss.student_tensors(student)
            assert declared
            for x in declared:
                assert flat or gradient(x).abs().max() > 0
            undeclared = {
                name
                for name, x in tensors(student).items()
                if x.grad is not None and not any(x is y for y in declared)
            }
            assert not undeclared
            for name, parameter in taught(loss):
                # Scores weigh the terms, and where a loss has nothing to say on a 1x1 map all of them are 0.
                quiet = flat and name == "scores"
                assert quiet or gradient(parameter).abs().max() > 0, f"{name} is never trained"

    def test_summary_is_one_row_a_sample_and_the_same_for_all_students(self, kind: str) -> None:
        """So that a bank keeps what is under a name once, whoever asks for it."""
        teacher = random_taps(TEACHER, BATCH)
        rows = torch.tensor([4, 1, 1])
        known: dict[str, Tensor] = {}
        for student in STUDENTS.values():
            for pairs in pairs_of(kind):
                if len(student.stages) < KNOWLEDGE[kind].min_stages:
                    continue
                loss = build(kind, student, TEACHER, pairs=pairs)
                summary = loss.summarise(teacher)
                selected = loss.summarise(changed(teacher, lambda x: x[rows]))
                assert bool(summary) is loss.card.needs_teacher
                for name, x in summary.items():
                    assert len(x) == BATCH
                    assert not x.requires_grad
                    assert torch.equal(known.setdefault(name, x), x)
                    torch.testing.assert_close(selected[name], x[rows])

    def test_teacher_gets_no_gradient(self, kind: str) -> None:
        """A summary is detached."""
        loss = build(kind)
        student, teacher = networks()
        back_propagate(loss(student, summary_of(loss, teacher), lesson()).term)
        assert all(x.grad is None for x in tensors(teacher).values())

    def test_order_of_the_batch_does_not_matter(self, kind: str) -> None:
        """To 1e-10 in float64."""
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        student, teacher = networks(dtype=torch.float64)
        loss, given = build(kind).double(), lesson()
        term = loss(student, summary_of(loss, teacher), given).term
        shuffled = loss(
            changed(student, lambda x: x[order]),
            {name: x[order] for name, x in summary_of(loss, teacher).items()},
            replace(given, labels=given.labels[order], index=given.index[order]),
        ).term
        torch.testing.assert_close(shuffled, term, rtol=1e-10, atol=0)

    @where(lambda kind: KNOWLEDGE[kind].initial_stage == "modules")
    def test_what_learns_in_the_initial_stage_is_frozen_afterwards(self, kind: str) -> None:
        """Two sets of modules, apart, which are all of the loss; each stage trains its own."""
        loss = build(kind)
        first = {p for module in loss.initial_modules() for p in module.parameters()}
        second = {p for module in loss.main_modules() for p in module.parameters()}
        assert first
        assert not first & second
        assert first | second == set(loss.parameters())
        student, teacher = networks()
        given = Lesson(torch.arange(BATCH) % 5, torch.arange(BATCH))
        term = loss.initial_term(summary_of(loss, teacher), given)
        back_propagate(term)
        assert term.isfinite()
        assert all(gradient(parameter).abs().max() > 0 for parameter in first)
        assert all(parameter.grad is None for parameter in second)
        loss.zero_grad(set_to_none=True)
        back_propagate(loss(student, summary_of(loss, teacher), given).term)
        assert all(parameter.grad is None for parameter in first)

    @where(lambda kind: bool(KNOWLEDGE[kind].initial_stage))
    def test_a_loss_with_an_initial_stage_says_how_long_it_is(self, kind: str) -> None:
        """By the option that all of them have."""
        assert INITIAL_SHARE in KNOWLEDGE[kind].options

    def test_travels_to_another_process(self, kind: str) -> None:
        """Pickled and back it says the same."""
        loss = build(kind)
        copy = pickle.loads(pickle.dumps(loss))
        values = [evaluate(each, *networks()) for each in (loss, copy)]
        assert torch.equal(*values)
