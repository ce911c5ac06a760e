"""What an attempt is given: its inputs, its newest checkpoint that can be read, and the job file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from models.database import reading
from models.records import Checkpoint, Dataset, File, Job, Teacher
from models.records.columns import Uploaded
from models.settings import settings
from models.status import UploadStatus
from models.storage import Damaged, NotFound, storage
from worker.lease import Lease
from worker.ledger.attempt import AttemptLedger

RESUME = "checkpoints/resume.json"
log = structlog.get_logger(__name__)


class InputMissing(Exception):
    """An input of a job is not to be had any more."""

    def __init__(self, pointer: str, message: str):
        super().__init__(message)
        self.pointer, self.message = pointer, message


@dataclass(frozen=True)
class Inputs:
    """The records that a spec names."""

    teacher: Teacher | None
    dataset: Dataset | None
    evaluation: Dataset | None
    initial_weights: File | None

    @classmethod
    def of(cls, job: Job) -> "Inputs":
        """Those of a job."""
        return cls._of(job.teacher_id, job.dataset_id, job.evaluation_id, job.resolved)

    @classmethod
    def named(cls, resolved: Mapping[str, Any]) -> "Inputs":
        """Those that a resolved spec names."""
        evaluation = (resolved.get("evaluation") or {}).get("dataset")
        return cls._of(resolved.get("teacher"), resolved.get("dataset"), evaluation, resolved)

    @classmethod
    def _of(
        cls, teacher: str | None, dataset: str | None, evaluation: str | None, resolved: Mapping[str, Any]
    ) -> "Inputs":
        initial = (resolved.get("student") or {}).get("initial_weights")
        with reading() as session:
            return cls(
                session.get(Teacher, teacher) if teacher else None,
                session.get(Dataset, dataset) if dataset else None,
                session.get(Dataset, evaluation) if evaluation else None,
                session.get(File, initial) if initial else None,
            )


def part_key(job_id: str, sha256: str) -> str:
    """Where a part of a checkpoint lies in storage."""
    return f"jobs/{job_id}/parts/{sha256}"


def describe_teacher(teacher: Teacher) -> dict[str, Any]:
    """The teacher as a job file names it, without its weights."""
    return {
        "network": teacher.network,
        "options": teacher.options,
        "classes": teacher.classes,
        "class_names": teacher.class_names,
        "input": teacher.input,
        "weights": None,
    }


def describe_run(kind: str, subject_id: str, attempt: int) -> dict[str, Any]:
    """What every job file begins with."""
    config = settings()
    return {
        "kind": kind,
        "job": subject_id,
        "attempt": attempt,
        "device": config.device if kind == "distill" else "cpu",
        "threads": config.engine_threads,
        "checkpoint_seconds": config.checkpoint_seconds,
        "silence_seconds": config.lease_seconds,
        "sandbox": None if config.sandboxing == "off" else config.sandboxing,
    }


def write_job_file(folder: Path, content: dict[str, Any]) -> None:
    """Write `job.json`."""
    (folder / "job.json").write_text(json.dumps(content, indent=1, allow_nan=False))


def lay_out(job: Job, folder: Path, ledger: AttemptLedger, lease: Lease) -> None:
    """Fetch everything that a job's attempt needs, and write its job file.

    Raises:
        InputMissing: an input was deleted, or its blob is gone or damaged.
        StorageError: storage is away.
        Taken: the lease was lost meanwhile.
    """
    inputs = Inputs.of(job)
    content = describe_run("distill", job.id, job.attempt) | {"spec": job.resolved, "teacher": None}
    if inputs.teacher is not None:
        content["teacher"] = describe_teacher(inputs.teacher)
        content["teacher"]["weights"] = _fetch(inputs.teacher, folder, "teacher", "/teacher", lease)
    content["dataset"] = _fetch(inputs.dataset, folder, "dataset", "/dataset", lease)
    if job.evaluation_id is not None and job.evaluation_id == job.dataset_id:
        content["evaluation"] = content["dataset"]
    else:
        content["evaluation"] = _fetch(inputs.evaluation, folder, "evaluation", "/evaluation/dataset", lease)
    content["initial_weights"] = _fetch(
        inputs.initial_weights, folder, "initial_weights", "/student/initial_weights", lease
    )
    content["resume"] = _fetch_checkpoint(job.id, folder, ledger, lease)
    write_job_file(folder, content)


def _fetch(upload: Uploaded | None, folder: Path, name: str, pointer: str, lease: Lease) -> str | None:
    if upload is None:
        return None
    lease.demand()
    path = f"inputs/{name}.safetensors"
    if upload.status != UploadStatus.READY or upload.blob_key is None:
        raise InputMissing(pointer, f"{upload.id} is not ready any more")
    try:
        storage().download(upload.blob_key, folder / path, upload.blob_sha256)
    except (NotFound, Damaged) as error:
        raise InputMissing(pointer, f"the bytes of {upload.id} are lost: {error.message}") from error
    return path


def _fetch_checkpoint(job_id: str, folder: Path, ledger: AttemptLedger, lease: Lease) -> str | None:
    for checkpoint in ledger.checkpoints():
        try:
            _fetch_parts(job_id, checkpoint, folder, lease)
        except (NotFound, Damaged) as error:
            log.warning("checkpoint_unreadable", job=job_id, checkpoint=checkpoint.id, error=str(error))
            ledger.drop_checkpoint(checkpoint.id, error.message)
            continue
        (folder / RESUME).write_text(json.dumps(checkpoint.manifest))
        return RESUME
    return None


def _fetch_parts(job_id: str, checkpoint: Checkpoint, folder: Path, lease: Lease) -> None:
    for part in checkpoint.manifest["parts"].values():
        lease.demand()
        path = folder / "checkpoints" / part["sha256"]
        if not path.exists():
            storage().download(part_key(job_id, part["sha256"]), path, part["sha256"])
