"""Jobs as lines of a table: what each distils, how far it is, and what it measured; read by one statement for many jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Row, ScalarSelect, and_, case, select
from sqlalchemy.orm import aliased

from api.http.errors import NotFound
from api.http.paging import Window
from api.jobs.summaries import LAST_EVENTS
from models.database import reading
from models.records import Dataset, Event, Job, Key, Metric, Teacher
from models.status import JobStatus

KINDS: dict[str, type[Teacher] | type[Dataset] | type[Job]] = {"tch_": Teacher, "dts_": Dataset, "job_": Job}
SHOWN_METRICS = ("validation/accuracy", "accuracy", "agreement", "loss")
"""The metrics of a running job that a line shows, the first that it has."""


def _summary() -> Any:
    """The summary of the report of a job that has succeeded, which is in its last event of the type log."""
    last = Event.job_id == Job.id, Event.seq > Job.event_seq - LAST_EVENTS, Event.type == "log"
    query = select(Event.data["summary"]).where(*last).order_by(Event.seq.desc()).limit(1).correlate(Job)
    return case((Job.status == JobStatus.SUCCEEDED, query.scalar_subquery())).label("summary")


def _newest(at: int, name: str) -> Any:
    """The newest value of a metric of a running job."""
    mine = Metric.job_id == Job.id, Metric.name == name
    query = select(Metric.value).where(*mine).order_by(Metric.step.desc()).limit(1).correlate(Job)
    return case((Job.status == JobStatus.RUNNING, query.scalar_subquery())).label(f"metric_{at}")


TAUGHT = aliased(Job)
"""The job whose student is the teacher."""
COLUMNS = (
    Job.id, Job.name, Job.labels, Job.status, Job.phase, Job.reason, Job.progress, Job.teacher_id, Job.created_at,
    Job.started_at, Job.finished_at, Job.experiment_id, Job.variant, Job.stopped_early,
    Teacher.name.label("teacher_name"), TAUGHT.name.label("taught_name"), Job.error["code"].as_string().label("code"),
    Job.resolved["student"]["network"].as_string().label("student"), Job.resolved["student"]["like"].as_string().label("like"),
    Job.resolved["student"]["width"].as_float().label("width"), Job.resolved["teacher"].label("teacher"),
    Key.name.label("owner"), _summary(), *(_newest(at, name) for at, name in enumerate(SHOWN_METRICS)),
)  # fmt: skip


class Along(Protocol):
    """A value that the statement of a list reads as one more column."""

    def column(self, dialect: str) -> ScalarSelect[Any]:
        """The column; its value is the same in every row."""

    def take(self, value: Any) -> None:
        """Use the value."""


@dataclass(frozen=True)
class JobLine:
    """A job in a table."""

    row: Row[Any]
    teacher: str
    student: str
    metric: tuple[str, float] | None
    """Name and value of the main metric, or of the newest one while the job runs."""
    teacher_metric: float | None
    size_ratio: float | None
    """Bytes of the student, divided by those of the teacher."""

    @property
    def fraction(self) -> float | None:
        """Completed fraction."""
        found = (self.row.progress or {}).get("fraction")
        return float(found) if isinstance(found, int | float) else None


def lines(
    key_id: str,
    window: Window,
    statuses: Sequence[JobStatus],
    name: str = "",
    experiment_id: str | None = None,
    along: Along | None = None,
) -> tuple[list[JobLine], str | None]:
    """One page of a key's jobs, newest first, and the cursor of the next page; `name` is a part of their names."""
    query = (
        select(*COLUMNS)
        .join(Key, Key.id == Job.key_id)
        .outerjoin(Teacher, Teacher.id == Job.teacher_id)
        .outerjoin(TAUGHT, and_(TAUGHT.id == Job.resolved["teacher"].as_string(), TAUGHT.key_id == Job.key_id))
        .where(Job.key_id == key_id, Job.deleted_at.is_(None))
    )
    if statuses:
        query = query.where(Job.status.in_(statuses))
    if name:
        query = query.where(Job.name.icontains(name, autoescape=True))
    if experiment_id is not None:
        query = query.where(Job.experiment_id == experiment_id)
    with reading() as session:
        if along is not None:
            query = query.add_columns(along.column(session.get_bind().dialect.name).label("along"))
        query = query.where(*window.labelled(session, Job.labels), *window.within(Job.created_at))
        rows, cursor = window.rows(session, query, Job.id)
    if along is not None and rows:
        along.take(rows[0].along)
    return [_line(row) for row in rows], cursor


def job_now(key_id: str, job_id: str, along: Along) -> Job:
    """The row of a job, by one statement.

    Raises:
        NotFound: the job does not exist or belongs to another key.
    """
    with reading() as session:
        query = select(Job, along.column(session.get_bind().dialect.name).label("along"))
        mine = Job.id == job_id, Job.key_id == key_id, Job.deleted_at.is_(None)
        row = session.execute(query.where(*mine)).one_or_none()
    if row is None:
        raise NotFound(f"The job {job_id} does not exist.")
    along.take(row.along)
    found: Job = row.Job
    return found


def _line(row: Row[Any]) -> JobLine:
    summary = row.summary if isinstance(row.summary, dict) else {}
    main = summary.get("main_metric") or {}
    metric = (str(main["name"]), float(main["student"])) if isinstance(main.get("student"), int | float) else None
    for name in ("agreement", "estimated_agreement"):
        if metric is None and isinstance(summary.get(name), int | float):
            metric = name, float(summary[name])
    if metric is None:
        values = [(name, row._mapping[f"metric_{at}"]) for at, name in enumerate(SHOWN_METRICS)]
        metric = next(((name, value) for name, value in values if value is not None), None)
    ours, theirs = summary.get("bytes"), summary.get("teacher_bytes")
    ratio = ours / theirs if isinstance(ours, int) and isinstance(theirs, int) and theirs else None
    student = student_words(row.student, row.like, row.width)
    return JobLine(row, _teacher(row), student, metric, main.get("teacher"), ratio)


def _teacher(row: Row[Any]) -> str:
    if row.teacher_id:
        return str(row.teacher_name or row.teacher_id)
    if row.taught_name:
        return f"student of {row.taught_name}"
    return teacher_words(row.teacher)


def teacher_words(teacher: Any) -> str:
    """The teacher of a resolved spec in words."""
    if isinstance(teacher, dict):
        members = teacher.get("members")
        return f"{len(members)} teachers" if isinstance(members, list) else str(teacher.get("network") or "a network")
    return str(teacher) if teacher else "none"


def named(key_id: str, given: Any) -> str:
    """The name of a teacher, a dataset or another job's student, if it is the key's; else the words for a teacher."""
    kind = KINDS.get(given[:4]) if isinstance(given, str) else None
    if kind is None:
        return teacher_words(given)
    with reading() as session:
        name = session.scalar(select(kind.name).where(kind.id == given, kind.key_id == key_id))
    if name is None:
        return str(given)
    return f"student of {name}" if kind is Job else name


def student_words(network: str | None, like: str | None, width: float | None) -> str:
    """The student of a resolved spec in words."""
    return network or (f"like the {like}, width {width if width is not None else 1:g}" if like else "–")
