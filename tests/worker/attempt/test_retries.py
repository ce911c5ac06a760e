"""Retries of an attempt whose database or storage is unavailable, and their limits."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from models.database import transaction
from models.records import Attempt, Job, Metric
from models.settings import settings
from models.storage.errors import Unavailable
from models.storage.opening import storage
from tests.worker.attempt.test_life import refused
from tests.worker.scenes import change, claimed, get, in_thread, make_job, rows
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.end_requests import EndRequested, EndRequests
from worker.attempt.lease import Lease
from worker.ledger.attempts import AttemptLedger, EventBatch
from worker.ledger.changes import Taken

UNAVAILABLE = "ALTER TABLE jobs RENAME TO jobs_away"
BACK = "ALTER TABLE jobs_away RENAME TO jobs"
BATCH = EventBatch(metrics={("loss", 1): 0.5})


class Held:
    """A lease that is held until the test takes it."""

    def __init__(self) -> None:
        self.asked, self.taken = 0, threading.Event()

    def check_held(self) -> None:
        self.asked += 1
        if self.taken.is_set():
            raise Taken("job")


def run_sql(statement: str) -> None:
    with transaction() as session:
        session.execute(text(statement))


def test_writes_are_retried_while_the_lease_is_held(embedded: None) -> None:
    job_id, lease = make_job(), Held()
    ledger = AttemptLedger(job_id, claimed().attempt, lease)
    run_sql(UNAVAILABLE)
    thread = in_thread(lambda: ledger.write(BATCH))
    until(lambda: lease.asked >= 2)
    run_sql(BACK)
    thread.join(10)
    assert not thread.is_alive()
    assert [row.value for row in rows(Metric, job_id=job_id)] == [0.5]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_retries_end_with_the_lease(embedded: None) -> None:
    job_id, lease, ended = make_job(), Held(), []
    ledger = AttemptLedger(job_id, claimed().attempt, lease)

    def write() -> None:
        with pytest.raises(Taken):
            ledger.fail({"message": "no", "code": "x", "fault": "job", "hint": "", "errors": []}, None)
        ended.append(True)

    run_sql(UNAVAILABLE)
    thread = in_thread(write)
    until(lambda: lease.asked >= 2)
    lease.taken.set()
    thread.join(10)
    run_sql(BACK)
    assert ended == [True] and get(Job, job_id).status == "running"


def test_writes_between_events_are_not_retried(embedded: None) -> None:
    lease = Held()
    ledger = AttemptLedger(make_job(), claimed().attempt, lease)
    run_sql(UNAVAILABLE)
    began = time.monotonic()
    with pytest.raises(Exception, match="no such table"):
        ledger.try_to_write(BATCH)
    assert time.monotonic() - began < 5 and lease.asked == 0
    run_sql(BACK)


def test_a_ledger_without_a_lease_does_not_retry(embedded: None) -> None:
    ledger = AttemptLedger(make_job(), claimed().attempt)
    run_sql(UNAVAILABLE)
    with pytest.raises(Exception, match="no such table"):
        ledger.cancel(None)
    run_sql(BACK)


def test_fencing_refuses_writes_even_if_the_lease_seems_held(both: None) -> None:
    job_id = make_job()
    ledger = AttemptLedger(job_id, claimed().attempt, Held())
    change(Job, job_id, attempt=7)
    for write in (lambda: ledger.write(BATCH), lambda: ledger.cancel(None), lambda: ledger.keep_log("key")):
        with pytest.raises(Taken):
            write()
    assert rows(Metric, job_id=job_id) == [] and get(Job, job_id).status == "running"


def test_a_new_log_is_a_new_version_and_the_same_log_is_not(both: None) -> None:
    job_id = make_job()
    ledger = AttemptLedger(job_id, claimed().attempt)
    versions = [get(Job, job_id).version]
    for key in ("one", "one", "two"):
        ledger.keep_log(key)
        versions.append(get(Job, job_id).version)
    assert [version - versions[0] for version in versions] == [0, 1, 1, 2]
    assert [row.log_key for row in rows(Attempt, job_id=job_id)] == ["two"]


def test_storage_operations_are_retried(embedded: None, tmp_path: Path) -> None:
    checks: list[int] = []
    patient = AttemptStorage(lambda: checks.append(1), 30.0)
    storage().put("a", b"bytes")
    with refused():
        thread = in_thread(lambda: patient.download("a", tmp_path / "a"))
        until(lambda: len(checks) >= 3)
    thread.join(10)
    assert (tmp_path / "a").read_bytes() == b"bytes"


def test_storage_operations_fail_after_the_patience(embedded: None, configure: Callable[..., Any]) -> None:
    with refused():
        for patience in (0.0, 1.0):
            checks, began = [], time.monotonic()
            with pytest.raises(Unavailable):
                AttemptStorage(lambda checks=checks: checks.append(1), patience).size("a")
            assert (len(checks) == 1) == (patience == 0.0)  # one try without retries, several with
            assert time.monotonic() - began < patience + 5
        configure(data=settings().data, storage_patience_seconds=0.0)
        with pytest.raises(Unavailable):
            AttemptStorage(lambda: None).delete("a")  # retries for as long as the setting says


def test_a_drain_ends_the_retries_and_nearly_finished_work_has_a_grace_period(
    embedded: None, configure: Callable[..., Any], draining: threading.Event
) -> None:
    configure(drain_grace_seconds=0.3)
    make_job()
    with Lease(claimed()) as lease:
        requests = EndRequests(lease, draining)
        requests.check()
        draining.set()
        with pytest.raises(EndRequested) as asked:
            requests.check()
        assert asked.value.request == "drain"
        requests.check_with_grace()
        with pytest.raises(EndRequested):
            until(lambda: requests.check_with_grace() is not None)
        lease.cancelled.set()
        with pytest.raises(EndRequested) as asked:
            requests.check_with_grace()
        assert asked.value.request == "cancel"  # a cancel has priority over a drain
        lease.give_up()
        with pytest.raises(Taken):
            requests.check()
