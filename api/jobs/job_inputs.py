"""Inputs of a job: the uploads that a spec names, and the jobs whose students it uses as teachers."""

from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from api.http.errors import Invalid
from api.uploads.service import why_unusable
from models.pretrained.weights_folder import absent
from models.records import Dataset, File, Job, Teacher
from models.settings import settings
from models.spec.initial_weights import file_of
from models.spec.job_spec import Facts, JobSpec, check, resolve
from models.spec.named_files import SEVERAL, SINGLE, named_files
from models.spec.students import Student
from models.spec.teacher_spec import JOB, named
from models.status import UploadStatus

Upload = Teacher | Dataset | File


class InputRows:
    """Rows of inputs, read once for all jobs of a transaction.

    With `lock`, the rows are locked until the transaction ends: an inspection that ends meanwhile waits, then sees the jobs.
    """

    def __init__(self, session: Session, lock: bool = False):
        self.session = session
        self._lock = lock
        self._rows: dict[tuple[type[Upload | Job], str, str], Upload | Job | None] = {}

    def find(self, record: type[Upload] | type[Job], identifier: str, key_id: str) -> Upload | Job | None:
        """The row of a key's input; None if there is none."""
        name = record, identifier, key_id
        if name not in self._rows:
            query: Select[Any] = select(record).where(
                record.id == identifier.replace("\0", ""), record.key_id == key_id, record.deleted_at.is_(None)
            )
            self._rows[name] = self.session.scalar(query.with_for_update(read=True) if self._lock else query)
        return self._rows[name]


class Inputs:
    """The uploads and the students of jobs that a spec names.

    Raises:
        Invalid: an input does not exist, belongs to another key or was rejected, or its job has no student to use.
    """

    def __init__(self, rows: InputRows, key_id: str, spec: JobSpec):
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
        self.teachers = list(teachers)
        self.found: dict[str, Upload | Student] = {}
        problems: list[tuple[str, str]] = []
        for pointer, record, identifier in wanted:
            if identifier is None:
                continue
            found = rows.find(record, identifier, key_id)
            known = Student.of(rows.session, found) if isinstance(found, Job) else found
            if not isinstance(known, Upload | Student):
                problems.append((pointer, f"the {record.__name__.lower()} {identifier} does not exist"))
            elif reason := _unusable_reason(known):
                problems.append((pointer, reason))
            else:
                self.found[pointer] = known
        if problems:
            raise Invalid(problems)

    def waits_for(self) -> str | None:
        """What a job with these inputs waits for, as text; None if all inputs are ready."""
        waiting = [f"waits for {what}" for one in self.found.values() if (what := _waits_for(one))]
        return "; ".join(dict.fromkeys(waiting)) or None

    def resolved(self, spec: JobSpec) -> dict[str, Any]:
        """The spec with every default written out, checked against the findings of its inputs.

        Raises:
            Invalid: the spec cannot work; lists every problem.
        """
        facts = self.facts()
        resolved = resolve(spec, facts)
        problems = [(problem.pointer, problem.message) for problem in check(resolved, facts)]
        folder = settings().weights_folder
        if not problems and folder.is_dir():  # else perhaps only workers see it; they check the job before it starts
            problems = absent(resolved, folder)
        if problems:
            raise Invalid(problems)
        return resolved

    def facts(self) -> Facts:
        """The findings of the inputs."""
        dataset, evaluation = map(self.found.get, ("/dataset", "/evaluation/dataset"))
        return Facts.of(
            {pointer: one for pointer in self.teachers if isinstance(one := self.found[pointer], Teacher | Student)},
            dataset if isinstance(dataset, Dataset) else None,
            evaluation if isinstance(evaluation, Dataset) else None,
            {pointer: one for pointer in self.files if isinstance(one := self.found[pointer], File)},
        )


def _unusable_reason(one: Upload | Student) -> str | None:
    if isinstance(one, Student):
        return one.refusal()
    return why_unusable(one)


def _waits_for(one: Upload | Student) -> str | None:
    if isinstance(one, Student):
        return f"the end of {one.id}" if one.waits else None
    open_states = {UploadStatus.WAITING: "the bytes of", UploadStatus.INSPECTING: "the inspection of"}
    what = open_states.get(UploadStatus(one.status))
    return f"{what} {one.id}" if what else None
