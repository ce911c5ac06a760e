"""What event streams read: the changes of all jobs that are followed, by one statement."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import delete, event, update

from api.jobs.feed import Feeds
from api.jobs.feed_reads import BATCH, Followed, Update, read_updates
from api.jobs.schemas import MetricValue
from models.database import engine, transaction
from models.records import Event, Job, Key, Metric

JOBS = ("job_a", "job_b", "job_c")


@pytest.fixture(autouse=True)
def jobs(migrated: str) -> None:
    with transaction() as session:
        session.add(Key(id="key_1", name="x", hash="0" * 64, scopes=[]))
        session.flush()
        values: dict[str, Any] = {"key_id": "key_1", "name": "", "spec": {}, "resolved": {}, "status": "running"}
        session.add_all(Job(id=job, version=1, event_seq=0, **values) for job in JOBS)


def happen(job: str, events: int = 0, metrics: dict[str, list[float | None]] | None = None, **values: Any) -> None:
    """Events and metrics of a job, in one transaction as a worker writes them."""
    with transaction() as session:
        row = session.get_one(Job, job)
        data = {"name": "x.png"}
        session.add_all(
            Event(job_id=job, seq=row.event_seq + at, attempt=1, type="preview", message="", data=data)
            for at in range(1, events + 1)
        )
        for name, points in (metrics or {}).items():
            session.add_all(
                Metric(job_id=job, name=name, step=step, value=value, attempt=1) for step, value in enumerate(points)
            )
        session.execute(
            update(Job).where(Job.id == job).values(version=Job.version + 1, event_seq=Job.event_seq + events, **values)
        )


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that are sent meanwhile, without BEGIN."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement != "BEGIN":
            found.append(statement)

    event.listen(engine(), "before_cursor_execute", note)
    yield found
    event.remove(engine(), "before_cursor_execute", note)


def read(*followed: Followed) -> list[Update | None]:
    with counted() as statements:
        found = read_updates(followed)
    assert len(statements) == 1
    return found


def test_the_first_read_has_the_newest_metrics_and_no_event() -> None:
    happen("job_a", events=3, metrics={"loss": [3.0, 2.0], "Accuracy": [None]})
    first, none = read(Followed("job_a", "http://a"), Followed("job_b", "http://a"))
    newest = {"Accuracy": MetricValue(step=0, value=None), "loss": MetricValue(step=1, value=2.0)}
    assert first == Update(2, False, [], 3, newest) and list(first.metrics) == ["Accuracy", "loss"]
    assert none == Update(1, False, [], 0, {})


def test_only_what_a_reader_does_not_know_is_read() -> None:
    happen("job_a", events=2, metrics={"loss": [3.0]})
    happen("job_b", events=1)
    known = [
        Followed("job_a", "http://a", 2, 1),
        Followed("job_b", "http://a", 2, 1),
        Followed("job_c", "http://a", 1, 0),
    ]
    changed, *same = read(*known)
    assert changed is not None and same == [None, None]
    assert [message.seq for message in changed.messages] == [2] and changed.newest_seq == 2
    assert changed.metrics == {"loss": MetricValue(step=0, value=3.0)}
    assert b'"http://a/v1/jobs/job_a/previews/x.png"' in changed.messages[0].text
    happen("job_a", metrics={"accuracy": [0.5]})  # without an event
    later, *same = read(known[0]._replace(version=2, seq=2), *known[1:])
    assert later is not None and later.messages == [] and list(later.metrics) == ["accuracy", "loss"]
    assert (later.version, later.newest_seq, same) == (3, 2, [None, None])


def test_many_events_are_read_in_batches_and_each_reader_gets_its_own_links() -> None:
    happen("job_a", events=BATCH + 5, metrics={"loss": [1.0], "accuracy": [0.5]}, status="succeeded")
    here, there = read(Followed("job_a", "http://a", 1, 0), Followed("job_a", "http://b", 1, 203))
    assert here is not None and there is not None and here.final
    assert [message.seq for message in here.messages] == list(range(1, BATCH + 1))
    assert [message.seq for message in there.messages] == [204, 205] and here.metrics == there.metrics
    assert b"http://b/" in there.messages[0].text


def test_a_deleted_job_has_no_version() -> None:
    happen("job_a", events=1, deleted_at=1.0)
    with transaction() as session:
        session.execute(delete(Job).where(Job.id == "job_b"))
    found = read(Followed("job_a", "", 1, 0), Followed("job_b", "", 1, 0), Followed("job_c", "", 1, 0))
    assert [one and one.version for one in found] == [None, None, None] and found[2] is None
    assert found[0] is not None and found[1] is not None and found[0].final and not found[0].messages


def test_the_feeds_of_slow_streams_read_all_jobs_together_about_once_a_beat() -> None:
    seconds = 0.3

    async def follow() -> list[int | None]:
        feeds = Feeds()
        with feeds.joined("job_a", seconds) as one, feeds.joined("job_b", seconds) as other:
            await asyncio.gather(one.changed.wait(), other.changed.wait())
            with counted() as statements:
                began = time.monotonic()
                await asyncio.to_thread(happen, "job_b", events=1, metrics={"loss": [1.0]})
                await other.changed.wait()
                assert time.monotonic() - began < 10 * seconds
                await asyncio.sleep(10 * seconds)
                beats = (time.monotonic() - began) / seconds
            reads = sum(statement.startswith("WITH") for statement in statements)
            assert 2 <= reads <= beats + 2, "the jobs are read apart or too often"
            assert other.metrics_version == 1 and one.metrics_version == 0
            found = [one.seq, other.seq]
            feeds.close()
            assert one.ended and other.ended
        with feeds.joined("job_c") as late:
            assert late.ended
        return found

    assert asyncio.run(follow()) == [0, 1]
