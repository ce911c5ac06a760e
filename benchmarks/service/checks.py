"""How many specs of jobs one inspect worker checks in a second.

    python -m benchmarks.service.checks [--databases sqlite postgres] [--rounds 3] [--jobs 200]

Starts `python -m worker --kind inspect` with its own database, and lets it check one job, so that it has started and imported
what it needs. Then, in each round, it submits jobs of one key with different specs (KD from a LeNet-5 to students of other
widths and other objectives), and measures from the end of the submissions until the last of them is ready.

Writes `results/checks.json`: checks per second of each round, and their medians, and the milliseconds of processor time that a
check takes the worker and its engines, which other work on the machine hardly changes. That of a database server comes on top.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import func, select

from benchmarks.mnist.digits import RESULTS
from benchmarks.service.own_service import own_service

AT_ONCE = 32
PATIENCE_SECONDS = 120.0
OBJECTIVES: tuple[dict[str, Any], ...] = ({"name": "kd"}, {"name": "dkd"}, {"name": "dist"}, {"name": "logit_distance"})


def main() -> int:
    arguments = _arguments()
    path = RESULTS / "checks.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for database in arguments.databases:
        with own_service(database), _worker() as worker:
            rounds = _rounds(worker, arguments.rounds, arguments.jobs)
        found[database] = {"rounds": rounds} | {name: median(each[name] for each in rounds) for name in rounds[0]}
        print(f"{database}: {found[database]}")
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n")
    return 0


@contextmanager
def _worker() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-m", "worker", "--kind", "inspect"], stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def _rounds(worker: int, rounds: int, jobs: int) -> list[dict[str, float]]:
    from api.access.auth import ensure_first_key
    from models.database import transaction
    from models.records import Key, Teacher
    from models.records.columns import new_id
    from tests.api.service import FINDINGS, TEACHER

    ensure_first_key()
    with transaction() as session:
        key = session.scalars(select(Key.id)).one()
        teacher, data = new_id("tch"), new_id("dts")
        session.add(Teacher(id=teacher, key_id=key, status="ready", findings=FINDINGS, **TEACHER))
        session.add(_dataset(data, key))
    _submit(key, teacher, data, 1)
    _await_ready(1, PATIENCE_SECONDS)
    found = []
    for done in range(1, rounds * jobs, jobs):
        used = _processor_seconds(worker)
        _submit(key, teacher, data, jobs)
        began, before = time.perf_counter(), _ready()
        _await_ready(done + jobs, PATIENCE_SECONDS)
        rate = (done + jobs - before) / (time.perf_counter() - began)
        _await_idle()
        used = (_processor_seconds(worker) - used) / jobs * 1000
        found.append({"checks_a_second": round(rate, 1), "processor_ms": round(used, 1)})
    return found


def _processor_seconds(worker: int) -> float:
    """Processor time of a worker and its fork server, with that of the engines that have ended."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = path.read_text().rpartition(")")[2].split()
            if path.parent.name == str(worker):
                total += sum(map(int, fields[11:13]))
            elif fields[1] == str(worker):
                total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def _await_idle() -> None:
    """Wait until the engines have ended, and so count."""
    from models.database import reading
    from models.records import Worker

    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with reading() as session:
            if not session.scalars(select(Worker.id).where(Worker.busy_with.is_not(None))).all():
                return
        time.sleep(0.05)
    raise TimeoutError("the worker does not become idle")


def _dataset(identifier: str, key: str) -> Any:
    from models.records import Dataset

    findings = {"classes": 10, "image": {"channels": 1, "height": 32, "width": 32}, "splits": {"train": 100}}
    return Dataset(id=identifier, key_id=key, name="digits", status="ready", findings=findings)


def _submit(key: str, teacher: str, data: str, count: int) -> None:
    from api.jobs.submission import Submission, submit_all
    from models.queue.wake_up import wake_up
    from models.spec.job_spec import JobSpec

    bodies = []
    for number in range(count):
        objective = OBJECTIVES[number % len(OBJECTIVES)] | {"weight": 0.5 + number / 1000}
        student = {"network": "lenet5_half"} if number % 2 else {"like": "teacher", "width": 0.3 + number % 7 / 10}
        bodies.append({"teacher": teacher, "dataset": data, "student": student, "objectives": [objective]})
    for at in range(0, count, AT_ONCE):
        some = [Submission(key, None, JobSpec.model_validate(body), body) for body in bodies[at : at + AT_ONCE]]
        failed = [result for result in submit_all(some) if isinstance(result, Exception)]
        if failed:
            raise failed[0]
    wake_up("inspect")


def _ready() -> int:
    from models.database import reading
    from models.records import Job

    with reading() as session:
        return session.scalars(select(func.count()).select_from(Job).where(Job.ready)).one()


def _await_ready(count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (found := _ready()) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {found} of {count} jobs are ready")
        time.sleep(0.05)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.checks", description=__doc__.splitlines()[0])
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgres"), default=["sqlite", "postgres"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=200, help="jobs of each round")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
