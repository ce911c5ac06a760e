"""Workers as real processes, with each broker: wake-up messages, also lost ones, drains and kills."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from models.queue.wake_up import wake_up
from models.records import Attempt, Checkpoint, Dataset, Job, Worker
from models.settings import settings
from tests.models.test_secrecy import readable_by_others
from tests.worker.attempt.test_job import chain, eventually
from tests.worker.conftest import QUICK
from tests.worker.scenes import SCRIPTED, artifact, get, make_job, make_upload, rows

ROOT = Path(__file__).parents[2]


@pytest.fixture
def servers(configure: Callable[..., Any], migrated_postgres: str, redis_url: str) -> None:
    """Postgres and Redis."""
    configure(broker_url=redis_url, **QUICK)


@contextmanager
def worker(kind: str = "distill") -> Iterator[subprocess.Popen[bytes]]:
    code = f"from worker.app import configure_logging, serve; configure_logging(); exit(serve({kind!r}, {SCRIPTED!r}))"
    known = {row.id for row in rows(Worker)}
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT) as process:
        try:
            eventually(lambda: {row.id for row in rows(Worker)} - known != set(), 20.0)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def test_wake_up_messages_start_work_and_a_drain_hands_it_to_another_worker(servers: None) -> None:
    quick, subject = make_job(steps=3), make_upload(b"images")
    with worker() as first, worker("inspect"):
        wake_up("distill")
        wake_up("inspect")
        eventually(lambda: get(Job, quick).status == "succeeded", 15.0)
        eventually(lambda: get(Dataset, subject).status == "ready", 15.0)
        long = make_job(steps=60, pause=0.03)
        wake_up("distill")
        eventually(lambda: get(Job, long).progress is not None, 15.0)
        first.terminate()
        assert first.wait(10) == 0
        assert (get(Job, long).status, get(Job, long).losses) == ("queued", 0)
        (row,) = rows(Worker, kind="distill")
        assert row.left_at is not None and row.busy_with is None
        with worker():
            eventually(lambda: get(Job, long).status == "succeeded", 25.0)
    assert artifact(long) == chain(60)
    assert [row.outcome for row in sorted(rows(Attempt, job_id=long), key=lambda row: row.number)] == [
        "drained",
        "succeeded",
    ]


def test_a_worker_that_is_stopped_while_it_starts_does_not_register(embedded: None) -> None:
    told = "early_signals.install(); os.kill(os.getpid(), signal.SIGTERM)"
    code = f"import os, signal; from worker import app, early_signals; {told}; exit(app.serve('distill', {SCRIPTED!r}))"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT).returncode == 0
    assert rows(Worker) == []


@pytest.mark.slow
def test_jobs_run_without_wake_up_messages(embedded: None) -> None:
    jobs = [make_job(steps=2) for _ in range(3)]
    with worker():
        eventually(lambda: all(get(Job, job).status == "succeeded" for job in jobs), 15.0)
        more = [make_job(steps=2) for _ in range(2)]
        for message in (settings().data / "queue" / "messages").iterdir():
            message.unlink(missing_ok=True)
        eventually(lambda: all(get(Job, job).status == "succeeded" for job in more), 15.0)
    assert [get(Job, job).attempt for job in jobs + more] == [1] * 5


@pytest.mark.slow
def test_surplus_wake_up_messages_do_no_harm(embedded: None) -> None:
    job = make_job(steps=30, pause=0.02)
    wake_up("distill", 30)
    with worker() as process:
        eventually(lambda: get(Job, job).status == "succeeded", 20.0)
    assert get(Job, job).attempt == 1
    assert process.returncode == 0 and all(row.left_at is not None for row in rows(Worker))


@pytest.mark.slow
def test_the_engine_of_a_killed_worker_ends_and_another_worker_resumes(
    embedded: None, configure: Callable[..., Any]
) -> None:
    configure(lease_seconds=3)
    job = make_job(steps=60, pause=0.03, checkpoint_every=10)
    with worker() as first:
        eventually(lambda: rows(Checkpoint, job_id=job) != [], 20.0)
        first.kill()
        first.wait()
    with worker():
        eventually(lambda: get(Job, job).status == "succeeded", 20.0)
    assert artifact(job) == chain(60)
    assert [row.outcome for row in sorted(rows(Attempt, job_id=job), key=lambda row: row.number)] == [
        "lost",
        "succeeded",
    ]
    assert not any(settings().work_folder.glob("*/*"))


@pytest.mark.slow
def test_a_paused_worker_that_has_lost_its_job_changes_nothing(
    configure: Callable[..., Any], migrated_postgres: str
) -> None:
    configure(**QUICK | {"lease_seconds": 5})
    job = make_job(steps=60, pause=0.03, checkpoint_every=10)
    with worker() as first:
        eventually(lambda: rows(Checkpoint, job_id=job) != [], 20.0)
        os.kill(first.pid, signal.SIGSTOP)
        with worker():
            eventually(lambda: get(Job, job).attempt == 2, 15.0)
            os.kill(first.pid, signal.SIGCONT)
            eventually(lambda: get(Job, job).status == "succeeded", 20.0)
    assert artifact(job) == chain(60)
    assert get(Job, job).attempt == 2


UNPRIVILEGED = """
import sys
if sys.platform == "linux":  # drop root's capabilities, which could read hidden memory
    from worker.distillation.sandbox import kernel
    kernel.drop_capabilities()
from worker.supervisor import main
sys.exit(main())
"""


@contextmanager
def supervisor() -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    file = settings().data / "service.json"
    command = [sys.executable, "-W", "ignore", "-c", UNPRIVILEGED, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            eventually(lambda: file.exists() or process.poll() is not None, 40.0)
            yield process, json.loads(file.read_text())
        finally:
            process.terminate()
            process.wait(20)


def children_of(process: int) -> list[int]:
    """The child processes of a process."""
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_the_supervisor_restarts_children_and_stops_the_service(configure: Callable[..., Any]) -> None:
    configure(**QUICK)
    with supervisor() as (process, where):
        with urllib.request.urlopen(f"{where['url']}/health/live", timeout=5) as answer:
            assert answer.status == 200
        assert (settings().data / where["key_file"]).read_text().strip()
        before = set(children_of(process.pid))
        assert len(before) == 3
        assert [pid for pid in (process.pid, *before) if readable_by_others(pid)] == []
        victim = next(pid for pid in before if b"distill" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(set(children_of(process.pid)) - before) == 1, 10.0)
        after = children_of(process.pid)
    assert process.returncode == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in after)
    assert not (settings().data / "service.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent has died")
def test_all_children_end_with_a_killed_supervisor(configure: Callable[..., Any]) -> None:
    configure(**QUICK)
    with supervisor() as (process, _):
        children = children_of(process.pid)
        process.kill()
        process.wait()
        eventually(lambda: not any(_lives(pid) for pid in children), 15.0)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
