"""One attempt at an inspection: it reads an upload and writes its canonical form, or checks a spec."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from models.database import UNAVAILABLE, reading, transaction
from models.queue.wake_up import wake_up
from models.records import Dataset, Inspection, Teacher
from models.records.columns import Uploaded
from models.settings import settings
from models.spec.compression import plans
from models.status import UploadStatus
from models.storage import keys
from models.storage.dataset_sources import SourceRefused
from models.storage.errors import Damaged, NotFound, StorageError
from models.storage.opening import storage
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.engine_limits import InspectionLimits
from worker.attempt.fetching import Fetch, InputMissing
from worker.attempt.inputs import (
    describe_run,
    describe_teacher,
    write_job_file,
)
from worker.attempt.inspection_engine import run_engine
from worker.attempt.lease import Lease
from worker.attempt.outcome import engine_error
from worker.attempt.sent_bytes import SentBytes, SentFiles
from worker.attempt.spec_check import AskedCheck, SpecCheck
from worker.cache.dataset_cache import HeldDatasets
from worker.engine.engine_process import ENGINE, Event
from worker.engine.folder import Folder
from worker.ledger import ends, sent_bytes, waiting
from worker.ledger.changes import Taken
from worker.ledger.claims import Claim
from worker.ledger.inspections import SUBJECTS, Canonical, InspectionLedger

SAMPLES_BYTES = 8 * 2**20
"""Largest sheet of images of a dataset that is kept."""
AWAITED_SECONDS = 60.0
"""Time until an inspection looks for its dataset again, if nothing wakes it earlier."""
DATASET_HINT = "Create the teacher again with another dataset, or describe its network and its input."

log = structlog.get_logger(__name__)


class _Awaited(Exception):
    """The dataset of a teacher is not ready yet; its argument is the id."""


def run_inspection(claim: Claim, draining: threading.Event, command: Sequence[str] = ENGINE) -> None:
    """Run one attempt at an inspection; returns when it has ended or was taken back."""
    assert isinstance(claim.record, Inspection)
    record = claim.record
    with (
        structlog.contextvars.bound_contextvars(
            inspection=claim.id, subject=record.subject_id, attempt=claim.attempt, request_id=record.request_id
        ),
        Lease(claim) as lease,
        Folder(claim.id, claim.attempt) as folder,
    ):
        log.info("inspection_begins", kind=record.kind)
        try:
            InspectionAttempt(record, folder, lease, draining, command).run()
        except Taken:
            log.warning("inspection_taken_back_meanwhile")
        except UNAVAILABLE as error:
            log.error("database_unavailable", error=str(error).partition("\n")[0])


class InspectionAttempt:
    """One attempt at an inspection, in one folder and under one lease."""

    def __init__(
        self,
        inspection: Inspection,
        folder: Folder,
        lease: Lease,
        draining: threading.Event,
        command: Sequence[str] = ENGINE,
    ):
        self.folder = folder
        self.lease = lease
        self.draining = draining
        self.command = command
        self.ledger = InspectionLedger(inspection, lease)
        self.storage = AttemptStorage(lease.check_held, 0.0)  # no retries here: the inspection is queued again
        self.spec_check = SpecCheck(self.ledger, folder, self.storage)

    def run(self) -> None:
        """Inspect the subject, and write the result."""
        try:
            if self.ledger.kind in ("job", "check"):
                self._check()
            else:
                with HeldDatasets() as held:
                    self._inspect_upload(held)
        except StorageError as error:
            log.warning("storage_unavailable", error=str(error))
            self.ledger.release(settings().beat_seconds)

    def _subject(self, table: type[Any]) -> Any:
        return self._row(table, self.ledger.subject_id)

    def _row(self, table: type[Any], identifier: str) -> Any:
        def query() -> Any:
            session: Session
            with reading() as session:
                return session.get(table, identifier)

        return self.ledger.read(query)

    def _check(self) -> None:
        def read() -> AskedCheck | None:
            with reading() as session:
                return self.spec_check.asked(session)

        try:
            asked = self.ledger.read(read)
            content = asked and self.spec_check.job_file(*asked)
        except InputMissing as missing:
            self.spec_check.fail(missing)
            return
        if content is None:
            self.ledger.drop()
            return
        limits = InspectionLimits.of_check(plans(content["spec"]))
        write_job_file(self.folder.path, content | limits.of_job_file())
        event = self._run_engine(limits)
        if event is not None and self.spec_check.settle(event):
            wake_up("distill")

    def _inspect_upload(self, held: HeldDatasets) -> None:
        upload: Uploaded | None = self._subject(SUBJECTS[self.ledger.kind])
        if upload is None or upload.status != UploadStatus.INSPECTING or not _has_bytes(upload):
            self.ledger.drop()
            return
        try:
            sent = self._sent(upload)
        except SourceRefused as error:
            self._reject(ends.error("source_refused", f"the source {error}", "", "user"))
            return
        except (NotFound, Damaged) as error:
            message = f"the uploaded bytes are missing or damaged in storage: {error.message}"
            self._reject(ends.error("upload_lost", message))  # has no effect if the owner has deleted the upload
            return
        try:
            dataset = self._dataset_of(upload, held)
        except InputMissing as missing:
            errors = [{"pointer": missing.pointer, "message": missing.message}]
            self._reject(ends.error("input_rejected", missing.message, DATASET_HINT, "user", errors))
            return
        except _Awaited as awaited:
            self._put_off(str(awaited))
            return
        limits = InspectionLimits.of_upload(
            self.ledger.kind, sent.size, self.ledger.room(), recognises=dataset is not None
        )
        reads = [str(each) for each in (*held.folders, *sent.reads)]
        described = self._described_upload(upload, dataset) | {"upload": sent.path, "reads": reads}
        write_job_file(self.folder.path, described | {"limits": limits.of_file()} | limits.of_job_file())
        event = self._run_engine(limits)
        if event is not None:
            self._settle_upload(event, upload)
            wake_up("inspect")

    def _sent(self, upload: Uploaded) -> SentFiles:
        """The bytes as sent, or the files of a dataset by reference, where the engine can read them.

        Raises:
            NotFound, Damaged: they are missing, or do not have the SHA-256 that was announced.
            SourceRefused: the operator does not allow the reference any more, or it leads to nothing.
        """
        fetch = SentBytes(self.folder.path, self.storage)
        if isinstance(upload, Dataset) and upload.source is not None:
            return fetch.by_reference(upload.source, self.ledger.room())
        found = fetch.sent(upload)
        if upload.sha256 is None:
            self.ledger.note_hash(found.sha256)
        return found

    def _dataset_of(self, upload: Uploaded, held: HeldDatasets) -> str | None:
        """The path of the dataset by whose images a teacher is recognised; None if it names none.

        Raises:
            _Awaited: it has no bytes yet, or is being inspected.
            InputMissing: it was rejected or deleted, or its bytes are missing or damaged.
        """
        if not isinstance(upload, Teacher) or upload.dataset is None:
            return None
        dataset: Dataset | None = self._row(Dataset, upload.dataset)
        if reason := waiting.refusal(dataset):
            raise InputMissing("/dataset", f"{upload.dataset}: {reason}")
        if waiting.is_awaited(dataset):
            raise _Awaited(upload.dataset)
        return Fetch(self.folder.path, self.storage, held).dataset(dataset, "dataset", "/dataset")

    def _put_off(self, dataset_id: str) -> None:
        """Queue the inspection again; the end of the dataset's inspection makes it due."""
        self.ledger.release(AWAITED_SECONDS)
        with transaction() as session:  # the dataset may have been settled since it was read
            waiting.wake_teachers_of(session, dataset_id)
        log.info("inspection_waits_for_dataset")

    def _described_upload(self, upload: Uploaded, dataset: str | None) -> dict[str, Any]:
        kind = self.ledger.kind
        own = {name: getattr(upload, name) for name in ("options",) if hasattr(upload, name)}
        if kind == "teacher":
            own = {"teacher": describe_teacher(upload) | {"weights": upload.weights}}  # type: ignore[arg-type, attr-defined]  # the kind determines the type
        if kind == "file":
            own["options"] = own["options"] | {"kind": upload.kind}  # type: ignore[attr-defined]
        if dataset is not None:
            own |= {"dataset": dataset, "recognition_seconds": settings().recognition_seconds}
        return (
            describe_run(kind, self.ledger.subject_id, self.ledger.attempt, self.ledger.request_id)
            | {"upload": "inputs/upload"}
            | own
        )

    def _settle_upload(self, event: Event, upload: Uploaded) -> None:
        if event["event"] != "findings":
            self._reject(engine_error(event))
            return
        key = keys.canonical(upload.id, self.ledger.id, self.ledger.attempt)
        parts = self._store_parts(event, upload)
        stored = self.storage.put(key, self.folder.inside(event["path"]))
        if event.get("samples"):
            self._store_samples(key, self.folder.inside(event["samples"]))
        canonical = Canonical(key, stored.size, stored.sha256, parts)
        if self.ledger.accept(event["findings"], canonical):
            log.info("upload_ready", size=canonical.whole)
        else:
            for each in (key, *(keys.canonical_part(upload.id, part["sha256"]) for part in parts)):
                _discard(each)
            log.info("upload_not_accepted", size=canonical.whole)
        sent_bytes.clear_of(self.ledger.kind, upload.id)

    def _store_samples(self, key: str, path: Path) -> None:
        if path.stat().st_size <= SAMPLES_BYTES:
            self.storage.put(keys.samples(key), path)

    def _store_parts(self, event: Event, upload: Uploaded) -> list[dict[str, Any]]:
        """Store the further files of a canonical form; one that an earlier attempt has stored is not sent again."""
        parts = []
        for each in event.get("parts") or []:
            path, sha256 = self.folder.inside(each["path"]), str(each["sha256"])
            key, size = keys.canonical_part(upload.id, sha256), path.stat().st_size
            if self.storage.size(key) != size:
                stored = self.storage.put(key, path)
                if stored.sha256 != sha256:
                    raise ValueError(f"the part {sha256} has the SHA-256 {stored.sha256}")
            path.unlink()
            parts.append({"sha256": sha256, "size": size})
        return parts

    def _reject(self, problem: ends.Error) -> None:
        self.ledger.reject(problem)
        log.info("upload_rejected", code=problem["code"])
        sent_bytes.clear_of(self.ledger.kind, self.ledger.subject_id)

    def _run_engine(self, limits: InspectionLimits) -> Event | None:
        return run_engine(self.ledger, self.folder, self.lease, self.draining, limits, self.command)


def _has_bytes(upload: Uploaded) -> bool:
    """Whether there is something to inspect."""
    referred = isinstance(upload, Dataset) and upload.source is not None
    return bool(upload.upload_key or upload.upload_parts or referred)


def _discard(key: str) -> None:
    """Delete a blob that nothing needs any more. The inspection has ended and its lease with it, so the lease is not
    checked; if the storage fails, the scan for orphaned blobs deletes the blob later."""
    try:
        storage().delete(key)
    except StorageError as error:
        log.warning("blob_left_behind", key=key, error=str(error))
