"""Code is named by what it does: what changes nothing keeps its name, what changes something does not."""

import builtins
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from naskd.spec import compat
from naskd.spec.code_identity import code_id, code_ids, same_code
from naskd.spec.errors import InputError
from naskd.spec.identity import identity_difference
from naskd.spec.study import BudgetSpec, DataSpec, StudySpec
from naskd.spec.teachers import TeacherSpec
from naskd.spec.userfile import file_content_id, import_file, load_function, with_siblings

CODE = '''"""A space."""

import neighbour


def joint(trial, width=4):
    """One stage."""
    # As wide as it comes.
    return [width,
            neighbour.twice(f"{width!r}"), None, ...]
'''


def named(folder: Path, text: str | bytes) -> str:
    file = folder / "space.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return code_id(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("def twice(x):\n    return x + x\n")
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "\n\n# the end\n",
        lambda text: text.replace("# As wide as it comes.", "# Other words."),
        lambda text: text.replace("def joint", "\n\n\ndef joint").replace(":\n", ":   \n"),
        lambda text: text.replace("[width,\n            ", "[width, "),
        lambda text: text.replace("One stage.", "One stage, or two.").replace("A space.", "A better space."),
        lambda text: text.replace('f"{width!r}"', "f'{width!r}'"),
        lambda text: "\ufeff" + text,
    ],
    ids=["line ends", "remark", "words", "blanks", "layout", "docstrings", "quotes", "byte order mark"],
)
def test_what_changes_nothing_keeps_the_name(change, folder: Path) -> None:
    assert named(folder, change(CODE)) == named(folder, CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("width=4", "width=5"),
        ("width=4", "width=4.0"),
        ("None", "..."),
        ("!r", ""),
        ("joint", "plain"),
        ("[width,", "["),
    ],
)
def test_what_changes_something_does_not(old: str, new: str, folder: Path) -> None:
    assert named(folder, CODE.replace(old, new)) != named(folder, CODE)


def test_neighbours_are_part_of_it(folder: Path) -> None:
    before = named(folder, CODE)
    (folder / "neighbour.py").write_text("def twice(x):\n\treturn x + x # tabs\n")
    assert named(folder, CODE) == before
    (folder / "neighbour.py").write_text("def twice(x):\n    return x * 2\n")
    assert named(folder, CODE) != before


def test_what_is_no_python_is_named_by_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "space.py"
    file.write_text("def (")
    before = code_ids(file)
    file.write_text("def ( ")
    assert not set(before) & set(code_ids(file))


# --- identities ---------------------------------------------------------------------------------------------------


def study(folder: Path, **changes) -> StudySpec:
    given = {
        "name": "x",
        "space": "space.py:joint",
        "data": DataSpec("digits"),
        "budget": BudgetSpec(trials=1),
    }
    return StudySpec(**{**given, "base": folder, **changes})


def identity(spec: StudySpec) -> dict[str, object]:
    names = [spec.space.rpartition(":")[0], *spec.modules]
    return {**spec.identity(), "files": {name: code_ids(spec.resolve(name)) for name in names}}


def test_files_are_what_they_hold_wherever_they_are(folder: Path) -> None:
    named(folder, CODE)
    (folder / "loss.py").write_text("a = 1\n")
    (folder / "deep").mkdir()
    (folder / "deep" / "moved.py").write_text("a = 1  # as it was\n")
    one = identity(study(folder, modules=("loss.py",)))
    for modules in (("./loss.py",), (str(folder / "loss.py"),), ("deep/moved.py",)):
        other = study(folder, space=f"{folder}/space.py:joint", modules=modules)
        assert identity_difference(one, identity(other)) == []
    assert identity_difference(
        one, identity(study(folder, space="space.py:plain", modules=("loss.py",)))
    ) == ['space: "joint" -> "plain"']
    (folder / "loss.py").write_text("a = 2\n")
    (line,) = identity_difference(one, identity(study(folder, modules=("loss.py",))))
    assert line.startswith("files.loss.py: ")
    assert line.endswith("(what the code does has changed; comments and layout do not count)")
    (gone,) = identity_difference(one, identity(study(folder)))
    assert gone.startswith("files.loss.py: ")
    assert "-> (absent)" in gone


def test_teachers_are_what_their_files_hold(folder: Path) -> None:
    teacher = TeacherSpec(builder="teacher.py:build", checkpoint="teacher.pt")
    one = identity(study(named_folder(folder), teacher=teacher))
    moved = replace(
        teacher, builder="deep/../teacher.py:build", checkpoint="/moved/t.pt", sha256="0" * 64, saw="train"
    )
    assert identity_difference(one, identity(study(folder, teacher=moved))) == []
    other = replace(teacher, builder="teacher.py:build_more")
    assert identity_difference(one, identity(study(folder, teacher=other))) == [
        'teacher.builder: "build" -> "build_more"'
    ]


def named_folder(folder: Path) -> Path:
    named(folder, CODE)
    return folder


def test_a_run_of_before_named_files_by_path_and_bytes(folder: Path) -> None:
    named(folder, CODE)
    spec = study(folder, modules=("neighbour.py",), teacher=TeacherSpec(builder="t.py:b", checkpoint="t.pt"))
    old = {
        **spec.identity(),
        "space": "space.py:joint",
        "modules": ["neighbour.py"],
        "teacher": spec.to_dict()["teacher"],
        "files": {name: file_content_id(folder / name) for name in ("space.py", "neighbour.py")},
    }
    today = identity(spec)
    assert [line for line in identity_difference(old, today) if not line.startswith("teacher.")] == []
    assert compat.identity(today) == today
    (folder / "space.py").write_text(CODE + "# a remark\n")
    (line,) = [line for line in identity_difference(old, identity(spec)) if not line.startswith("teacher.")]
    assert line.startswith("files.space.py: "), "of the bytes of before nothing else is known"


PACKAGE = {
    "space.py": "import pkg.a\nimport one, two\n",
    "pkg/__init__.py": "SCALE = 1\n",
    "pkg/a.py": "from .b import W\nfrom . import c\nfrom .sub import d\n",
    "pkg/b.py": "W = 1\n",
    "pkg/c.py": "C = 1\n",
    "pkg/sub/__init__.py": "",
    "pkg/sub/d.py": "from ..c import C\n",
    "one.py": "W = 1\n",
    "two.py": "W = 2\n",
}


def _package(folder: Path) -> Path:
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "space.py"


def test_packages_and_relative_imports_are_followed(tmp_path: Path) -> None:
    space = _package(tmp_path)
    (tmp_path / "unused.py").touch()
    (tmp_path / "__init__.py").touch()
    found = {file.relative_to(tmp_path).as_posix() for file in with_siblings(space)}
    assert found == set(PACKAGE)


@pytest.mark.parametrize("changed", [name for name in PACKAGE if name != "space.py"])
def test_a_change_of_any_of_them_is_another_code(tmp_path: Path, changed: str) -> None:
    space = _package(tmp_path)
    before = code_ids(space)
    (tmp_path / changed).write_text(PACKAGE[changed] + "# a remark\n")
    assert same_code(before, code_ids(space))
    (tmp_path / changed).write_text(PACKAGE[changed] + "X = 3\n")
    assert not same_code(before, code_ids(space))


def test_files_that_exchange_their_contents_are_another_code(tmp_path: Path) -> None:
    space = _package(tmp_path)
    before = code_ids(space)
    (tmp_path / "one.py").write_text(PACKAGE["two.py"])
    (tmp_path / "two.py").write_text(PACKAGE["one.py"])
    after = code_ids(space)
    assert before[0] == after[0]
    assert not same_code(before, after)
    assert same_code(before[0], after), "of a run of an earlier version no more is known"


@pytest.mark.parametrize("kept", [True, False])
def test_an_edited_file_is_executed_whatever_bytecode_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Bytecode goes by size and second, as a script writes it that edits a file and searches at once."""
    monkeypatch.setattr(sys, "dont_write_bytecode", not kept)
    (tmp_path / "beside_it.py").write_text("WIDTH = 4\n")
    (tmp_path / "quick.py").write_text("DEPTH = 1\nfrom beside_it import WIDTH\n")
    quick = import_file(tmp_path / "quick.py")
    assert (quick.DEPTH, quick.WIDTH) == (1, 4)
    for name, text in (
        ("quick.py", "DEPTH = 2\nfrom beside_it import WIDTH\n"),
        ("beside_it.py", "WIDTH = 5\n"),
    ):
        before = (tmp_path / name).stat()
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    quick = import_file(tmp_path / "quick.py")
    assert (quick.DEPTH, quick.WIDTH) == (2, 5)


def test_an_edited_neighbour_is_executed_again_and_what_imports_it(tmp_path: Path) -> None:
    """As in a notebook: a run would be named by the new code, and do what the old one did."""
    space = "from between import twice\n\n\ndef space(trial):\n    import lone_one\n    return twice(), lone_one.LONE\n"
    lone = "import builtins\n\ntimes = vars(builtins).setdefault('times', [])\ntimes.append(1)\nLONE = len(times)\n"
    files = {
        "space.py": space,
        "between.py": "import last_one\n\n\ndef twice():\n    return 2 * last_one.WIDTH\n",
        "last_one.py": "WIDTH = 4\n",
        "lone_one.py": lone,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def said() -> tuple[int, int]:
        return load_function("space.py:space", tmp_path)(None)

    try:
        assert [said(), said()] == [(8, 1), (8, 1)]
        (tmp_path / "last_one.py").write_text("WIDTH = 5\n")
        assert [said(), said()] == [(10, 1), (10, 1)], "what does not import it is not executed again"
        (tmp_path / "last_one.py").write_text("WIDTH = 4\n")
        assert said() == (8, 1)
    finally:
        vars(builtins).pop("times", None)


@pytest.mark.parametrize("late", [0, 1])
def test_one_name_in_two_folders_is_refused_where_a_call_could_get_the_wrong_module(
    tmp_path: Path, late: int
) -> None:
    inside, above = "def f():\n    import told_apart\n    return told_apart.name\n", "import told_apart\n"
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "told_apart.py").write_text(f"name = {name!r}\n")
        (tmp_path / name / "space.py").write_text(inside if number == late else above)
    import_file(tmp_path / "a" / "space.py")
    with pytest.raises(InputError, match="imports its folder's module 'told_apart'"):
        import_file(tmp_path / "b" / "space.py")
    (tmp_path / "b" / "told_apart.py").write_text("name = 'a'\n")
    assert import_file(tmp_path / "b" / "space.py"), "the same content cannot be the wrong one"
