"""The check of a spec, by an engine of its own or with others: its inputs, its job file, its result."""

from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy.orm import Session

from models.records import Job
from models.status import JobStatus
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.fetching import InputMissing
from worker.attempt.inputs import AttemptInputs, copy_pretrained, describe_run, describe_teachers, fetch_programs
from worker.attempt.outcome import engine_error
from worker.engine.engine_process import Event
from worker.engine.folder import Folder
from worker.ledger import ends
from worker.ledger.inspections import InspectionLedger

AskedCheck = tuple[Mapping[str, Any], AttemptInputs]
"""A resolved spec and its inputs."""

log = structlog.get_logger(__name__)


class SpecCheck:
    """The check of a job's spec, or of one that is only to be checked."""

    def __init__(self, ledger: InspectionLedger, folder: Folder, storage: AttemptStorage):
        self.ledger = ledger
        self.folder = folder
        self.storage = storage

    def asked(self, session: Session) -> AskedCheck | None:
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

    def job_file(self, resolved: Mapping[str, Any], inputs: AttemptInputs) -> dict[str, Any]:
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
        return (
            describe_run("check", self.ledger.subject_id, self.ledger.attempt, self.ledger.request_id)
            | found
            | describe_teachers(described)
        )

    def fail(self, missing: InputMissing) -> None:
        """Record that an input of a checked spec does not exist any more."""
        errors = [{"pointer": missing.pointer, "message": missing.message}]
        self.ledger.fail_check(ends.error("input_missing", missing.message, errors=errors))

    def settle(self, event: Event) -> bool:
        """Record the result of a check; returns whether a job can be claimed now."""
        if event["event"] == "checked":
            self.ledger.pass_check(event.get("facts") or {})
            return self.ledger.kind == "job"
        error = engine_error(event)
        self.ledger.fail_check(error)
        log.info("check_failed", id=self.ledger.id, code=error["code"])
        return False
