"""The API as a separate process, and helpers that write to its database and storage directly."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from api.access.auth import hash_key, make_key
from models.database import make_engine
from models.records import Artifact, Dataset, Event, Job, Key, Metric, Preview, Teacher
from models.records.columns import new_id
from models.settings import Settings
from models.storage.blobs import Storage
from models.storage.opening import open_storage
from tests.servers import _free_ports

PLAIN = ("jobs:read", "jobs:write", "uploads:read", "uploads:write")
"""Scopes of most keys."""
MANY = {"requests_a_minute": 1_000_000, "failures_a_minute": 1_000_000}
INPUT = {"channels": 1, "height": 32, "width": 32, "mean": [0.1307], "std": [0.3081]}
TEACHER = {"name": "digits", "network": "lenet5", "classes": 10, "input": INPUT}
FINDINGS = {"parameters": 61_706, "differentiable": True}


@dataclass
class Service:
    """A running API."""

    url: str
    process: subprocess.Popen[bytes]
    engine: Engine
    storage: Storage
    data: Path
    log: Path

    @contextmanager
    def rows(self) -> Iterator[Session]:
        """A transaction on its database."""
        with sessionmaker(self.engine, expire_on_commit=False)() as session, session.begin():
            yield session

    def new_key(self, **values: Any) -> tuple[str, str]:
        """A new key and its id."""
        key, key_id = make_key(), new_id("key")
        with self.rows() as session:
            session.add(Key(id=key_id, name="test", hash=hash_key(key), **({"scopes": list(PLAIN)} | values)))
        return key, key_id

    def user(self, **values: Any) -> "User":
        """A user with a new key."""
        return User(self, *self.new_key(**values))

    @property
    def peak_bytes(self) -> int:
        """Peak resident memory of the process."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


class User:
    """A key, an HTTP client that sends it, and rows of its own."""

    def __init__(self, service: Service, key: str, key_id: str):
        self.service, self.key, self.key_id = service, key, key_id
        self.http = httpx.Client(
            base_url=f"{service.url}/v1", headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        )

    def __enter__(self) -> "User":
        return self

    def __exit__(self, *exception: object) -> None:
        self.http.close()

    def teacher(self, status: str = "ready", found: dict[str, Any] | None = None, **values: Any) -> str:
        """A teacher in the state after its inspection; `found` adds to its findings."""
        findings = FINDINGS | (found or {}) if status == "ready" else None
        return self._add(Teacher, "tch", status=status, findings=findings, **(TEACHER | values))

    def dataset(self, status: str = "ready", found: dict[str, Any] | None = None, **values: Any) -> str:
        """A dataset in the state after its inspection; `found` adds to its findings."""
        findings = {
            "classes": 10, "image": {"channels": 1, "height": 32, "width": 32}, "splits": {"train": 100, "test": 20},
        }  # fmt: skip
        known = findings | (found or {}) if status == "ready" else None
        return self._add(Dataset, "dts", status=status, findings=known, name="digits", **values)

    def job(self, status: str = "queued", **values: Any) -> str:
        """A job in any state."""
        spec = {"teacher": None, "student": {"network": "lenet5_half"}}
        given = {"name": "half", "spec": spec, "resolved": spec, "version": 3, "event_seq": 0} | values
        return self._add(Job, "job", status=status, **given)

    def _add(self, record: Any, prefix: str, **values: Any) -> str:
        row = record(id=new_id(prefix), key_id=self.key_id, **values)
        with self.service.rows() as session:
            session.add(row)
        return str(row.id)

    def events(self, job_id: str, count: int, kind: str = "log", data: Any = None) -> None:
        """Append events, as a worker does."""
        with self.service.rows() as session:
            job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()
            for _ in range(count):
                job.event_seq += 1
                message = f"message {job.event_seq}"
                session.add(Event(job_id=job_id, seq=job.event_seq, attempt=1, type=kind, message=message, data=data))
            job.version += 1

    def change(self, job_id: str, **values: Any) -> None:
        """Change a job, as a worker does."""
        with self.service.rows() as session:
            job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()
            for name, value in values.items():
                setattr(job, name, value)
            job.version += 1

    def metrics(self, job_id: str, name: str, values: list[float | None]) -> None:
        """Values of a metric from step 1 on, written as a worker does."""
        with self.service.rows() as session:
            rows = [
                Metric(job_id=job_id, name=name, step=1 + at, value=value, attempt=1) for at, value in enumerate(values)
            ]
            session.add_all(rows)
        self.change(job_id)

    def blob(self, record: type[Artifact] | type[Preview], job_id: str, name: str, data: bytes, **values: Any) -> str:
        """A stored file of a job; returns its SHA-256."""
        key, sha256 = f"jobs/{job_id}/1/{name}", hashlib.sha256(data).hexdigest()
        self.service.storage.put(key, data)
        given = {"content_type": "application/octet-stream", "size": len(data), "sha256": sha256} | values
        prefix = "art" if record is Artifact else "prv"
        with self.service.rows() as session:
            session.add(record(id=new_id(prefix), job_id=job_id, attempt=1, name=name, key=key, **given))
        return sha256


@contextmanager
def running(folder: Path, **values: Any) -> Iterator[Service]:
    """`python -m api` with its own data folder and these settings; requires a clean exit and no failed request."""
    [port] = _free_ports(1)
    settings = {"data": folder / "data", "port": port, "broker_url": "filesystem://"} | MANY | values
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTILL_")}
    environment |= {f"DISTILL_{name.upper()}": str(value) for name, value in settings.items()}
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], env=environment, stdout=output, stderr=output, cwd=Path(__file__).parents[2]
        )
    known = Settings(_env_file=None, **settings)
    service = Service(
        f"http://127.0.0.1:{port}", process, make_engine(known.database), open_storage(known), known.data, log
    )
    try:
        _await(service)
        yield service
    finally:
        service.engine.dispose()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()
    assert process.returncode == 0, "the API did not exit cleanly"
    assert "request_failed" not in log.read_text(), log.read_text()


def _await(service: Service) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"{service.url}/health/live", trust_env=False).raise_for_status()
            return
        except httpx.TransportError:
            if service.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(service.log.read_text()) from None
            time.sleep(0.05)


def problem(response: httpx.Response, status: int, kind: str | None = None) -> dict[str, Any]:
    """The problem document of an error response; checks its fields."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["type"].startswith("urn:distillery:problem:")
    assert document["title"] and document["detail"]
    assert kind is None or document["type"] == f"urn:distillery:problem:{kind}"
    return document


def pointers(response: httpx.Response) -> list[str]:
    """The pointers of a 422."""
    return [error["pointer"] for error in problem(response, 422)["errors"]]
