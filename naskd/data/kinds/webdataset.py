"""WebDataset shards: ``.tar`` files in which members of one name are a sample, ``0001.jpg`` and ``0001.cls``.

Aizman, Maltby, Breuel: High performance I/O for large scale deep learning. IEEE Big Data 2019, arXiv 2001.01858.

Differs: shards are files with an index, which is read once, so that any image is there without those before it.
"""

import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from naskd.data.classes import check_labelled, class_names_of, labels_of
from naskd.data.encoded import source_of
from naskd.data.image_files import ImagePart
from naskd.data.listing import Listing
from naskd.data.raw import DataReader, Source, files_at
from naskd.spec.datasets import SHARDS, DataSpec
from naskd.spec.errors import InputError
from naskd.spec.image_folders import EXTENSIONS

_MAX_LABEL_BYTES = 1024


class WebDataset(DataReader):
    """Reads the shards of ``root``, and those of ``test_root`` where there are some."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        shards = _Shards(spec, base, "root")
        return shards.source(shards.class_names(), spec, cache)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        names = _Shards(spec, base, "root").class_names()
        return _Shards(spec, base, "test_root").source(names, spec, cache)


@dataclass(frozen=True, slots=True)
class _Member:
    """Where the bytes of an image are in a shard."""

    shard: str
    offset: int
    size: int

    def read(self) -> bytes:
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) != self.size:
            raise OSError(f"the shard ends after {len(content)} of {self.size} bytes of it")
        return content


class _Shards:
    """Images and labels of all shards that a key names; what is wrong with any of them is said together."""

    def __init__(self, spec: DataSpec, base: Path, key: str) -> None:
        self.key = key
        self.files = files_at(spec, base, key, SHARDS)
        self.images: list[ImagePart] = []
        self.labels: list[str] = []
        self.left_out: Counter[str] = Counter()
        suffix, problems = f".{spec.option('label_suffix').lower()}", list[str]()
        for shard in self.files:
            try:
                problems += self._read(str(shard), suffix)
            except (tarfile.TarError, OSError, EOFError) as error:
                compressed = " unpacked (gunzip)" if shard.name.endswith(("gz", "xz", "bz2", "zst")) else ""
                problems.append(
                    f"the shard {str(shard)!r} cannot be read ({error}); it must be a whole .tar file{compressed}"
                )
        if problems:
            raise InputError(problems)
        if not self.images:
            raise InputError(f"data.{key} = {getattr(spec, key)!r} holds no images")
        self._check_labelled()

    def class_names(self) -> tuple[str, ...]:
        return class_names_of(self.labels, f"data.{self.key}")

    def source(self, names: tuple[str, ...], spec: DataSpec, cache: Path | None) -> Source:
        labels = labels_of(self.labels, names, f"data.{self.key}", self._where)
        left_out = {"members of other types": dict(self.left_out)} if self.left_out else {}
        return source_of(Listing(self.files[0].parent, names, self.images, labels, left_out), spec, cache)

    def _check_labelled(self) -> None:
        check_labelled(self.labels, f"data.{self.key}", self._where)

    def _where(self, position: int) -> str:
        return repr(self.images[position].name)

    def _read(self, shard: str, suffix: str) -> list[str]:
        """Note the samples of a shard, in their order, and return what is wrong with it."""
        images, labels, problems = dict[str, ImagePart](), dict[str, str](), list[str]()
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, slash, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                sample, ending = f"{folder}{slash}{stem}", f".{ending.lower()}"
                if ending == suffix:
                    if member.size > _MAX_LABEL_BYTES:
                        problems.append(
                            f"{shard}/{member.name}: a label of {member.size} bytes; it must be a word"
                        )
                        continue
                    file = tar.extractfile(member)
                    labels[sample] = "" if file is None else file.read().decode("utf-8", "replace").strip()
                elif ending not in EXTENSIONS:
                    self.left_out[ending] += 1
                elif sample in images:
                    problems.append(
                        f"{shard}/{member.name}: the sample {sample!r} has two images in this shard"
                    )
                else:
                    place = _Member(shard, member.offset_data, member.size)
                    images[sample] = ImagePart(shard, member.name, member.size, place.read)
        for what, names in (
            (f"images without {suffix}", [n for n in images if n not in labels]),
            (f"{suffix} without an image", [n for n in labels if n not in images]),
        ):
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                problems.append(f"the shard {shard!r} has {len(names)} {what}: {', '.join(names[:5])}{more}")
        self.images += images.values()
        self.labels += [labels.get(sample, "") for sample in images]
        return problems
