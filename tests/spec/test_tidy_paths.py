"""What is said of a file names it as it would be found, whatever way the study file takes to it."""

from pathlib import Path

import pytest

from naskd.data.raw import folder
from naskd.spec.errors import InputError
from naskd.spec.userfile import load_function


def test_paths_are_said_without_detours(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text("")
    with pytest.raises(InputError) as caught:
        load_function("./../x/.././space.py:joint", tmp_path / "studies")
    assert str(caught.value).startswith(f"{tmp_path / 'space.py'} defines no function 'joint'")
    assert folder(tmp_path / "studies", "./../x/./images") == tmp_path / "x" / "images"
