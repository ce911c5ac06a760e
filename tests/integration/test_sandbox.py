"""Hostile code in the engine's process reaches nothing. Without the sandbox it does, which shows that the attacks work."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from models.records import Dataset, Job, Worker
from models.settings import settings
from tests.worker.attempt.test_job import eventually
from tests.worker.scenes import claimed, events, get, make_job, make_upload, rows
from worker.attempt.inspection import run_inspection
from worker.distillation.sandbox import landlock
from worker.engine.engine_start import forks
from worker.engine.sandbox_probe import establish

ROOT = Path(__file__).parents[2]
HOSTILE = (sys.executable, "-P", "-m", "tests.integration.hostile_engine")
MARK = "a-secret-that-only-the-service-knows"
NEVER = {"own environment", "own descriptors"}
"""Not reachable even for an unconfined engine."""
ONLY_BY_ROOT = {
    "environments", "parent's environment", "parent's memory", "parent's memory by a call", "parent's descriptors",
    "a descriptor of the parent", "trace the parent",
}  # fmt: skip
"""Without a sandbox only root can reach these, since the worker hides its memory."""
UNCERTAIN = {"list /root", "list /home", "IPv6", "io_uring", "other namespaces", "a name server"}
"""Whether these can be reached without a sandbox depends on the machine."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or landlock.version() < 6,
    reason="THE SANDBOX IS NOT TESTED HERE: it needs Linux 6.12 or newer with Landlock",
)


@pytest.fixture
def targets(tmp_path: Path, migrated_postgres: str, redis_url: str, s3: Any, configure: Any) -> Iterator[str]:
    """The targets, as JSON: secrets in files and in the worker's environment, and listening servers."""
    configure(broker_url=redis_url, storage_secret_key=MARK, sweep_seconds=0.2)
    data = settings().data
    secret = {
        "database": data / "distillery.db",
        "key": data / "key",
        "blob": data / "blobs" / "tch_another.safetensors",
        "another": data / "work" / "job_another" / "1" / "inputs" / "teacher.safetensors",
        "settings": tmp_path / ".secrets" / "distillery.env",
        "temporary": Path("/tmp") / f"{MARK}-{os.getpid()}",
    }
    for file in secret.values():
        for name in (file, Path(f"{file}.cut")):
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_text(MARK)
    unix = f"/tmp/{MARK[:8]}-{os.getpid()}"
    abstract = f"{MARK}-{os.getpid()}"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as unnamed,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        listener.bind(unix)
        unnamed.bind(f"\0{abstract}")
        datagrams.bind(("127.0.0.1", 0))
        listener.listen()
        unnamed.listen()
        yield json.dumps(
            {
                "mark": MARK,
                "data": str(data),
                "files": {name: str(file) for name, file in secret.items()},
                "tcp": {name: address(url) for name, url in tcp_servers(migrated_postgres, redis_url, s3).items()},
                "unix": {"a Unix socket": unix} | postgres_socket(migrated_postgres),
                "abstract": abstract,
                "udp": datagrams.getsockname(),
            }
        )
    for file in (secret["temporary"], Path(f"{secret['temporary']}.cut"), Path(unix)):
        file.unlink()


def tcp_servers(postgres: str, redis: str, s3: Any) -> dict[str, str]:
    found = {"Redis": redis, "S3": s3.endpoint}
    return found | ({"Postgres": postgres} if urlsplit(postgres).hostname else {})


def address(url: str) -> tuple[str | None, int]:
    return urlsplit(url).hostname, urlsplit(url).port or 5432


def postgres_socket(url: str) -> dict[str, str]:
    """Postgres's Unix socket, if it has one; a packaged Postgres has no other address."""
    folders = ["/var/run/postgresql", *parse_qs(urlsplit(url).query).get("host", [])]
    sockets = [str(socket) for folder in folders for socket in Path(folder).glob(".s.PGSQL.*") if socket.is_socket()]
    return {"Postgres's socket": sockets[-1]} if sockets else {}


@contextmanager
def worker(kind: str, **environment: str) -> Iterator[None]:
    code = f"from worker.app import configure_logging, serve; configure_logging(); exit(serve({kind!r}, {HOSTILE!r}))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    fresh = {"DISTILL_ENGINE_START": "fresh"}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | fresh | environment) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


def found_by(error: dict[str, Any]) -> dict[str, str | None]:
    assert error["code"] == "hostile", error
    return json.loads(error["message"])


def test_hostile_code_reaches_nothing_that_it_reaches_without_the_sandbox(targets: str) -> None:
    job, upload = make_job(**json.loads(targets)), make_upload(b"images", targets=targets)
    with worker("distill", DISTILL_SANDBOX="required"), worker("inspect", DISTILL_SANDBOX="off"):
        eventually(lambda: get(Job, job).status == "failed", 60.0)
        eventually(lambda: get(Dataset, upload).status == "rejected", 60.0)
    confined, free = found_by(get(Job, job).error), found_by(get(Dataset, upload).problem)
    assert {name: found for name, found in confined.items() if found is not None} == {}
    (said,) = [event.data for event in events(job, "log") if "sandbox" in event.message]
    assert said["filesystem"].startswith("landlock") and said["network"] == "none" and said["memory"] == "hidden"

    hidden = NEVER | UNCERTAIN | (ONLY_BY_ROOT if os.geteuid() else set())
    assert {name for name, found in free.items() if found is None} <= hidden
    assert {name: free[name] for name in NEVER} == dict.fromkeys(NEVER)
    assert confined.keys() == free.keys()


@pytest.mark.slow
def test_a_forked_engine_that_inspects_is_confined_too(targets: str, configure: Any) -> None:
    configure(engine_start="fork")
    subject = make_upload(b"images", targets=targets)
    with forks.open(HOSTILE, training=False):
        run_inspection(claimed("inspect"), threading.Event(), HOSTILE)
    confined = found_by(get(Dataset, subject).problem)
    assert {name: found for name, found in confined.items() if found is not None} == {}


def test_in_production_a_worker_with_unconfined_engines_does_not_start(
    configure: Callable[..., Any], migrated_sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of the test at startup counts, not the kernel's features: here the service's files are in a library folder, which engines can read."""
    configure(environment="production")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(settings().data))
    command = [sys.executable, "-W", "ignore", "-m", "worker", "--kind", "inspect"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1 and rows(Worker) == []
    assert f"the engine can read {settings().data}" in refused.stderr and "DISTILL_SANDBOX=preferred" in refused.stderr

    configure(sandbox="preferred")
    found = establish("inspect")
    assert (found["filesystem"], found["network"]) == ("open", "none") and "can read" in found["why"][0]
    monkeypatch.delenv("LD_LIBRARY_PATH")
    configure(sandbox="required")
    assert establish("inspect")["why"] == []
