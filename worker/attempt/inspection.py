"""The life of one inspection: an upload is read once and made canonical, or a spec is checked."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from models.database import AWAY, reading
from models.queue.wake_up import ring
from models.records import Inspection, Job
from models.records.columns import Uploaded
from models.settings import settings
from models.status import JobStatus, UploadStatus
from models.storage.blobs import Damaged, NotFound, StorageError, storage
from worker.attempt.engine_watch import EngineWatch
from worker.attempt.inputs import (
    AttemptInputs,
    InputMissing,
    describe_run,
    describe_teacher,
    describe_teachers,
    fetch_programs,
    write_job_file,
)
from worker.attempt.lease import Lease
from worker.attempt.outcome import judge_crash, said_error
from worker.attempt.retrying import insist
from worker.engine.confinement import EngineLimits
from worker.engine.engine_process import ENGINE, EngineProcess
from worker.engine.folder import Folder
from worker.ledger import ends
from worker.ledger.changes import Taken
from worker.ledger.claims import Claim
from worker.ledger.inspections import SUBJECTS, Canonical, InspectionLedger

PATIENCE_SECONDS = 0.5
MOST_SECONDS = 3600.0
ADDRESS_BYTES = 24 * 2**30
"""Address space of an inspecting engine, besides four times its upload: torch alone maps several GiB."""

log = structlog.get_logger(__name__)


def run_inspection(claim: Claim, draining: threading.Event, command: Sequence[str] = ENGINE) -> None:
    """Run one attempt at an inspection; returns when it has ended, or is another's."""
    assert isinstance(claim.record, Inspection)
    ledger = InspectionLedger(claim.record)
    with (
        structlog.contextvars.bound_contextvars(
            inspection=claim.id, subject=ledger.subject_id, attempt=claim.attempt, request_id=ledger.request_id
        ),
        Lease(claim) as lease,
        Folder(claim.id, claim.attempt) as folder,
    ):
        log.info("inspection_begins", kind=ledger.kind)
        examine = {"job": _check_job, "check": _check_spec}.get(ledger.kind, _inspect_upload)
        try:
            examine(ledger, folder, lease, draining, command)
        except Taken:
            log.warning("inspection_taken_away")
        except StorageError as error:
            log.warning("storage_away", error=str(error))
            insist(lease, lambda: ledger.release(settings().beat_seconds))
        except AWAY as error:
            log.error("database_away", error=str(error).partition("\n")[0])


def _check_job(
    ledger: InspectionLedger, folder: Folder, lease: Lease, draining: threading.Event, command: Sequence[str]
) -> None:
    with reading() as session:
        job = session.get(Job, ledger.subject_id)
    if job is None or job.status != JobStatus.QUEUED or job.cancel_requested_at is not None:
        insist(lease, ledger.drop)
        return
    if _check(job.resolved, AttemptInputs.of(job), ledger, folder, lease, draining, command):
        ring("distill")


def _check_spec(
    ledger: InspectionLedger, folder: Folder, lease: Lease, draining: threading.Event, command: Sequence[str]
) -> None:
    assert ledger.resolved is not None
    _check(ledger.resolved, AttemptInputs.named(ledger.resolved), ledger, folder, lease, draining, command)


def _check(
    resolved: Mapping[str, Any],
    inputs: AttemptInputs,
    ledger: InspectionLedger,
    folder: Folder,
    lease: Lease,
    draining: threading.Event,
    command: Sequence[str],
) -> bool:
    """Have the engine build what a spec names; says whether it could."""
    try:
        teachers, files = fetch_programs(inputs, folder.path, lease.demand)
    except InputMissing as gone:
        errors = [{"pointer": gone.pointer, "message": gone.message}]
        missing = ends.error("input_missing", gone.message, errors=errors)
        insist(lease, lambda: ledger.fail_check(missing))
        return False
    write_job_file(
        folder.path,
        describe_run("check", ledger.subject_id, ledger.attempt, ledger.request_id)
        | {
            "spec": resolved,
            "dataset_findings": inputs.dataset.findings if inputs.dataset else None,
            "evaluation_findings": inputs.evaluation.findings if inputs.evaluation else None,
        }
        | describe_teachers(teachers)
        | {"files": files},
    )
    word = _drive(ledger, folder, lease, draining, command, EngineLimits(int(MOST_SECONDS), ADDRESS_BYTES))
    if word is None:
        return False
    if word["event"] == "checked":
        insist(lease, lambda: ledger.pass_check(word.get("facts") or {}))
        return True
    error = said_error(word)
    insist(lease, lambda: ledger.fail_check(error))
    log.info("check_failed", code=error["code"])
    return False


def _inspect_upload(
    ledger: InspectionLedger, folder: Folder, lease: Lease, draining: threading.Event, command: Sequence[str]
) -> None:
    table: type[Uploaded] = SUBJECTS[ledger.kind]
    with reading() as session:
        upload = session.get(table, ledger.subject_id)
    if upload is None or upload.status != UploadStatus.INSPECTING or upload.upload_key is None:
        insist(lease, ledger.drop)
        return
    try:
        size = storage().download(upload.upload_key, folder.path / "inputs" / "upload", upload.sha256).size
    except (NotFound, Damaged) as error:
        lost = ends.error("upload_lost", f"the bytes are lost: {error.message}", "Upload it again.")
        insist(lease, lambda: ledger.reject(lost))  # changes nothing of an upload that its owner has deleted
        return
    write_job_file(folder.path, _describe_upload(ledger, upload))
    limits = EngineLimits(int(MOST_SECONDS), ADDRESS_BYTES + 4 * size)
    word = _drive(ledger, folder, lease, draining, command, limits)
    if word is not None:
        _settle_upload(word, upload, ledger, folder, lease)
        ring("inspect")


def _describe_upload(ledger: InspectionLedger, upload: Uploaded) -> dict[str, Any]:
    own = {name: getattr(upload, name) for name in ("options",) if hasattr(upload, name)}
    if ledger.kind == "teacher":
        own = {"teacher": describe_teacher(upload)}  # type: ignore[arg-type]  # its kind says what it is
    if ledger.kind == "file":
        own["options"] = own["options"] | {"kind": upload.kind}  # type: ignore[attr-defined]
    limits = {"parameters": settings().network_parameters}
    return (
        describe_run(ledger.kind, upload.id, ledger.attempt, ledger.request_id)
        | {"upload": "inputs/upload", "limits": limits}
        | own
    )


def _settle_upload(
    word: Mapping[str, Any], upload: Uploaded, ledger: InspectionLedger, folder: Folder, lease: Lease
) -> None:
    assert upload.upload_key is not None
    if word["event"] == "findings":
        key = f"blobs/{upload.id}/{ledger.id}-{ledger.attempt}.safetensors"  # no other attempt's
        lease.demand()
        stored = storage().put(key, folder.inside(word["path"]))
        canonical = Canonical(key, stored.size, stored.sha256)
        if not insist(lease, lambda: ledger.accept(word["findings"], canonical)):
            storage().delete(key)
        log.info("upload_ready", size=stored.size)
    else:
        problem = said_error(word)
        insist(lease, lambda: ledger.reject(problem))
        log.info("upload_rejected", code=problem["code"])
    try:
        storage().delete(upload.upload_key)
    except StorageError as error:
        log.warning("upload_left_behind", key=upload.upload_key, error=str(error))


def _drive(
    ledger: InspectionLedger,
    folder: Folder,
    lease: Lease,
    draining: threading.Event,
    command: Sequence[str],
    limits: EngineLimits,
) -> dict[str, Any] | None:
    """Run the engine; its last word if that is a verdict. Else the inspection is put back, and None is returned."""
    engine = EngineProcess(folder.path, command, settings().engine_threads, gpu=False, limits=limits)
    with engine, EngineWatch(engine, lease, draining, MOST_SECONDS) as watch:
        for _ in engine.events(PATIENCE_SECONDS):
            lease.demand()
        exit = engine.exit()
    lease.demand()
    word = engine.last_word
    if word is not None and (word["event"] in ("findings", "checked") or is_verdict(word)):
        return word
    if watch.request is not None and watch.request != "time":
        insist(lease, lambda: ledger.release(0.0))
        return None
    error = judge_crash(word, str(exit), engine.log.last_lines())
    insist(lease, lambda: ledger.lose(error))
    log.warning("inspection_lost", error=error)
    return None


def is_verdict(word: Mapping[str, Any]) -> bool:
    """Whether an error says something of what was inspected, and not of this service."""
    return word["event"] == "error" and word.get("fault") in ("user", "job")
