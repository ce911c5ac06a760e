"""The artifact `tensorboard/…`: the metrics of a whole job, those of its earlier attempts too, as an event file."""

from worker.attempt.scalar_events import record, scalar, version
from worker.ledger.attempts import AttemptLedger

MOST_VALUES = 200_000
"""Most values in an event file, in the order of names and steps."""
CONTENT_TYPE = "application/octet-stream"


def event_file(ledger: AttemptLedger) -> tuple[str, bytes] | None:
    """Name and bytes of the event file of a job; None without a metric."""
    rows = ledger.metrics(MOST_VALUES)
    if not rows:
        return None
    began = min(row.created_at for row in rows)
    events = [version(began), *(scalar(row.name, row.step, row.value, row.created_at) for row in rows)]
    return f"tensorboard/events.out.tfevents.{began:.0f}.{ledger.job_id}", b"".join(map(record, events))
