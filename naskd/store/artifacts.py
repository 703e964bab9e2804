"""Networks that trials share (teachers, assistants): made once, stored by content, verified when read.

Importing this module does not import torch: a cluster's remote store moves files and starts in a third of the time.
"""

import hashlib
import io
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from naskd.spec.errors import DamagedError, InputError
from naskd.store.files import (
    beside,
    discard,
    folder_beside,
    read_sealed,
    sync_folder,
    write_sealed,
    write_whole,
)

if TYPE_CHECKING:
    from torch import Tensor

_LOG = logging.getLogger(__name__)

PackedArtifact = tuple[dict[str, Any], bytes]
"""The manifest and the file of the model."""


class DamagedArtifactError(DamagedError):
    """A stored network is not what was stored: whoever needs it has it made again.

    Args:
        artifact_id: Of the network.
        problem: What is wrong, with the file's name.
    """

    def __init__(self, artifact_id: str, problem: str) -> None:
        super().__init__(problem)
        self.artifact_id = artifact_id


class ArtifactStore:
    """A folder of ``<id>/{model.pt, manifest.json}``, each written whole or not at all, and with its hash.

    What is damaged counts as not there, so that it is made again, and what is made then replaces it. It is looked for
    when a process first asks for an artifact, and whenever one is read.

    Args:
        root: Created when missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._verified: set[str] = set()

    def path(self, artifact_id: str) -> Path:
        """Folder of the artifact, whether it exists or not."""
        return self.root / artifact_id

    def __contains__(self, artifact_id: object) -> bool:
        return isinstance(artifact_id, str) and self._holds(artifact_id)

    def _holds(self, artifact_id: str) -> bool:
        """Whether it is here, and whole."""
        if not (self.path(artifact_id) / "manifest.json").is_file():
            return False
        if artifact_id not in self._verified:
            try:
                self.pack(artifact_id)
            except DamagedArtifactError as error:
                _LOG.warning("%s; it is not used and will be made again", error)
                return False
        return True

    def save(self, artifact_id: str, state: "Mapping[str, Tensor]", manifest: Mapping[str, Any]) -> None:
        """Store a state dict with its manifest; a no-op when somebody was faster.

        Raises:
            OSError: It cannot be written; nothing is left behind.
        """
        import torch

        # Not straight into the file: what torch says of a full disk is no OSError, and names no file.
        model = io.BytesIO()
        torch.save(dict(state), model)
        self._store(artifact_id, model.getvalue(), manifest)

    def _store(self, artifact_id: str, model: bytes, manifest: Mapping[str, Any]) -> None:
        target = self.path(artifact_id)
        with folder_beside(target) as folder:
            write_whole(folder / "model.pt", model)
            sha256 = hashlib.sha256(model).hexdigest()
            write_sealed(folder / "manifest.json", {**manifest, "sha256": sha256})
            if target.exists() and not self._holds(artifact_id):
                self._set_aside(artifact_id, sha256)
            try:
                os.rename(folder, target)
            except OSError:
                if not self._holds(artifact_id):
                    raise
        sync_folder(self.root)

    def _set_aside(self, artifact_id: str, sha256: str) -> None:
        """Make room for what was made in the place of a damaged artifact."""
        with suppress(OSError, DamagedError):
            before = self._read_manifest(artifact_id).get("sha256")
            if before not in (None, sha256):
                _LOG.warning(
                    "artifact %s was made again and is not the same to the bit: SHA-256 %s, before it was damaged %s",
                    artifact_id,
                    sha256,
                    before,
                )
        aside = beside(self.path(artifact_id))
        os.rename(self.path(artifact_id), aside)
        discard(aside)

    def manifest(self, artifact_id: str) -> dict[str, Any]:
        """The manifest of a stored artifact.

        Raises:
            DamagedArtifactError: It is not what was stored.
        """
        return self._read_manifest(artifact_id)

    def _read_manifest(self, artifact_id: str) -> dict[str, Any]:
        """Of this folder alone."""
        try:
            return read_sealed(self.path(artifact_id) / "manifest.json")
        except (DamagedError, FileNotFoundError) as error:
            self._verified.discard(artifact_id)
            raise DamagedArtifactError(artifact_id, str(error)) from error

    def load(self, artifact_id: str) -> "tuple[dict[str, Tensor], dict[str, Any]]":
        """State dict (on the CPU) and manifest.

        Raises:
            DamagedArtifactError: The files are not those that were stored.
        """
        import torch

        manifest, model = self.pack(artifact_id)
        with suppress(OSError):
            # `naskd cache` goes by the last use, which not every file system notes.
            os.utime(self.path(artifact_id) / "model.pt")
        return torch.load(io.BytesIO(model), map_location="cpu", weights_only=True), manifest

    def pack(self, artifact_id: str) -> "PackedArtifact":
        """A stored artifact as it travels to another store.

        Raises:
            DamagedArtifactError: The files are not those that were stored.
        """
        self._verified.discard(artifact_id)
        manifest = self._read_manifest(artifact_id)
        path = self.path(artifact_id) / "model.pt"
        try:
            model = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise DamagedArtifactError(artifact_id, f"{path} is damaged: {error.strerror}") from error
        if (found := hashlib.sha256(model).hexdigest()) != manifest.get("sha256"):
            raise DamagedArtifactError(
                artifact_id,
                f"{path} is damaged: it has SHA-256 {found}, not that of the file that was written",
            )
        self._verified.add(artifact_id)
        return manifest, model

    def unpack(self, artifact_id: str, packed: "PackedArtifact") -> None:
        """Store what another store has packed; a no-op when it is stored already.

        Raises:
            InputError: It was damaged on the way.
            OSError: It cannot be written.
        """
        manifest, model = packed
        if hashlib.sha256(model).hexdigest() != manifest["sha256"]:
            raise InputError(f"artifact {artifact_id} was damaged on its way")
        self._store(artifact_id, model, manifest)

    def remove(self, artifact_id: str) -> None:
        """Forget an artifact; a no-op when it is not there."""
        self._verified.discard(artifact_id)
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
