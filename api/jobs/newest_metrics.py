"""The newest value of every metric of a job, found by jumps in the index, however long the series are."""

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from api.jobs.schemas import Figure
from models.records import Metric


def newest_figures(session: Session, job_id: str) -> dict[str, Figure]:
    """By name; two look-ups in the primary key for each name, where grouping would read every row."""
    mine = Metric.job_id == job_id
    in_order = select(Metric.name).order_by(Metric.name).limit(1)
    names = select(in_order.where(mine).scalar_subquery().label("name")).cte("names", recursive=True)
    following = in_order.where(mine, Metric.name > names.c.name).correlate(names).scalar_subquery()
    names = names.union_all(select(following).where(names.c.name.is_not(None)))
    steps = select(Metric.step).where(mine, Metric.name == names.c.name).order_by(Metric.step.desc()).limit(1)
    newest = and_(mine, Metric.name == names.c.name, Metric.step == steps.correlate(names).scalar_subquery())
    rows = session.execute(select(Metric.name, Metric.step, Metric.value).join_from(names, Metric, newest))
    return {row.name: Figure(step=row.step, value=row.value) for row in sorted(rows, key=lambda row: row.name)}
