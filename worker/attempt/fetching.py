"""Fetching the inputs of an attempt from storage: uploads, datasets through the cache, and checkpoints."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from models.records import Checkpoint, Dataset, Teacher
from models.records.columns import Uploaded
from models.spec.students import Student
from models.status import UploadStatus
from models.storage import keys
from models.storage.errors import Damaged, NotFound
from worker.attempt.attempt_storage import AttemptStorage
from worker.cache.dataset_cache import CachedFile, HeldDatasets
from worker.ledger.attempts import AttemptLedger

RESUME = "checkpoints/resume.json"
INDEX = "dataset.safetensors"
"""Name of a dataset's canonical form in its folder of the cache."""
log = structlog.get_logger(__name__)


class InputMissing(Exception):
    """An input of a job does not exist any more."""

    def __init__(self, pointer: str, message: str):
        super().__init__(message)
        self.pointer = pointer
        self.message = message


@dataclass(frozen=True)
class Fetch:
    """Fetches blobs into an attempt's folder. A file that exists already is complete, and is not fetched again."""

    folder: Path
    storage: AttemptStorage
    held: HeldDatasets | None = None
    """The datasets of the cache that the attempt uses; None to copy them."""

    def teacher(self, teacher: Teacher | Student, name: str) -> str | None:
        """The path of a teacher's weights."""
        if isinstance(teacher, Teacher):
            return self.upload(teacher, name, "/teacher")
        path = f"inputs/{name}.safetensors"
        if (refusal := teacher.refusal()) or teacher.weights is None:
            raise InputMissing("/teacher", refusal or f"the job {teacher.id} has not ended")
        try:
            self._file(teacher.weights.key, self.folder / path, teacher.weights.sha256)
        except (NotFound, Damaged) as error:
            raise InputMissing(
                "/teacher", f"the weights of {teacher.id} are missing or damaged in storage: {error.message}"
            ) from error
        return path

    def dataset(self, dataset: Dataset | None, name: str, pointer: str) -> str | None:
        """The path of a dataset's canonical form, in the cache if there is room; None without a dataset."""
        if dataset is None:
            return None
        with _readable(dataset, pointer):
            if self.held is not None and (files := _files_of(dataset)):
                folder = self.held.hold(files, self.storage.download, self.storage.check)
                if folder is not None:
                    return str(folder / files[0].name)
            return self._copied(dataset, name)

    def upload(self, upload: Uploaded | None, name: str, pointer: str) -> str | None:
        """The path of an upload's canonical form, copied into the attempt's folder; None without an upload."""
        if upload is None:
            return None
        with _readable(upload, pointer):
            return self._copied(upload, name)

    def _copied(self, upload: Uploaded, name: str) -> str:
        assert upload.blob_key is not None
        path = f"inputs/{name}.safetensors"
        self._file(upload.blob_key, self.folder / path, upload.blob_sha256)
        for part in upload.blob_parts or []:
            sha256 = part["sha256"]
            self._file(keys.canonical_part(upload.id, sha256), self.folder / "inputs" / sha256, sha256)
        return path

    def checkpoint(self, ledger: AttemptLedger) -> str | None:
        """The path of the newest manifest whose parts can all be read; None if there is none, and the job starts
        anew."""
        checkpoints = ledger.checkpoints()
        for checkpoint in checkpoints:
            try:
                self._parts(ledger.job_id, checkpoint)
            except (NotFound, Damaged) as error:
                log.warning("checkpoint_unreadable", job=ledger.job_id, checkpoint=checkpoint.id, error=str(error))
                if isinstance(error, Damaged):
                    self.storage.delete(error.key)  # otherwise a new part of the same hash would count as stored
                ledger.drop_checkpoint(checkpoint.id, error.message)
                continue
            (self.folder / RESUME).write_text(json.dumps(checkpoint.manifest))
            return RESUME
        if checkpoints:
            ledger.note_restart()
        return None

    def _parts(self, job_id: str, checkpoint: Checkpoint) -> None:
        for part in checkpoint.manifest["parts"].values():
            sha256 = part["sha256"]
            self._file(keys.checkpoint_part(job_id, sha256), self.folder / "checkpoints" / sha256, sha256)

    def _file(self, key: str, path: Path, sha256: str | None) -> None:
        self.storage.check()
        if not path.exists():
            self.storage.download(key, path, sha256)


@contextmanager
def _readable(upload: Uploaded, pointer: str) -> Iterator[None]:
    """A context in which the bytes of an upload are fetched.

    Raises:
        InputMissing: it is not ready any more, or its bytes are missing or damaged.
    """
    if upload.status != UploadStatus.READY or upload.blob_key is None:
        raise InputMissing(pointer, f"the upload {upload.id} is not ready any more")
    try:
        yield
    except (NotFound, Damaged) as error:
        words = f"the bytes of {upload.id} are missing or damaged in storage: {error.message}"
        raise InputMissing(pointer, words) from error


def _files_of(dataset: Dataset) -> list[CachedFile]:
    """The files of a dataset in the cache; none if its hash is unknown, as for datasets of early versions."""
    if dataset.blob_key is None or dataset.blob_sha256 is None or dataset.blob_size is None:
        return []
    parts = [
        CachedFile(part["sha256"], keys.canonical_part(dataset.id, part["sha256"]), part["sha256"], part["size"])
        for part in dataset.blob_parts or []
    ]
    first = dataset.blob_size - sum(part.size for part in parts)
    return [CachedFile(INDEX, dataset.blob_key, dataset.blob_sha256, first), *parts]
