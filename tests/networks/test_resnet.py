"""ResNets of others as networks of naskd: the same numbers, or the reason why not."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from naskd.networks.foreign import ForeignNetwork, Preprocessing
from naskd.networks.resnet import as_student
from naskd.networks.student import Student, build_student, design_cost
from naskd.networks.teachers import Teacher
from naskd.resnets import resnet_like
from naskd.spaces import resnet_like as part_of_a_space
from naskd.spec.design import ArchitectureSpec, StageSpec, TrialConfig
from naskd.spec.errors import InputError, UnknownNameError

NAMES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
ORDER = (2, 0, 1)


def foreign(network: nn.Module, resolution: int | None = None) -> ForeignNetwork:
    """Of three classes in another order, with weights that training has left."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    seen = Preprocessing(resolution, 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
    return ForeignNetwork(network.eval(), seen, (3, 32, 32), ORDER)


class Narrow(ResNet):
    """Torchvision's, with a 16th of the channels after the stem: it is read in no time."""

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: list[int], **settings: object) -> None:
        super().__init__(block, layers, num_classes=3, **settings)  # type: ignore[arg-type]  # any
        self.fc = nn.Linear(32 * block.expansion, 3)

    def _make_layer(self, block: object, planes: int, *rest: object, **settings: object) -> nn.Sequential:
        return super()._make_layer(block, planes // 16, *rest, **settings)  # type: ignore[arg-type]  # as they come


def tiny(block: type[BasicBlock | Bottleneck] = BasicBlock, **changes: object) -> ResNet:
    """A block a stage."""
    return Narrow(block, [1, 1, 1, 1], **changes)


NARROW = replace(
    resnet_like("resnet50"),
    stages=tuple(
        replace(stage, depth=depth, width=stage.width // 16)
        for stage, depth in zip(resnet_like("resnet50").stages, (1, 2, 1, 1), strict=True)
    ),
)


@pytest.mark.parametrize(
    ("make", "spec"),
    [
        (lambda: torchvision.models.resnet18(num_classes=3), resnet_like("resnet18")),
        (lambda: Narrow(Bottleneck, [1, 2, 1, 1]), NARROW),
    ],
    ids=["resnet18", "resnet50, smaller"],
)
def test_all_weights_give_the_same_logits(make: Callable[[], nn.Module], spec: ArchitectureSpec) -> None:
    """A student of :func:`resnet_like` that begins with them, in 64 bits."""
    network = foreign(make())
    read = as_student(network)
    assert read.spec == spec
    torch.manual_seed(0)
    student = build_student(spec, 3, 3, (0.5,) * 3, (0.5,) * 3).eval()
    student.take_weights(read)
    assert sum(p.numel() for p in student.parameters()) == sum(p.numel() for p in network.parameters())
    images = torch.rand(2, 3, 39, 39, dtype=torch.float64)
    with torch.no_grad():
        found, wanted = student.double()(images), copy.deepcopy(network).double()(images)
    assert (found - wanted).abs().max() <= 1e-9 * wanted.abs().max()
    assert wanted.std() > 1e-3, "they say something"


@pytest.mark.parametrize("name", NAMES)
def test_the_published_architectures_cost_what_torchvision_says(name: str) -> None:
    """Parameters exactly, and billions of multiply-accumulates at 224x224 in three digits."""
    meta = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
    cost = design_cost(resnet_like(name), 3, 1000, 224)
    assert cost.n_params == meta["num_params"]
    assert cost.macs / 1e9 == pytest.approx(meta["_ops"], abs=6e-4)
    assert part_of_a_space is resnet_like


def test_names_that_are_no_such_resnet_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"no ResNet 'resnet20' is known; .* did you mean 'resnet"):
        resnet_like("resnet20")
    with pytest.raises(InputError, match="'resnext50_32x4d' has layers that the family 'cnn' does not have"):
        resnet_like("resnext50_32x4d")


class TimmBlock(BasicBlock):
    """As timm has it: activations and what may be switched on by names of its own."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]  # as they come
        del self.relu
        self.act1, self.act2, self.drop_block, self.aa = nn.ReLU(), nn.ReLU(), nn.Identity(), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """In timm's order."""
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        found: torch.Tensor = self.act2(self.bn2(self.conv2(inner)) + shortcut)
        return found


def test_layers_in_the_way_of_timm_are_found() -> None:
    network = foreign(tiny(TimmBlock))
    read = as_student(network)
    assert [stage.block for stage in read.spec.stages] == ["basic"] * 4
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(read(images), network(images))


def test_small_images_and_fewer_stages_are_read_as_they_are() -> None:
    """A network of a 3x3 stem without pooling, of bottlenecks, whose classifier has no bias."""
    network = tiny(Bottleneck)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    network.layer4 = nn.Identity()
    network.fc = nn.Linear(64, 3, bias=False)
    read = as_student(foreign(network))
    stages = tuple(
        StageSpec("bottleneck", 1, 16 * 2**i, expansion=0.25, stride=2 if i else 1) for i in range(3)
    )
    assert read.spec == ArchitectureSpec(stages, stem_width=64)


def test_a_student_sees_images_at_their_own_size() -> None:
    network = foreign(tiny(), resolution=64)
    read, images = as_student(network), torch.rand(2, 3, 32, 32)
    assert not torch.allclose(read(images), network(images), atol=1e-3)
    network.preprocessing.resolution = None
    torch.testing.assert_close(read(images), network(images))


def changed(how: Callable[[ResNet], None], block: type[BasicBlock | Bottleneck] = BasicBlock) -> nn.Module:
    network = tiny(block)
    how(network)
    return network


class Doubled(nn.Conv2d):
    """Not what it is called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Twice of it."""
        return 2 * super().forward(x)


class Closing(Narrow):
    """More than a classifier at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Log-probabilities."""
        return super().forward(x).log_softmax(1)


def first_strided(network: ResNet) -> None:
    """The original bottleneck, of He et al."""
    network.layer2[0].conv1.stride, network.layer2[0].conv2.stride = (2, 2), (1, 1)


OTHERS = {
    "its layer 'conv1' is missing, wanted: Conv2d": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ),
    "groups of its layer 'layer1.0.conv2' is 4, wanted: 1": lambda: tiny(
        Bottleneck, groups=4, width_per_group=16
    ),
    "it does not end in a linear classifier": lambda: Closing(BasicBlock, [1, 1, 1, 1]),
    "it has a layer 'gate', Linear": lambda: changed(lambda n: n.add_module("gate", nn.Linear(2, 2))),
    "stride of its layer 'layer2.0.conv1' is (2, 2), wanted: (1, 1)": lambda: changed(
        first_strided, Bottleneck
    ),
    "stem_kernel: Input should be 1, 3, 5 or 7": lambda: changed(
        lambda n: setattr(n, "conv1", nn.Conv2d(3, 64, 9, 2, 4, bias=False))
    ),
    "its layer 'conv1' has bias": lambda: changed(lambda n: setattr(n, "conv1", nn.Conv2d(3, 64, 7, 2, 3))),
    "computes something else with them": lambda: changed(lambda n: setattr(n, "relu", nn.GELU())),
    "computes something else with them: ": lambda: changed(
        lambda n: setattr(n, "conv1", Doubled(3, 64, 7, 2, 3, bias=False))
    ),
}


@pytest.mark.parametrize(("why", "make"), OTHERS.items(), ids=OTHERS)
def test_other_networks_are_refused_with_the_reason(why: str, make: Callable[[], nn.Module]) -> None:
    with pytest.raises(InputError) as refused:
        as_student(foreign(make()))
    assert why in str(refused.value)


def test_gray_images_need_a_network_of_gray_images() -> None:
    network = ForeignNetwork(tiny().eval(), Preprocessing(None, 3, (0.5,), (0.5,)), (1, 32, 32))
    with pytest.raises(InputError, match=r"students see 1: .* set channels = 3 in"):
        as_student(network)


def test_networks_of_naskd_are_what_they_are_and_others_nothing() -> None:
    student = build_student(ArchitectureSpec((StageSpec("basic", 1, 4),)), 3, 3, (0.5,) * 3, (0.5,) * 3)
    assert as_student(student) is student
    with pytest.raises(InputError, match="a Sequential is neither a network of naskd's nor a ResNet"):
        as_student(nn.Sequential(student))


def test_reading_takes_no_random_numbers_and_changes_nothing() -> None:
    network = foreign(tiny())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    as_student(network)
    assert torch.equal(torch.rand(3), wanted)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    with torch.device("meta"):
        assert next(as_student(network).parameters()).device.type == "cpu"


def test_max_pooling_is_written_where_there_is_some() -> None:
    plain = TrialConfig(ArchitectureSpec((StageSpec("basic", 1, 4),)))
    pooled = TrialConfig(ArchitectureSpec((StageSpec("basic", 1, 4),), stem_pool=True))
    assert "stem_pool" not in plain.to_dict()["architecture"]
    assert TrialConfig.from_dict(pooled.to_dict()) == pooled
    assert pooled.config_id != plain.config_id


def test_a_student_without_the_pooling_of_its_teacher_has_its_weights() -> None:
    read = as_student(foreign(tiny()))
    finer = ArchitectureSpec(read.spec.stages, stem_width=64, stem_kernel=7)
    student: Student = build_student(finer, 3, 3, (0.5,) * 3, (0.5,) * 3)
    student.take_weights(read)
    assert student.state_dict().keys() == read.state_dict().keys()
    assert all(torch.equal(value, read.state_dict()[name]) for name, value in student.state_dict().items())
    assert student.taps(torch.rand(1, 3, 16, 16)).stages[0].tensor.shape[2:] == (16, 16)


def test_a_teacher_is_read_once_and_copied_without_what_was_read() -> None:
    teacher = Teacher(foreign(tiny()))
    read = teacher.as_student()
    assert teacher.as_student() is read
    assert not any(parameter.requires_grad for parameter in read.parameters())
    assert not set(read.modules()) & set(teacher.modules())
    again = copy.deepcopy(teacher)
    assert vars(teacher)["_read"]
    assert not vars(again)["_read"]
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(images), read(images))
