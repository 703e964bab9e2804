"""Which state of a file is a network's."""

from pathlib import Path

import pytest
import torch
from torch import nn

from naskd.networks.fitting import fit_checkpoint
from naskd.store.checkpoint_file import read_checkpoint


def net(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2))


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return dict(net().state_dict())


GOOD, BAD = state(0), state(1)


def after(prefix: str, tensors=GOOD):
    return {prefix + name: value for name, value in tensors.items()}


def fit(content, folder: Path, network: nn.Module | None = None, wanted: str | None = None):
    torch.save(content, folder / "x.pt")
    return fit_checkpoint(read_checkpoint(folder / "x.pt"), network or net(), wanted)


def is_good(tensors) -> bool:
    return tensors.keys() == GOOD.keys() and all(torch.equal(tensors[name], GOOD[name]) for name in GOOD)


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        after("module."),
        after("_orig_mod."),
        after("module._orig_mod."),
        after("_orig_mod.module.model.net."),
        {"net": GOOD, "acc": 97.0},
        {"state_dict": after("model.")},
        {"state_dict": after("backbone."), "meta": {"epoch": 3}},
        {"whatever": {"deep": after("network.")}},
        {**after("module."), "n_averaged": torch.tensor(5)},
        {**GOOD, "0.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
        {"state_dict": {**after("model."), "criterion.weight": torch.ones(2)}},
        {"model": GOOD, "best_model": {name: value.clone() for name, value in GOOD.items()}},
        {name: value for name, value in GOOD.items() if "num_batches" not in name},
    ],
)
def test_the_networks_state_is_found(content, tmp_path: Path) -> None:
    assert is_good(fit(content, tmp_path).tensors)


def test_half_precision_becomes_whole(tmp_path: Path) -> None:
    content = {name: value.half() if value.is_floating_point() else value for name, value in GOOD.items()}
    found = fit(content, tmp_path).tensors
    assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in GOOD.items()}
    assert torch.equal(found["3.weight"], GOOD["3.weight"].half().float())


def test_a_network_that_is_wrapped_where_it_is_built_takes_a_bare_state(tmp_path: Path) -> None:
    wrapped = nn.DataParallel(net())
    found = fit({"state_dict": after("model.")}, tmp_path, wrapped).tensors
    assert found.keys() == wrapped.state_dict().keys()
    assert torch.equal(found["module.3.weight"], GOOD["3.weight"])


def test_a_prefix_that_is_part_of_the_names_stays(tmp_path: Path) -> None:
    network = nn.ModuleDict({"module": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    content = dict(network.state_dict())
    assert fit(content, tmp_path, network).tensors.keys() == content.keys()


@pytest.mark.parametrize(
    ("content", "good", "bad"),
    [
        ({"state_dict": BAD, "state_dict_ema": GOOD}, "state_dict_ema", "state_dict"),
        ({"model": BAD, "model_ema": {"module": GOOD, "decay": 0.9}}, "model_ema.module", "model"),
        ({"state_dict": {**after("net.", BAD), **after("net_ema.")}}, "state_dict.net_ema", "state_dict.net"),
        ({"ema_model": after("module."), "net": BAD}, "ema_model.module", "net"),
        ({**BAD, **after("ema.")}, "ema", ""),
    ],
)
def test_of_weights_and_their_average_the_average_is_taken_and_said(
    content, good, bad, tmp_path: Path
) -> None:
    found = fit(content, tmp_path)
    assert is_good(found.tensors)
    (note,) = found.notes
    assert f"{good!r} is taken" in note
    assert f"state = {bad or '.'!r} takes the other" in note
    assert torch.equal(fit(content, tmp_path, wanted=bad or ".").tensors["3.weight"], BAD["3.weight"])
    assert fit(content, tmp_path, wanted=good).notes == ()


def test_of_several_states_that_fit_none_is_guessed(tmp_path: Path) -> None:
    content = {"student": BAD, "teacher": GOOD}
    with pytest.raises(
        ValueError, match=r"several different states that fit: 'student', 'teacher'; .*state = "
    ):
        fit(content, tmp_path)
    assert is_good(fit(content, tmp_path, wanted="teacher").tensors)
    with pytest.raises(ValueError, match=r"no state 'tutor' .* those that fit: 'student', 'teacher'"):
        fit(content, tmp_path, wanted="tutor")


def test_of_several_states_within_the_wanted_one_none_is_guessed(tmp_path: Path) -> None:
    content = {"run": {"first": BAD, "second": GOOD}, "other": BAD}
    with pytest.raises(ValueError, match=r"several different states that fit: 'run.first', 'run.second'; "):
        fit(content, tmp_path, wanted="run")
    assert is_good(fit(content, tmp_path, wanted="run.second").tensors)


def test_of_weights_and_their_average_within_the_wanted_one_the_average_is_taken_and_said(
    tmp_path: Path,
) -> None:
    found = fit({"run": {"net": BAD, "ema": GOOD}, "other": BAD}, tmp_path, wanted="run")
    assert is_good(found.tensors)
    (note,) = found.notes
    assert "'run.ema' is taken" in note


def test_an_average_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (note,) = fit({"state_dict": GOOD, "ema": {"shadow": [torch.zeros(3)]}, "ema_decay": 0.9}, tmp_path).notes
    assert "also holds 'ema', which does not fit the network" in note


def test_what_does_not_fit_is_counted_and_named(tmp_path: Path) -> None:
    content = {"epoch": 3, "net": after("module.")}
    content["net"]["module.extra"] = content["net"].pop("module.3.bias")
    with pytest.raises(ValueError, match="does not fit") as caught:
        fit(content, tmp_path)
    message = str(caught.value)
    for part in (
        "x.pt",
        "Sequential",
        "1 missing: 3.bias",
        "1 unexpected: extra",
        "epoch (int), net (9 tensors)",
    ):
        assert part in message
    assert "\n" not in message


class Nested(nn.Module):
    """Names within its block repeat its own, as those of torchvision's ResNets do."""

    def __init__(self, classes: int, channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4, 7)
        self.layer1 = nn.Sequential(nn.Module())
        self.layer1[0].conv1 = nn.Conv2d(4, 4, 3)
        self.layer1[0].conv2 = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, classes)


@pytest.mark.parametrize("prefix", ["", "layer1.", "module."])
def test_a_block_with_the_networks_names_is_no_wrapper(prefix: str, tmp_path: Path) -> None:
    content = dict(reversed(after(prefix, Nested(3).state_dict()).items()))
    with pytest.raises(ValueError, match="does not fit Nested") as caught:
        fit(content, tmp_path, Nested(1000))
    message = str(caught.value)
    assert "2 of another shape: fc.weight (3, 4) instead of (1000, 4), fc.bias (3,) instead" in message
    assert "the file's network has 3 outputs at fc.weight, the one that is built has 1000" in message
    assert "missing" not in message
    assert "unexpected" not in message


@pytest.mark.parametrize(
    ("content", "network", "hint"),
    [
        (dict(nn.utils.weight_norm(nn.Linear(2, 2)).state_dict()), nn.Linear(2, 2), "weight-normalised"),
        (dict(nn.Linear(2, 2).state_dict()), nn.utils.weight_norm(nn.Linear(2, 2)), "build it without"),
        (
            dict(nn.Linear(2, 5).state_dict()),
            nn.Linear(2, 2),
            "5 outputs at weight, the one that is built has 2",
        ),
    ],
)
def test_what_is_probably_the_matter_is_said(content, network, hint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=hint):
        fit(content, tmp_path, network)
