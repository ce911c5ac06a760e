"""What a worker does with an MLflow server that refuses or is silent, and what it would send. test_server.py has a real server."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from sqlalchemy import select, update

from models.database import now, reading, transaction
from models.records import Job, MlflowRun
from models.settings import Settings
from tests.worker.attempt.test_job import eventually
from tests.worker.scenes import change, get, make_job, rows, run_next
from worker.ledger.changes import Taken
from worker.mlflow import contents
from worker.mlflow import rows as due
from worker.mlflow.mirror import Mirror, visit_next
from worker.mlflow.server import MlflowError, Server, Unreachable


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that answers everything with a 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def make_due() -> None:
    with transaction() as session:
        session.execute(update(MlflowRun).values(due_at=0.0))


def test_without_a_server_nothing_is_written(embedded: None) -> None:
    make_job(steps=1)
    run_next()
    assert rows(MlflowRun) == [] and not visit_next()


def test_a_server_that_refuses_or_is_silent_changes_no_job(
    both: None, configure: Callable[..., Any], silent: str, refusing: str
) -> None:
    configure(mlflow_tracking_uri=refusing, mlflow_seconds=0.3)
    job_id = make_job(steps=2)
    assert run_next().status == "succeeded"
    assert visit_next()
    (row,) = rows(MlflowRun)
    assert (row.job_id, row.status, row.failures, row.attempt) == (job_id, "pending", 1, 1) and "500" in row.error
    make_due()
    configure(mlflow_tracking_uri=silent, mlflow_seconds=0.3)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        visit_next()
    assert time.monotonic() - began < 5
    (row,) = rows(MlflowRun)
    assert row.failures == 2 and row.run_id is None
    with reading() as session:
        assert row.due_at > session.scalars(select(now())).one() + due.INTERVAL_SECONDS  # pauses become longer
    assert get(Job, job_id).status == "succeeded" and not visit_next()


def test_sending_is_given_up_long_after_the_end(both: None, configure: Callable[..., Any], refusing: str) -> None:
    configure(mlflow_tracking_uri=refusing)
    job_id = make_job(steps=1)
    run_next()
    change(Job, job_id, finished_at=Job.finished_at - due.TRY_SECONDS - 10)
    assert visit_next()
    (row,) = rows(MlflowRun)
    assert row.status == "failed" and row.finished_at is not None
    assert not visit_next()


def test_one_worker_at_a_time_visits_a_run(both: None, configure: Callable[..., Any]) -> None:
    configure(mlflow_tracking_uri="http://127.0.0.1:9")
    make_job(steps=1)
    run_next()
    first = due.claim()
    assert first is not None and due.claim() is None
    make_due()
    second = due.claim()
    assert second is not None and second.attempt == 2
    for write in (due.keep, due.release, due.end, lambda run: due.fail(run, "late")):
        with pytest.raises(Taken):
            write(first)
    due.end(second)
    (row,) = rows(MlflowRun)
    assert row.status == "sent"


def test_a_worker_stops_at_once_while_a_server_is_silent(
    embedded: None, configure: Callable[..., Any], silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.mlflow.mirror.FAREWELL_SECONDS", 0.2)
    configure(mlflow_tracking_uri=silent, mlflow_seconds=2.0)
    make_job(steps=1)
    run_next()
    with Mirror():
        eventually(lambda: rows(MlflowRun)[0].attempt == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 1.5
    eventually(lambda: rows(MlflowRun)[0].failures == 1, 10.0)


def test_values_are_sent_once_by_step_and_infinite_ones_not_at_all(both: None) -> None:
    job_id = make_job(steps=4)
    run_next()
    with reading() as session:
        found = contents.unsent_values(session, job_id, {"loss": 2})
        sent = {row.name: row.step for row in found}
        assert [row.step for row in found if row.name == "loss"] == [3, 4]
        assert contents.unsent_values(session, job_id, sent) == []
    entries = contents.entries(found)
    assert {one["key"] for one in entries} == {"loss"} and "broken" in sent  # `broken` is NaN
    assert entries[0]["value"] == 1 / 3 and entries[0]["timestamp"] > 1e12


def test_parameters_have_flat_names_and_no_secret() -> None:
    spec = {
        "name": "mine", "webhook": {"url": "https://example.org/?token=secret"}, "student": {"network": "lenet5"},
        "objectives": [{"name": "kd", "weight": 0.9}], "training": {"seed": 0, "milestones": [1, 2], "x": None},
        "odd:name": "v" * 9999, "empty": "",
    }  # fmt: skip
    found = contents.parameters(spec)
    assert found == {
        "student.network": "lenet5", "objectives.0.name": "kd", "objectives.0.weight": "0.9", "training.seed": "0",
        "training.milestones": "[1, 2]", "training.x": "null", "odd_name": "v" * contents.TEXT_CHARACTERS,
    }  # fmt: skip
    assert len(contents.parameters({"a": {str(at): at for at in range(9999)}})) == contents.MOST_PARAMETERS


@pytest.mark.parametrize("uri", ["mlflow.example.com", "file:///tmp", "http://"])
def test_another_address_than_that_of_a_server_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="mlflow_tracking_uri"):
        Settings(_env_file=None, mlflow_tracking_uri=uri)


def test_errors_name_no_password(refusing: str) -> None:
    uri = refusing.replace("http://", "http://me:secret@")
    with (
        Server(Settings(_env_file=None, mlflow_tracking_uri=uri)) as server,
        pytest.raises(MlflowError, match="500") as caught,
    ):
        server.experiment("x")
    assert "secret" not in str(caught.value)
