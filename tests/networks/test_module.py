"""Students that are smaller versions of a network of the user's."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
import torch
from conftest import TINY_STUDY
from own_networks import AsksForValues, Dense, Divided, FixedNumbers, Grouped, OwnResidual, Plain
from torch import Tensor, nn

import naskd
from naskd.networks import FAMILIES
from naskd.networks.foreign import ForeignNetwork, Preprocessing
from naskd.networks.module import ModuleCard, ModuleStudent, module_family, start_problems
from naskd.networks.student import Student, build_student, design_cost, rebuild_student, student_shapes
from naskd.networks.student_file import load_student
from naskd.networks.teachers import Teacher
from naskd.nn.cost import network_cost
from naskd.nn.taps import tap_shapes
from naskd.reducing import ChannelGroup
from naskd.spaces import suggest_from_module
from naskd.spec.design import ArchitectureSpec, TrialConfig
from naskd.spec.errors import InputError
from naskd.testing.families import FamilySuite
from naskd.trials.methods import canonical

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "own_plain": Plain,
    "own_residual": OwnResidual,
    "own_dense": Dense,
    "own_grouped": Grouped,
    "own_divided": Divided,
}


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    """The families, while the tests of this file run."""
    for name, build in BUILDERS.items():
        made(name, build)
    yield
    for name in [card.name for card in FAMILIES if card.name.startswith("own_")]:
        for kept in (FAMILIES._cards, FAMILIES._origins):
            kept.pop(name, None)


def made(name: str, build: Callable[..., nn.Module], side: int = 16, **settings: Any) -> ModuleCard:
    card = module_family(name, build, side=side, **settings)
    FAMILIES.register(card)
    return card


def card_of(name: str) -> ModuleCard:
    card = FAMILIES[name]
    assert isinstance(card, ModuleCard)
    return card


def design(name: str, **options: int) -> ArchitectureSpec:
    """Options with two underscores where their names have dots."""
    pairs = sorted((key.replace("__", "."), value) for key, value in options.items())
    return ArchitectureSpec(family=name, options=tuple(pairs))


def build(spec: ArchitectureSpec, channels: int = 3, classes: int = 5) -> ModuleStudent:
    torch.manual_seed(0)
    student = build_student(spec, channels, classes, (0.5,) * channels, (0.25,) * channels)
    assert isinstance(student, ModuleStudent)
    return student


def drawn(name: str, n: int, **settings: Any) -> list[ArchitectureSpec]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [suggest_from_module(study.ask(), card_of(name), **settings) for _ in range(n)]


def images(n: int = 4, channels: int = 3, side: int = 16) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1))


class TestAsFamilies(FamilySuite):
    """What every family must do, of the whole network and of smaller ones."""

    architectures: ClassVar[dict[str, list[ArchitectureSpec]]] = {
        "own_residual": [
            ArchitectureSpec(
                family="own_residual",
                options=(("first.0.depth", 2), ("second.0.conv1.width", 5), ("stem.width", 4)),
            )
        ],
        "own_dense": [
            ArchitectureSpec(family="own_dense", options=(("layers.0.width", 1), ("stem.width", 3)))
        ],
        "own_grouped": [
            ArchitectureSpec(family="own_grouped", options=(("groups.width", 8), ("stem.width", 8)))
        ],
        "own_divided": [
            ArchitectureSpec(
                family="own_divided", options=(("blocks.0.depth", 1), ("blocks.0.parts.1.width", 1))
            )
        ],
    }

    @classmethod
    def chosen(cls) -> tuple[str, ...]:
        """Known only while the tests run."""
        return tuple(cls.architectures)


class TestWhatBelongsTogether:
    def test_of_layers_after_each_other(self) -> None:
        assert [(g.name, g.channels, g.multiple) for g in card_of("own_plain").groups] == [
            ("features.0", 8, 1),
            ("features.3", 12, 3),  # a GroupNorm of three groups
            ("hidden", 24, 1),
        ]

    def test_of_sums_and_of_blocks_that_may_be_left_out(self) -> None:
        card = card_of("own_residual")
        found = {group.name: group.layers for group in card.groups}
        first = tuple(f"first.{i}.{layer}" for i in range(3) for layer in ("conv2", "gate"))
        assert found["stem"] == ("stem", *first)
        assert found["second.0.conv2"] == (
            *("second.0.conv2", "second.0.gate", "second.0.shortcut"),
            *("second.1.conv2", "second.1.gate"),
        )
        assert [(run.name, run.blocks) for run in card.runs] == [
            ("first.0", ("first.1", "first.2")),
            ("second.0", ("second.1",)),
        ]

    def test_of_concatenations_each_part_has_its_own(self) -> None:
        names = [group.name for group in card_of("own_dense").groups]
        assert names == ["stem", "layers.0", "layers.1", "layers.2"]
        student = build(design("own_dense", stem__width=2, layers__1__width=3)).network
        assert [layer.in_channels for layer in student.layers] == [2, 6, 9]  # type: ignore[union-attr]
        assert student.fc.in_features == student.norm.num_features == 13  # type: ignore[union-attr]

    def test_of_groups(self) -> None:
        found = {group.name: (group.channels, group.multiple) for group in card_of("own_grouped").groups}
        assert found == {"stem": (16, 4), "groups": (24, 4)}
        network = build(design("own_grouped", stem__width=12, groups__width=8)).network
        assert network.groups.weight.shape == (8, 3, 3, 3)  # type: ignore[union-attr]
        assert (network.depthwise.groups, network.depthwise.out_channels) == (8, 16)  # type: ignore[union-attr]
        assert network.norm.normalized_shape == (16,)  # type: ignore[union-attr]
        with pytest.raises(InputError, match=r"'stem.width' .* is 6; allowed: multiples of 4"):
            build(design("own_grouped", stem__width=6))

    def test_the_images_and_the_classes_never_change(self) -> None:
        for channels, classes in ((1, 2), (3, 7)):
            for name in BUILDERS:
                (spec,) = drawn(name, 1, widths=(0.5,))
                assert build(spec, channels, classes)(images(2, channels)).shape == (2, classes)

    def test_what_the_user_leaves_out(self) -> None:
        some = partial(module_family, "own_some", OwnResidual, side=16)
        second = some(include=("second",))
        assert [group.name for group in second.groups] == [
            *("second.0.conv1", "second.0.conv2", "second.1.conv1")
        ]
        assert [run.name for run in second.runs] == ["second.0"]
        without = some(exclude=("*.gate", "first.1"))
        assert [group.name for group in without.groups] == [
            *("first.0.conv1", "first.2.conv1", "second.0.conv1", "second.1.conv1")
        ]
        assert [run.blocks for run in without.runs] == [("first.2",), ("second.1",)]
        assert some(depths=False).runs == ()
        with pytest.raises(InputError, match="no layer 'secnd'; did you mean 'second'"):
            some(exclude=("secnd",))


class TestSpace:
    def test_every_trial_has_the_same_parameters(self) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        trials = [study.ask() for _ in range(10)]
        for trial in trials:
            suggest_from_module(trial, card_of("own_residual"), widths=(0.5, 1.0))
        assert all(trial.distributions == trials[0].distributions for trial in trials)
        names = list(trials[0].distributions)
        assert "first.1.conv1.width" in names
        assert names[-2:] == ["first.0.depth", "second.0.depth"]

    def test_all_of_it_is_the_whole_network(self) -> None:
        card = card_of("own_residual")
        values = {group.option: 1.0 for group in card.groups} | {run.option: run.depth for run in card.runs}
        assert suggest_from_module(optuna.trial.FixedTrial(values), card) == design("own_residual")

    def test_designs_are_canonical_and_survive_json(self) -> None:
        for name in BUILDERS:
            for spec in drawn(name, 20):
                config = TrialConfig(spec)
                assert canonical(config) == config
                again = TrialConfig.from_dict(config.to_dict())
                assert again == config
                assert again.config_id == config.config_id

    def test_widths_in_blocks_that_are_left_out_are_not_written(self) -> None:
        spec = design("own_residual", first__0__depth=2, first__2__conv1__width=3, first__1__conv1__width=3)
        expected = design("own_residual", first__0__depth=2, first__1__conv1__width=3)
        assert card_of("own_residual").canonical(spec) == expected

    @pytest.mark.parametrize(
        ("share", "multiple", "expected"),
        [(1.0, 8, 20), (0.5, 4, 12), (0.5, 1, 10), (0.01, 4, 4), (0.3, 32, 6)],
    )
    def test_shares_are_rounded(self, share: float, multiple: int, expected: int) -> None:
        assert ChannelGroup("x", 20, 2 if multiple > 1 else 1, ("x",)).scaled(share, multiple) == expected

    def test_a_share_that_is_none_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"widths holds 1\.5; allowed: shares above 0 and at most 1"):
            suggest_from_module(optuna.trial.FixedTrial({}), card_of("own_plain"), widths=(0.5, 1.5))

    def test_narrower_is_cheaper(self) -> None:
        for name in BUILDERS:
            for group in card_of(name).groups:
                steps = range(group.multiple, group.channels + 1, group.multiple)
                costs = [
                    design_cost(design(name, **{group.option.replace(".", "__"): n}), 3, 5, 16) for n in steps
                ]
                assert all(one.macs < other.macs for one, other in pairwise(costs))
                assert all(one.n_params < other.n_params for one, other in pairwise(costs))


class TestStudents:
    def test_costs_and_shapes_are_those_of_the_built_network(self) -> None:
        for name in BUILDERS:
            assert card_of(name).closed
            for spec in drawn(name, 4):
                student = build(spec)
                assert design_cost(spec, 3, 5, 16) == network_cost(student, 3, 16)
                assert student_shapes(spec, 5, 16) == tap_shapes(student, 3, 16)

    def test_every_parameter_learns(self) -> None:
        for name in BUILDERS:
            for spec in drawn(name, 3):
                student = build(spec)
                nn.functional.cross_entropy(student(images()), torch.arange(4)).backward()  # type: ignore[no-untyped-call]
                for what, parameter in student.named_parameters():
                    assert parameter.grad is not None, what
                    assert parameter.grad.isfinite().all()
                student.train()

    def test_where_blocks_are_left_out_the_last_one_that_stays_shows_its_stage(self) -> None:
        student = build(design("own_residual", first__0__depth=1, second__0__depth=1)).eval()
        taps = student.taps(images())
        assert [stage.tensor.shape[1:] for stage in taps.stages] == [(8, 16, 16), (16, 8, 8)]
        for stage, before in zip(taps.stages, taps.pre_activations, strict=True):
            assert torch.equal(stage.tensor, before.tensor.relu())
            assert before.tensor.min() < 0

    def test_weights_keep_the_variance_of_what_layers_make(self) -> None:
        """Of a fully connected layer that reads fewer features, and of one that reads as many."""

        def build_it() -> nn.Module:
            linear = (nn.Linear(16, 400), nn.Linear(400, 300), nn.Linear(300, 5))
            return nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten(), *linear)

        made("own_wide", build_it, side=4)
        whole, narrow = (
            build(spec).network for spec in (design("own_wide"), design("own_wide", **{"2__width": 100}))
        )
        spread = [float(network.get_parameter("3.weight").detach().std()) for network in (whole, narrow)]
        assert spread[1] / spread[0] == pytest.approx(2, rel=0.02)  # 100 of 400 features
        assert torch.equal(narrow.get_parameter("2.weight"), whole.get_parameter("2.weight")[:100])

    def test_it_is_rebuilt_from_its_description(self) -> None:
        for name in BUILDERS:
            student = build(drawn(name, 2)[1]).eval()
            again = rebuild_student(student.describe()).eval()
            again.load_state_dict(student.state_dict())
            assert torch.equal(again(images()), student(images()))

    def test_a_classifier_can_be_taken_away(self) -> None:
        student = build(design("own_residual")).eval()
        pooled = student.taps(images()).pooled
        student.remove_classifier()
        assert torch.equal(student(images()), pooled)

    def test_reports_say_what_is_smaller(self) -> None:
        card = card_of("own_plain")
        assert card.summary({"options": ()}) == "own_plain whole"
        assert (
            card.summary({"options": [["hidden.width", 8]], "resolution": 8})
            == "own_plain hidden.width=8 at 8×8"
        )

    def test_narrower_ones_of_all_groups_and_none_that_are_wider(self) -> None:
        half = card_of("own_grouped").widened(design("own_grouped"), 0.5)
        assert half == design("own_grouped", groups__width=12, stem__width=8)
        with pytest.raises(InputError, match="no wider networks"):
            card_of("own_grouped").widened(design("own_grouped"), 2)


class TestStarts:
    def test_a_whole_one_is_the_teacher(self) -> None:
        for name in BUILDERS:
            teacher, student = build(design(name)), build(design(name))
            with torch.no_grad():
                for parameter in teacher.parameters():
                    parameter.normal_()
            student.take_weights(teacher)
            assert torch.equal(student.eval()(images()), teacher.eval()(images()))

    def test_channels_that_do_nothing_are_left_out(self) -> None:
        """So that the smaller network says the same."""
        teacher = build(design("own_residual"))
        network = teacher.network
        with torch.no_grad():
            network.get_parameter("first.0.conv1.weight")[::2] = 0
            network.get_parameter("first.0.bn1.bias").zero_()
        student = build(design("own_residual", first__0__conv1__width=4))
        student.take_weights(teacher)
        torch.testing.assert_close(student.eval()(images()), teacher.eval()(images()))

    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_channels_that_no_layer_makes_alone_can_be_left_out(self, depth: int) -> None:
        (middle,) = (group.option for group in card_of("own_divided").groups if group.channels == 3)
        teacher = build(design("own_divided", blocks__0__depth=depth))
        blocks = teacher.network.get_submodule("blocks")
        with torch.no_grad():
            for number in range(depth):
                place, first = (0, 6) if number == 1 else (1, 0)
                for parameter in blocks.get_submodule(f"{number}.parts.{place}").parameters():
                    parameter[first : first + 2] = 0
        student = build(design("own_divided", blocks__0__depth=depth, **{middle: 1}))
        student.take_weights(teacher)
        torch.testing.assert_close(student.eval()(images()), teacher.eval()(images()))
        same = build(student.spec)
        same.take_weights(student)
        assert torch.equal(same.eval()(images()), student(images()))

    def test_of_groups_each_keeps_its_strongest(self) -> None:
        teacher = build(design("own_grouped"))
        weight = teacher.network.get_parameter("groups.weight")
        with torch.no_grad():
            weight.zero_()[[1, 2, 7, 8, 13, 14, 19, 20]] = 1.0
        student = build(design("own_grouped", groups__width=8))
        student.take_weights(teacher)
        assert float(student.network.get_parameter("groups.weight").detach().min()) == 1.0

    def test_from_a_smaller_one_as_well(self) -> None:
        """As from an assistant."""
        for name in BUILDERS:
            (spec,) = drawn(name, 1, widths=(0.75,))
            teacher, student = build(spec), build(spec)
            with torch.no_grad():
                for parameter in teacher.parameters():
                    parameter.normal_()
            student.take_weights(teacher)
            assert torch.equal(student.eval()(images()), teacher.eval()(images()))

    def test_from_a_larger_one_alone(self) -> None:
        small, whole = design("own_residual", stem__width=4), design("own_residual")
        assert start_problems(small, whole) == []
        assert start_problems(whole, small) == ["the student's stem.width is more than the teacher's: 8 > 4"]
        shorter = design("own_residual", first__0__depth=1, first__1__conv1__width=4)
        assert start_problems(
            shorter, design("own_residual", first__1__conv1__width=2, first__2__conv1__width=2)
        ) == ["the student's first.1.conv1.width is more than the teacher's: 4 > 2"]
        with pytest.raises(InputError, match="more than the teacher's"):
            build(whole).take_weights(build(small))

    def test_a_users_trained_network_is_read(self) -> None:
        network = OwnResidual(3, 5).eval()
        seen = Preprocessing(channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
        foreign = ForeignNetwork(network, seen, (3, 16, 16), class_order=(4, 2, 0, 1, 3))
        read = Teacher(foreign).as_student("own_residual")
        torch.testing.assert_close(read(images()), foreign(images()))
        with pytest.raises(InputError, match=r"it is not network 'own_plain'; .* missing"):
            Teacher(foreign).as_student("own_plain")

    def test_one_that_computes_something_else_is_refused(self) -> None:
        class Other(OwnResidual):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(-x)

        foreign = ForeignNetwork(Other(3, 5), Preprocessing(channels=3), (3, 16, 16))
        with pytest.raises(
            InputError, match="has the tensors of network 'own_residual' and computes something else"
        ):
            Teacher(foreign).as_student("own_residual")


class TestRefusals:
    def made(self, build: Callable[..., Any], **settings: Any) -> ModuleCard:
        return module_family("own_bad", build, side=16, **settings)

    def test_what_depends_on_values(self) -> None:
        with pytest.raises(
            InputError,
            match=r"its forward fails: .*\(own_networks.py:\d+: if x.mean\(\) > 0.5:\); what it does must",
        ):
            self.made(AsksForValues)

    def test_a_number_of_channels_in_the_code(self) -> None:
        with pytest.raises(
            InputError,
            match=r"cannot have 6 instead of 12 channels at 'conv': .*\(own_networks.py:\d+: .*view\(-1, 12\).*"
            r"exclude = \('conv',\)",
        ):
            self.made(FixedNumbers)
        assert [group.name for group in self.made(FixedNumbers, exclude=("conv",)).groups] == ["stem"]

    @pytest.mark.parametrize(
        ("build", "what"),
        [
            (lambda: 3, "returns int; wanted a torch.nn.Module"),
            (lambda: 1 / 0, r"cannot be built: ZeroDivisionError.*test_module.py:\d+"),
            (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), r"wanted: logits \(B, K\)"),
            (
                lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                "does not end in an nn.Linear",
            ),
            (
                lambda: nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten(), nn.Linear(196, 2)),
                "nothing of network 'own_bad' can become smaller",
            ),
        ],
    )
    def test_networks_that_can_be_none(self, build: Callable[..., Any], what: str) -> None:
        with pytest.raises(InputError, match=what):
            self.made(build)

    def test_one_for_other_classes_or_colours(self) -> None:
        made("own_fixed", lambda: Plain(3, 5))
        assert build(design("own_fixed"))(images()).shape == (4, 5)
        for channels, classes, what in (
            (3, 7, "has 5 outputs, the study 7 classes; give its function a parameter n_classes"),
            (
                1,
                5,
                "takes images of 3 channels, those of the study have 1; give its function a parameter in_channels",
            ),
        ):
            with pytest.raises(InputError, match=what):
                design_cost(design("own_fixed"), channels, classes, 16)
            with pytest.raises(InputError, match=what):
                build(design("own_fixed"), channels, classes)

    def test_blocks_that_stay_need_not_have_one_width(self) -> None:
        """Two equal blocks without a sum: where the second one may be left out, it has the width of the first."""

        def build_it() -> nn.Module:
            blocks = [nn.Sequential(nn.Conv2d(n, 8, 3, padding=1), nn.ReLU()) for n in (3, 8, 8)]
            return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))

        assert [group.layers for group in self.made(build_it).groups] == [("0.0", "1.0", "2.0")]
        apart = made("own_apart", build_it, exclude=("2",))
        assert [group.layers for group in apart.groups] == [("0.0", "1.0")]
        longer = made("own_longer", build_it, depths=False)
        assert [group.layers for group in longer.groups] == [("0.0",), ("1.0",), ("2.0",)]
        for spec in (design("own_apart", **{"0__0__width": 4}), design("own_longer", **{"0__0__width": 4})):
            assert build(spec)(images()).shape == (4, 5)

    def test_channels_that_a_view_mixes_are_held(self) -> None:
        class Shuffled(OwnResidual):
            def forward(self, x: Tensor) -> Tensor:
                x = self.stem(x)
                b, c, h, w = x.shape
                x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
                for block in self.first:
                    x = block(x)
                logits: Tensor = self.fc(self.second(x).mean((2, 3)))
                return logits

        names = [group.name for group in self.made(Shuffled).groups]
        assert "stem" not in names
        assert "first.0.conv1" in names


def test_a_network_of_torchvision() -> None:
    from torchvision.models import mobilenet_v2

    def build_it(n_classes: int) -> nn.Module:
        network: nn.Module = mobilenet_v2(num_classes=n_classes, width_mult=0.35)
        return network

    card = made("own_mobilenet", build_it, side=32)
    assert [(run.name, run.depth) for run in card.runs] == [  # table 2 of the paper
        *(("features.2", 2), ("features.4", 3), ("features.7", 4), ("features.11", 3), ("features.14", 3))
    ]
    assert len(card.groups) == 25
    (spec,) = drawn("own_mobilenet", 1, widths=(0.5,))
    student = build(spec)
    assert design_cost(spec, 3, 5, 32) == network_cost(student, 3, 32)
    assert student(images(2, side=32)).shape == (2, 5)


# --- a search -------------------------------------------------------------------------------------------------------

NETWORK = """
from naskd.networks import FAMILIES
from naskd.networks.module import module_family
from naskd.spaces import suggest_from_module
from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrainingSpec, TrialConfig
from own_networks import OwnResidual

NET = module_family("own_searched", OwnResidual, side=8)
FAMILIES.register(NET)


def joint(trial):
    student = suggest_from_module(trial, NET, widths=(0.5, 1.0))
    terms = (KnowledgeTerm("logits"), KnowledgeTerm("hint", pairs="all", weighting="balanced"))
    return TrialConfig(student, DistillationSpec(terms), TrainingSpec(epochs=1, start="teacher"))
"""


def test_a_users_network_is_searched_wherever_it_runs(tmp_path: Path) -> None:
    """Its teacher is the whole network, trained here; other processes build students from their designs."""
    (tmp_path / "own_networks.py").write_bytes((Path(__file__).parent / "own_networks.py").read_bytes())
    (tmp_path / "net.py").write_text(NETWORK)
    study = TINY_STUDY.replace(
        'space.py:joint"\nepochs = 1\n', 'net.py:joint"\nepochs = 1\nmodules = ["net.py"]\n'
    )
    begin, end = study.index("stem_width"), study.index("[teacher.training]")
    (tmp_path / "tiny.toml").write_text(study[:begin] + 'family = "own_searched"\n\n' + study[end:])
    settings = ["execution.executor=processes", "execution.workers=1", "seed=1"]
    run = naskd.search(tmp_path / "tiny.toml", out=tmp_path / "run", settings=settings)
    trials = run.trials()
    assert [trial["state"] for trial in trials] == ["COMPLETE"] * 2, [trial["reason"] for trial in trials]
    number = trials[0]["number"]
    made = run.export(number, path=tmp_path / "best.safetensors")
    assert made["agreement"] == 1.0
    student = load_student(tmp_path / "best.safetensors")
    assert isinstance(student, Student)
    assert student.spec == TrialConfig.from_dict(trials[0]["config"]).architecture
    assert trials[0]["macs"] == network_cost(student, 1, 8).macs
