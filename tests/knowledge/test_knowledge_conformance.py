"""What every registered knowledge loss must do; a new one is tested by being registered."""

import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import KnowledgeLoss, Lesson, LossInputs, Summary
from naskd.knowledge.card import INITIAL_SHARE
from naskd.nn.taps import Taps, TapShapes, taps_like
from naskd.spec.design import KnowledgeTerm

from .fakes import N_SAMPLES, STUDENTS, TEACHERS, changed, given, random_taps, tensors

KINDS = KNOWLEDGE.names()
STUDENT, TEACHER = STUDENTS["three stages"], TEACHERS["three stages"]
BATCH = 6
PROGRESS = 0.5


def build(
    kind: str, student: TapShapes = STUDENT, teacher: TapShapes = TEACHER, **settings: object
) -> KnowledgeLoss:
    torch.manual_seed(0)
    found = KNOWLEDGE.load(kind)(KnowledgeTerm(kind, **settings), student, teacher, given(teacher))
    assert isinstance(found, KnowledgeLoss)
    # In evaluation mode a loss is a pure function, so that values can be compared.
    return found.eval()


def summary_of(loss: KnowledgeLoss, teacher: Taps) -> Summary:
    """What a loss is told; a loss of several teachers hears this one, and another one that says half as much."""
    if not loss.card.several_teachers:
        return loss.summarise(teacher)
    parts = [loss.summarise(t) for t in (teacher, changed(teacher, lambda x: x / 2))]
    return {f"{i}/{name}": x for i, part in enumerate(parts) for name, x in part.items()}


def evaluate(loss: KnowledgeLoss, student: Taps, teacher: Taps, labels: Tensor | None = None) -> Tensor:
    """The term, after back-propagation."""
    batch = len(student.logits)
    labels = torch.arange(batch) % student.logits.shape[1] if labels is None else labels
    with torch.no_grad():
        summary = summary_of(loss, teacher)
    term = loss(student, summary, Lesson(labels, torch.arange(batch), PROGRESS)).term
    term.backward()
    return term.detach()


def without_autocast(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def exact(layer: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(layer, x)

    return exact


def remember(loss: KnowledgeLoss) -> None:
    """Let a loss with a memory see all samples twice."""
    loss.train()
    for seed in (2, 3):
        student, teacher = (
            random_taps(STUDENT, N_SAMPLES, seed=seed),
            random_taps(TEACHER, N_SAMPLES, seed=seed),
        )
        index = torch.arange(N_SAMPLES)
        loss(student, summary_of(loss, teacher), Lesson(index % 5, index, PROGRESS))
    loss.eval()


def answers(teacher: Taps) -> Tensor:
    """Labels for which the teacher is right: one that is wrong may have nothing to teach."""
    return teacher.logits.detach().argmax(dim=1)


def taught(loss: KnowledgeLoss) -> list[tuple[str, Tensor]]:
    """Parameters that learn beside the student; those that learn before it are none of them."""
    before = {
        p for m in loss.initial_modules() for p in m.parameters() if loss.card.initial_stage == "modules"
    }
    return [(name, p) for name, p in loss.named_parameters() if p.requires_grad and p not in before]


def assert_finite(loss: KnowledgeLoss, student: Taps, term: Tensor) -> None:
    assert term.isfinite()
    for name, x in [*tensors(student).items(), *((n, p) for n, p in loss.named_parameters())]:
        assert x.grad is None or x.grad.isfinite().all(), f"gradient of {name} is not finite"


def pairs_of(kind: str) -> tuple[str, ...]:
    card = KNOWLEDGE[kind]
    if not card.uses_pairs:
        return ("last",)
    return ("last", "middle", "first", "all") + ("learned",) * card.learned_pairs


def test_importing_the_cards_does_not_import_torch() -> None:
    code = (
        "import sys, naskd.knowledge; assert len(naskd.knowledge.KNOWLEDGE); "
        "sys.exit(sum(m in sys.modules for m in ('torch', 'optuna', 'ray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
class TestCard:
    def test_says_what_it_is(self, kind: str) -> None:
        card = KNOWLEDGE[kind]
        assert card.name == kind
        assert card.title
        assert card.equation
        assert card.paper_setting
        assert "arXiv" in card.paper or "20" in card.paper
        assert card.paper_weight > 0
        assert math.isfinite(card.paper_weight)
        assert set(card.taps) <= set(Taps.__dataclass_fields__)
        for option in card.options.values():
            assert not option.problem(option.default)
            assert option.meaning

    def test_lets_a_default_term_pass(self, kind: str) -> None:
        card = KNOWLEDGE[kind]
        n_stages, batch = max(card.min_stages, 1), card.min_batch
        assert card.problems(KnowledgeTerm(kind), n_stages=n_stages, batch_size=batch) == []

    def test_names_an_unknown_option(self, kind: str) -> None:
        term = KnowledgeTerm(kind, options=(("no such option", 1.0),))
        assert "no such option" in KNOWLEDGE[kind].problems(term, n_stages=4, batch_size=64)[0]
        with pytest.raises(ValueError, match="no such option"):
            build(kind, options=(("no such option", 1.0),))

    def test_describes_a_loss(self, kind: str) -> None:
        implementation = KNOWLEDGE.load(kind)
        assert issubclass(implementation, KnowledgeLoss)
        assert implementation.__module__.rpartition(".")[2] == kind or not isinstance(
            KNOWLEDGE[kind].implementation, str
        )
        assert build(kind).card is KNOWLEDGE[kind]

    def test_says_truly_which_settings_matter(self, kind: str) -> None:
        def value(**settings: object) -> float:
            student, teacher = random_taps(STUDENT, BATCH), random_taps(TEACHER, BATCH, seed=1)
            loss = build(kind, **settings)
            if KNOWLEDGE[kind].needs_index:
                remember(loss)
            return float(evaluate(loss, student, teacher))

        assert (value(temperature=2.0) != value(temperature=5.0)) == KNOWLEDGE[kind].uses_temperature
        assert (value(pairs="first") != value(pairs="last")) == KNOWLEDGE[kind].uses_pairs
        for name, option in KNOWLEDGE[kind].options.items():
            default = option.default
            if name == INITIAL_SHARE:
                continue
            others: list[bool | int | float | str] = [other for other in option.choices if other != default]
            if isinstance(default, bool):
                others = [not default]
            elif isinstance(default, int | float):
                step = 1 if option.high is None else (option.high - default) / 2
                # the lowest too, since a bound on a number of things says nothing where there are fewer
                lowest = [] if option.low is None else [type(default)(option.low)]
                others = [type(default)(default + step), *lowest]
            expected = value()
            assert any(value(options=((name, other),)) != expected for other in others if other != default), (
                f"option {name} changes nothing"
            )

    def test_says_truly_what_the_loss_reads(self, kind: str) -> None:
        card, loss = KNOWLEDGE[kind], build(kind)
        student, teacher = random_taps(STUDENT, BATCH), random_taps(TEACHER, BATCH, seed=1)
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

    def test_says_truly_on_which_batch_it_teaches(self, kind: str) -> None:
        batch = KNOWLEDGE[kind].min_batch
        student, teacher = random_taps(STUDENT, batch), random_taps(TEACHER, batch, seed=1)
        loss = build(kind)
        evaluate(loss, student, teacher, answers(teacher))
        assert any(x.grad.abs().max() > 1e-6 for x in loss.student_tensors(student) if x.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("student_name", STUDENTS)
@pytest.mark.parametrize("teacher_name", TEACHERS)
def test_any_student_learns_from_any_teacher(kind: str, student_name: str, teacher_name: str) -> None:
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
            assert x.grad is not None
            assert flat or x.grad.abs().max() > 0
        undeclared = {n for n, x in tensors(student).items() if x.grad is not None} - {
            n for n, x in tensors(student).items() if any(x is y for y in declared)
        }
        assert not undeclared
        for name, parameter in taught(loss):
            assert parameter.grad is not None, f"{name} is never trained"
            # Scores weigh the terms, and where a loss has nothing to say on a 1x1 map all of them are 0.
            quiet = flat and name == "scores"
            assert quiet or parameter.grad.abs().max() > 0, f"{name} is never trained"


@pytest.mark.parametrize("kind", KINDS)
def test_summary_is_one_row_a_sample_and_the_same_for_all_students(kind: str) -> None:
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


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_gets_no_gradient(kind: str) -> None:
    loss = build(kind)
    student, teacher = random_taps(STUDENT, BATCH), random_taps(TEACHER, BATCH, seed=1)
    lesson = Lesson(torch.zeros(BATCH, dtype=torch.long), torch.arange(BATCH), PROGRESS)
    loss(student, summary_of(loss, teacher), lesson).term.backward()
    assert all(x.grad is None for x in tensors(teacher).values())


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_the_batch_does_not_matter(kind: str) -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    student = random_taps(STUDENT, BATCH, dtype=torch.float64)
    teacher = random_taps(TEACHER, BATCH, seed=1, dtype=torch.float64)
    labels, index = torch.arange(BATCH) % 5, torch.arange(BATCH)
    loss = build(kind).double()
    term = loss(student, summary_of(loss, teacher), Lesson(labels, index, PROGRESS)).term
    shuffled = loss(
        changed(student, lambda x: x[order]),
        {name: x[order] for name, x in summary_of(loss, teacher).items()},
        Lesson(labels[order], index[order], PROGRESS),
    ).term
    torch.testing.assert_close(shuffled, term, rtol=1e-10, atol=0)


def nasty(seed: int) -> Iterator[tuple[str, Taps, Taps]]:
    """Students and teachers as they come in bad moments of a training."""
    student, teacher = random_taps(STUDENT, BATCH, seed=seed), random_taps(TEACHER, BATCH, seed=seed + 1)
    zeros, twins = torch.zeros_like, torch.tensor([0, 0, 2, 3, 3, 3])

    def dead(x: Tensor) -> Tensor:
        x[:, 1:] = 0
        return x

    yield "zero student", changed(student, zeros), teacher
    yield "zero teacher", student, changed(teacher, zeros)
    yield "both zero", changed(student, zeros), changed(teacher, zeros)
    yield (
        "one zero sample",
        changed(student, lambda x: x * (torch.arange(BATCH) > 0).view(-1, *[1] * (x.ndim - 1))),
        teacher,
    )
    yield "equal samples", changed(student, lambda x: x[twins]), changed(teacher, lambda x: x[twins])
    yield "equal samples in the student", changed(student, lambda x: x[twins]), teacher
    yield "equal samples in the teacher", student, changed(teacher, lambda x: x[twins])
    yield "all samples equal", changed(student, lambda x: x[:1].expand_as(x).clone()), teacher
    yield (
        "all samples almost equal and large",
        changed(student, lambda x: 1e4 * x[:1] + 1e-3 * x),
        teacher,
    )
    yield "constant student", changed(student, lambda x: torch.full_like(x, 0.3)), teacher
    yield "dead channels", changed(student, dead, logits=False), changed(teacher, dead, logits=False)
    yield "student equal to itself", student, changed(student, lambda x: x)
    for scale in (1e-8, 1e-4, 1e4):
        yield f"student scaled by {scale}", changed(student, lambda x, s=scale: x * s), teacher
        yield f"teacher scaled by {scale}", student, changed(teacher, lambda x, s=scale: x * s)
    right = torch.nn.functional.one_hot(torch.arange(BATCH) % 5, 5).float()
    for gap in (50.0, 1e4):
        signed = (2 * right - 1) * gap
        yield (
            f"right student, logits of +-{gap:g}",
            replace(student, logits=signed.clone().requires_grad_()),
            teacher,
        )
        yield f"right teacher, logits of +-{gap:g}", student, replace(teacher, logits=signed)
        yield (
            f"wrong student, right teacher, logits of +-{gap:g}",
            replace(student, logits=(-signed).requires_grad_()),
            replace(teacher, logits=signed),
        )


NASTY = [name for name, _, _ in nasty(0)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", NASTY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nasty_inputs_give_finite_losses_and_gradients(kind: str, case: str, dtype: torch.dtype) -> None:
    student, teacher = next((s, t) for name, s, t in nasty(3) if name == case)
    teacher_shapes = STUDENT if case == "student equal to itself" else TEACHER
    student, teacher = changed(student, lambda x: x.to(dtype)), changed(teacher, lambda x: x.to(dtype))
    if dtype != torch.float32:
        student = replace(student, logits=student.logits.detach().to(dtype).requires_grad_())
        teacher = replace(teacher, logits=teacher.logits.detach().to(dtype))
    for pairs in pairs_of(kind):
        for temperature in (1.0, 4.0) if KNOWLEDGE[kind].uses_temperature else (4.0,):
            loss = build(kind, STUDENT, teacher_shapes, pairs=pairs, temperature=temperature)
            assert_finite(loss, student, evaluate(loss, student, teacher))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_small_batches_are_finite(kind: str, batch: int, dtype: torch.dtype) -> None:
    for name in ("three stages", "1x1 maps only"):
        loss = build(kind, STUDENTS[name], TEACHERS[name], pairs="all")
        student = random_taps(STUDENTS[name], batch, dtype=dtype)
        term = evaluate(loss, student, random_taps(TEACHERS[name], batch, seed=1, dtype=dtype))
        assert term.dtype == torch.float32
        assert_finite(loss, student, term)
        if batch < KNOWLEDGE[kind].min_batch:
            assert abs(term) < 1e-9
            assert all(x.grad.abs().max() < 1e-6 for x in loss.student_tensors(student))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_inputs_are_widened_first(kind: str, dtype: torch.dtype) -> None:
    """The same numbers in 16 and in 32 bits give the same loss, and gradients that differ by their
    rounding."""
    spacing = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # 6e-8 in float16
    loss = build(kind, pairs="all")
    student = random_taps(STUDENT, BATCH, dtype=dtype)
    teacher = random_taps(TEACHER, BATCH, seed=1, dtype=dtype)
    wide_student, wide_teacher = changed(student, Tensor.float), changed(teacher, Tensor.float)
    torch.testing.assert_close(
        evaluate(loss, student, teacher), evaluate(loss, wide_student, wide_teacher), rtol=1e-6, atol=0
    )
    for x, wide in zip(loss.student_tensors(student), loss.student_tensors(wide_student), strict=True):
        tolerance = 1e-2 * float(wide.grad.abs().max()) + 2 * spacing
        torch.testing.assert_close(x.grad.float(), wide.grad, rtol=1e-2, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_changes_nothing_but_the_rounding_of_adapters(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = build(kind, pairs="all")
    has_adapters = any(True for _ in loss.parameters())
    plain, cast = random_taps(STUDENT, BATCH), random_taps(STUDENT, BATCH)
    teacher = random_taps(TEACHER, BATCH, seed=1)
    expected = evaluate(loss, plain, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        found = evaluate(loss, cast, teacher)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=2e-2 if has_adapters else 1e-6, atol=0)
    if has_adapters:
        # Gradients jump where rounding moves an adapter's output over a kink (a ReLU, an absolute value); so they are
        # compared with adapters that do not round.
        for layer in (nn.Conv2d, nn.Linear):
            monkeypatch.setattr(layer, "forward", without_autocast(layer.forward))
        loss.zero_grad(set_to_none=True)
        cast = random_taps(STUDENT, BATCH)
        labels = torch.arange(BATCH) % 5
        with torch.autocast("cpu", torch.bfloat16):
            summary = summary_of(loss, teacher)
            term = loss(cast, summary, Lesson(labels, torch.arange(BATCH), PROGRESS)).term
        term.backward()
        torch.testing.assert_close(term, expected, rtol=1e-6, atol=0)
    for x, y in zip(loss.student_tensors(cast), loss.student_tensors(plain), strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-6 * float(y.grad.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_float64_stays_float64(kind: str) -> None:
    student = random_taps(STUDENT, BATCH, dtype=torch.float64)
    teacher = random_taps(TEACHER, BATCH, seed=1, dtype=torch.float64)
    assert evaluate(build(kind, pairs="all").double(), student, teacher).dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_needs_no_values_so_that_it_never_waits_for_a_device(kind: str) -> None:
    """On the meta device, where tensors have no values, a branch on one raises."""
    loss = build(kind, pairs="all").to("meta")
    student, teacher = taps_like(STUDENT, BATCH, "meta"), taps_like(TEACHER, BATCH, "meta")
    labels = torch.zeros(BATCH, dtype=torch.long, device="meta")
    lesson = Lesson(labels, labels, PROGRESS)
    for mode in (True, False):
        loss.train(mode)
        assert loss(student, summary_of(loss, teacher), lesson).term.shape == ()
    if loss.card.initial_stage == "modules":
        assert loss.initial_term(summary_of(loss, teacher), lesson).shape == ()


@pytest.mark.parametrize("kind", KINDS)
def test_needs_say_truly_what_is_needed(kind: str) -> None:
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
    nothing = LossInputs()
    if not any(getattr(card, need) for need in lacking):
        KNOWLEDGE.load(kind)(KnowledgeTerm(kind), STUDENT, TEACHER, nothing)


@pytest.mark.parametrize("kind", KINDS)
def test_progress_matters_where_the_card_says_so(kind: str) -> None:
    student, teacher, loss = random_taps(STUDENT, BATCH), random_taps(TEACHER, BATCH, seed=1), build(kind)
    labels = torch.arange(BATCH) % 5
    values = [
        loss(student, summary_of(loss, teacher), Lesson(labels, labels, progress)).term
        for progress in (0.0, 0.02, 0.6)
    ]
    assert (len({float(value.detach()) for value in values}) > 1) == KNOWLEDGE[kind].uses_progress


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KNOWLEDGE[kind].initial_stage == "modules"])
def test_what_learns_in_the_initial_stage_is_frozen_afterwards(kind: str) -> None:
    loss = build(kind)
    first = {p for module in loss.initial_modules() for p in module.parameters()}
    second = {p for module in loss.main_modules() for p in module.parameters()}
    assert first
    assert not first & second
    assert first | second == set(loss.parameters())
    student, teacher = random_taps(STUDENT, BATCH), random_taps(TEACHER, BATCH, seed=1)
    lesson = Lesson(torch.arange(BATCH) % 5, torch.arange(BATCH))
    term = loss.initial_term(summary_of(loss, teacher), lesson)
    term.backward()
    assert term.isfinite()
    for parameter in first:
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in second)
    loss.zero_grad(set_to_none=True)
    loss(student, summary_of(loss, teacher), lesson).term.backward()
    assert all(parameter.grad is None for parameter in first)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KNOWLEDGE[kind].initial_stage])
def test_a_loss_with_an_initial_stage_says_how_long_it_is(kind: str) -> None:
    assert INITIAL_SHARE in KNOWLEDGE[kind].options


@pytest.mark.parametrize("kind", KINDS)
def test_travels_to_another_process(kind: str) -> None:
    loss = build(kind)
    copy = pickle.loads(pickle.dumps(loss))
    values = [
        evaluate(each, random_taps(STUDENT, BATCH), random_taps(TEACHER, BATCH, seed=1))
        for each in (loss, copy)
    ]
    assert torch.equal(*values)
