"""Many event streams on one running job.

    python -m benchmarks.service.event_streams [--clients 500] [--seconds 30] [--slow 5]

Starts an API with its own database, opens the streams, and writes events and metrics as a worker does. Requires that
every client gets every event once, in order, and the last metrics, including slow clients, which read nothing until
everything is written; and that the API grows by less than 64 MB. Writes `results/event_streams.json`.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

from benchmarks.mnist.digits import RESULTS

NAMES = [f"loss/{at}" for at in range(8)]
WRITES_A_SECOND, EVENTS_A_WRITE = 4, 3
MOST_BYTES = 64 * 2**20
READY_SECONDS = 60


class Listener:
    """One stream, read as bytes; `seen` holds the numbers of its events, `delays` the age of each when it arrived."""

    def __init__(self, slow: asyncio.Event | None):
        self.seen: list[int] = []
        self.delays: list[float] = []
        self.metrics: dict[str, Any] = {}
        self._slow = slow

    async def listen(self, url: str, key: str, job: str) -> None:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**20)
        # HTTP/1.0, so that the body is not chunked
        head = f"GET /v1/jobs/{job}/events HTTP/1.0\r\nAuthorization: Bearer {key}\r\nAccept: text/event-stream\r\n\r\n"
        writer.write(head.encode())
        status = await reader.readline()
        assert b" 200 " in status, status
        if self._slow is not None:
            await self._slow.wait()
        kind = ""
        while line := await reader.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "id":
                self.seen.append(int(value))
            elif name == "data":
                self._take(kind, json.loads(value))
        writer.close()

    def _take(self, kind: str, event: dict[str, Any]) -> None:
        if kind == "metrics":
            self.metrics = event["data"]
        elif "sent" in (event["data"] or {}):
            self.delays.append(time.time() - event["data"]["sent"])


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="event-streams-") as folder:
        os.environ |= {"DISTILL_DATA": folder, "DISTILL_PORT": str(_free_port())}
        with subprocess.Popen([sys.executable, "-m", "api"], stderr=subprocess.DEVNULL) as api:
            try:
                results = _measure(arguments, api.pid)
            finally:
                api.terminate()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "event_streams.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return 0 if results["holds"] else 1


def _measure(arguments: argparse.Namespace, process: int) -> dict[str, Any]:
    from models.settings import settings

    url = f"http://127.0.0.1:{settings().port}"
    _await_ready(url)
    key = settings().key_file.read_text().strip()
    job = _make_job()
    for _ in range(20):  # warm up, so that the cost of the first requests is not counted
        _get(f"{url}/v1/jobs/{job}", key)
    before = Usage.of(process, url)
    listeners, open_, written = asyncio.run(_run(arguments, url, key, job, process))
    after = Usage.of(process, url)
    whole = list(range(1, written + 1))
    exact = sum(listener.seen == whole for listener in listeners)
    last = {name: {"step": arguments.seconds * WRITES_A_SECOND, "value": 1.0} for name in NAMES}
    quick = sorted(delay for listener in listeners[arguments.slow :] for delay in listener.delays)
    hundredths = quantiles(quick, n=100)
    growth = max(open_.rss, after.rss, after.peak) - before.rss
    return {
        "clients": len(listeners),
        "slow_clients": arguments.slow,
        "events": written,
        "clients_with_every_event_once_in_order": exact,
        "clients_with_the_last_metrics": sum(listener.metrics == last for listener in listeners),
        "api_growth_mb": round(growth / 2**20, 1),
        "api_growth_of_open_streams_mb": round((open_.rss - before.rss) / 2**20, 1),
        "api_cpu_share": round((after.cpu - open_.cpu) / (after.at - open_.at), 2),
        "queries_a_second": round((after.queries - open_.queries) / (after.at - open_.at), 1),
        "delivery_ms": {f"p{at}": round(hundredths[at - 1] * 1000) for at in (50, 90, 99)},
        "holds": exact == len(listeners) and growth < MOST_BYTES,
    }


async def _run(
    arguments: argparse.Namespace, url: str, key: str, job: str, process: int
) -> tuple[list[Listener], "Usage", int]:
    over = asyncio.Event()
    listeners = [Listener(over if at < arguments.slow else None) for at in range(arguments.clients)]
    tasks = [asyncio.create_task(listener.listen(url, key, job)) for listener in listeners]
    while (open_ := await asyncio.to_thread(Usage.of, process, url)).streams < len(listeners):
        failed = [task for task in tasks if task.done()]
        for task in failed:
            task.result()
        await asyncio.sleep(0.5)
    written = await asyncio.to_thread(_write, job, arguments.seconds)
    over.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 120)
    return listeners, open_, written


def _make_job() -> str:
    from sqlalchemy import select

    from models.database import transaction
    from models.records import Job, Key
    from models.records.columns import new_id

    spec = {"teacher": None, "student": {"network": "lenet5_half"}}
    with transaction() as session:
        owner = session.scalars(select(Key.id)).one()
        values = {"status": "running", "attempt": 1, "lease_expires_at": time.time() + 3600}
        job = Job(id=new_id("job"), key_id=owner, name="watched", spec=spec, resolved=spec, **values)
        session.add(job)
    return job.id


def _write(job: str, seconds: int) -> int:
    """Write as a worker does, and end the job; returns the number of events."""
    from worker.ledger.attempts import AttemptLedger, EventBatch
    from worker.ledger.changes import Note

    ledger, started_at = AttemptLedger(job, 1), time.monotonic()
    for step in range(1, seconds * WRITES_A_SECOND + 1):
        notes = [Note("log", f"line {step}.{at}", data={"sent": time.time()}) for at in range(EVENTS_A_WRITE)]
        ledger.write(EventBatch(notes=notes, metrics={(name, step): 1.0 for name in NAMES}))
        time.sleep(max(0.0, started_at + step / WRITES_A_SECOND - time.monotonic()))
    ledger.cancel(None)
    return seconds * WRITES_A_SECOND * EVENTS_A_WRITE + 1


class Usage:
    """Memory and CPU time of a process, and the number of its database statements."""

    rss: int
    peak: int
    cpu: float
    queries: float
    streams: float
    at: float

    @classmethod
    def of(cls, process: int, url: str) -> "Usage":
        usage, status = cls(), Path(f"/proc/{process}/status").read_text()
        usage.rss, usage.peak = (
            int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1]) * 1024  # type: ignore[index]
            for name in ("VmRSS", "VmHWM")
        )
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        usage.cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        exposition = _get(f"{url}/metrics").decode()
        usage.queries, usage.streams = (
            float(re.search(rf"^distillery_{name} ([0-9.e+]+)$", exposition, re.MULTILINE)[1])  # type: ignore[index]
            for name in ("database_queries_total", "event_streams")
        )
        usage.at = time.monotonic()
        return usage


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_ready(url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            _get(f"{url}/health/live")
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the API does not answer")


def _get(url: str, key: str = "") -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        found: bytes = answer.read()
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service.event_streams", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument(
        "--slow", type=int, default=5, help="number of clients that read nothing until everything is written"
    )
    parser.add_argument("--seconds", type=int, default=30)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
