"""Networks that trials share (teachers, assistants): made once, stored by content, verified when read.

Importing this module does not import torch: a cluster's remote store moves files and starts in a third of the time.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from naskd.spec.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

PackedArtifact = tuple[dict[str, Any], bytes]
"""The manifest and the file of the model."""


class ArtifactStore:
    """A folder of ``<id>/{model.pt, manifest.json}``, each written whole or not at all.

    Args:
        root: Created when missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, artifact_id: str) -> Path:
        """Folder of the artifact, whether it exists or not."""
        return self.root / artifact_id

    def __contains__(self, artifact_id: object) -> bool:
        return isinstance(artifact_id, str) and (self.path(artifact_id) / "manifest.json").is_file()

    def save(self, artifact_id: str, state: "Mapping[str, Tensor]", manifest: Mapping[str, Any]) -> None:
        """Store a state dict with its manifest; a no-op when somebody was faster."""
        import torch

        self._store(artifact_id, lambda file: torch.save(dict(state), file), manifest)

    def _store(self, artifact_id: str, write: Callable[[Path], Any], manifest: Mapping[str, Any]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{artifact_id}-", dir=self.root))
        try:
            write(folder / "model.pt")
            record = {**manifest, "sha256": file_hash(folder / "model.pt")}
            (folder / "manifest.json").write_text(json.dumps(record, indent=1, sort_keys=True))
            for name in ("model.pt", "manifest.json"):
                with open(folder / name, "rb") as file:
                    os.fsync(file.fileno())
            try:
                os.rename(folder, self.path(artifact_id))
            except OSError:
                if artifact_id not in self:
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def manifest(self, artifact_id: str) -> dict[str, Any]:
        """The manifest of a stored artifact."""
        with open(self.path(artifact_id) / "manifest.json") as file:
            return dict(json.load(file))

    def load(self, artifact_id: str) -> "tuple[dict[str, Tensor], dict[str, Any]]":
        """State dict (on the CPU) and manifest.

        Raises:
            InputError: The file is not the one that was stored.
        """
        manifest = self.manifest(artifact_id)
        path = self.path(artifact_id) / "model.pt"
        state = _read(path, manifest["sha256"])
        with suppress(OSError):
            os.utime(path)  # `naskd cache` goes by the last use, which not every file system notes
        return state, manifest

    def pack(self, artifact_id: str) -> "PackedArtifact":
        """A stored artifact as it travels to another store."""
        return self.manifest(artifact_id), (self.path(artifact_id) / "model.pt").read_bytes()

    def unpack(self, artifact_id: str, packed: "PackedArtifact") -> None:
        """Store what another store has packed; a no-op when it is stored already.

        Raises:
            InputError: It was damaged on the way.
        """
        manifest, model = packed
        if hashlib.sha256(model).hexdigest() != manifest["sha256"]:
            raise InputError(f"artifact {artifact_id} was damaged on its way")
        self._store(artifact_id, lambda file: file.write_bytes(model), manifest)

    def remove(self, artifact_id: str) -> None:
        """Forget an artifact; a no-op when it is not there."""
        shutil.rmtree(self.path(artifact_id), ignore_errors=True)

    @contextmanager
    def claim(self, artifact_id: str) -> Iterator[bool]:
        """Hold the right to make an artifact; waits for whoever holds it.

        Yields True when the artifact is still to be made, False when it exists. The lock is the operating system's,
        so it ends with its holder, however that one died.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f"{artifact_id}.lock"):
            yield artifact_id not in self


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, sha256: str) -> "dict[str, Tensor]":
    """The state dict that :meth:`ArtifactStore.save` wrote, as it is."""
    import torch

    if not path.is_file():
        raise InputError(f"stored network {path} does not exist")
    if (found := file_hash(path)) != sha256:
        raise InputError(
            f"stored network {path} has SHA-256 {found}, expected {sha256}: it is not the file that was meant"
        )
    return dict(torch.load(path, map_location="cpu", weights_only=True))
