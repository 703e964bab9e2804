"""A training that is too large for the machine fails alone."""

import resource

import pytest
import torch

from naskd.trials import memory
from naskd.trials.memory import _of_container, available_bytes, bounded_memory


def test_what_the_machine_does_not_have_is_refused_and_the_limit_goes_again() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    available = available_bytes()
    assert available
    with bounded_memory():
        assert torch.ones(1000).sum() == 1000
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.empty(available + 2**20, dtype=torch.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_limit_that_is_there_already_is_not_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**9, 2 * 10**9))
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: limits.append(given))
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**12)
    with bounded_memory():
        pass
    assert limits == [(10**9, 2 * 10**9)] * 2


def test_a_container_may_have_less_than_its_machine(tmp_path) -> None:
    for name, text in (("max", "1000"), ("current", "900"), ("stat", "anon 1\ninactive_file 300\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert _of_container(tmp_path) == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert _of_container(tmp_path) is None
    assert _of_container(tmp_path / "nowhere") is None
