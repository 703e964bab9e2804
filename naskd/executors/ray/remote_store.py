"""Where the workers of a cluster leave and find what they share, without a shared disk.

The remote store is an actor beside the driver. It owns the run's store of teachers and assistants and its checkpoints;
a worker keeps a copy of what it fetched in a folder of its machine, where the next worker finds it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from filelock import FileLock

from naskd.spec.errors import DamagedError
from naskd.store.artifacts import ArtifactStore, PackedArtifact
from naskd.store.checkpoints import CheckpointStore
from naskd.store.students import StudentStore

if TYPE_CHECKING:
    from torch import Tensor


class RemoteStore:
    """The actor. It keeps nothing but files, so that it can be started again.

    Args:
        artifacts: Folder of the run's teachers and assistants, on the driver's machine.
        checkpoints: Folder or URL.
        students: Folder of the students of finished trials, on the driver's machine; None where none are kept.
    """

    def __init__(self, artifacts: str, checkpoints: str, students: str | None = None) -> None:
        self.artifacts = ArtifactStore(Path(artifacts))
        self.checkpoints = CheckpointStore(checkpoints)
        self.students = None if students is None else StudentStore(Path(students))

    def artifact(self, artifact_id: str) -> PackedArtifact | None:
        """A stored network; None when it is not there, or damaged."""
        with suppress(DamagedError):
            return self.artifacts.pack(artifact_id) if artifact_id in self.artifacts else None
        return None

    def artifact_hash(self, artifact_id: str) -> str | None:
        """Hash of a stored model; None when it is not there."""
        return str(self.artifacts.manifest(artifact_id)["sha256"]) if artifact_id in self.artifacts else None

    def keep_artifact(self, artifact_id: str, packed: PackedArtifact) -> str:
        """Store a network, unless somebody was faster.

        Returns:
            The hash of the model that is stored now.
        """
        self.artifacts.unpack(artifact_id, packed)
        return str(self.artifact_hash(artifact_id))

    def checkpoint(self, key: str) -> bytes | None:
        """See :class:`~naskd.store.checkpoints.Checkpoints`."""
        return self.checkpoints.load(key)

    def newest_checkpoint(self, key: str) -> int | None:
        """See :class:`~naskd.store.checkpoints.Checkpoints`."""
        return self.checkpoints.newest(key)

    def keep_checkpoint(self, key: str, epoch: int, data: bytes) -> None:
        """See :class:`~naskd.store.checkpoints.Checkpoints`."""
        self.checkpoints.save(key, epoch, data)

    def keep_student(self, key: str, data: bytes) -> None:
        """See :class:`~naskd.store.students.Students`."""
        if self.students is not None:
            self.students.keep(key, data)


def start_remote_store(artifacts: Path, checkpoints: str, students: Path | None = None) -> Any:
    """A remote store on this machine, which must be a node of the connected cluster; its actor handle."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(RemoteStore).options(
        num_cpus=0, max_concurrency=8, max_restarts=-1, max_task_retries=3, scheduling_strategy=here
    )
    kept = None if students is None else str(students.absolute())
    return actor.remote(str(artifacts.absolute()), checkpoints, kept)


class RemoteArtifacts(ArtifactStore):
    """A machine's copies of what the remote store holds.

    Other searches leave theirs in the same folder, and one recipe may have given them other weights, on another device
    say. So a copy counts only where it is what this search's store holds, or where that holds none.

    Args:
        root: Folder on this machine.
        remote_store: Actor handle.
    """

    def __init__(self, root: Path, remote_store: Any) -> None:
        super().__init__(root)
        self.remote_store = remote_store
        self._hashes: dict[str, str] = {}
        """Of what the remote store holds, as far as it was asked."""

    def __contains__(self, artifact_id: object) -> bool:
        return super().__contains__(artifact_id) or (
            isinstance(artifact_id, str) and self._fetch(artifact_id)
        )

    def manifest(self, artifact_id: str) -> dict[str, Any]:
        """See :class:`~naskd.store.artifacts.ArtifactStore`; fetched when it is not here yet."""
        if not self._holds(artifact_id):
            self._fetch(artifact_id)
        return super().manifest(artifact_id)

    def load(self, artifact_id: str) -> "tuple[dict[str, Tensor], dict[str, Any]]":
        """See :class:`~naskd.store.artifacts.ArtifactStore`; fetched when another search's is here."""
        if super()._holds(artifact_id) and not self._is_ours(artifact_id):
            self._fetch(artifact_id)
        return super().load(artifact_id)

    def _holds(self, artifact_id: str) -> bool:
        """See :class:`~naskd.store.artifacts.ArtifactStore`; of another search it is not what is wanted."""
        with suppress(DamagedError):
            return super()._holds(artifact_id) and self._is_ours(artifact_id)
        return False

    def _is_ours(self, artifact_id: str) -> bool:
        """Whether the copy on this machine, which is whole, is what the remote store holds, if it holds one."""
        if artifact_id not in self._hashes:
            found = ray.get(self.remote_store.artifact_hash.remote(artifact_id))
            if found is None:
                return True
            self._hashes[artifact_id] = found
        return bool(self._read_manifest(artifact_id)["sha256"] == self._hashes[artifact_id])

    def _fetch(self, artifact_id: str) -> bool:
        """Copy from the remote store, once for all workers of the machine; whether the remote store has it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f"{artifact_id}.fetch.lock"):
            if not self._holds(artifact_id):
                packed = ray.get(self.remote_store.artifact.remote(artifact_id))
                if packed is None:
                    return False
                if super()._holds(artifact_id):
                    self.remove(artifact_id)  # another search's
                self.unpack(artifact_id, packed)
        return True

    def save(self, artifact_id: str, state: "Mapping[str, Tensor]", manifest: Mapping[str, Any]) -> None:
        """Store here and in the remote store: a driver hands an artifact to one worker, but two drivers may have."""
        super().save(artifact_id, state, manifest)
        self._offer(artifact_id)

    @contextmanager
    def claim(self, artifact_id: str) -> Iterator[bool]:
        """See :class:`~naskd.store.artifacts.ArtifactStore`; among the workers of a machine."""
        with super().claim(artifact_id) as wanted:
            if not wanted:  # an earlier run on this machine may have made it
                self._offer(artifact_id)
            yield wanted

    def _offer(self, artifact_id: str) -> None:
        """Give the remote store what it lacks. What came there first counts, and replaces what is here."""
        manifest, model = self.pack(artifact_id)
        kept = ray.get(self.remote_store.artifact_hash.remote(artifact_id))
        if kept is None:
            kept = ray.get(self.remote_store.keep_artifact.remote(artifact_id, (manifest, model)))
        self._hashes[artifact_id] = kept
        if kept != manifest["sha256"]:
            self.remove(artifact_id)
            self._fetch(artifact_id)


class RemoteCheckpoints:
    """A worker's face of the remote store's checkpoints.

    Saving does not wait for the remote store, but for the save before: a slow store must not pile up states.
    """

    def __init__(self, remote_store: Any) -> None:
        self.remote_store = remote_store
        self._saving: Any = None

    def save(self, key: str, epoch: int, data: bytes | memoryview) -> None:
        """See :class:`~naskd.store.checkpoints.Checkpoints`.

        Raises:
            OSError: The state before this one could not be kept.
        """
        before, self._saving = self._saving, self.remote_store.keep_checkpoint.remote(key, epoch, bytes(data))
        _await_saved(before)

    def load(self, key: str) -> bytes | None:
        """See :class:`~naskd.store.checkpoints.Checkpoints`."""
        if self._saving is not None:
            ray.wait([self._saving])
        found = ray.get(self.remote_store.checkpoint.remote(key))
        assert found is None or isinstance(found, bytes)
        return found

    def newest(self, key: str) -> int | None:
        """See :class:`~naskd.store.checkpoints.Checkpoints`."""
        found: int | None = ray.get(self.remote_store.newest_checkpoint.remote(key))
        return found

    def settle(self) -> None:
        """See :class:`~naskd.store.checkpoints.Checkpoints`."""
        saving, self._saving = self._saving, None
        _await_saved(saving)

    def remove(self, key: str) -> None:
        """The driver forgets what is booked; workers do not."""


def _await_saved(saving: Any) -> None:
    """Wait for a call of the remote store, where there is one.

    Raises:
        OSError: It has failed.
    """
    if saving is None:
        return
    try:
        ray.get(saving)
    except ray.exceptions.RayError as error:
        raise OSError(str(error).strip().splitlines()[-1]) from error


class RemoteStudents:
    """A worker's face of the remote store's students. A result is told after its student is kept, so saving waits."""

    def __init__(self, remote_store: Any) -> None:
        self.remote_store = remote_store

    def keep(self, key: str, data: bytes) -> None:
        """See :class:`~naskd.store.students.Students`."""
        try:
            ray.get(self.remote_store.keep_student.remote(key, data))
        except ray.exceptions.RayError as error:
            raise OSError(str(error).strip().splitlines()[-1]) from error
