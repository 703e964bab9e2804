"""Folders of images that are damaged, each with a name that says how, and what should come of them."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .damage import BYTES, FOREIGN, damaged
from .pictures import CLASSES, EACH, SIDE, chosen, picture, png, write_folder

STUDY = """\
name = "folder"
space = "space.py:joint"
epochs = 1

[data]
kind = "image_folder"
root = "images"
resolution = {side}
val_fraction = 0.25
test_fraction = 0.25

[budget]
trials = 1

[execution]
device = "cpu"

[retrain]
epochs = 1
seeds = 1
"""
SPACE = '''\
"""Two designs without a teacher."""

from naskd.config import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig


def joint(trial):
    width = trial.suggest_categorical("width", [4, 6])
    architecture = ArchitectureSpec(stem_width=4, stem_stride=2, stages=(StageSpec("basic", depth=1, width=width),))
    return TrialConfig(architecture, DistillationSpec(), TrainingSpec(batch_size=8, augmentation="none"))
'''
UNEQUAL = STUDY.replace("resolution = {side}\n", "").format(side=SIDE)
"""Without a resolution: all images must have one size."""

REFUSED = "refused"
EITHER = "either"


@dataclass(frozen=True)
class Case:
    """One damaged folder.

    Args:
        name: Says how it is made.
        change: Makes the damage, given the folder of the study and the images in ``images``.
        counts: Images of each class that are to be used, in the order of the classes; :data:`REFUSED` where none may
            be used, :data:`EITHER` where all are used or the folder is refused.
        words: Of which one must be said: where it is refused, and where something is left out.
        silent: Nothing need be said where the folder is used.
        study: The study file.
    """

    name: str
    change: Callable[[Path, list[Path]], object]
    counts: tuple[int, ...] | str
    words: tuple[str, ...]
    silent: bool = False
    study: str = STUDY.format(side=SIDE)


ALL = (EACH,) * len(CLASSES)


def write(folder: Path, case: Case) -> Path:
    """The study with its damage; its file."""
    (folder / "study.toml").write_text(case.study)
    (folder / "space.py").write_text(SPACE)
    case.change(folder, write_folder(folder / "images"))
    return folder / "study.toml"


def _bytes() -> Iterator[Case]:
    """One file with other bytes: it cannot be read, or it is an image still."""
    times = {"flip": 8, "truncate": 4}
    for how in BYTES:
        for seed in range(times.get(how, 2)):
            suffix = ("png", "jpg")[seed % 2]

            def change(
                folder: Path, files: list[Path], how: str = how, seed: int = seed, suffix: str = suffix
            ) -> None:
                path = chosen(files, seed, suffix)
                path.write_bytes(damaged(path.read_bytes(), how, seed))

            names = tuple(f"{n}.{suffix}" for n in range(EACH))
            yield Case(f"{suffix}-{how}-{seed}", change, EITHER, names, silent=True)
    for how, data in FOREIGN.items():
        yield Case(
            f"image-{how}",
            lambda folder, files, data=data: files[3].write_bytes(data),
            REFUSED,
            (f"{3}.jpg",),
        )


def _pictures() -> Iterator[Case]:
    """One image of another kind."""
    rows = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    colour = picture("apple", 0)

    def saved(
        name: str, image: Callable[[], Image.Image], **options: object
    ) -> Callable[[Path, list[Path]], object]:
        def change(folder: Path, files: list[Path]) -> None:
            files[0].unlink()
            image().save(files[0].with_name(name), **options)

        return change

    def written(data: bytes) -> Callable[[Path, list[Path]], object]:
        return lambda folder, files: files[0].write_bytes(data)

    usual = {
        "gray": saved("0.png", lambda: colour.convert("L")),
        "palette": saved("0.png", lambda: colour.convert("P")),
        "opaque": saved("0.png", lambda: colour.convert("RGBA")),
        "one_bit": saved("0.png", lambda: colour.convert("1")),
        "cmyk": saved("0.jpg", lambda: colour.convert("CMYK")),
        "progressive": saved("0.jpg", lambda: colour, progressive=True),
        "larger": saved("0.png", lambda: colour.resize((90, 50))),
        "one_pixel": saved("0.png", lambda: colour.resize((1, 1))),
        "capitals": saved("0.PNG", lambda: colour, format="PNG"),
        "webp": saved("0.webp", lambda: colour),
        "bmp": saved("0.bmp", lambda: colour),
        "png_called_jpg": saved("0.jpg", lambda: colour, format="PNG"),
    }
    yield from (Case(f"picture-{name}", change, ALL, ("0.",), silent=True) for name, change in usual.items())
    told = {
        "sixteen_bits_dark": saved("0.png", lambda: Image.fromarray((rows * 2).astype(np.uint16))),
        "thirty_two_bits": saved("0.tif", lambda: Image.fromarray(rows.astype(np.int32))),
        "floats": saved("0.tif", lambda: Image.fromarray((rows / 255).astype(np.float32))),
        "transparent": saved(
            "0.png", lambda: Image.merge("RGBA", [*colour.split(), Image.new("L", (SIDE, SIDE))])
        ),
        "frames": saved("0.webp", lambda: colour, save_all=True, append_images=[picture("berry", 1)]),
    }
    words = ("0.", "16 bit", "32 bit", "transparen", "frame")
    yield from (Case(f"picture-{name}", change, EITHER, words) for name, change in told.items())
    absurd = {
        "thin": png(1, 65_500, (b"\0" + b"abc") * 65_500),
        "wide": png(65_500, 1, b"\0" + b"abc" * 65_500),
        "bomb": png(50_000, 50_000),
        "gif_without_frames": b"GIF89a" + bytes(20),
        "no_width": png(0, 16),
        "no_pixels": png(16, 16),
        "odd_depth": png(16, 16, depth=7),
        "negative": png(2**31 - 1, 2**31 - 1),
    }
    yield from (Case(f"picture-{name}", written(data), REFUSED, ("0.png",)) for name, data in absurd.items())
    yield Case("picture-size-unequal", usual["larger"], REFUSED, ("resolution",), study=UNEQUAL)
    yield Case("picture-gray-among-colour", usual["gray"], ALL, ("gray", "grey", "0.png"), study=UNEQUAL)


def _entries() -> Iterator[Case]:
    """Something else lies in the folder."""

    def with_file(name: str, data: bytes = b"x") -> Callable[[Path, list[Path]], object]:
        def change(folder: Path, files: list[Path]) -> None:
            path = folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

        return change

    heic = b"\0\0\0\x18ftypheic" + bytes(20)
    told = {
        "text": (with_file("apple/notes.txt"), (".txt", "notes")),
        "heic": (with_file("apple/9.heic", heic), (".heic",)),
        "backup": (with_file("apple/0.png.bak"), (".bak",)),
        "no_suffix": (with_file("apple/IMG_0009"), ("IMG_0009", "without", "suffix")),
        "archive": (with_file("apple/more.zip", b"PK"), (".zip",)),
        "loose": (
            lambda folder, files: picture("apple", 9).save(folder / "images" / "9.png"),
            ("9.png", "images"),
        ),
        "loose_text": (with_file("readme.md"), ("readme.md", ".md")),
        "hidden_folder": (with_file(".thumbs/1.png"), (".thumbs", "hidden", "dot")),
        "hidden_in_class": (with_file("apple/.old/1.png"), (".old", "hidden", "dot")),
        "pipe_of_text": (lambda folder, files: os.mkfifo(folder / "images" / "apple" / "log"), ("log",)),
    }
    for name, (change, words) in told.items():
        yield Case(f"entry-{name}", change, ALL, words)
    either = {
        "empty_class": (lambda folder, files: (folder / "images" / "date").mkdir(), ("date",)),
        "class_without_images": (with_file("date/notes.txt"), ("date",)),
        "folder_called_png": (
            with_file("apple/9.png/1.png", png(SIDE, SIDE, (b"\0" + b"abc" * SIDE) * SIDE)),
            ("9.png",),
        ),
        "pipe": (lambda folder, files: os.mkfifo(folder / "images" / "apple" / "9.png"), ("9.png",)),
        "dangling": (
            lambda folder, files: (folder / "images" / "apple" / "9.png").symlink_to("no"),
            ("9.png",),
        ),
        "link_to_itself": (
            lambda folder, files: (folder / "images" / "apple" / "9.png").symlink_to("9.png"),
            ("9.png",),
        ),
        "link_to_own_folder": (
            lambda folder, files: (folder / "images" / "apple" / "more").symlink_to("."),
            ("more",),
        ),
        "link_to_root": (
            lambda folder, files: (folder / "images" / "apple" / "all").symlink_to(".."),
            ("all",),
        ),
        "link_to_class": (
            lambda folder, files: (folder / "images" / "apple" / "more").symlink_to("../berry"),
            ("more", "berry"),
        ),
        "class_is_link_to_root": (
            lambda folder, files: (folder / "images" / "all").symlink_to("."),
            ("all",),
        ),
        "class_twice": (
            lambda folder, files: (folder / "images" / "date").symlink_to("apple"),
            ("date", "apple"),
        ),
        "null": (
            lambda folder, files: (folder / "images" / "apple" / "9.png").symlink_to("/dev/null"),
            ("9.png",),
        ),
        "zero": (
            lambda folder, files: (folder / "images" / "apple" / "9.png").symlink_to("/dev/zero"),
            ("9.png",),
        ),
        "name_not_utf8": (_renamed(b"9\xff.png"), ("9",)),
        "name_escape": (_renamed(b"\x1b[2J9.png"), ("9.png",)),
        "name_newline": (_renamed(b"9\n9.png"), ("9.png",)),
        "class_escape": (_class_renamed(b"app\x1b[31mle"), ("app",)),
        "class_not_utf8": (_class_renamed(b"app\xe9"), ("app",)),
        "class_newline": (_class_renamed(b"app\nle"), ("app",)),
    }
    for name, (change, words) in either.items():
        yield Case(
            f"entry-{name}", change, EITHER, words, silent=name.startswith(("name", "class_esc", "class_n"))
        )
    for name in ("two words", "-9", "90%d{x}", "\u00e4\U0001f600", "n" * 200):
        yield Case(f"entry-name-{name[:9]}", _renamed(f"{name}.png".encode()), ALL, ("",), silent=True)


def _renamed(name: bytes) -> Callable[[Path, list[Path]], object]:
    return lambda folder, files: os.rename(files[0], os.path.join(os.fsencode(files[0].parent), name))


def _class_renamed(name: bytes) -> Callable[[Path, list[Path]], object]:
    return lambda folder, files: os.rename(
        folder / "images" / "apple", os.path.join(os.fsencode(folder / "images"), name)
    )


def _shapes() -> Iterator[Case]:
    """The whole folder is another one."""

    def moved(inner: str) -> Callable[[Path, list[Path]], object]:
        def change(folder: Path, files: list[Path]) -> None:
            (folder / "images").rename(folder / "moved")
            (folder / inner).parent.mkdir(parents=True, exist_ok=True)
            (folder / "moved").rename(folder / inner)

        return change

    def keep(names: tuple[str, ...], each: int = EACH) -> Callable[[Path, list[Path]], object]:
        def change(folder: Path, files: list[Path]) -> None:
            for path in files:
                if path.parent.name not in names or int(path.stem) >= each:
                    path.unlink()
            for path in {path.parent for path in files if path.parent.name not in names}:
                path.rmdir()

        return change

    def doubled(source: str, target: str) -> Callable[[Path, list[Path]], object]:
        def change(folder: Path, files: list[Path]) -> None:
            (folder / "images" / target).write_bytes((folder / "images" / source).read_bytes())

        return change

    def two_levels(folder: Path, files: list[Path]) -> None:
        for split in ("train", "test"):
            write_folder(folder / "both" / split)
        for path in files:
            path.unlink()
        for path in {path.parent for path in files}:
            path.rmdir()
        (folder / "images").rmdir()
        (folder / "both").rename(folder / "images")

    refused = {
        "missing": (moved("elsewhere"), ("images",)),
        "one_level_too_high": (moved("images/data"), ("images",)),
        "train_and_test": (two_levels, ("train", "images")),
        "one_class": (keep(("apple",)), ("images",)),
        "no_class": (keep(()), ("images",)),
        "one_image_each": (keep(tuple(CLASSES), 1), ("apple", "images")),
        "nothing_readable": (lambda folder, files: [f.write_bytes(b"") for f in files], ("0.png",)),
        "two_unreadable": (lambda folder, files: [f.write_bytes(b"x") for f in files[:2]], ("1.jpg",)),
    }
    for name, (change, words) in refused.items():
        yield Case(f"folder-{name}", change, REFUSED, words)
    yield Case(
        "folder-is_file",
        lambda folder, files: (moved("gone")(folder, files), (folder / "images").write_text("x")),
        REFUSED,
        ("images",),
    )
    yield Case(
        "folder-one_level_too_low",
        lambda folder, files: (
            moved("all/images")(folder, files),
            (folder / "images").symlink_to("all/images/apple"),
        ),
        REFUSED,
        ("images",),
    )
    yield Case(
        "folder-two_images_each", keep(tuple(CLASSES), 2), EITHER, ("apple", "class", "images"), silent=True
    )
    yield Case(
        "folder-copy-in-class",
        doubled("apple/0.png", "apple/9.png"),
        (EACH + 1, EACH, EACH),
        ("twice", "equal", "same", "cop", "duplicate", "9.png"),
    )
    yield Case(
        "folder-copy-in-other-class",
        doubled("apple/0.png", "berry/9.png"),
        (EACH, EACH + 1, EACH),
        ("twice", "equal", "same", "cop", "duplicate", "9.png"),
    )
    test = STUDY.format(side=SIDE).replace('root = "images"\n', 'root = "images"\ntest_root = "test"\n')
    tests = {
        "copy": (lambda root: write_folder(root), REFUSED, ("copies",)),
        "class_missing": (
            lambda root: [
                write_folder(root),
                [f.unlink() for f in (root / "cherry").iterdir()],
                (root / "cherry").rmdir(),
            ],
            EITHER,
            ("cherry",),
        ),
        "class_too_many": (
            lambda root: [
                write_folder(root, first=50),
                (root / "date").mkdir(),
                picture("apple", 99).save(root / "date" / "1.png"),
            ],
            REFUSED,
            ("date",),
        ),
        "other_case": (
            lambda root: [write_folder(root, first=50), (root / "apple").rename(root / "Apple")],
            REFUSED,
            ("Apple",),
        ),
        "damaged": (lambda root: write_folder(root, first=50)[0].write_bytes(b"x"), REFUSED, ("50.png",)),
        "empty": (lambda root: root.mkdir(), REFUSED, ("test",)),
        "file": (lambda root: root.write_text("x"), REFUSED, ("test",)),
    }
    for name, (make, counts, words) in tests.items():
        yield Case(
            f"test_root-{name}",
            lambda folder, files, make=make: make(folder / "test"),
            counts,
            words,
            study=test,
        )


def cases() -> list[Case]:
    """All of them; the same at every call."""
    return [*_bytes(), *_pictures(), *_entries(), *_shapes()]
