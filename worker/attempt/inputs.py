"""The inputs of an attempt: the uploads, the newest readable checkpoint, and the job file."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from models.database import reading
from models.pretrained.weights_folder import absent, asked, find
from models.records import Dataset, File, Job, Teacher
from models.scheduling.resources import ResourceNeeds
from models.settings import settings
from models.spec.catalogue import PROGRAM
from models.spec.initial_weights import file_of
from models.spec.named_files import named_files
from models.spec.students import Student
from models.spec.teacher_spec import JOB, named
from models.storage.errors import StorageError
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.engine_limits import memory_of_training
from worker.attempt.fetching import Fetch, InputMissing
from worker.attempt.lease import Lease
from worker.cache.dataset_cache import HeldDatasets
from worker.clock import clock
from worker.ledger.attempts import AttemptLedger


class StorageUnavailable(Exception):
    """The storage was unavailable for so long that the job goes back to the queue; the message says for which
    operation."""


@dataclass(frozen=True)
class AttemptInputs:
    """The records that a spec names; the teachers in the order of the spec."""

    teachers: list[Teacher | Student]
    dataset: Dataset | None
    evaluation: Dataset | None
    initial_weights: File | None
    files: dict[str, File | None]
    """The files that methods name, by their places in the spec (JSON pointers)."""

    @classmethod
    def of(cls, session: Session, job: Job) -> "AttemptInputs":
        """The inputs of a job."""
        return cls._of(session, job.dataset_id, job.evaluation_id, {"teacher": job.teacher_id} | job.resolved)

    @classmethod
    def named(cls, session: Session, resolved: Mapping[str, Any]) -> "AttemptInputs":
        """The inputs that a resolved spec names."""
        evaluation = (resolved.get("evaluation") or {}).get("dataset")
        return cls._of(session, resolved.get("dataset"), evaluation, resolved)

    @classmethod
    def _of(
        cls, session: Session, dataset: str | None, evaluation: str | None, resolved: Mapping[str, Any]
    ) -> "AttemptInputs":
        initial = file_of((resolved.get("student") or {}).get("initial_weights"))
        return cls(
            [_teacher(session, each) for each in named(resolved.get("teacher")).values()],
            session.get(Dataset, dataset) if dataset else None,
            session.get(Dataset, evaluation) if evaluation else None,
            session.get(File, initial) if initial else None,
            {one.pointer: session.get(File, one.id) for one in named_files(resolved)},
        )


def _teacher(session: Session, identifier: str) -> Teacher | Student:
    record: Job | Teacher | None
    record = session.get(Job, identifier) if identifier.startswith(JOB) else session.get(Teacher, identifier)
    if record is None:
        raise InputMissing("/teacher", f"{identifier} does not exist any more")
    return Student.of(session, record) if isinstance(record, Job) else record


def describe_teacher(teacher: Teacher | Student) -> dict[str, Any]:
    """A teacher's entry in a job file, without its weights."""
    names = ("network", "options", "classes", "class_names", "input")
    if isinstance(teacher, Student):
        card = teacher.card()
        done = {"transforms": card["transforms"]} if card.get("transforms") else {}
        return {"id": teacher.id, **{name: card[name] for name in names}, **done, "weights": None}
    return {"id": teacher.id, **{name: getattr(teacher, name) for name in names}, "weights": None}


def describe_teachers(described: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The job file's fields for one teacher or for the members of an ensemble."""
    one = described[0] if len(described) == 1 else None
    return {"teacher": one, "teachers": list(described) if len(described) > 1 else []}


def describe_run(kind: str, subject_id: str, attempt: int, request_id: str | None = None) -> dict[str, Any]:
    """The common fields of all job files."""
    config = settings()
    return {
        "kind": kind,
        "job": subject_id,
        "attempt": attempt,
        "request": request_id,
        "device": config.device if kind == "distill" else "cpu",
        "threads": config.engine_threads,
        "tf32": config.tf32,
        "cuda_graphs": config.cuda_graphs,
        "checkpoint_seconds": config.checkpoint_seconds,
        "silence_seconds": config.lease_seconds,
        "sandbox": None if config.sandboxing == "off" else config.sandboxing,
    }


def write_job_file(folder: Path, content: dict[str, Any]) -> None:
    """Write `job.json`, without the webhook: its URL may contain a token, and the engine does not need it."""
    content = _without_webhook(content)
    if "checks" in content:
        content["checks"] = [_without_webhook(one) for one in content["checks"]]
    (folder / "job.json").write_text(json.dumps(content, indent=1, allow_nan=False))


def _without_webhook(content: dict[str, Any]) -> dict[str, Any]:
    if "spec" not in content:
        return dict(content)
    return content | {"spec": {name: part for name, part in content["spec"].items() if name != "webhook"}}


def lay_out(
    job: Job,
    folder: Path,
    ledger: AttemptLedger,
    storage: AttemptStorage,
    lease: Lease,
    held: HeldDatasets | None = None,
) -> None:
    """Fetch everything that an attempt at a job needs, and write its job file. Exceptions of the storage's `check` are
    raised too.

    Args:
        held: the datasets of the cache that the attempt uses; without it, they are copied.

    Raises:
        InputMissing: an input was deleted, or its blob is missing or damaged.
        StorageUnavailable: the storage was unavailable for too long.
        Taken: the lease was lost.
    """

    def read() -> AttemptInputs:
        with reading() as session:
            return AttemptInputs.of(session, job)

    inputs = ledger.read(read)
    try:
        content = _fetched(job, inputs, Fetch(folder, storage, held), ledger)
    except StorageError as error:
        raise StorageUnavailable(f"the inputs could not be fetched: {error}") from error
    content["seconds_used"] = ledger.seconds_used() + clock() - lease.claim.sent_at
    write_job_file(folder, content)


def _fetched(job: Job, inputs: AttemptInputs, fetch: "Fetch", ledger: AttemptLedger) -> dict[str, Any]:
    """Fetch the files of a job; returns the content of its job file."""
    content = describe_run("distill", job.id, job.attempt, job.request_id) | {"spec": job.resolved}
    # this worker has enough devices: otherwise it would not have claimed the job
    content["ranks"] = ResourceNeeds.of(job.resolved.get("resources") or {}).devices
    content["memory_bytes"] = memory_of_training(content["ranks"])
    names = ["teacher", *(f"teacher_{number}" for number in range(1, len(inputs.teachers)))]
    described = [
        describe_teacher(teacher) | {"weights": fetch.teacher(teacher, name)}
        for name, teacher in zip(names, inputs.teachers, strict=False)
    ]
    content |= describe_teachers(described)
    content["dataset"] = fetch.dataset(inputs.dataset, "dataset", "/dataset")
    if job.evaluation_id is not None and job.evaluation_id == job.dataset_id:
        content["evaluation"] = content["dataset"]
    else:
        content["evaluation"] = fetch.dataset(inputs.evaluation, "evaluation", "/evaluation/dataset")
    content["initial_weights"] = fetch.upload(inputs.initial_weights, "initial_weights", "/student/initial_weights")
    content["pretrained"] = copy_pretrained(job.resolved, fetch.folder)
    content["files"] = {
        file.id: fetch.upload(file, file.id, pointer) for pointer, file in inputs.files.items() if file is not None
    }
    content["resume"] = fetch.checkpoint(ledger)
    content["reads"] = [str(each) for each in fetch.held.folders] if fetch.held else []
    return content


def copy_pretrained(resolved: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Copy the pretrained weights that a spec asks for into an attempt's folder; returns their paths by place in the spec.

    They are copied and not linked, since the engine may write to everything in its folder.

    Raises:
        InputMissing: the operator's folder has no file for a network.
    """
    weights = settings().weights_folder
    for pointer, message in absent(resolved, weights):
        raise InputMissing(pointer, message)
    copied = {}
    for pointer, network in asked(resolved):
        if found := find(weights, network):
            copied[pointer] = f"inputs/{found.name}"
            shutil.copyfile(found.path, folder / copied[pointer])
    return copied


def reads_files(resolved: Mapping[str, Any], inputs: AttemptInputs) -> bool:
    """Whether the check of a spec reads files: programs, or pretrained weights."""
    programs = any(describe_teacher(teacher)["network"] == PROGRAM for teacher in inputs.teachers)
    programs = programs or any(file is not None and file.kind == PROGRAM for file in inputs.files.values())
    return programs or any(True for _ in asked(resolved))


def fetch_programs(
    inputs: AttemptInputs, folder: Path, storage: AttemptStorage
) -> tuple[list[dict[str, Any]], dict[str, str | None]]:
    """The teachers and files of a check's job file. Only programs are downloaded, since networks are built from them.

    Raises:
        InputMissing: a program was deleted, or its blob is missing or damaged.
        StorageError: the storage is unavailable.
    """
    fetch = Fetch(folder, storage)
    described = []
    for number, teacher in enumerate(inputs.teachers):
        one = describe_teacher(teacher)
        if one["network"] == PROGRAM:
            one["program"] = fetch.teacher(teacher, f"teacher_{number}")
        described.append(one)
    files = {file.id: (pointer, file) for pointer, file in inputs.files.items() if file and file.kind == PROGRAM}
    return described, {each: fetch.upload(file, each, pointer) for each, (pointer, file) in files.items()}
