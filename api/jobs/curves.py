"""The curves of a job: steps and values of every metric, thinned to what a chart can show."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from api.jobs.service import find
from models.database import reading
from models.records import Metric

MOST_POINTS = 600
"""Most points of one curve; of more, every second, third, … is shown, and always the last."""
MOST_VALUES = 400_000
"""Most values that are read of one job."""


def curves(key_id: str, job_id: str) -> dict[str, Any]:
    """`{metric: [steps, values]}` of a job, those of the whole before those of parts (`kd/loss`); a value that was infinite or NaN
    is null.

    Raises:
        NotFound: the job does not exist or belongs to another key.
    """
    found: dict[str, tuple[list[int], list[float | None]]] = defaultdict(lambda: ([], []))
    with reading() as session:
        find(session, key_id, job_id)
        query = select(Metric.name, Metric.step, Metric.value).where(Metric.job_id == job_id)
        for name, step, value in session.execute(query.order_by(Metric.name, Metric.step).limit(MOST_VALUES)):
            found[name][0].append(step)
            found[name][1].append(value)
    names = sorted(found, key=lambda name: ("/" in name and not name.startswith("validation/"), name))
    return {name: [thinned(each) for each in found[name]] for name in names}


def thinned(values: Sequence[Any], most: int = MOST_POINTS) -> list[Any]:
    """At most `most` of these values, evenly spaced, with the last one."""
    stride = -(-len(values) // most) if values else 1
    kept = list(values[::stride])
    if values and (len(values) - 1) % stride:
        kept[-1 if len(kept) == most else len(kept) :] = [values[-1]]
    return kept
