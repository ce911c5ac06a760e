"""How long a list of 1,000 jobs takes with 100,000 in the database, and what 50 clients cost that poll it.

    python -m benchmarks.service.lists [--databases sqlite postgres] [--rows 100000] [--times 10] [--seconds 5]

Fills a database as `benchmarks.service.million_jobs` does, half of the jobs of one key. *pages*: the milliseconds that this
process takes to read and encode five pages of 200 jobs, one after the other, with different filters; the label and the time are
such that the database passes all newer jobs before it finds them. *polls*: 50 tasks read the first page once a second, each at
its own time, and accept a list that is one second old, or only a new one; the reads of the database per second.

Writes `results/lists.json`.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from sqlalchemy import update

from benchmarks.mnist.digits import RESULTS
from benchmarks.service.million_jobs import KEY, fill
from benchmarks.service.own_service import own_service

PAGES, LIMIT, CLIENTS = 5, 200, 50
RARE = 50
"""The label is on the oldest job of each so many of the older half."""


def main() -> int:
    arguments = _arguments()
    path = RESULTS / "lists.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for database in arguments.databases:
        with own_service(database):
            fill(arguments.rows, 100)
            _label(arguments.rows)
            pages = {name: _pages(filters, arguments.times) for name, filters in _filters().items()}
            polls = {f"max-age={age:g}": asyncio.run(_polls(age, arguments.seconds)) for age in (0.0, 1.0)}
        found[database] = {"rows": arguments.rows, "pages_ms": pages, "polls_reads_a_second": polls}
        print(f"{database}: {found[database]}")
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _label(rows: int) -> None:
    from models.database import transaction
    from models.records import Job

    ids = [f"job_{number:032x}" for number in range(0, rows // 2, RARE)]
    with transaction() as session:
        for at in range(0, len(ids), 500):
            session.execute(update(Job).where(Job.id.in_(ids[at : at + 500])).values(labels={"sweep": "old"}))


def _filters() -> dict[str, Callable[[str | None], tuple[Any, tuple[Any, ...]]]]:
    from sqlalchemy import func, select

    from api.http.paging import Window
    from models.database import reading
    from models.records import Job
    from models.status import JobStatus

    with reading() as session:
        oldest, newest = session.execute(select(func.min(Job.created_at), func.max(Job.created_at))).one()
    return {
        "all": lambda cursor: (Window(LIMIT, cursor), ()),
        "failed": lambda cursor: (Window(LIMIT, cursor), (JobStatus.FAILED,)),
        "failed or queued": lambda cursor: (Window(LIMIT, cursor), (JobStatus.FAILED, JobStatus.QUEUED)),
        "label": lambda cursor: (Window(LIMIT, cursor, (("sweep", "old"),)), ()),
        "old": lambda cursor: (Window(LIMIT, cursor, created_before=(oldest + newest) / 2), ()),
    }


def _pages(filters: Callable[[str | None], tuple[Any, tuple[Any, ...]]], times: int) -> dict[str, float]:
    """Milliseconds and number of jobs of all pages; the first time does not count."""
    taken, jobs = [], 0
    for _ in range(times + 1):
        began = time.perf_counter()
        jobs = sum(_read(filters))
        taken.append((time.perf_counter() - began) * 1000)
    return {"median_ms": round(median(taken[1:]), 1), "worst_ms": round(max(taken[1:]), 1), "jobs": jobs}


def _read(filters: Callable[[str | None], tuple[Any, tuple[Any, ...]]]) -> Iterator[int]:
    from api.jobs import service

    cursor: str | None = None
    for _ in range(PAGES):
        page = service.page(KEY, *filters(cursor))
        page.model_dump_json().encode()
        yield len(page.data)
        cursor = page.next_cursor
        if cursor is None:
            return


async def _polls(age: float, seconds: float) -> float:
    from api.http.paging import Window
    from api.jobs import service, shared_lists

    lists, reads, original, until = shared_lists.SharedLists(), 0, service.page, time.monotonic() + seconds

    def counted(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return original(*arguments)

    async def poll(number: int) -> None:
        await asyncio.sleep(number / CLIENTS)
        while time.monotonic() < until:
            await lists.page(KEY, Window(LIMIT, None), (), age)
            await asyncio.sleep(1.0)

    service.page = counted
    try:
        await asyncio.gather(*(poll(number) for number in range(CLIENTS)))
    finally:
        service.page = original
    return round(reads / seconds, 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.lists", description=__doc__.splitlines()[0])
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgres"), default=["sqlite", "postgres"])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
