"""What jobs measured: the summary of a finished job's report, as its last events hold it, and the newest metrics."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.jobs.newest_metrics import newest_metrics
from models.records import Event, Job
from models.status import JobStatus

LAST_EVENTS = 4
"""The summary is among so many last events of a job that has succeeded."""
IDS_AT_ONCE = 500


def summaries(session: Session, job_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The summaries of reports by job; without jobs that have not succeeded or whose events have expired."""
    found: dict[str, dict[str, Any]] = {}
    ids = list(job_ids)
    for start in range(0, len(ids), IDS_AT_ONCE):
        some = ids[start : start + IDS_AT_ONCE]
        newest = Event.seq > Job.event_seq - LAST_EVENTS
        query = select(Event.job_id, Event.data).join(Job, Job.id == Event.job_id)
        query = query.where(Job.id.in_(some), Job.status == JobStatus.SUCCEEDED, newest, Event.type == "log")
        for job_id, data in session.execute(query):
            if isinstance(data, dict) and isinstance(data.get("summary"), dict):
                found[job_id] = data["summary"]
    return found


def measured(session: Session, job_ids: Collection[str]) -> dict[str, dict[str, float]]:
    """Every number that is known of jobs, by job and name: the numbers of the report's summary, and the newest metrics."""
    metrics = newest_metrics(session, job_ids)
    known = summaries(session, job_ids)
    return {
        job_id: {name: one.value for name, one in metrics[job_id].items() if one.value is not None}
        | numbers_of(known.get(job_id, {}))
        for job_id in job_ids
    }


def numbers_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a summary by name; the task's main metric under its own name."""
    found = {name: float(value) for name, value in summary.items() if _is_number(value)}
    main = summary.get("main_metric")
    if isinstance(main, dict) and _is_number(main.get("student")):
        found[str(main["name"])] = float(main["student"])
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
