"""The newest value of every metric of a job, found with a loose index scan, so its cost does not depend on the steps."""

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from api.jobs.schemas import MetricValue
from models.records import Metric


def newest_metrics(session: Session, job_id: str) -> dict[str, MetricValue]:
    """The newest values by name: two index lookups per name, where GROUP BY would read every row."""
    mine = Metric.job_id == job_id
    in_order = select(Metric.name).order_by(Metric.name).limit(1)
    names = select(in_order.where(mine).scalar_subquery().label("name")).cte("names", recursive=True)
    following = in_order.where(mine, Metric.name > names.c.name).correlate(names).scalar_subquery()
    names = names.union_all(select(following).where(names.c.name.is_not(None)))
    steps = select(Metric.step).where(mine, Metric.name == names.c.name).order_by(Metric.step.desc()).limit(1)
    newest = and_(mine, Metric.name == names.c.name, Metric.step == steps.correlate(names).scalar_subquery())
    rows = session.execute(select(Metric.name, Metric.step, Metric.value).join_from(names, Metric, newest))
    return {row.name: MetricValue(step=row.step, value=row.value) for row in sorted(rows, key=lambda row: row.name)}
