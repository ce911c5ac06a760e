"""Health, metrics, the catalogue, and how the service starts and stops."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, update

from models.records import Attempt, Inspection, Worker
from models.spec.catalogue import catalogue
from tests.api.jobs.test_outputs import Stream
from tests.api.service import Service, User, running


def test_readiness_lists_the_running_workers(service: Service) -> None:
    now = time.time()
    about = {"sandbox": {"filesystem": "landlock-7", "network": "none", "why": []}}
    with service.rows() as session:
        session.execute(update(Worker).values(left_at=now))  # workers left by other tests
        session.add(
            Worker(id=f"w-{now}", kind="distill", host="here", process=1, about=about, busy_with="job_1", seen_at=now)
        )
        session.add(Worker(id=f"gone-{now}", kind="distill", host="here", process=1, seen_at=now - 3600))
        session.add(Worker(id=f"left-{now}", kind="distill", host="here", process=1, seen_at=now, left_at=now))
    assert httpx.get(f"{service.url}/health/live", trust_env=False).json() == {"status": "alive"}
    ready = httpx.get(f"{service.url}/health/ready", trust_env=False)
    assert ready.status_code == 200, ready.text
    assert ready.json()["checks"] == {"database": "ok", "storage": "ok", "broker": "ok"}
    [worker] = ready.json()["workers"]
    assert (worker["kind"], worker["busy"], worker["about"]) == ("distill", True, about)
    assert ready.json()["warnings"] == []
    about["sandbox"] |= {"filesystem": "open", "why": ["this kernel has no Landlock"]}
    with service.rows() as session:
        session.execute(update(Worker).where(Worker.id == f"w-{now}").values(about=about))
    warnings = httpx.get(f"{service.url}/health/ready", trust_env=False).json()["warnings"]
    assert warnings == ["the engines of the distill worker on here run without a sandbox: this kernel has no Landlock"]
    about |= {"sandbox": {"filesystem": "landlock-7", "network": "none"}, "free_bytes": 5, "least_free_bytes": 6}
    with service.rows() as session:
        session.execute(update(Worker).where(Worker.id == f"w-{now}").values(about=about))
        session.add(Worker(id=f"slot-{now}", kind="distill", host="here", process=1, about=about, seen_at=now))
    warnings = httpx.get(f"{service.url}/health/ready", trust_env=False).json()["warnings"]
    words = "the distill worker on here claims nothing: its disk has 5 bytes free, fewer than 6; free some space"
    assert warnings == [words]  # once, though the worker has two slots
    about |= {"free_bytes": 7, "memory_limit": "none"}
    with service.rows() as session:
        session.execute(update(Worker).where(Worker.left_at.is_(None)).values(about=about))
    [warning] = httpx.get(f"{service.url}/health/ready", trust_env=False).json()["warnings"]
    assert warning.startswith("nothing limits the memory of jobs of the distill worker on here")
    about |= {"free_bytes": 7, "memory_limit": "cgroup", "clock_seconds_off": -3600}
    with service.rows() as session:
        session.execute(update(Worker).where(Worker.left_at.is_(None)).values(about=about))
    [warning] = httpx.get(f"{service.url}/health/ready", trust_env=False).json()["warnings"]
    assert warning.startswith("the clock of the distill worker on here is -3600 s off")
    with service.rows() as session:
        session.execute(update(Worker).values(left_at=now))


def scrape(service: Service) -> dict[tuple[str, ...], float]:
    """The exported values by name and labels; labels are ordered by their names."""
    response = httpx.get(f"{service.url}/metrics", trust_env=False)
    return {
        (sample.name, *(label for _, label in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_metrics_cover_requests_jobs_queues_workers_and_failures(service: Service, user: User) -> None:
    user.job("running")
    user.http.get(f"/jobs/{user.job(ready=True, created_at=time.time() - 500)}")
    failed = user.job("failed", error={"code": "poison", "fault": "service"}, finished_at=time.time() - 5)
    user.job("failed", error={"code": "old", "fault": "job"}, finished_at=time.time() - 7200)
    lost = {"code": "worker_lost", "fault": "service"}
    with service.rows() as session:
        for number, ended in ((1, time.time() - 5), (2, time.time() - 7200)):
            one = Attempt(job_id=failed, number=number, worker_id="w", outcome="lost", error=lost, ended_at=ended)
            session.add(one)
        session.add(Inspection(id=f"ins_{time.time()}", kind="teacher", subject_id="t", status="queued"))
        about = {"free_bytes": 7 * 2**40}
        session.add(
            Worker(id=f"w-{time.time()}", kind="distill", host="here", process=1, busy_with="job_1", about=about)
        )
    found: dict[tuple[str, ...], float] = {}
    deadline = time.monotonic() + 30  # counts are cached for some seconds
    while ("distillery_attempts_last_hour", "worker_lost", "lost") not in found and time.monotonic() < deadline:
        time.sleep(0.5)
        found = scrape(service)
    assert found["distillery_attempts_last_hour", "worker_lost", "lost"] == 1
    assert found["distillery_failures_last_hour", "poison", "service"] == 1
    assert ("distillery_failures_last_hour", "old", "job") not in found
    assert found["distillery_jobs", "running"] >= 1 and found["distillery_jobs", "succeeded"] >= 0
    assert found["distillery_queue_depth", "distill"] >= 1 and found["distillery_queue_depth", "inspect"] >= 1
    assert found["distillery_queue_oldest_seconds", "distill"] > 400
    assert found["distillery_workers", "distill", "busy"] >= 1
    assert found["distillery_worker_free_bytes", "here", "distill"] == 7 * 2**40
    assert found["distillery_http_requests_total", "GET", "/v1/jobs/{identifier}", "200"] >= 1
    assert not any(label.startswith("job_") for name in found for label in name)
    with service.rows() as session:
        session.execute(update(Worker).values(left_at=time.time()))
        session.execute(delete(Inspection).where(Inspection.subject_id == "t"))


def test_the_catalogue_has_an_etag(alone: User) -> None:
    response = alone.http.get("/catalogue")
    assert (
        response.json()["objectives"] == catalogue()["objectives"]
        and response.json()["networks"] == catalogue()["networks"]
    )
    assert alone.http.get("/catalogue", headers={"If-None-Match": response.headers["etag"]}).status_code == 304


def test_the_api_imports_no_torch(repository: Path) -> None:
    code = "import sys, api.main; sys.exit(' '.join(sorted({'torch', 'torchvision', 'timm', 'worker'} & set(sys.modules))) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _start(repository: Path, **values: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {f"DISTILL_{name.upper()}": value for name, value in values.items()}
    command = [sys.executable, "-m", "api"]
    return subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_does_not_start_with_another_schema_or_without_a_database(repository: Path, postgres_url: str) -> None:
    empty = _start(repository, database_url=postgres_url)
    assert empty.returncode == 2 and "make migrate" in empty.stderr and "Traceback" not in empty.stderr
    away = _start(repository, database_url="postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")
    assert away.returncode == 2 and "DISTILL_DATABASE_URL" in away.stderr and "Traceback" not in away.stderr


def test_it_stops_at_once_despite_open_long_polls_and_streams(tmp_path: Path) -> None:
    with running(tmp_path) as service, service.user() as user:
        job, ended = user.job("running"), []

        def poll() -> None:
            response = user.http.get(f"/jobs/{job}", headers={"Prefer": "wait=30"})
            ended.append(response.status_code)

        poller = threading.Thread(target=poll)
        poller.start()
        with Stream(user, job) as messages:
            user.events(job, 1)
            next(messages)
            started = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            assert [message for message in messages if "id" in message] == []
        assert service.process.wait(15) in (0, -signal.SIGTERM)
        assert time.monotonic() - started < 8
        poller.join()
        assert ended == [200]
