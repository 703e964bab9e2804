"""Progressive blockwise distillation: stages that take the places of the teacher's, one after the other."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_loops import cross_entropy
from online_schemes import start
from small_studies import STUDENT, TEACHER, by_scheme, make, open_context, small_context, study
from torch import Tensor, nn

from naskd.networks.cnn import part_costs
from naskd.schemes.cohort import widened
from naskd.schemes.progressive_blockwise import ProgressiveBlockwiseScheme, groups
from naskd.schemes.scheme import Batch
from naskd.spec.design import ArchitectureSpec, KnowledgeTerm, TrialConfig
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.study.admission import settle
from naskd.testing.schemes import batches, update_by_hand
from naskd.trials.context import StudyContext
from naskd.trials.run import start_run

SCHEME = "progressive_blockwise"
LOGITS = KnowledgeTerm("logits")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
    return small_context(tmp_path_factory.mktemp(SCHEME))


def config(architecture: ArchitectureSpec = STUDENT, *terms: KnowledgeTerm, **options: Any) -> TrialConfig:
    found = by_scheme(SCHEME, *(terms or (LOGITS,)), training={"epochs": 4}, **options)
    return replace(found, architecture=architecture)


def started(context: StudyContext, *given: Any, **options: Any) -> ProgressiveBlockwiseScheme:
    scheme = start_run(config(*given, **options), context, seed=2)[0].scheme
    assert isinstance(scheme, ProgressiveBlockwiseScheme)
    return scheme


def first(scheme: ProgressiveBlockwiseScheme, context: StudyContext) -> Batch:
    return next(batches(context, scheme.phases()[0]))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def why_not(context: StudyContext, found: TrialConfig) -> list[str]:
    return context.designs.design_problems(settle(found, context.resources.spec))


@pytest.mark.parametrize(
    ("stages", "epochs", "expected"),
    [
        (3, 3, [((0,), 1), ((1,), 1), ((2,), 1)]),
        (3, 8, [((0,), 3), ((1,), 3), ((2,), 2)]),
        (3, 2, [((0, 1), 1), ((2,), 1)]),
        (4, 1, [((0, 1, 2, 3), 1)]),
        (5, 3, [((0, 1), 1), ((2, 3), 1), ((4,), 1)]),
    ],
)
def test_stages_share_the_epochs(
    stages: int, epochs: int, expected: list[tuple[tuple[int, ...], int]]
) -> None:
    assert [(tuple(group), length) for group, length in groups(stages, epochs)] == expected


@pytest.mark.parametrize("group", [0, 1])
def test_the_loss_by_the_definition(group: int, context: StudyContext) -> None:
    """Cross-entropy of the network that a stage is now a part of, and its distance from the teacher's, in loops."""
    scheme = started(context, local=0.7).eval()
    batch = first(scheme, context)
    phase = scheme.phases()[group]
    asked = phase.ask(batch)
    (update,) = phase.step(batch, asked)
    network, teacher = scheme.network, context.sources.online(context.prerequisites.teacher()).network
    with torch.no_grad():
        x = network.stem(network.normalised(batch.images))
        for stage in list(network.stages)[: group + 1]:
            x = stage(x)
        target = teacher.taps(batch.images).stages[group].tensor.double().numpy()
        adapter = scheme.replacement(group).adapter
        weight, bias = adapter.weight.double().flatten(1).numpy(), adapter.bias.double().numpy()
        own = x.double().numpy()
        adapted = np.zeros_like(target)
        for b, h, w in np.ndindex(len(own), *own.shape[2:]):
            adapted[b, :, h, w] = weight @ own[b, :, h, w] + bias
        y = torch.from_numpy(adapted).float()
        for stage in list(teacher.network.stages)[group + 1 :]:
            y = stage(y)
        logits = teacher.network.head(y.mean((2, 3))).tolist()
    labels = sum(map(cross_entropy, logits, batch.labels.tolist())) / len(logits)
    local = ((adapted - target) ** 2).sum() / (target**2).sum()
    assert update.terms["ce"].item() == pytest.approx(labels, rel=1e-4)
    assert update.terms["local"].item() == pytest.approx(local, rel=1e-4)
    assert update.loss.item() == pytest.approx(labels + 0.7 * local, rel=1e-4)


def test_what_stands_in_the_teachers_place_and_does_the_same_changes_nothing(context: StudyContext) -> None:
    """A student that is the teacher: each mixture of both says what the teacher says, and is as near as can be."""
    scheme = start_run(
        replace(config(TEACHER), training=replace(config().training, start="teacher")), context, seed=2
    )[0].scheme.eval()
    assert isinstance(scheme, ProgressiveBlockwiseScheme)
    batch = first(scheme, context)
    wanted = context.sources.online(context.prerequisites.teacher()).network(batch.images)
    for group, phase in enumerate(scheme.phases()[:2]):
        adapter = scheme.replacement(group).adapter
        with torch.no_grad():
            adapter.weight.copy_(torch.eye(len(adapter.weight))[:, :, None, None])
            adapter.bias.zero_()
            shown = adapter(scheme.stage_output(batch.images, group))
            torch.testing.assert_close(scheme.rest_of_teacher(shown, group), wanted)
        (update,) = phase.step(batch, phase.ask(batch))
        assert update.terms["local"].item() < 1e-6, "what is remembered of the teacher is rounded"


def test_stages_are_replaced_in_turn_and_stay(context: StudyContext) -> None:
    """Each with a way of its own to the teacher; then all learn together, and the ways are left behind."""
    run = start(context, SCHEME, LOGITS, training={"epochs": 4}, share=0.5)
    scheme = run.scheme
    assert isinstance(scheme, ProgressiveBlockwiseScheme)
    assert [(phase.name, phase.epochs) for phase in scheme.phases()] == [
        ("stage 1", 1),
        ("stage 2", 1),
        ("distillation", 2),
    ]
    teacher = context.sources.online(context.prerequisites.teacher()).network
    taught = state(teacher)
    parts = [
        nn.ModuleList([scheme.network.stem, scheme.network.stages[0], scheme.replacements[0]]),
        nn.ModuleList([scheme.network.stages[1], scheme.replacements[1]]),
        scheme.network.head,
    ]
    for moved in ({0}, {1}):
        before = [state(part) for part in parts]
        run.advance(run.epoch + 1)
        assert {i for i, part in enumerate(parts) if not same(before[i], state(part))} == moved
    ways = state(scheme.replacements)
    before = state(scheme.network)
    run.advance(4)
    assert same(ways, state(scheme.replacements))
    now = state(scheme.network)
    assert not [n for n in before if torch.equal(before[n], now[n]) and n.endswith("weight")]
    assert same(taught, state(teacher))
    assert [set(row) & {"local", "ce", "logits"} for row in run.curve] == [
        {"local", "ce"},
        {"local", "ce"},
        {"ce", "logits"},
        {"ce", "logits"},
    ]


def test_the_whole_student_begins_with_what_its_last_stage_led_to(context: StudyContext) -> None:
    """With the classifier that the way out of it and the teacher's are together."""
    scheme = started(context).eval()
    images = first(scheme, context).images
    with torch.no_grad():
        wanted = scheme.rest_of_teacher(scheme.replacement(1).adapter(scheme.stage_output(images, 1)), 1)
        assert not torch.allclose(scheme.network(images), wanted, atol=0.1)
        begin = scheme.phases()[2].before_epoch
        assert begin is not None
        begin(1)
        assert not torch.allclose(scheme.network(images), wanted, atol=0.1), "in its first epoch alone"
        begin(0)
        torch.testing.assert_close(scheme.network(images), wanted, rtol=1e-4, atol=1e-5)


def test_nothing_before_a_stage_and_nothing_of_the_teacher_has_a_gradient(context: StudyContext) -> None:
    scheme = started(context)
    batch = first(scheme, context)
    phase = scheme.phases()[1]
    (update,) = phase.step(batch, phase.ask(batch))
    update_by_hand(scheme, phase, update)
    assert all(p.grad is None for p in [*scheme.network.stem.parameters(), *scheme.teacher.parameters()])
    assert all(p.grad is None for p in scheme.network.stages[0].parameters())
    assert all(p.grad is not None for p in scheme.network.stages[1].parameters())
    assert not set(scheme.teacher.parameters()) & set(scheme.parameters())


def test_without_labels_the_teacher_is_not_run_behind_the_stage(context: StudyContext) -> None:
    scheme = start_run(
        replace(config(), distillation=replace(config().distillation, ce_weight=0.0)), context, 2
    )[0].scheme
    phase = scheme.phases()[0]
    batch = next(batches(context, phase))
    (update,) = phase.step(batch, phase.ask(batch))
    assert set(update.terms) == {"local"}
    assert scheme.through_macs(32, phase) == scheme.forward_macs(32, phase) == 0
    nothing = replace(config(local=0.0), distillation=replace(config(local=0.0).distillation, ce_weight=0.0))
    assert why_not(context, nothing) == [
        f"scheme '{SCHEME}': ce_weight and local are 0: stages would learn nothing"
    ]


def test_what_each_phase_costs(context: StudyContext) -> None:
    """The stages that learn three times, what is before them once, and the teacher's behind them there and back."""
    scheme = started(context)
    own, other = (
        [cost.macs for cost in part_costs(spec, 1, 8)] for spec in (scheme.network.spec, scheme.teacher.spec)
    )
    one, two, together = scheme.phases()
    head = 8 * 10
    assert scheme.step_macs(32, one) == (
        own[0] + own[1] + 4 * 6 * 64,
        sum(other) + head,
    )
    assert scheme.forward_macs(32, one) == scheme.through_macs(32, one) == other[2] + head
    assert scheme.step_macs(32, two)[0] == own[2] + 6 * 8 * 16
    assert scheme.forward_macs(32, two) == own[0] + own[1] + head
    assert scheme.through_macs(32, two) == head
    assert scheme.forward_macs(32, together) == scheme.through_macs(32, together) == 0


@pytest.mark.parametrize("times", [1, 8])
def test_its_price_is_what_its_training_costs(times: int, context: StudyContext) -> None:
    """Also of a second design, which is larger, while the teacher's stages behind its own are not."""
    context.designs.training_macs(config())
    design = config(widened(STUDENT, times))
    run = start_run(design, context, 2)[0]
    teacher = run.scheme.inputs.sources[0].macs
    trained = sum(run.loop.images_per_epoch(e) * (run.macs_per_image(e) - teacher) for e in range(4))
    expected = trained + 4 * 288 * run.cost.macs
    rel = 1e-9 if times == 1 else 0.02
    assert context.designs.training_macs(design).own == pytest.approx(expected, rel=rel)
    plain = replace(by_scheme("offline"), architecture=design.architecture)
    assert run.cost == context.designs.design_cost(plain)


def refused() -> dict[str, ArchitectureSpec]:
    one, two = STUDENT.stages
    return {
        "replaces each stage of the teacher by one: it has 2, the student 1": replace(STUDENT, stages=(one,)),
        "after stage 1 the student's map has 4x4 places, the teacher's 8x8; allowed: the same": replace(
            STUDENT, stem_stride=2
        ),
        "after stage 2 the student's map has 8x8 places, the teacher's 4x4": replace(
            STUDENT, stages=(one, replace(two, stride=1))
        ),
        "a place of the student's map after stage 2 sees 11x11 pixels, of the teacher's 13x13; allowed": replace(
            STUDENT, stages=(one, replace(two, kernel=5, depth=1, block="depthwise_separable"))
        ),
        "a place of the student's map after stage 1 sees 5x5 pixels, of the teacher's 7x7": replace(
            STUDENT, stages=(replace(one, block="inverted_residual"), two)
        ),
    }


@pytest.mark.parametrize(("why", "architecture"), refused().items(), ids=refused())
def test_what_does_not_fit_is_turned_away_with_the_numbers(
    why: str, architecture: ArchitectureSpec, context: StudyContext
) -> None:
    (found,) = why_not(context, config(architecture))
    assert found.startswith(f"scheme '{SCHEME}'")
    assert why in found


def test_many_layers_become_one_where_any_receptive_field_is_allowed(tmp_path: Path) -> None:
    """A block stands for three of the teacher's: turned away by default, trained where it is asked for."""
    deep = replace(TEACHER, stages=tuple(replace(stage, depth=3) for stage in TEACHER.stages))
    teacher = TeacherSpec(architecture=deep, training=replace(config().training, epochs=1))
    context = small_context(tmp_path, teacher=teacher)
    assert "sees 7x7 pixels, of the teacher's 15x15" in why_not(context, config())[0]
    allowed = config(receptive_field="any")
    assert why_not(context, allowed) == []
    run = start_run(settle(allowed, context.resources.spec), context, 2)[0]
    run.advance(run.total_epochs)
    assert run.curve[-1]["val_accuracy"] > 0.1
    cheap = replace(
        STUDENT,
        stages=tuple(replace(stage, block="depthwise_separable", depth=6) for stage in STUDENT.stages),
    )
    assert why_not(context, config(cheap)) == [], "as many convolutions of the same kernel see as far"


RESNET = """
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


class Narrow(ResNet):
    def _make_layer(self, block, planes, *rest, **settings):
        return super()._make_layer(block, planes // 16, *rest, **settings)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.avgpool(self.layer2(self.layer1(x))).flatten(1))


def build():
    network = Narrow(BasicBlock, [1, 1, 1, 1])
    network.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    del network.maxpool, network.layer3, network.layer4
    network.fc = nn.Linear(8, 10)
    return network
"""


def foreign(folder: Path, **settings: Any) -> StudyContext:
    """A study whose teacher is a ResNet of two stages that was trained elsewhere, and is not in its store yet."""
    (folder / "teacher.py").write_text(RESNET)
    torch.manual_seed(5)
    scope: dict[str, Any] = {}
    exec(RESNET, scope)
    torch.save(scope["build"]().state_dict(), folder / "teacher.pt")
    spec = TeacherSpec(builder="teacher.py:build", checkpoint="teacher.pt", **settings)
    return open_context(study(teacher=spec, base=folder), ArtifactStore(folder / "artifacts"))


def test_stages_of_a_foreign_resnet_are_replaced(tmp_path: Path) -> None:
    context = foreign(tmp_path)
    assert why_not(context, config()) == []
    assert [result.status for result in make(context)] == ["complete"]
    run = start_run(settle(config(), context.resources.spec), context, 2)[0]
    scheme = run.scheme
    assert isinstance(scheme, ProgressiveBlockwiseScheme)
    bare = context.sources.online(context.prerequisites.teacher()).network.network
    batch = next(batches(context, scheme.phases()[0]))
    with torch.no_grad():
        target = scheme.phases()[0].ask(batch)[0]["stage_0"]
        torch.testing.assert_close(scheme.rest_of_teacher(target, 0), bare(batch.images), rtol=0, atol=2e-3)
    run.advance(run.total_epochs)
    assert math.isfinite(run.curve[-1]["loss"])
    assert run.curve[0]["local"] < 1.5


def test_a_foreign_teacher_that_hides_its_stages_is_refused(tmp_path: Path) -> None:
    """Or sees images of another size."""
    for settings, why in (
        (
            {"taps": ("layer2",)},
            "the teacher does not show its 'layer1'; name all in its taps: layer1, layer2",
        ),
        ({"resolution": 16}, "after stage 1 the student's map has 8x8 places, the teacher's 16x16"),
    ):
        folder = tmp_path / why[-3:]
        folder.mkdir()
        (found,) = why_not(foreign(folder, **settings), config())
        assert why in found


def test_a_student_whose_classifier_is_replaced_has_none_to_begin_with(context: StudyContext) -> None:
    scheme = started(context, STUDENT, KnowledgeTerm("simkd"))
    before = state(scheme.deployed)
    begin = scheme.phases()[2].before_epoch
    assert begin is not None
    begin(0)
    assert same(before, state(scheme.deployed))
