"""Teachers as people have them: timm, transformers, ONNX files, and weights with which a training begins."""

import importlib.util
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_studies import TRAINING, design, make, open_context, study
from torch import Tensor, nn

from naskd.networks.foreign import ForeignNetwork
from naskd.networks.teachers import Teacher, TeacherInputs, build_teacher_network
from naskd.nn.cost import network_cost
from naskd.nn.deployed import rebuild
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError
from naskd.spec.parse import StudyFileError, parse_study
from naskd.spec.study import StudySpec
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.trials.jobs import Decision, Job
from naskd.trials.steps import run_job

CLASSES = ("cat", "dog", "eel", "fox")


def given(base: Path, *, channels=3, side=16, classes=CLASSES) -> TeacherInputs:
    mean, std = (0.5,) * channels, (0.25,) * channels
    return TeacherInputs(base, channels, len(classes), side, mean, std, classes)


class Net(nn.Module):
    """Two stages and a classifier of however many classes."""

    def __init__(self, n_classes: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(self.one(x)).mean((2, 3)))


# ONNX


def exported(path: Path, net: nn.Module | None = None, *, dynamic=True, side=16) -> nn.Module:
    torch.manual_seed(1)
    net = Net() if net is None else net
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    axes = {"images": {0: "n"}, "logits": {0: "n"}} if dynamic else None
    images = torch.zeros(1, 3, side, side)
    names = {"input_names": ["images"], "output_names": ["logits"]}
    torch.onnx.export(net.eval(), (images,), path, dynamo=False, dynamic_axes=axes, **names)
    return net


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_onnx_file_says_what_the_network_says_and_shows_its_stages(tmp_path, dynamic):
    net = exported(tmp_path / "net.onnx", dynamic=dynamic)
    spec = TeacherSpec(source="onnx", checkpoint="net.onnx", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    teacher = Teacher(build_teacher_network(spec, given(tmp_path)))
    images = torch.rand(3, 3, 16, 16)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    normalised = (images - mean) / std
    taps = teacher.taps(images)
    with torch.no_grad():
        torch.testing.assert_close(taps.logits, net(normalised), rtol=1e-4, atol=1e-5)
        one = net.one(normalised)
        torch.testing.assert_close(taps.stages[0].tensor, one, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(taps.stages[1].tensor, net.two(one), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(taps.pooled, net.two(one).mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert [tap.position for tap in taps.stages] == [0.5, 1.0]
    cost = network_cost(teacher, 3, 16)
    assert cost.macs == network_cost(net, 3, 16).macs
    # Normalisation is folded into the convolutions when a file is exported.
    assert cost.n_params == sum(p.numel() for p in net.parameters()) - 2 * 6 - 2 * 8
    assert cost.size_bytes == (tmp_path / "net.onnx").stat().st_size


def test_stages_of_an_onnx_file_are_named_and_its_classes_ordered(tmp_path):
    net = exported(tmp_path / "net.onnx")
    spec = TeacherSpec(source="onnx", checkpoint="net.onnx", classes=("fox", "eel", "dog", "cat"))
    found = build_teacher_network(spec, given(tmp_path))
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(found(images), net(images).flip(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"computes no tensor '/one/one.2/Relu_output'.*did you mean"):
        build_teacher_network(replace(spec, taps=("/one/one.2/Relu_output",)), given(tmp_path))
    named = build_teacher_network(replace(spec, taps=("/two/two.2/Relu_output_0",)), given(tmp_path))
    assert [tap.tensor.shape for tap in named.taps(images).stages] == [(2, 8, 8, 8)]


def test_an_onnx_teacher_is_built_again_from_its_state_and_from_its_description(tmp_path):
    exported(tmp_path / "net.onnx")
    spec, images = TeacherSpec(source="onnx", checkpoint="net.onnx"), torch.rand(2, 3, 16, 16)
    network = build_teacher_network(spec, given(tmp_path))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    again = build_teacher_network(spec, given(tmp_path), state)
    assert torch.equal(again(images), network(images))
    described = rebuild(json.loads(json.dumps(network.describe())))
    described.load_state_dict(state)
    assert torch.equal(described(images), network(images))


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Net(5), "the teacher has 5 outputs, the study has 4 classes"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), r"no output '\(B, K\)' of logits"),
    ],
)
def test_an_onnx_file_of_something_else_is_refused(tmp_path, net, said):
    exported(tmp_path / "net.onnx", net)
    with pytest.raises(InputError, match=said):
        build_teacher_network(TeacherSpec(source="onnx", checkpoint="net.onnx"), given(tmp_path))


def test_what_is_no_onnx_file_is_said(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="is no ONNX model"):
        build_teacher_network(TeacherSpec(source="onnx", checkpoint="net.onnx"), given(tmp_path))
    with pytest.raises(InputError, match=r"needs checkpoint, the \.onnx file, and cannot be fine-tuned"):
        build_teacher_network(
            TeacherSpec(source="onnx", checkpoint="net.onnx", fine_tune=True), given(tmp_path)
        )


def test_an_onnx_teacher_teaches(tmp_path):
    """Kept by content, asked by a bank, with a loss of features; where gradients are wanted it is turned away."""
    exported(tmp_path / "net.onnx", Net(10, 3), side=8)
    spec = TeacherSpec(source="onnx", checkpoint=str(tmp_path / "net.onnx"), saw="other")
    context = open_context(study(teacher=spec), ArtifactStore(tmp_path / "artifacts"))
    assert [(result.status, result.reason) for result in make(context)] == [("complete", "")]
    config = design(KnowledgeTerm("logits"), KnowledgeTerm("hint", weighting="balanced"), epochs=1)
    result = run_job(Job("0", "trial", config, 1, 1), context, lambda *_: Decision.CONTINUE)
    assert result.status == "complete", result.error
    (recipe,) = context.designs.teachers()
    assert context.sources.stand_in(recipe).macs == network_cost(Net(10, 3), 3, 8).macs
    taught = replace(config.distillation, terms=(), scheme="dafl")
    turned_away = context.designs.design_problems(replace(config, distillation=taught))
    assert any("no gradient" in line for line in turned_away)


# timm and transformers, by a fake of what is used of them; and by themselves where they are installed


def fake_timm(module: types.ModuleType) -> None:
    class TimmNet(Net):
        feature_info = (
            {"num_chs": 6, "reduction": 1, "module": "one"},
            {"num_chs": 8, "reduction": 2, "module": "two"},
        )

    module.__version__ = "0"
    module.is_model = lambda name: name == "tiny"
    module.list_models = lambda: ["tiny"]
    module.created = []

    def create_model(name: str, *, pretrained: bool, num_classes: int, in_chans: int) -> nn.Module:
        module.created.append(pretrained)
        return TimmNet(num_classes, in_chans)

    module.create_model = create_model
    config = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 24, 24)}
    module.data = types.SimpleNamespace(resolve_model_data_config=lambda network: config)


@pytest.fixture
def timm(monkeypatch):
    module = types.ModuleType("timm")
    fake_timm(module)
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def test_a_model_of_timm_has_its_own_stages_and_preprocessing(timm, tmp_path):
    spec = TeacherSpec(source="timm", options=(("model", "tiny"),))
    assert spec.trained_here
    network = build_teacher_network(spec, given(tmp_path))
    assert isinstance(network, ForeignNetwork)
    assert [point.call[0] for point in network.points.stages] == ["one", "two"]
    assert network.preprocessing.resolution == 24
    assert network.preprocessing.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    gray = build_teacher_network(spec, given(tmp_path, channels=1))
    assert gray.preprocessing.mean.flatten().tolist() == pytest.approx([0.2])
    assert timm.created == [False, False]
    fetched = TeacherSpec(source="timm", options=(("model", "tiny"), ("pretrained", True)))
    build_teacher_network(fetched, given(tmp_path))
    build_teacher_network(fetched, given(tmp_path), dict(network.state_dict()))
    assert timm.created[2:] == [True, False], "nothing is fetched where a state is loaded"
    timm.create_model = None  # raises, as without a network
    ways = (
        r"a local file: checkpoint = 'FILE' for one that knows these classes already and is not trained, "
        r"with fine_tune = true beside it for one of other classes, in the place of pretrained"
    )
    with pytest.raises(InputError, match=ways):
        build_teacher_network(fetched, given(tmp_path))
    with pytest.raises(InputError) as caught:
        build_teacher_network(spec, given(tmp_path))
    assert "local file" not in str(caught.value), "nothing was to be fetched"
    with pytest.raises(InputError, match="has no model 'tinny'; did you mean 'tiny'"):
        build_teacher_network(replace(spec, options=(("model", "tinny"),)), given(tmp_path))


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch):
    for name in ("timm", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
        spec = TeacherSpec(source=name, options=(("model", "tiny"),))
        with pytest.raises(InputError, match=f"needs {name}: pip install {name}"):
            build_teacher_network(spec, given(tmp_path))


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto"]
)
def test_models_of_timm_itself(tmp_path, name):
    spec = TeacherSpec(source="timm", options=(("model", name),), resolution=224 if "vit" in name else 64)
    teacher = Teacher(build_teacher_network(spec, given(tmp_path)))
    taps = teacher.taps(torch.rand(2, 3, 16, 16))
    assert taps.logits.shape == (2, 4)
    assert len(taps.stages) >= 3
    assert teacher.head is not None


class Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Classifier(Net):
    def forward(self, pixel_values: Tensor) -> Output:
        return Output(super().forward(pixel_values))


@pytest.fixture
def transformers(monkeypatch):
    """What is used of transformers, on folders as it writes them."""

    class Config(types.SimpleNamespace):
        @property
        def num_labels(self) -> int:
            return len(self.id2label)

        @num_labels.setter
        def num_labels(self, n: int) -> None:
            self.id2label = {i: f"LABEL_{i}" for i in range(n)}

    def config(folder: Path, *, local_files_only: bool, trust_remote_code: bool) -> Config:
        assert local_files_only
        assert not trust_remote_code
        found = json.loads((folder / "config.json").read_text())
        return Config(
            id2label={int(k): v for k, v in found["id2label"].items()}, image_size=found["image_size"]
        )

    module = types.ModuleType("transformers")
    module.AutoConfig = types.SimpleNamespace(from_pretrained=config)

    def from_pretrained(
        folder: Path,
        *,
        config: Config,
        ignore_mismatched_sizes: bool,
        local_files_only: bool,
        trust_remote_code: bool,
    ) -> nn.Module:
        from safetensors.torch import load_file

        net, state = Classifier(config.num_labels), load_file(folder / "model.safetensors")
        if ignore_mismatched_sizes:
            state = {name: value for name, value in state.items() if not name.startswith("fc.")}
        net.load_state_dict(state, strict=not ignore_mismatched_sizes)
        return net

    module.AutoModelForImageClassification = types.SimpleNamespace(
        from_pretrained=from_pretrained,
        from_config=lambda config, trust_remote_code: Classifier(config.num_labels),
    )
    monkeypatch.setitem(sys.modules, "transformers", module)


def saved(folder: Path, names=CLASSES, **said) -> nn.Module:
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(2)
    net = Classifier(len(names))
    save_file(net.state_dict(), folder / "model.safetensors")
    config = {"id2label": dict(enumerate(names)), "image_size": 16}
    (folder / "config.json").write_text(json.dumps(config))
    if said:
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return net.eval()


SPEC = TeacherSpec(source="transformers", options=(("model", "net"),))


def with_file(base: Path, spec: TeacherSpec = SPEC) -> StudySpec:
    """As opening a study does it: the file that the source finds is the checkpoint."""
    from naskd.runs.carried import with_found_checkpoints

    return with_found_checkpoints(replace(study(teacher=spec), base=base))


def loaded(base: Path, spec: TeacherSpec = SPEC) -> nn.Module:
    network = build_teacher_network(with_file(base, spec).teacher, given(base)).eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    again = build_teacher_network(with_file(base, spec).teacher, given(base), state).eval()
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(again(images), network(images)), "it is built again from its state"
    return network


@pytest.mark.parametrize(
    "said",
    [
        {"do_normalize": False, "do_rescale": False},
        {"do_normalize": False, "do_resize": False, "size": {"height": 8, "width": 8}},
        {"do_normalize": False, "do_flip_channel_order": True},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "do_flip_channel_order": True},
        {"image_mean": [127.5, 120.0, 110.0], "image_std": [50.0, 60.0, 70.0], "do_rescale": False},
        {"image_mean": 0.5, "image_std": 0.25, "rescale_factor": 1 / 127.5, "rescale_offset": True},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "rescale_factor": 0.00392156862745098},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "include_top": True},
    ],
)
def test_all_that_transformers_does_to_an_image_is_done(transformers, tmp_path, said):
    net = saved(tmp_path / "net", **said)
    images = torch.randint(256, (2, 3, 16, 16)).float()
    given = images.flip(1) if said.get("do_flip_channel_order") else images
    if said.get("do_rescale", True):
        given = given * said.get("rescale_factor", 1 / 255) - (1 if said.get("rescale_offset") else 0)
    if said.get("do_normalize", True):
        mean, std = (torch.tensor(said[key]).view(1, -1, 1, 1) for key in ("image_mean", "image_std"))
        given = (given - mean) / std
        given = given / std if said.get("include_top") else given
    with torch.no_grad():
        torch.testing.assert_close(loaded(tmp_path)(images / 255), net(given).logits, rtol=1e-4, atol=1e-4)


def test_a_classifier_of_transformers_brings_weights_preprocessing_and_order_of_classes(
    transformers, tmp_path
):
    names = ("fox", "cat", "eel", "dog")
    net = saved(
        tmp_path / "net", names, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.5, 0.5], size={"shortest_edge": 20},
        crop_size={"height": 16, "width": 16}, do_center_crop=True, do_normalize=True,
    )  # fmt: skip
    network = loaded(tmp_path).eval()
    images = torch.rand(2, 3, 16, 16)
    normalised = (images - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / 0.5
    order = [names.index(name) for name in CLASSES]
    with torch.no_grad():
        torch.testing.assert_close(network(images), net(normalised).logits[:, order])
    assert network.preprocessing.resolution == 16
    assert len(network.taps(images).stages) == 2
    assert not with_file(tmp_path).teacher.trained_here


def test_a_folder_that_is_none_of_transformers_is_said(transformers, tmp_path):
    with pytest.raises(InputError, match=r"no folder that save_pretrained wrote: there is no .*config\.json"):
        with_file(tmp_path)
    saved(tmp_path / "net")
    (tmp_path / "net" / "model.safetensors").rename(tmp_path / "net" / "model.safetensors.index.json")
    with pytest.raises(InputError, match="weights in several files"):
        with_file(tmp_path)


def test_of_other_classes_it_is_fine_tuned_with_a_new_classifier(transformers, tmp_path):
    net = saved(tmp_path / "net", tuple(map(str, range(7))))
    with pytest.raises(InputError, match=r"7 outputs.*fine_tune = true trains a new classifier"):
        loaded(tmp_path)
    network = loaded(tmp_path, replace(SPEC, fine_tune=True))
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 4)
    assert torch.equal(network.network.model.one[0].weight, net.one[0].weight)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_classifiers_of_transformers_itself(tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    labels = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: i for i, name in enumerate(CLASSES)}}
    small = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    resnet = ResNetForImageClassification(ResNetConfig(**small, **labels)).eval()
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    vit = ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=4, **labels)).eval()
    for name, model in (("resnet", resnet), ("vit", vit)):
        model.save_pretrained(tmp_path / name)
        spec = TeacherSpec(source="transformers", options=(("model", name),))
        network = loaded(tmp_path, spec).eval()
        images = torch.rand(2, 3, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(network(images), model(images).logits)
        assert len(network.taps(images).stages) >= 2


# Weights with which a training begins


BUILDER = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.two(self.one(x)).mean((2, 3)))
"""


@pytest.fixture
def begun(tmp_path: Path) -> TeacherSpec:
    """A network of other classes, saved as trainers do."""
    (tmp_path / "net.py").write_text(BUILDER)
    torch.manual_seed(3)
    state = {f"module.{name}": value for name, value in Net(7, 1).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "net.pt")
    training = replace(TRAINING, epochs=4)
    return TeacherSpec(
        builder="net.py:Net",
        checkpoint="net.pt",
        fine_tune=True,
        head_share=0.5,
        training=training,
        saw="other",
    )


def test_a_fine_tuning_begins_with_the_file_and_trains_the_classifier_first(begun, tmp_path):
    spec = replace(study(teacher=begun), base=tmp_path)
    context = open_context(spec, ArtifactStore(tmp_path / "artifacts"))
    (recipe,) = context.designs.teachers()
    assert recipe.trained
    weights = torch.load(tmp_path / "net.pt", weights_only=True)["state_dict"]
    first = weights["module.one.0.weight"]
    network = context.networks.teacher("teacher", begins=context.prerequisites.checkpoint("teacher"))
    assert torch.equal(network.network.one[0].weight, first)
    assert network.network.fc.out_features == 10
    epochs = []

    def watch(epoch, metrics):
        epochs.append(epoch)
        return Decision.CONTINUE

    job = Job(recipe.artifact_id, "artifact", None, recipe.seed, 0, label="teacher")
    result = run_job(job, context, watch)
    assert result.status == "complete", result.reason
    assert len(result.curve) == 4
    frozen = context.networks.frozen(recipe, context.resources.store.load(recipe.artifact_id)[0])
    assert not torch.equal(frozen.network.network.one[0].weight, first)


def test_a_file_that_does_not_fit_before_the_classifier_is_refused(begun, tmp_path):
    torch.save({"fc.weight": torch.zeros(7, 8), "fc.bias": torch.zeros(7)}, tmp_path / "net.pt")
    spec = replace(study(teacher=begun), base=tmp_path)
    context = open_context(spec, ArtifactStore(tmp_path / "artifacts"))
    with pytest.raises(InputError, match="does not fit Net"):
        context.networks.teacher("teacher", begins=context.prerequisites.checkpoint("teacher"))


def test_what_begins_nowhere_is_refused(begun):
    with pytest.raises(ValueError, match="fine_tune begins with checkpoint, which is missing"):
        TeacherSpec(torchvision="resnet18", fine_tune=True)
    with pytest.raises(ValueError, match="must be at least 2"):
        replace(begun, training=replace(TRAINING, epochs=1))


def test_a_study_file_says_it_and_identities_of_before_stay(tmp_path, begun):
    (tmp_path / "net.py").write_text(BUILDER)
    (tmp_path / "space.py").write_text("def joint(trial): ...")
    text = """
name = "x"
space = "space.py:joint"
[data]
kind = "digits"
[budget]
trials = 1
[teacher]
builder = "net.py:Net"
checkpoint = "net.pt"
"""
    (tmp_path / "study.toml").write_text(text)
    plain = parse_study(tmp_path / "study.toml")
    assert not {"fine_tune", "head_share"} & plain.identity()["teacher"].keys()
    settings = ["teacher.fine_tune=true", "teacher.head_share=0.3", "teacher.training.epochs=5"]
    tuned = parse_study(tmp_path / "study.toml", settings)
    assert tuned.identity()["teacher"]["head_share"] == 0.3
    assert tuned.teacher.trained_here
    with pytest.raises(StudyFileError, match=r"teacher\.training: .*fine_tune = true"):
        parse_study(tmp_path / "study.toml", ["teacher.training.epochs=5"])


class OnnxTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        rows = x[:, :, ::2, ::2].permute(0, 2, 3, 1).repeat(1, 1, 1, 4) * 1.5
        return self.fc((rows.flatten(1, 2) + 0.5).mean(1))


def test_maps_and_tokens_of_an_onnx_file_without_a_known_place_are_turned_away(tmp_path):
    for name, height, width in (("square.onnx", 16, 16), ("oblong.onnx", 16, 64)):
        images = torch.zeros(1, 3, height, width)
        torch.onnx.export(OnnxTokens().eval(), (images,), tmp_path / name, dynamo=False)
    graph = onnx_tensors(tmp_path / "square.onnx")
    square = TeacherSpec(source="onnx", checkpoint="square.onnx", taps=(graph["Mul"],))
    with pytest.raises(InputError, match="its channels seem to be last"):
        build_teacher_network(square, given(tmp_path))
    tokens = build_teacher_network(replace(square, taps=(graph["Add"],)), given(tmp_path))
    assert tokens.taps(torch.rand(2, 3, 16, 16)).shapes.stages[0].grid == (8, 8)
    oblong = TeacherSpec(source="onnx", checkpoint="oblong.onnx", taps=(graph["Add"],))
    with pytest.raises(InputError, match="where tokens lie on images of 64x16 pixels is not known"):
        build_teacher_network(oblong, replace(given(tmp_path), resolution=(16, 64)))


def onnx_tensors(path):
    import onnx

    return {node.op_type: node.output[0] for node in onnx.load(str(path)).graph.node}
