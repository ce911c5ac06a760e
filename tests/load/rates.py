"""Polls, submissions, uploads and event streams, each in turn with its bare counterpart."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil

from benchmarks.service import load_client
from benchmarks.service.event_streams import Listener
from benchmarks.service.load_client import Connection
from tests.api.service import TEACHER, Service, User, running
from tests.attack.findings import Findings
from tests.chaos.fleet import ROOT
from tests.servers import _free_ports

CLIENTS = 50
UPLOADERS, UPLOAD_BYTES = 4, 32 * 2**20
STREAMS = 200
SERVER_CORE, LOAD_CORE = 0, 1
ROUNDS = 3
LEAST = {"poll": 0.4, "poll 304": 0.6, "submit": 0.02, "upload": 0.2}
"""Least ratio to the bare counterpart."""
P99_TIMES_MEDIAN = 5


def measure(findings: Findings, folder: Path, seconds: float) -> None:
    """Measure every rate for about `seconds` in all."""
    each = max(0.5, seconds / (ROUNDS * 8))
    with (
        running(folder / "rates", queued_jobs=10**9, uploads_at_once=100) as service,
        service.user(limits={"storage_bytes": 2**50}) as user,
        _bare() as (port, bare),
        _apart(service.process.pid, bare),
    ):
        _polls_and_submissions(findings, service, user, port, each)
        _uploads(findings, user, port)
        _streams(findings, port, max(5, int(each * 3)))


@contextmanager
def _apart(*processes: int) -> Iterator[None]:
    """Keep the two servers on one core and the load generator on the other, as in `benchmarks.service.polling`."""
    if sys.platform != "linux" or (os.cpu_count() or 1) < 2:
        yield
        return
    before = os.sched_getaffinity(0)
    for process in processes:
        psutil.Process(process).cpu_affinity([SERVER_CORE])
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _bare() -> Iterator[tuple[int, int]]:
    """The bare app; its port and its process."""
    [port] = _free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "tests.load.bare:app", "--port", str(port), "--no-access-log"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=5):
                        break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
            yield port, process.pid
        finally:
            process.terminate()


def _polls_and_submissions(findings: Findings, service: Service, user: User, bare: int, seconds: float) -> None:
    own = int(service.url.rpartition(":")[2])
    teacher, job = user.teacher(), user.job("running", attempt=1, lease_expires_at=time.time() + 10**6)
    body = json.dumps({"teacher": teacher, "student": {"network": "lenet5_half"}, "training": {"steps": 1}}).encode()
    pairs: dict[str, tuple[Callable[[Connection], bytes], Callable[[Connection], bytes]]] = {
        "poll": (lambda _: load_client.get(f"/v1/jobs/{job}", user.key), lambda _: load_client.get("/jobs/x")),
        "poll 304": (
            lambda one: load_client.get(f"/v1/jobs/{job}", user.key, one.tag),
            lambda _: load_client.get("/jobs/x"),
        ),
        "submit": (
            lambda _: load_client.post("/v1/jobs", user.key, body),
            lambda _: load_client.post("/jobs", "x", body),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        rows = []
        for _ in range(ROUNDS):
            basis = load_client.run(bare, theirs, CLIENTS, seconds)
            load = load_client.run(own, ours, CLIENTS, seconds)
            wrong = {status: count for status, count in load.statuses.items() if status not in (200, 202, 304)}
            findings.require(not wrong, "no 5xx", f"{name}: {wrong}")
            rows.append((load.rate, basis.rate, load.rate / basis.rate, *load.milliseconds()))
        rate, bare_rate, ratio, middle, p99 = (round(median(row[at] for row in rows), 3) for at in range(5))
        findings.note(
            "rates",
            **{name: {"a second": rate, "bare": bare_rate, "of bare": ratio, "median ms": middle, "p99 ms": p99}},
        )
        findings.require(ratio >= LEAST[name], "rates", f"{name}: {ratio} of the bare route, {LEAST[name]} wanted")
        findings.require(p99 <= P99_TIMES_MEDIAN * middle, "rates", f"{name}: p99 {p99} ms, median {middle} ms")


def _uploads(findings: Findings, user: User, bare: int) -> None:
    content = os.urandom(UPLOAD_BYTES)

    def ours() -> None:
        link = user.http.post("/teachers", json=TEACHER).raise_for_status().json()["upload"]
        user.http.put(link, content=content, timeout=300).raise_for_status()

    def theirs() -> None:
        user.http.put(f"http://127.0.0.1:{bare}/content", content=content, timeout=300).raise_for_status()

    rows = [[_megabytes_a_second(act) for act in (theirs, ours)] for _ in range(ROUNDS)]
    basis, rate = (median(row[at] for row in rows) for at in (0, 1))
    ratio = median(row[1] / row[0] for row in rows)
    findings.note("rates", upload={"MB a second": round(rate), "bare": round(basis), "of bare": round(ratio, 2)})
    findings.require(ratio >= LEAST["upload"], "rates", f"upload: {ratio:.2f} of the bare route")


def _megabytes_a_second(act: Callable[[], None]) -> float:
    threads = [threading.Thread(target=act) for _ in range(UPLOADERS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return UPLOADERS * UPLOAD_BYTES / 10**6 / (time.monotonic() - began)


def _streams(findings: Findings, bare: int, seconds: int) -> None:
    """Event streams of one job. The service's are measured by `benchmarks.service.event_streams`, which also requires that
    every client gets every event once and in order."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.service.event_streams",
        "--clients",
        str(STREAMS),
        "--seconds",
        str(seconds),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 300, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{\n") :])  # after what the API says
    except ValueError:
        findings.violation("streams", done.stdout[-1000:] + done.stderr[-1000:])
        return
    exact = found["clients_with_every_event_once_in_order"]
    findings.require(bool(found["holds"]), "streams", str(found))
    listeners = asyncio.run(_listen(bare, seconds))
    delays = [delay for listener in listeners for delay in listener.delays]
    cuts = quantiles(delays, n=100)
    theirs = {f"p{at}": round(cuts[at - 1] * 1000) for at in (50, 90, 99)}
    findings.note(
        "rates",
        streams={
            "clients": STREAMS,
            "complete": exact,
            "delivery ms": found["delivery_ms"],
            "bare ms": theirs,
            "API growth MB": found["api_growth_mb"],
        },
    )


async def _listen(port: int, seconds: int) -> list[Listener]:
    listeners = [Listener(None) for _ in range(STREAMS)]
    url = f"http://127.0.0.1:{port}"
    await asyncio.gather(*(listener.listen(url, "x", "x") for listener in listeners))
    return listeners
