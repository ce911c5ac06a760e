"""The uploads that a spec names, and the jobs whose students are to teach."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.errors import Invalid
from models.records import Dataset, File, Job, Teacher
from models.spec.initial_weights import file_of
from models.spec.job_spec import Facts, JobSpec, check, resolve
from models.spec.named_files import SEVERAL, SINGLE, named_files
from models.spec.students import Student
from models.spec.teacher_spec import JOB, named
from models.status import UploadStatus

Upload = Teacher | Dataset | File


class Inputs:
    """The uploads that a spec names, and the students of jobs that it does, as they are now.

    With `lock`, they stay so until the transaction ends: an inspection that ends meanwhile waits, and then sees the job.

    Raises:
        Invalid: one does not exist, belongs to another key, was rejected, or is of a job that has no student to teach.
    """

    def __init__(self, session: Session, key_id: str, spec: JobSpec, lock: bool = False):
        teachers = named(spec.model_dump(mode="json", include={"teacher"})["teacher"])
        methods = spec.model_dump(mode="json", by_alias=True, include={*SINGLE, *SEVERAL, "student"})
        files = named_files(methods)
        wanted: list[tuple[str, type[Upload | Job], str | None]] = [
            *((pointer, Job if each.startswith(JOB) else Teacher, each) for pointer, each in teachers.items()),
            ("/dataset", Dataset, spec.dataset),
            ("/evaluation/dataset", Dataset, spec.evaluation.dataset if spec.evaluation else None),
            ("/student/initial_weights", File, file_of(spec.student.initial_weights)),
            *((one.pointer, File, one.id) for one in files),
        ]
        self.files = [one.pointer for one in files]
        self.teachers, self.found = list(teachers), dict[str, Upload | Student]()
        problems: list[tuple[str, str]] = []
        for pointer, record, identifier in wanted:
            if identifier is None:
                continue
            query = select(record).where(
                record.id == identifier.replace("\0", ""), record.key_id == key_id, record.deleted_at.is_(None)
            )
            found = session.scalar(query.with_for_update(read=True) if lock else query)
            known = Student.of(session, found) if isinstance(found, Job) else found
            if not isinstance(known, Upload | Student):
                problems.append((pointer, f"there is no {record.__name__.lower()} {identifier}"))
            elif refusal := _refusal(known):
                problems.append((pointer, refusal))
            else:
                self.found[pointer] = known
        if problems:
            raise Invalid(problems)

    def waits_for(self) -> str | None:
        """A sentence on what a job with these inputs waits for; None if it may begin."""
        waiting = [f"waits for {what}" for one in self.found.values() if (what := _awaited(one))]
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
        dataset, evaluation = map(self.found.get, ("/dataset", "/evaluation/dataset"))
        return Facts.of(
            {pointer: one for pointer in self.teachers if isinstance(one := self.found[pointer], Teacher | Student)},
            dataset if isinstance(dataset, Dataset) else None,
            evaluation if isinstance(evaluation, Dataset) else None,
            {pointer: one for pointer in self.files if isinstance(one := self.found[pointer], File)},
        )


def _refusal(one: Upload | Student) -> str | None:
    if isinstance(one, Student):
        return one.refusal()
    rejected = one.status == UploadStatus.REJECTED
    return f"{one.id} was rejected by its inspection: upload it again" if rejected else None


def _awaited(one: Upload | Student) -> str | None:
    if isinstance(one, Student):
        return f"the end of {one.id}" if one.waits else None
    awaited = {UploadStatus.WAITING: "the bytes of", UploadStatus.INSPECTING: "the inspection of"}
    what = awaited.get(UploadStatus(one.status))
    return f"{what} {one.id}" if what else None
