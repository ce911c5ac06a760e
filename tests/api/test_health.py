"""Health, figures, the catalogue, and how the service starts and ends."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
from sqlalchemy import update

from models.catalogue import catalogue
from models.records import Worker
from tests.api.service import Service, User, running
from tests.api.test_results import Stream


def test_alive_and_ready_with_the_workers_that_were_seen(service: Service) -> None:
    now = time.time()
    about = {"sandbox": {"filesystem": "landlock-7", "network": "none", "why": []}}
    with service.rows() as session:
        session.execute(update(Worker).values(left_at=now))  # whom other tests have left behind
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
    assert warnings == ["no sandbox confines the engines of the distill worker on here: this kernel has no Landlock"]
    with service.rows() as session:
        session.execute(update(Worker).values(left_at=now))


def test_figures_count_requests_by_route_and_jobs_by_status(alone: User) -> None:
    alone.job("running")
    alone.http.get(f"/jobs/{alone.job()}")
    text = httpx.get(f"{alone.service.url}/metrics", trust_env=False).text
    assert re.search(r'^distillery_jobs\{status="running"\} [1-9]', text, re.MULTILINE)
    assert 'distillery_http_requests_total{method="GET",route="/v1/jobs/{identifier}",status="200"}' in text
    assert "job_0" not in text


def test_the_catalogue_has_a_tag(alone: User) -> None:
    answer = alone.http.get("/catalogue")
    assert (
        answer.json()["objectives"] == catalogue()["objectives"]
        and answer.json()["networks"] == catalogue()["networks"]
    )
    assert alone.http.get("/catalogue", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


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


def test_it_does_not_start_on_another_schema_or_without_a_database(repository: Path, postgres_url: str) -> None:
    empty = _start(repository, database_url=postgres_url)
    assert empty.returncode == 1 and "make migrate" in empty.stderr and "Traceback" not in empty.stderr
    away = _start(repository, database_url="postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")
    assert away.returncode == 1 and "DISTILL_DATABASE_URL" in away.stderr and "Traceback" not in away.stderr


def test_it_ends_at_once_though_somebody_waits(tmp_path: Path) -> None:
    with running(tmp_path) as service, service.user() as user:
        job, ended = user.job("running"), []

        def poll() -> None:
            answer = user.http.get(f"/jobs/{job}", headers={"Prefer": "wait=30"})
            ended.append(answer.status_code)

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
