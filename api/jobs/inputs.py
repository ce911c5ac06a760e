"""The uploads that a spec names."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.errors import Invalid
from models.records import Dataset, File, Teacher
from models.spec import Facts, JobSpec, check, resolve
from models.status import UploadStatus

Upload = Teacher | Dataset | File


class Inputs:
    """The uploads that a spec names, as they are now.

    With `lock`, they stay so until the transaction ends: an inspection that ends meanwhile waits, and then sees the job.

    Raises:
        Invalid: one does not exist, belongs to another key, or was rejected.
    """

    def __init__(self, session: Session, key_id: str, spec: JobSpec, lock: bool = False):
        named: list[tuple[str, type[Upload], str | None]] = [
            ("/teacher", Teacher, spec.teacher),
            ("/dataset", Dataset, spec.dataset),
            ("/evaluation/dataset", Dataset, spec.evaluation.dataset if spec.evaluation else None),
            ("/student/initial_weights", File, spec.student.initial_weights),
        ]
        self.found: dict[str, Upload] = {}
        problems: list[tuple[str, str]] = []
        for pointer, record, identifier in named:
            if identifier is None:
                continue
            query = select(record).where(
                record.id == identifier.replace("\0", ""), record.key_id == key_id, record.deleted_at.is_(None)
            )
            found = session.scalar(query.with_for_update(read=True) if lock else query)
            upload = found if isinstance(found, Upload) else None
            if upload is None:
                problems.append((pointer, f"there is no {record.__name__.lower()} {identifier}"))
            elif upload.status == UploadStatus.REJECTED:
                problems.append((pointer, f"{identifier} was rejected by its inspection: upload it again"))
            else:
                self.found[pointer] = upload
        if problems:
            raise Invalid(problems)

    def waits_for(self) -> str | None:
        """A sentence on what a job with these inputs waits for; None if it may begin."""
        sentences = {
            UploadStatus.WAITING: "waits for the bytes of {}",
            UploadStatus.INSPECTING: "waits for the inspection of {}",
        }
        waiting = [
            sentences[UploadStatus(one.status)].format(one.id) for one in self.found.values() if one.status in sentences
        ]
        return "; ".join(dict.fromkeys(waiting)) or None

    def resolved(self, spec: JobSpec) -> dict[str, Any]:
        """The spec with every default written out, checked against what the inspections found.

        Raises:
            Invalid: with all that is wrong.
        """
        facts = self.facts()
        resolved = resolve(spec, facts)
        problems = check(resolved, facts)
        if problems:
            raise Invalid([(problem.pointer, problem.message) for problem in problems])
        return resolved

    def facts(self) -> Facts:
        """What is known of the inputs."""
        teacher, dataset, evaluation = map(self.found.get, ("/teacher", "/dataset", "/evaluation/dataset"))
        return Facts.of(
            teacher if isinstance(teacher, Teacher) else None,
            dataset if isinstance(dataset, Dataset) else None,
            evaluation if isinstance(evaluation, Dataset) else None,
        )
