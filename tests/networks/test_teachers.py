import copy
import socket
import time
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from naskd.networks.foreign import Preprocessing
from naskd.networks.student import build_student
from naskd.networks.teachers import Teacher, TeacherInputs, TorchvisionSource, build_teacher_network
from naskd.nn.cost import network_cost
from naskd.nn.taps import TappedNetwork, tap_shapes
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError
from naskd.spec.teachers import TeacherSpec

CLASSES = ("cat", "dog", "eel", "fox")
DESIGN = ArchitectureSpec((StageSpec("basic", 1, 8), StageSpec("basic", 1, 12, stride=2)), stem_width=6)
BUILDER = """
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, n_classes):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(8, n_classes)

    def forward(self, x):
        return self.fc(self.dropout(self.two(self.one(x)).mean((2, 3))))

def rgb():
    return Net(3, 4)

def gray():
    return Net(1, 4)

def five():
    return Net(3, 5)

def nothing():
    return 3

def broken():
    raise KeyError("weights")
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(BUILDER)
    return tmp_path


def build(spec, base=Path("."), *, in_channels=3, state=None, resolution=16, class_names=CLASSES):
    torch.manual_seed(0)
    given = TeacherInputs(
        base,
        in_channels,
        len(class_names),
        resolution,
        mean=(0.5,) * in_channels,
        std=(0.25,) * in_channels,
        class_names=class_names,
    )
    return build_teacher_network(spec, given, state)


def user(function="rgb", **settings):
    return TeacherSpec(builder=f"mine.py:{function}", checkpoint="mine.pt", **settings)


SPECS = {
    "architecture": TeacherSpec(architecture=DESIGN),
    "builder": user(),
    "torchvision": TeacherSpec(torchvision="shufflenet_v2_x0_5", resolution=32),
}
each_source = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@each_source
def test_nothing_that_happens_around_a_teacher_changes_it(spec, base):
    network = build(spec, base)
    # Statistics that a training pass would surely move.
    network.train()
    network(torch.rand(8, 3, 16, 16))
    teacher = Teacher(network)
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    before = snapshot(teacher)
    images = torch.rand(8, 3, 16, 16)
    wanted = teacher(images)

    pair = nn.ModuleDict(
        {"student": build_student(DESIGN, 3, 4, (0.5,) * 3, (0.25,) * 3), "teacher": teacher}
    )
    pair.train()
    pair.requires_grad_(True)
    teacher.train().requires_grad_(True)
    optimizer = torch.optim.SGD(pair.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        taps = pair["student"].taps(images)
        taught = teacher.taps(images)
        loss = (taps.logits - taught.logits).square().mean() + (taps.logits - teacher(images)).abs().mean()
        loss.backward()
        optimizer.step()

    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    after = teacher.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    assert torch.equal(teacher(images), wanted)


@each_source
def test_every_source_gives_a_tapped_network_that_can_be_trained_and_frozen(spec, base):
    network = build(spec, base)
    assert isinstance(network, TappedNetwork)
    network.train()
    network(torch.rand(4, 3, 16, 16)).sum().backward()
    assert any(p.grad is not None for p in network.parameters())
    shapes = tap_shapes(network, 3, 16)
    assert shapes.n_classes == 4
    assert len(shapes.stages) >= 2
    assert tap_shapes(Teacher(network), 3, 16) == shapes


@each_source
def test_a_teachers_taps_carry_gradients_to_images_that_want_them_and_to_nothing_else(spec, base):
    teacher = Teacher(build(spec, base))
    for wanted in (False, True):
        images = torch.rand(2, 3, 16, 16, requires_grad=wanted)
        taps = teacher.taps(images)
        tensors = [taps.logits, taps.pooled, *(t.tensor for t in (*taps.stages, *taps.pre_activations))]
        assert all(t.requires_grad is wanted for t in tensors)
    taps.logits.square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert all(p.grad is None for p in teacher.parameters())


@each_source
def test_a_teacher_can_be_counted(spec, base):
    teacher = Teacher(build(spec, base))
    cost = network_cost(teacher, 3, 16)
    assert cost.macs > 0
    assert cost.n_params == sum(p.numel() for p in teacher.parameters())


@each_source
def test_a_teachers_head_turns_its_features_into_its_logits(spec, base):
    settings = {"classes": CLASSES[::-1]} if spec.architecture is None else {}
    teacher = Teacher(build(TeacherSpec(**{**vars(spec), **settings}), base))
    taps = teacher.taps(torch.rand(3, 3, 16, 16))
    assert teacher.head is not None
    torch.testing.assert_close(teacher.head(taps.pooled), taps.logits)
    assert len(teacher.pre_activation_norms()) == len(taps.stages)


def test_only_a_tapped_network_teaches():
    with pytest.raises(ValueError, match="shows no taps"):
        Teacher(nn.Linear(2, 2))


@each_source
def test_what_was_trained_comes_back(spec, base):
    trained = build(spec, base)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01)
    # A user's checkpoint is of the bare network; an artifact of naskd's is of the whole.
    state = trained.network.state_dict() if spec.checkpoint else trained.state_dict()
    again = build(spec, base, state=state)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(again.eval()(images), trained.eval()(images))


def test_a_checkpoint_that_does_not_fit_is_listed_key_by_key_and_not_loaded(base):
    state = dict(build(user(), base).network.state_dict())
    state["two.0.weight"] = torch.zeros(8, 6, 5, 5)
    state["classifier.weight"] = state.pop("fc.weight")
    with pytest.raises(ValueError, match="does not fit Net") as caught:
        build(user(), base, state=state)
    message = str(caught.value)
    assert "missing: fc.weight" in message
    assert "unexpected: classifier.weight" in message
    assert "two.0.weight (8, 6, 5, 5) instead of (8, 6, 3, 3)" in message


def test_a_checkpoint_with_another_number_of_classes_is_refused(base):
    state = build(user("five"), base, class_names=(*CLASSES, "gnu")).network.state_dict()
    with pytest.raises(ValueError, match=r"fc.weight \(5, 8\) instead of \(4, 8\)"):
        build(user(), base, state=state)


def test_a_builders_images_are_left_in_0_to_1_or_normalised_as_it_says(base):
    images = torch.rand(2, 3, 16, 16)
    bare = build(user(), base).eval()
    assert torch.equal(bare(images), bare.network(images))
    normed = build(user(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)), base).eval()
    expected = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(
        3, 1, 1
    )
    torch.testing.assert_close(normed(images), normed.network(expected))


def test_a_torchvision_network_without_weights_gets_the_studys_normalisation():
    network = build(SPECS["torchvision"]).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network(images), network.network((images - 0.5) / 0.25))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "vit_b_16", "maxvit_t"])
def test_a_torchvision_network_is_the_same_with_its_weights_and_for_a_stored_state(name, monkeypatch):
    """torchvision sets more than weights where it is asked for them, such as another normalisation of the images."""
    known = torchvision.models.get_model_weights(name)
    weights = next((w for w in known if w.name.endswith("SWAG_E2E_V1")), known.DEFAULT)
    monkeypatch.setattr(known, "get_state_dict", lambda *_, **__: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
    spec = TeacherSpec(torchvision=name, weights=weights.name)
    inputs = TeacherInputs(Path(), 3, 5, 32, (0.5,) * 3, (0.5,) * 3, tuple("abcde"))
    with torch.device("meta"):
        one, other = (TorchvisionSource().build(spec, inputs, fresh=fresh).network for fresh in (True, False))
    assert {n: t.shape for n, t in one.state_dict().items()} == {
        n: t.shape for n, t in other.state_dict().items()
    }

    def plain(network):
        return {
            k: v for k, v in vars(network).items() if isinstance(v, bool | int | float | str) and k[0] != "_"
        }

    for (name_of, part), (_, same) in zip(one.named_modules(), other.named_modules(), strict=True):
        assert plain(part) == plain(same), name_of


def test_torchvision_weights_bring_their_own_preprocessing():
    # A state is given, so nothing is downloaded.
    spec = TeacherSpec(torchvision="shufflenet_v2_x0_5", weights="IMAGENET1K_V1")
    bare = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=4)
    network = build(spec, state={f"network.{k}": v for k, v in bare.state_dict().items()})
    preset = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.transforms()
    image = torch.full((1, 3, 16, 16), 0.7)
    seen = network.preprocessing(image)
    assert seen.shape == (1, 3, 224, 224)
    wanted = (0.7 - np.array(preset.mean)) / np.array(preset.std)
    np.testing.assert_allclose(seen[0, :, 100, 100].numpy(), wanted, rtol=1e-5)


def test_gray_images_are_shown_three_times_to_a_teacher_of_three_channels(base):
    teacher = build(user(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)), base, in_channels=1).eval()
    gray = torch.rand(2, 1, 16, 16)
    color = gray.repeat(1, 3, 1, 1) - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(teacher(gray), teacher.network(color))
    plain = build(user(), base, in_channels=1).eval()
    torch.testing.assert_close(plain(gray), plain.network(gray.repeat(1, 3, 1, 1)))
    assert build(user("gray"), base, in_channels=1)(gray).shape == (2, 4)


def test_color_images_are_refused_by_a_gray_teacher(base):
    with pytest.raises(ValueError, match="takes images of 1 channels, the study's have 3"):
        build(user("gray"), base)


def test_images_are_resized_to_the_teachers_resolution(base):
    teacher = build(user(resolution=24), base, resolution=16).eval()
    images = torch.rand(2, 3, 16, 16)
    assert teacher.taps(images).stages[0].tensor.shape[2:] == (24, 24)
    same = torch.rand(2, 3, 24, 24)
    assert torch.equal(teacher(same), teacher.network(same))


def test_shrinking_is_antialiased():
    # Two bright pixels in four average out; bilinear sampling alone reads the two bright ones.
    stripes = torch.zeros(1, 1, 32, 32)
    stripes[..., 1::4] = stripes[..., 2::4] = 1.0
    shrunk = Preprocessing(resolution=8)(stripes)
    torch.testing.assert_close(shrunk, torch.full((1, 1, 8, 8), 0.5), atol=0.15, rtol=0)
    flat = Preprocessing(resolution=13)(torch.full((1, 1, 32, 32), 0.3))
    torch.testing.assert_close(flat, torch.full((1, 1, 13, 13), 0.3))


@pytest.mark.parametrize(("mean", "std"), [((0.5,) * 2, (1.0,)), ((0.5,), (1.0,) * 2), ((0.5,), (0.0,))])
def test_a_normalisation_that_cannot_be_is_refused(mean, std):
    with pytest.raises(ValueError, match="need one value"):
        Preprocessing(channels=3, mean=mean, std=std)


def test_outputs_come_in_the_studys_order(base):
    own = ("fox", "cat", "eel", "dog")
    plain, reordered = build(user(), base).eval(), build(user(classes=own), base).eval()
    images = torch.rand(5, 3, 16, 16)
    logits = plain(images)
    assert torch.equal(reordered(images), reordered.taps(images).logits)
    for position, name in enumerate(CLASSES):
        assert torch.equal(reordered(images)[:, position], logits[:, own.index(name)])


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (("cat", "dog", "eel", "wolf"), "unknown to the study: wolf; missing: fox"),
        (("cat", "dog", "eel", "fox", "fox"), "repeated: fox"),
        (("cat", "dog"), "missing: eel, fox"),
    ],
)
def test_other_class_names_are_refused_by_name(own, message, base):
    with pytest.raises(ValueError, match=message):
        build(user(classes=own), base)


def test_another_number_of_outputs_is_refused(base):
    with pytest.raises(ValueError, match="5 outputs, the study has 4 classes"):
        build(user("five"), base)
    with pytest.raises(ValueError, match="5 outputs"):
        build(user("five", classes=CLASSES), base)


def test_an_architecture_is_a_student_of_the_study():
    network = build(SPECS["architecture"], in_channels=1)
    assert network.mean.flatten().tolist() == [0.5]
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("rbg", "defines no function 'rbg'"),
        ("nothing", "returns int; wanted a torch.nn.Module"),
        ("broken", "'mine.py:broken' failed: KeyError"),
    ],
)
def test_a_wrong_builder_is_answered(function, message, base):
    with pytest.raises(ValueError, match=message):
        build(user(function), base)


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v3_small", "vit_b_16"])
def test_torchvision_heads_are_replaced_wherever_they_are(model, monkeypatch):
    if model == "vit_b_16":
        # The real one at its own resolution takes seconds.
        small = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32)
        monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: copy.deepcopy(small))
    network = build(TeacherSpec(torchvision=model, resolution=32))
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 4)
    assert network.head is not None
    assert network.head.out_features == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"torchvision": "resnet19"}, r"no classification model 'resnet19'; did you mean 'resnet1"),
        ({"torchvision": "fasterrcnn_resnet50_fpn"}, "no classification model"),
        ({"torchvision": "squeezenet1_1"}, "does not end in a Linear"),
        ({"torchvision": "resnet18", "weights": "IMAGENET1K_V7"}, "known: IMAGENET1K_V1, DEFAULT"),
    ],
)
def test_wrong_torchvision_names_are_answered(settings, message):
    with pytest.raises(ValueError, match=message):
        build(TeacherSpec(**settings))


def test_weights_that_cannot_be_fetched_are_one_error_with_the_ways_out(monkeypatch):
    def unreachable(name, weights):
        raise URLError("[Errno -2] Name or service not known")

    monkeypatch.setattr(torchvision.models, "get_model", unreachable)
    with pytest.raises(InputError) as caught:
        build(TeacherSpec(torchvision="resnet18", weights="IMAGENET1K_V1"))
    said = str(caught.value)
    assert said.startswith("IMAGENET1K_V1 of torchvision's resnet18 cannot be had (URLError: ")
    for way_out in (
        "fetch https://download.pytorch.org/models/resnet18-f37072fd.pth elsewhere",
        "hub/checkpoints/resnet18-f37072fd.pth",
        "checkpoint = 'FILE' for one that knows these classes already and is not trained, with fine_tune = true beside "
        "it for one of other classes, in the place of weights",
    ):
        assert way_out in said


def test_a_hub_that_is_not_there_is_not_asked_again_and_again(monkeypatch, caplog):
    """Its client waits more than a minute between its tries, and prints each of them."""
    pytest.importorskip("timm")
    waited = []

    def nobody(host, *_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    monkeypatch.setattr(time, "sleep", waited.append)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    spec = TeacherSpec(source="timm", options=(("model", "resnet10t"), ("pretrained", True)))
    with pytest.raises(InputError) as caught:
        build(spec)
    said = str(caught.value)
    assert said.startswith("timm's resnet10t cannot be made (huggingface.co cannot be reached: ")
    assert "checkpoint = 'FILE' for one that knows these classes already and is not trained" in said
    assert "HF_HUB" not in said
    assert not waited
    assert not [record for record in caplog.records if record.name.startswith("huggingface_hub")]


def test_a_teacher_of_an_earlier_version_is_read():
    """Its squeeze and excitation had 1x1 convolutions."""
    stage = StageSpec("inverted_residual", 1, 4, expansion=2.0, squeeze_excitation=True)
    spec = TeacherSpec(architecture=ArchitectureSpec((stage,), stem_width=4))
    given = TeacherInputs(Path(), 1, 3, 8, (0.5,), (0.5,), ("a", "b", "c"))
    new = build_teacher_network(spec, given)
    names = {"reduce.weight": "gate.1.weight", "reduce.bias": "gate.1.bias",
             "expand.weight": "gate.3.weight", "expand.bias": "gate.3.bias"}  # fmt: skip
    old = {}
    for name, value in new.state_dict().items():
        for here, there in names.items():
            if name.endswith(here):
                name, value = name.replace(here, there), value[:, :, None, None] if value.ndim == 2 else value
        old[name] = value
    assert old.keys() != new.state_dict().keys()
    found = build_teacher_network(spec, given, old)
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(found.eval()(images), new.eval()(images))
    with pytest.raises(ValueError, match="missing"):
        build_teacher_network(spec, given, {"stem.0.weight": old["stem.0.weight"]})
