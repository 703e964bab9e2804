"""Files of weights as trainers write them."""

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from naskd.store.checkpoint_file import is_average, read_checkpoint
from naskd.store.files import file_hash

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}


def same(found, wanted=STATE) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


def states(path: Path):
    return {state.place: state.tensors for state in read_checkpoint(path).states}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (STATE, ""),
        ({"state_dict": STATE, "epoch": 3}, "state_dict"),
        ({"net": STATE, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}, "net"),
        ({"model": {"state_dict": STATE}}, "model.state_dict"),
        ({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}, "state_dict"),
        ({"state_dict": STATE, "best": np.float64(0.9), "at": Path("x")}, "state_dict"),
        ({"weights": OrderedDict(STATE), "acc": torch.tensor(0.5)}, "weights"),
    ],
)
def test_states_are_found_where_people_keep_them(content, place, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert same(states(tmp_path / "x.pt")[place])


def test_what_an_optimizer_keeps_is_no_state_of_a_network(tmp_path: Path) -> None:
    torch.save({"model": STATE, "optim": STATE, "optimizer_state_dict": {"state": STATE}}, tmp_path / "x.pt")
    assert list(states(tmp_path / "x.pt")) == ["model"]


def test_the_format_before_zip_archives_is_read(tmp_path: Path) -> None:
    torch.save({"net": STATE}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert same(states(tmp_path / "x.pt")["net"])


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_safetensors_are_read_too_whatever_the_suffix(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save_file(STATE, path)
    assert same(states(path)[""])
    assert same({s.place: s.tensors for s in read_checkpoint(path, file_hash(path).upper()).states}[""])


@pytest.mark.parametrize(
    "place",
    ["ema", "state_dict_ema", "model_ema.module", "ema_model", "ema.model", "swa_model", "average", "EMA", "model-ema"],
)  # fmt: skip
def test_an_average_is_known_by_its_name(place: str) -> None:
    assert is_average(place)
    assert not is_average("state_dict")
    assert not is_average("schema.model")


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("EVIL",))


def test_a_pickle_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(1), "evil": Evil()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ValueError, match=f"{name} cannot be read with weights_only=True"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "EVIL").exists()


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut off"], ids=["empty", "text", "cut off"])
def test_a_file_of_something_else_is_one_clear_error(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"checkpoint .*{name} cannot be read") as caught:
        read_checkpoint(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["archive", "before archives", "safetensors"])
@pytest.mark.parametrize("size", [100, 600, 3000, 20_000, 60_000])
def test_a_file_that_was_cut_is_damaged(kind: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    state = {name: torch.rand(100, 100) for name in ("a", "b")}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "archive")
    path.write_bytes(path.read_bytes()[:size])
    says = f"x.pt cannot be read: it has {size:,} bytes and is damaged or incomplete"
    with pytest.raises(ValueError, match=says) as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [{}, {"a": 3}, [torch.zeros(1)], {"model": {}}, torch.zeros(2), 5])
def test_a_file_without_tensors_by_name_is_no_state(content, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"holds no state dict .*; it holds "):
        read_checkpoint(tmp_path / "x.pt")


def test_the_hash_is_checked_before_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=f"has SHA-256 {file_hash(path)}, expected {'0' * 64}"):
        read_checkpoint(path, "0" * 64)
    with pytest.raises(ValueError, match="does not exist"):
        read_checkpoint(tmp_path / "y.pt")


def test_a_pickle_that_pretends_to_be_data_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sly:
        def __reduce__(self):
            return (argparse.Namespace, (), {"__class__": "x"})

    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "sly": Sly()}, tmp_path / "x.pt")
    assert same(states(tmp_path / "x.pt")["state_dict"])


def test_what_is_no_file_of_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "lfs.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html></html>")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "script.pt"))
    wanted = {
        "lfs.pt": "git lfs pull",
        "page.pt": "a web page",
        "whole.pt": r"whole pickled torch.nn.modules.linear.Linear.*state_dict\(\), 'weights.pt'",
        "script.pt": "TorchScript program.*torch.jit.load",
        ".": "is a folder",
    }
    for name, message in wanted.items():
        with pytest.raises(ValueError, match=message) as caught:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
