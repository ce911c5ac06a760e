"""One attempt at an inspection: it reads an upload and writes its canonical form, or checks a spec."""

import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from models.database import UNAVAILABLE, reading, transaction
from models.queue.wake_up import wake_up
from models.records import Dataset, Inspection, Job, Teacher
from models.records.columns import Uploaded
from models.settings import settings
from models.spec.compression import plans
from models.status import JobStatus, UploadStatus
from models.storage import keys
from models.storage.dataset_sources import SourceRefused
from models.storage.errors import Damaged, NotFound, StorageError
from models.storage.opening import storage
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.engine_limits import InspectionLimits
from worker.attempt.engine_watch import EngineWatch
from worker.attempt.fetching import Fetch, InputMissing
from worker.attempt.inputs import (
    AttemptInputs,
    copy_pretrained,
    describe_run,
    describe_teacher,
    describe_teachers,
    fetch_programs,
    write_job_file,
)
from worker.attempt.lease import Lease
from worker.attempt.outcome import crash_error, engine_error, is_disk_error, is_final_error
from worker.attempt.sent_bytes import SentBytes, SentFiles
from worker.cache.dataset_cache import HeldDatasets
from worker.engine.engine_process import ENGINE, EngineProcess, Event, Exit
from worker.engine.folder import Folder
from worker.engine.machine import kills_for_memory
from worker.ledger import ends, sent_bytes, waiting
from worker.ledger.changes import Taken
from worker.ledger.claims import Claim
from worker.ledger.inspections import SUBJECTS, Canonical, InspectionLedger

PATIENCE_SECONDS = 0.5
OUT_OF_MEMORY = ("bad_alloc", "memory allocation of")
"""What C++ and Rust write into the log before they abort because memory ran out."""

SAMPLES_BYTES = 8 * 2**20
"""Largest sheet of images of a dataset that is kept."""
AWAITED_SECONDS = 60.0
"""Time until an inspection looks for its dataset again, if nothing wakes it earlier."""
DATASET_HINT = "Create the teacher again with another dataset, or describe its network and its input."

AskedCheck = tuple[Mapping[str, Any], AttemptInputs]
"""A resolved spec and its inputs."""

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
                return self.asked_check(session)

        try:
            asked = self.ledger.read(read)
            content = asked and self.check_file(*asked)
        except InputMissing as missing:
            self.fail_check(missing)
            return
        if content is None:
            self.ledger.drop()
            return
        limits = InspectionLimits.of_check(plans(content["spec"]))
        write_job_file(self.folder.path, content | limits.of_job_file())
        event = self._run_engine(limits)
        if event is not None and self.settle_check(event):
            wake_up("distill")

    def asked_check(self, session: Session) -> AskedCheck | None:
        """The spec to check, and its inputs; None if its job needs no check any more.

        Raises:
            InputMissing: a teacher of the spec does not exist any more.
        """
        if self.ledger.kind == "check":
            assert self.ledger.resolved is not None
            return self.ledger.resolved, AttemptInputs.named(session, self.ledger.resolved)
        job = session.get(Job, self.ledger.subject_id)
        if job is None or job.status != JobStatus.QUEUED or job.cancel_requested_at is not None:
            return None
        return job.resolved, AttemptInputs.of(session, job)

    def check_file(self, resolved: Mapping[str, Any], inputs: AttemptInputs) -> dict[str, Any]:
        """The job file of a check; its programs and pretrained weights are fetched into the folder.

        Raises:
            InputMissing: an input was deleted, or its blob is missing or damaged.
            StorageError: the storage is unavailable.
        """
        described, files = fetch_programs(inputs, self.folder.path, self.storage)
        found = {
            "spec": resolved,
            "dataset_findings": inputs.dataset.findings if inputs.dataset else None,
            "evaluation_findings": inputs.evaluation.findings if inputs.evaluation else None,
            "pretrained": copy_pretrained(resolved, self.folder.path),
            "files": files,
        }
        return self._described("check") | found | describe_teachers(described)

    def fail_check(self, missing: InputMissing) -> None:
        """Record that an input of a checked spec does not exist any more."""
        errors = [{"pointer": missing.pointer, "message": missing.message}]
        self.ledger.fail_check(ends.error("input_missing", missing.message, errors=errors))

    def settle_check(self, event: Event) -> bool:
        """Record the result of a check; returns whether a job can be claimed now."""
        if event["event"] == "checked":
            self.ledger.pass_check(event.get("facts") or {})
            return self.ledger.kind == "job"
        error = engine_error(event)
        self.ledger.fail_check(error)
        log.info("check_failed", id=self.ledger.id, code=error["code"])
        return False

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

    def _described(self, kind: str) -> dict[str, Any]:
        return describe_run(kind, self.ledger.subject_id, self.ledger.attempt, self.ledger.request_id)

    def _described_upload(self, upload: Uploaded, dataset: str | None) -> dict[str, Any]:
        kind = self.ledger.kind
        own = {name: getattr(upload, name) for name in ("options",) if hasattr(upload, name)}
        if kind == "teacher":
            own = {"teacher": describe_teacher(upload) | {"weights": upload.weights}}  # type: ignore[arg-type, attr-defined]  # the kind determines the type
        if kind == "file":
            own["options"] = own["options"] | {"kind": upload.kind}  # type: ignore[attr-defined]
        if dataset is not None:
            own |= {"dataset": dataset, "recognition_seconds": settings().recognition_seconds}
        return self._described(kind) | {"upload": "inputs/upload"} | own

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
        """Run the engine; returns its final event if it is a result for the subject, else None: the inspection is
        queued again."""
        killed_before = kills_for_memory()
        threads, kernel = settings().engine_threads, limits.of_engine()
        engine = EngineProcess(self.folder.path, self.command, threads, trains=False, limits=kernel)
        with engine, EngineWatch(engine, self.lease, self.draining, limits.seconds) as watch:
            for _ in engine.events(PATIENCE_SECONDS):
                self.lease.check_held()
            exit = engine.exit()
        self.lease.check_held()
        event = engine.final_event
        if event is not None and (event["event"] in ("findings", "checked") or is_final_error(event)):
            return event
        if watch.request == "time" or exit.code == -signal.SIGXCPU:
            return _refusal("inspection_time", f"it took longer than {limits.seconds:.0f} seconds")
        if watch.request is not None:
            self.ledger.release(0.0)
            return None
        if is_disk_error(event):
            log.warning("inspection_postponed", error=event)
            self.ledger.release(settings().lease_seconds)
            return None
        last = engine.log.last_lines()
        if _ran_out_of_memory(exit, last, killed_before):
            return _refusal("inspection_memory", "it needs more memory than an inspection may use")
        error = crash_error(event, str(exit), last)
        self.ledger.lose(error)
        log.warning("inspection_lost", error=error)
        return None


def _has_bytes(upload: Uploaded) -> bool:
    """Whether there is something to inspect."""
    referred = isinstance(upload, Dataset) and upload.source is not None
    return bool(upload.upload_key or upload.upload_parts or referred)


def _refusal(code: str, message: str) -> Event:
    """The event of an engine that could not say itself why an inspection fails."""
    return {"event": "error"} | ends.error(code, message)


def _ran_out_of_memory(exit: Exit, last_lines: str, killed_before: int) -> bool:
    """Whether an engine without a final event ended because it, or the machine, ran out of memory."""
    if exit.code == -signal.SIGKILL:
        return kills_for_memory() > killed_before
    return exit.code == -signal.SIGABRT and any(words in last_lines for words in OUT_OF_MEMORY)


def _discard(key: str) -> None:
    """Delete a blob that nothing needs any more. The inspection has ended and its lease with it, so the lease is not
    checked; if the storage fails, the scan for orphaned blobs deletes the blob later."""
    try:
        storage().delete(key)
    except StorageError as error:
        log.warning("blob_left_behind", key=key, error=str(error))
