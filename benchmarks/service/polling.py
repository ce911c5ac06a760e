"""How many polls and submissions one API process answers, beside a bare FastAPI route.

    python -m benchmarks.service.polling [--databases sqlite postgres] [--rounds 5] [--seconds 3] [--clients 50]

Starts the API on one core, with its own database, and a bare FastAPI app on the same core; the load generator has the
other core. Every round loads the API with each case in turn, and just before it the bare app for as long, so that other work
on the machine meets both:

    bare        a FastAPI route that returns a small object, without database, middleware or key
    one         `GET /v1/jobs/ID` of one running job, which changes four times a second
    many        the same of 1,000 running jobs in turn
    queued      the same of 1,000 queued jobs in turn
    … 304       with the `ETag` of the last answer in `If-None-Match`
    submit      `POST /v1/jobs` of one key

Writes `results/polling.json`: medians over the rounds of requests per second, of their ratio to the bare route just before, of
the median and 99th percentile of a request's milliseconds and their ratio, and of the milliseconds of processor time that the
process used for a request, which other work on the machine hardly changes.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from fastapi import FastAPI

from benchmarks.mnist.digits import RESULTS
from benchmarks.service import load_client
from benchmarks.service.load_client import Connection, Load
from benchmarks.service.own_service import free_port, own_service

API_CORE, LOAD_CORE = 0, 1
JOBS = 1000
NAMES = [f"loss/{at}" for at in range(8)]
WRITE_SECONDS = 0.25
READY_SECONDS = 60

bare = FastAPI()


@bare.get("/jobs/{identifier}")
async def show(identifier: str) -> dict[str, str]:
    """The route to compare with."""
    return {"id": identifier}


def main() -> int:
    arguments = _arguments()
    os.sched_setaffinity(0, {LOAD_CORE})
    path = RESULTS / "polling.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for database in arguments.databases:
        found[database] = _measure(database, arguments)
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n")
        _show(database, found[database])
    return 0


def _measure(database: str, arguments: argparse.Namespace) -> dict[str, Any]:
    with own_service(database) as folder, ExitStack() as stack:
        api, other = int(os.environ["DISTILL_PORT"]), free_port()
        process = stack.enter_context(_process(["-m", "api"], api, "/health/live"))
        plain = ["-m", "uvicorn", "benchmarks.service.polling:bare", "--port", str(other), "--no-access-log"]
        bare_process = stack.enter_context(_process(plain, other, "/openapi.json"))
        key = (folder / "key").read_text().strip()
        teacher, jobs = _fill()
        with _changing(jobs["running"][0]):
            return _rounds(arguments, _cases(key, teacher, jobs), (api, process), (other, bare_process))


def _rounds(
    arguments: argparse.Namespace,
    cases: dict[str, Callable[[Connection], bytes]],
    api: tuple[int, int],
    other: tuple[int, int],
) -> dict[str, Any]:
    """The medians of each case; `api` and `other` are the port and the process of the API and of the bare app."""
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in ("bare", *cases)}

    def measured(name: str, to: tuple[int, int], request: Callable[[Connection], bytes], basis: float = 0.0) -> float:
        port, process = to
        before = _processor_seconds(process)
        load = load_client.run(port, request, arguments.clients, arguments.seconds)
        used_ms = (_processor_seconds(process) - before) / len(load.delays) * 1000
        _require(name, load)
        middle, worst = load.milliseconds()
        rows[name].append((load.rate, load.rate / (basis or load.rate), middle, worst, worst / middle, used_ms))
        print(f"  {name:12}", *(f"{value:9.2f}" for value in rows[name][-1]), file=sys.stderr)
        return load.rate

    for _ in range(arguments.rounds):
        for name, request in cases.items():
            measured(name, api, request, measured("bare", other, _bare_request))
    columns = ("a_second", "of_bare", "median_ms", "p99_ms", "p99_of_median", "processor_ms")
    return {
        name: {column: round(median(row[at] for row in found), 3) for at, column in enumerate(columns)}
        for name, found in rows.items()
    }


def _require(name: str, load: Load) -> None:
    """Require that all answers have the case's status. Of conditional requests, some find a change, or are a client's first."""
    allowed = {"submit": {202}}.get(name, {200, 304} if name.endswith("304") else {200})
    if set(load.statuses) - allowed or not load.statuses[max(allowed)]:
        raise RuntimeError(f"{name}: {dict(load.statuses)}")


def _bare_request(connection: Connection) -> bytes:
    return load_client.get("/jobs/job_1")


def _cases(key: str, teacher: str, jobs: dict[str, list[str]]) -> dict[str, Callable[[Connection], bytes]]:
    tags: dict[str, bytes] = {}

    def poll(status: str, count: int, conditional: bool) -> Callable[[Connection], bytes]:
        chosen = jobs[status][:count]

        def request(connection: Connection) -> bytes:
            at = connection.number * 37 + connection.sent
            last, job = chosen[(at - 1) % count], chosen[at % count]
            if conditional and connection.sent:
                tags[last] = connection.tag
            return load_client.get(f"/v1/jobs/{job}", key, tags.get(job, b"") if conditional else b"")

        return request

    body = json.dumps({"teacher": teacher, "student": {"network": "lenet5_half"}, "training": {"steps": 100}}).encode()
    running = {"one": ("running", 1), "many": ("running", JOBS), "queued": ("queued", JOBS)}
    found: dict[str, Callable[[Connection], bytes]] = {}
    for name, (status, count) in running.items():
        found |= {name: poll(status, count, False), f"{name} 304": poll(status, count, True)}
    return found | {"submit": lambda _: load_client.post("/v1/jobs", key, body)}


def _fill() -> tuple[str, dict[str, list[str]]]:
    """A teacher, and jobs of the first key by status; a running job has metrics and an attempt."""
    from sqlalchemy import insert, select

    from models.database import transaction
    from models.records import Attempt, Job, Key, Metric, Teacher
    from models.records.columns import new_id
    from tests.api.service import FINDINGS, TEACHER

    spec = {"teacher": None, "student": {"network": "lenet5_half"}}
    teacher, jobs = new_id("tch"), {status: [new_id("job") for _ in range(JOBS)] for status in ("running", "queued")}
    with transaction() as session:
        owner = {"key_id": session.scalars(select(Key.id)).one()}
        session.add(Teacher(id=teacher, status="ready", findings=FINDINGS, **owner, **TEACHER))
        common = owner | {"name": "polled", "spec": spec, "resolved": spec}
        running = {"status": "running", "attempt": 1, "lease_expires_at": time.time() + 3600}
        session.execute(insert(Job), [common | running | {"id": job} for job in jobs["running"]])
        session.execute(insert(Job), [common | {"id": job, "ready": True} for job in jobs["queued"]])
        tries = [{"job_id": job, "number": 1, "worker_id": "wrk_1"} for job in jobs["running"]]
        session.execute(insert(Attempt), tries)
        values = {"step": 1, "value": 0.5, "attempt": 1}
        session.execute(
            insert(Metric), [values | {"job_id": one, "name": name} for one in jobs["running"] for name in NAMES]
        )
    return teacher, jobs


@contextmanager
def _changing(job: str) -> Iterator[None]:
    """Change a job as its worker does, until the block ends."""
    from worker.ledger.attempts import AttemptLedger, EventBatch

    over = threading.Event()

    def write() -> None:
        ledger, step = AttemptLedger(job, 1), 1
        while not over.wait(WRITE_SECONDS):
            step += 1
            ledger.write(EventBatch(metrics={(name, step): 1.0 for name in NAMES}))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _process(command: list[str], port: int, path: str) -> Iterator[int]:
    """A Python process on the API's core, until the block ends; yields its id."""
    with subprocess.Popen(["taskset", "-c", str(API_CORE), sys.executable, *command], stderr=subprocess.DEVNULL) as one:
        try:
            _await_answer(f"http://127.0.0.1:{port}{path}")
            yield one.pid
        finally:
            one.terminate()


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _await_answer(url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


def _show(database: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{database}\n| case | a second | of the bare route | median ms | p99 ms | p99 / median | processor ms |")
    print("|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        rate, of_bare, middle, worst, tail, used = row.values()
        print(f"| {name} | {rate:.0f} | {of_bare:.2f} | {middle:.1f} | {worst:.1f} | {tail:.1f} | {used:.2f} |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.polling", description=__doc__.splitlines()[0])
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgres"), default=["sqlite", "postgres"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each load")
    parser.add_argument("--clients", type=int, default=50)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
