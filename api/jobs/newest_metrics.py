"""The newest value of every metric of jobs, found with a loose index scan, so its cost does not depend on the steps."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BindParameter, Select, and_, bindparam, select
from sqlalchemy.orm import Session

from api.jobs.schemas import MetricValue
from models.records import Job, Metric


def newest_of(ids: BindParameter[Any] | Select[Any]) -> Select[Any, Any, Any, Any]:
    """A query of the newest values of these jobs (`job_id`, `name`, `step`, `value`): three index lookups per name, where
    GROUP BY would read every row."""
    in_order = select(Metric.name).order_by(Metric.name).limit(1)
    first = in_order.where(Metric.job_id == Job.id).correlate(Job).scalar_subquery()
    jobs = select(Job.id.label("job_id"), first.label("name")).where(Job.id.in_(ids))
    names = jobs.cte("names", recursive=True)
    mine = Metric.job_id == names.c.job_id
    following = in_order.where(mine, Metric.name > names.c.name).correlate(names).scalar_subquery()
    names = names.union_all(select(names.c.job_id, following).where(names.c.name.is_not(None)))
    mine = and_(Metric.job_id == names.c.job_id, Metric.name == names.c.name)
    step, value = (
        select(column).where(mine).order_by(Metric.step.desc()).limit(1).correlate(names).scalar_subquery()
        for column in (Metric.step, Metric.value)
    )
    newest = select(names.c.job_id, names.c.name, step.label("step"), value.label("value"))
    return newest.where(names.c.name.is_not(None))


NEWEST = newest_of(bindparam("jobs", expanding=True))


def newest_metrics(session: Session, job_ids: Iterable[str]) -> dict[str, dict[str, MetricValue]]:
    """The newest values of these jobs, by job and name."""
    found: dict[str, dict[str, MetricValue]] = {job_id: {} for job_id in job_ids}
    rows = session.execute(NEWEST, {"jobs": list(found)}).all() if found else []
    for row in sorted(rows, key=lambda row: row.name):
        found[row.job_id][row.name] = MetricValue(step=row.step, value=row.value)
    return found
