"""How long a job will take, by earlier jobs that did the same for another number of steps or epochs."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models.records import Event, Job
from models.status import JobStatus

READ, USED = 100, 5
"""Newest jobs that are read, and at most used for each device."""
FIRST_EVENTS = 12
"""The event that names the device is among so many first ones of a job."""
SAME = ("task", "teacher", "dataset", "evaluation", "student", "source", "procedure", "transforms", "resources")
"""Fields of a resolved spec that must be equal, besides the objectives and the training without length and seed."""
TRAINS = "distilling"


@dataclass(frozen=True)
class Estimate:
    """Seconds from the start of a job to its end on a device (`cpu`, `cuda`), and from how many jobs they come."""

    device: str
    seconds: float
    jobs: int


def estimates(session: Session, key_id: str, resolved: Mapping[str, Any]) -> list[Estimate]:
    """The estimates for a job with this resolved spec, one for each device on which such a job of the key has succeeded.

    Of each earlier job, the time of training is scaled by the length of training; the rest is taken as it was. The estimate is
    the median of the newest jobs.
    """
    length, wanted = length_of(resolved), signature(resolved)
    if length is None:
        return []
    whole = Job.status == JobStatus.SUCCEEDED, Job.attempt == 1, Job.stopped_early.is_(None), Job.deleted_at.is_(None)
    columns = Job.id, Job.resolved, Job.phases, Job.started_at, Job.finished_at
    query = select(*columns).where(Job.key_id == key_id, *whole)
    alike = {}
    for row in session.execute(query.order_by(Job.id.desc()).limit(READ)):
        other = length_of(row.resolved)
        if other is not None and other[0] == length[0] and signature(row.resolved) == wanted:
            alike[row.id] = _seconds(row, length[1] / other[1])
    by_device: dict[str, list[float]] = defaultdict(list)
    devices = _devices(session, list(alike))
    for job_id, seconds in alike.items():
        if job_id in devices and len(by_device[devices[job_id]]) < USED:
            by_device[devices[job_id]].append(seconds)
    return [Estimate(device, median(known), len(known)) for device, known in sorted(by_device.items())]


def length_of(resolved: Mapping[str, Any]) -> tuple[str, float] | None:
    """The unit and the length of training; None if the procedure decides it."""
    training = resolved.get("training") or {}
    for unit in ("steps", "epochs"):
        value = training.get(unit)
        if isinstance(value, int | float) and value > 0:
            return unit, float(value)
    return None


def signature(resolved: Mapping[str, Any]) -> str:
    """What decides the duration of a step, as text."""
    training = {name: resolved.get("training", {}).get(name) for name in ("batch_size", "optimizer")}
    objectives = [{**each, "weight": None} for each in resolved.get("objectives") or ()]
    same = {name: resolved.get(name) for name in SAME}
    return json.dumps([same, objectives, training], sort_keys=True, default=str)


def _seconds(row: Any, times: float) -> float:
    whole = max(0.0, (row.finished_at or 0.0) - (row.started_at or 0.0))
    phase = (row.phases or {}).get(TRAINS) or {}
    trained = min(whole, max(0.0, (phase.get("ended_at") or 0.0) - (phase.get("started_at") or 0.0)))
    return whole - trained + trained * times


def _devices(session: Session, job_ids: list[str]) -> dict[str, str]:
    """The device of each job, without the number of a GPU."""
    first = Event.job_id.in_(job_ids), Event.seq <= FIRST_EVENTS, Event.type == "log"
    query = select(Event.job_id, Event.data["device"].as_string().label("device")).where(*first)
    return {row.job_id: row.device.partition(":")[0] for row in session.execute(query) if row.device}
