"""What MLflow shows of a job: parameters from its resolved spec, tags, metrics, and the numbers of its report."""

import json
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.records import Event, Job, Metric

HIDDEN = ("webhook", "name", "labels", "reasons")
"""Fields of a resolved spec that are no parameters. The URL of a webhook may hold a secret."""
MOST_PARAMETERS = 400
TEXT_CHARACTERS = 500
"""Longest value of a parameter that every version of MLflow takes."""
NAME_CHARACTERS = 250
MOST_VALUES = 5000
"""Most values of metrics that one visit sends."""
LAST_EVENTS = 4
"""The summary of the report is among so many last events of a job that has succeeded."""
FORBIDDEN = re.compile(r"[^\w\-. /]", re.ASCII)
STATUSES = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


def name_of(text: str) -> str:
    """A text as the name of a parameter, a metric or a tag."""
    return FORBIDDEN.sub("_", text).strip("/.")[:NAME_CHARACTERS] or "_"


def parameters(resolved: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of a job by name: `training.steps`, `objectives.0.name`."""
    found = _flat({name: value for name, value in resolved.items() if name not in HIDDEN})
    return dict(list(found.items())[:MOST_PARAMETERS])


def _flat(value: Any, at: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        pairs = [(str(name), each) for name, each in value.items()]
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        pairs = [(str(number), each) for number, each in enumerate(value)]
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return {name_of(at): text[:TEXT_CHARACTERS]} if text else {}
    return {key: text for name, each in pairs for key, text in _flat(each, f"{at}.{name}" if at else name).items()}


def tags(job: Job, key_name: str) -> dict[str, str]:
    """The tags of a job's run."""
    said = {"mlflow.user": key_name, "distillery.experiment": job.experiment_id, "distillery.variant": job.variant}
    labels = {name_of(f"label.{name}"): str(value) for name, value in job.labels.items()}
    return {name: value[:TEXT_CHARACTERS] for name, value in (labels | said).items() if value}


def end_tags(job: Job, unsent: list[str]) -> dict[str, str]:
    """The tags of the run of a job that has ended; `unsent` are artifacts that are only in the service."""
    error = job.error or {}
    said = {
        "distillery.status": job.status,
        "distillery.error": f"{error.get('code')}: {error.get('message')}" if error else "",
        "distillery.files_not_copied": ", ".join(unsent),
    }
    return {name: value[:TEXT_CHARACTERS] for name, value in said.items() if value}


def unsent_values(session: Session, job_id: str, sent: Mapping[str, int]) -> list[Any]:
    """Values of metrics (name, step, value, created_at) with later steps than those sent, by name and step, at most `MOST_VALUES`.

    A resumed job computes the same values again, so earlier steps need not be sent twice.
    """
    found: list[Any] = []
    mine, name = Metric.job_id == job_id, ""
    columns = Metric.name, Metric.step, Metric.value, Metric.created_at
    while len(found) < MOST_VALUES:
        following = select(Metric.name).where(mine, Metric.name > name).order_by(Metric.name).limit(1)
        if (name := session.scalar(following) or "") == "":
            break
        later = mine, Metric.name == name, Metric.step > sent.get(name, -1)
        query = select(*columns).where(*later).order_by(Metric.step).limit(MOST_VALUES - len(found))
        found.extend(session.execute(query).all())
    return found


def entries(rows: list[Any]) -> list[dict[str, Any]]:
    """Values of metrics as MLflow reads them; values that were infinite or NaN are left out."""
    return [
        {"key": name_of(row.name), "value": row.value, "timestamp": milliseconds(row.created_at), "step": row.step}
        for row in rows
        if row.value is not None
    ]


def result_entries(session: Session, job: Job, step: int) -> list[dict[str, Any]]:
    """The numbers of a succeeded job's report, under `result/`."""
    last = Event.job_id == job.id, Event.seq > job.event_seq - LAST_EVENTS, Event.type == "log"
    data = [one for one in session.scalars(select(Event.data).where(*last)) if one and "summary" in one]
    summary: dict[str, Any] = data[-1]["summary"] if data else {}
    main = summary.get("main_metric")
    if isinstance(main, dict):
        summary = summary | {main["name"]: main.get("student"), f"teacher_{main['name']}": main.get("teacher")}
    at = milliseconds(job.finished_at or 0.0)
    return [
        {"key": name_of(f"result/{name}"), "value": float(value), "timestamp": at, "step": step}
        for name, value in summary.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def milliseconds(seconds: float) -> int:
    """A time in the unit of MLflow."""
    return round(seconds * 1000)
