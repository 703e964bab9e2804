import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from online_schemes import start
from small_studies import STUDENT, TEACHER, by_scheme, given, small_context
from torch import Tensor, nn

import naskd
from naskd.knowledge.source import OnlineSource
from naskd.networks.student import build_student
from naskd.nn.cost import count_macs, on_meta
from naskd.nn.taps import Taps, tap_shapes
from naskd.schemes import NO_TEACHER, SCHEMES
from naskd.schemes.data_free import (
    check_differentiable,
    check_variety,
    likeness,
    only_passed,
    said_of,
    variety,
)
from naskd.schemes.generator import AgainstGeneratorScheme, Generator
from naskd.schemes.scheme import CollapsedError
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm
from naskd.spec.errors import InputError, UnknownNameError
from naskd.spec.teachers import TeacherSpec
from naskd.spec.userfile import load_function
from naskd.study.admission import problems, settle
from naskd.testing.schemes import batches, copied, equal, teacher_of
from naskd.training.loop import NonFiniteError
from naskd.trials.context import StudyContext

SMALL = {"width": 4, "latent": 8}
OPTIONS: dict[str, dict[str, Any]] = {
    "dafl": SMALL,
    "dfad": {**SMALL, "moves": 2},
    "zskt": {**SMALL, "moves": 2},
    "deep_inversion": {"batches": 2},
}
WITH_A_GENERATOR = ("dafl", "dfad", "zskt")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp("data_free"))


def generator_scheme(context: StudyContext, name: str, **options: Any) -> AgainstGeneratorScheme:
    scheme = start(context, name, **{**OPTIONS[name], **options}).scheme
    assert isinstance(scheme, AgainstGeneratorScheme)
    return scheme.train()


# --- no image of the training split ---------------------------------------------------------------------------------


def trained(context: StudyContext, scheme: str) -> dict[str, Tensor]:
    run = start(context, scheme, training={"epochs": 2}, **OPTIONS.get(scheme, {}))
    run.advance(2)
    return run.scheme.deployed.state_dict()


def test_training_images_and_labels_have_no_part_in_it(tmp_path: Path) -> None:
    """The same bits come of noise with wrong labels in their place; plain training has others."""
    context, spoiled = small_context(tmp_path), small_context(tmp_path)
    given, train = context.resources.data, spoiled.resources.data.train
    train.images.random_(generator=torch.Generator().manual_seed(0))
    train.labels.fill_(0)
    assert not torch.equal(train.images, given.train.images)
    assert torch.equal(spoiled.resources.data.val.images, given.val.images)
    assert not equal(trained(context, "offline"), trained(spoiled, "offline"))
    for name in OPTIONS:
        assert equal(trained(context, name), trained(spoiled, name)), name


# --- the teacher ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
def test_the_teacher_is_asked_without_any_term(name: str, context) -> None:
    config = by_scheme(name)
    needed = context.prerequisites.of(config)
    teacher = context.prerequisites.teacher()
    assert needed.heard == needed.made == (teacher,)
    assert needed.compared == teacher
    assert settle(config, context.resources.spec).distillation.scheme == name
    assert problems(context.designs.measured(config), context.resources.spec) == []
    assert context.designs.design_problems(config) == []


@pytest.mark.parametrize("name", OPTIONS)
def test_without_a_teacher_it_is_turned_away(name: str, context) -> None:
    with pytest.raises(UnknownNameError, match=NO_TEACHER.replace("[", r"\[")):
        settle(by_scheme(name), replace(context.resources.spec, teacher=None))


@pytest.mark.parametrize("name", OPTIONS)
def test_terms_are_turned_away(name: str, context) -> None:
    config = by_scheme(name, KnowledgeTerm("hint"), KnowledgeTerm("logits"))
    config = settle(config, context.resources.spec)
    assert problems(context.designs.measured(config), context.resources.spec) == [
        f"scheme {name!r} teaches by a formula of its own and takes no knowledge terms, got 'hint', 'logits'"
    ]


def test_of_several_teachers_the_first_is_asked() -> None:
    given = DistillationSpec(
        scheme="dafl", teachers=("large", "small"), assistants=(AssistantSpec(STUDENT),), teacher_state=0.5
    )
    found = SCHEMES["dafl"].canonical(given)
    assert found == DistillationSpec(scheme="dafl", teachers=("large",))
    assert SCHEMES["dafl"].canonical(found) == found


class Deaf(nn.Module):
    """A network whose answers have lost where they came from, as those of another framework would."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build_student(TEACHER, 1, 10, (0.5,), (0.5,)).eval().requires_grad_(False)

    def taps(self, images: Tensor) -> Taps:
        return self.inner.taps(images.detach())


def test_a_teacher_that_no_gradient_passes_is_refused() -> None:
    hearing, deaf = Deaf().inner, Deaf()
    shapes = tap_shapes(hearing, 1, 8)
    check_differentiable(OnlineSource(hearing, shapes, 0), 1, 8)
    with pytest.raises(InputError, match="the teacher, a Deaf, lets no gradient pass to its images"):
        check_differentiable(SimpleNamespace(network=deaf), 1, 8)


BUILDER = """
import torch
from torch import nn

class Elsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *last)

    def forward(self, images):
        with torch.no_grad():
            return self.layers(images)

def build():
    return Elsewhere()
"""


def test_such_a_teacher_is_found_before_anything_trains(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BUILDER)
    torch.save(load_function("mine.py:build", tmp_path)().state_dict(), tmp_path / "mine.pt")
    teacher = TeacherSpec(builder=f"{tmp_path / 'mine.py'}:build", checkpoint=str(tmp_path / "mine.pt"))
    context = small_context(tmp_path, teacher=None)
    context = given(context, spec=replace(context.resources.spec, teacher=teacher))
    (found,) = context.designs.design_problems(by_scheme("dafl"))
    assert "lets no gradient pass to its images" in found


@pytest.mark.parametrize("name", WITH_A_GENERATOR)
def test_a_generator_learns_through_a_teacher_that_nothing_changes(name: str, context) -> None:
    scheme, teacher = generator_scheme(context, name), teacher_of(context)
    before = copied(teacher)
    (phase,) = scheme.phases()
    batch = next(batches(context, phase))
    for update in phase.step(batch, phase.ask(batch)):
        scheme.zero_grad()
        student = copied(scheme.deployed)
        update.loss.backward()
        if update.optimizer == "generator":
            gradients = [p.grad for p in scheme.generator.parameters()]
            assert all(g is not None and g.abs().max() > 0 for g in gradients)
            assert all(p.grad is None for p in scheme.deployed.parameters())
        else:
            assert all(p.grad is None for p in scheme.generator.parameters())
        assert equal(copied(scheme.deployed), student)
    assert all(p.grad is None for p in teacher.parameters())
    assert equal(copied(teacher), before)
    assert not any(module.training for module in teacher.modules())


def test_a_pass_through_a_student_leaves_nothing_with_it() -> None:
    student = build_student(STUDENT, 1, 10, (0.5,), (0.5,)).train()
    frozen = next(student.parameters()).requires_grad_(False)
    before, images = copied(student), torch.rand(8, 1, 8, 8, requires_grad=True)
    with only_passed(student):
        inside = student(images)
    inside.sum().backward()
    assert images.grad is not None
    assert all(p.grad is None for p in student.parameters())
    assert equal(copied(student), before)
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in student.parameters() if p is not frozen)
    torch.testing.assert_close(inside, student(images))  # statistics of the batch, as in training
    assert not equal(copied(student), before)


# --- the generator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "resolution"), [(1, 8), (3, 32), (3, 33), (1, 5), (2, 96)])
def test_images_have_the_studys_size_and_cost_what_is_said(channels: int, resolution: int) -> None:
    torch.manual_seed(0)
    generator = Generator(channels, resolution, 6, 2)
    images = generator(torch.randn(4, 6))
    assert images.shape == (4, channels, resolution, resolution)
    assert images.min() >= 0
    assert images.max() <= 1
    assert images.std(0).mean() > 0.05
    meta = on_meta(generator)
    assert generator.macs == count_macs(lambda: meta(torch.zeros(1, 6, device="meta")))


def test_the_generator_of_the_papers() -> None:
    """At 32 pixels: 128 maps of 8x8, 128 of 16x16, 64 of 32x32."""
    generator = Generator(3, 32, 100, 64)
    assert generator.grids == [(8, 8), (16, 16), (32, 32)]
    shapes = [tuple(m.weight.shape) for m in generator.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(128, 128, 3, 3), (64, 128, 3, 3), (3, 64, 3, 3)]
    assert [h for h, _ in Generator(3, 224, 8, 2).grids] == [7, 14, 28, 56, 112, 224]
    assert Generator(3, (20, 32), 8, 2).grids == [(5, 8), (10, 16), (20, 32)]


def test_images_begin_as_bright_and_varied_as_they_are_normalised_by() -> None:
    torch.manual_seed(0)
    mean, std = torch.tensor([0.3, 0.6]), torch.tensor([0.1, 0.05])
    offset, slope = likeness(mean, std)
    images = (offset + slope * torch.randn(50_000, 2)).sigmoid()
    torch.testing.assert_close(images.mean(0), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(images.std(0), std, atol=0.01, rtol=0)
    assert all(x.isfinite().all() for x in likeness(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5])))


@pytest.mark.parametrize("name", WITH_A_GENERATOR)
def test_so_do_those_of_a_search(name: str, context) -> None:
    images = generator_scheme(context, name, width=16).made(256)
    assert images.mean().item() == pytest.approx(context.resources.data.mean[0], abs=0.06)


# --- collapse -------------------------------------------------------------------------------------------------------


def test_variety_by_hand() -> None:
    images = torch.tensor([0.0, 0.5, 0.2, 0.2]).view(2, 1, 1, 2).transpose(0, 3)  # pixels 0, .5 and .2, .2
    found = variety(images, torch.tensor([[50.0, 0.0], [0.0, 50.0]]))
    assert found["spread"].item() == pytest.approx(0.5**0.5 * 0.5 / 2)
    assert found["classes"].item() == pytest.approx(2.0)
    assert variety(images, torch.tensor([[50.0, 0.0]] * 2))["classes"].item() == pytest.approx(1.0)


def test_what_nobody_can_learn_from_is_said() -> None:
    check_variety({"spread": 0.01, "classes": 1.2}, "somebody", "do better")
    with pytest.raises(
        CollapsedError, match=r"somebody has collapsed: its images are all the same.*; do better"
    ):
        check_variety({"spread": 1e-4, "classes": 5.0}, "somebody", "do better")
    with pytest.raises(CollapsedError, match="the teacher sees one class in all images"):
        check_variety({"spread": 0.2, "classes": 1.01}, "somebody", "do better")


@pytest.mark.parametrize("name", WITH_A_GENERATOR)
def test_a_generator_of_one_image_ends_the_training(name: str, context) -> None:
    """In the first half of the epochs it may find its way."""
    run = start(context, name, **OPTIONS[name], generator_rate=1e-9)
    scheme = run.scheme
    assert isinstance(scheme, AgainstGeneratorScheme)
    with torch.no_grad():
        scheme.generator.last[1].weight.fill_(0)
    run.advance(1)
    with pytest.raises(CollapsedError, match="the generator has collapsed: its images are all the same"):
        run.advance(3)
    assert run.epoch == 2


@pytest.mark.parametrize("name", OPTIONS)
def test_images_of_one_class_end_the_training(name: str, context, sure_teacher) -> None:
    run = start(context, name, **OPTIONS[name])
    run.advance(1)
    with pytest.raises(CollapsedError, match="the teacher sees one class in all images"):
        run.advance(3)


@pytest.fixture
def sure_teacher(context: StudyContext) -> Iterator[None]:
    """For whom all is of class 3."""
    head = teacher_of(context).head
    assert isinstance(head, nn.Linear)
    before = copy.deepcopy(head.state_dict())
    with torch.no_grad():
        head.bias[3] += 100
    yield
    head.load_state_dict(before)


@pytest.mark.parametrize("name", WITH_A_GENERATOR)
def test_a_generator_that_is_not_finite_ends_the_training(name: str, context) -> None:
    run = start(context, name, **OPTIONS[name])
    assert isinstance(run.scheme, AgainstGeneratorScheme)
    with torch.no_grad():
        run.scheme.generator.linear.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError):
        run.advance(1)


# --- books ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_A_GENERATOR)
def test_all_that_is_run_is_paid_for(name: str, context) -> None:
    """A generator's pass is three of them where it learns, and passes that lead to images cost one each way."""
    run = start(context, name, **OPTIONS[name], steps=5)
    assert isinstance(run.scheme, AgainstGeneratorScheme)
    generator, student, teacher = run.scheme.generator.macs, run.cost.macs, run.scheme.teacher.macs
    before = run.scheme.teacher.forward_images
    each, asked = {
        "dafl": (3 * generator + 3 * student + teacher, 1),
        "dfad": (3 * generator + 2 * (generator + 3 * student) + student + (student + teacher), 3),
        "zskt": (3 * generator + 2 * 3 * student + student + (student + teacher), 1),
    }[name]
    run.advance(1)
    images, validated = 5 * 32, len(context.resources.data.val)
    assert run.scheme.teacher.forward_images - before == images * asked
    assert run.train_macs == images * (each + asked * teacher) + validated * student
    assert run.spent_macs == run.train_macs
    assert run.asked_images == run.forward_images == images * asked


def test_images_that_are_made_are_paid_for(context) -> None:
    run = start(context, "deep_inversion", batches=3, steps=5, share=0.67)
    student, teacher, validated = run.cost.macs, run.scheme.teacher.macs, len(context.resources.data.val)
    run.advance(1)
    assert run.train_macs == 5 * 32 * 3 * 2 * teacher + validated * student
    making = run.train_macs
    run.advance(3)
    assert run.train_macs == 2 * making + 5 * 32 * (3 * student + teacher) + validated * student
    assert run.spent_macs == run.train_macs


def test_a_recorded_step_would_not_count_the_teacher(context) -> None:
    """Whose passes are counted in Python, so that no phase with some in its step may be replayed."""
    for name in WITH_A_GENERATOR:
        assert not any(phase.repeats for phase in generator_scheme(context, name).phases())
    making, learning = start(context, "deep_inversion").scheme.phases()
    assert not making.repeats
    assert learning.repeats


def test_what_a_teacher_says_is_counted_and_has_no_gradient(context) -> None:
    source = context.sources.online(context.prerequisites.teacher())
    before = source.forward_images
    assert not said_of(source, torch.rand(7, 1, 8, 8, requires_grad=True)).requires_grad
    assert source.forward_images == before + 7


# --- a search -------------------------------------------------------------------------------------------------------

SPACE = """
from naskd.config import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig

OPTIONS = {options}

def space(trial):
    scheme = trial.suggest_categorical("kd.scheme", tuple(OPTIONS))
    return TrialConfig(
        ArchitectureSpec((StageSpec("basic", 1, 4), StageSpec("basic", 1, 6, stride=2)), stem_width=4),
        DistillationSpec(scheme=scheme, scheme_options=tuple(sorted(OPTIONS[scheme].items()))),
        TrainingSpec(batch_size=32, learning_rate=0.01),
    )
"""

STUDY = """
name = "data_free"
space = "space.py:space"
epochs = 2
[data]
kind = "digits"
max_train = 120
[teacher.architecture]
stem_width = 6
stages = [{{block = "basic", depth = 1, width = 6}}, {{block = "basic", depth = 1, width = 8, stride = 2}}]
[teacher.training]
epochs = 1
[sampler]
name = "random"
[budget]
trials = 4
[execution]
device = "cpu"
{starts}
"""


def test_a_search_tries_all_of_them(tmp_path: Path) -> None:
    """From a study file; each student is stored without what made its images, and is compared with its teacher."""
    starts = "\n".join(f'[[warm_start]]\n"kd.scheme" = "{name}"' for name in OPTIONS)
    (tmp_path / "space.py").write_text(SPACE.format(options=OPTIONS))
    (tmp_path / "study.toml").write_text(STUDY.format(starts=starts))
    trials = naskd.search(tmp_path / "study.toml", out=tmp_path / "run").trials()
    found = {
        trial["config"]["distillation"]["scheme"]: trial for trial in trials if trial["state"] == "COMPLETE"
    }
    assert set(found) == set(OPTIONS)
    for trial in found.values():
        assert 0 <= trial["teacher_agreement"] <= 1
        assert trial["n_params"] == found["dafl"]["n_params"]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("dafl", {"generator_rate": 0.0}, "generator_rate"),
        ("dfad", {"moves": 0}, "moves"),
        ("zskt", {"attention": -1.0}, "attention"),
        ("deep_inversion", {"share": 1.0}, "share"),
    ],
)
def test_an_option_out_of_range_is_one_error(name: str, options: dict[str, Any], said: str, context) -> None:
    (found,) = problems(context.designs.measured(by_scheme(name, **options)), context.resources.spec)
    assert f"scheme {name!r}" in found
    assert said in found
