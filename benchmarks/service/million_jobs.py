"""Polling, listing, claiming and sweeping with a thousand and with a million rows of jobs.

    python -m benchmarks.service.million_jobs [--rows 1000000] [--database sqlite|postgres|both] [--times 100]

Fills two databases of each kind, one with a thousand jobs and one with `--rows`, half of them of one key, each job with an
attempt and an event. In a first round, all jobs but a hundred have ended; in a second round, all are waiting. In both rounds
it times the actions of the API and the workers, in turn, and asks the database for its plan of every statement. Requirements:

    plans    no statement reads a whole table of jobs, attempts, events, metrics or inspections
    growth   the median of each action with a million rows is within 1.3 times that with a thousand

The exit code is 0 if both hold. Writes `results/million_jobs.json`. Postgres is the one of the tests (`TEST_POSTGRES_URL`).
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

FEW = 1000
GROWTH = 1.3
WAITING = 100
BIG = ("jobs", "attempts", "events", "metrics", "inspections", "artifacts", "webhook_deliveries")
KEYS = 20
KEY = "key_" + "0" * 32


def main() -> int:
    arguments = _arguments()
    kinds = ("sqlite", "postgres") if arguments.database == "both" else (arguments.database,)
    found = {
        f"{kind}, {backlog}": _compare(kind, backlog, arguments) for kind in kinds for backlog in ("history", "backlog")
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "million_jobs.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(action["holds"] for actions in found.values() for action in actions.values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service.million_jobs", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--results", type=Path, default=Path("results"))
    return parser.parse_args()


def _compare(kind: str, backlog: str, arguments: argparse.Namespace) -> dict[str, Any]:
    print(f"{kind}, {backlog}", flush=True)
    with ExitStack() as stack:
        few, many = (stack.enter_context(_filled(kind, rows, backlog == "backlog")) for rows in (FEW, arguments.rows))
        plans = {name: many.ask("plans", name) for name in ACTIONS}
        times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ACTIONS}
        for turn in range(arguments.times):
            for name in random.Random(turn).sample(sorted(ACTIONS), len(ACTIONS)):
                for at, place in enumerate((few, many)):
                    times[name][at].append(place.ask("time", name))
    return {name: _report(name, *times[name], plans[name]) for name in ACTIONS}


def _report(name: str, few: list[float], many: list[float], whole: list[str]) -> dict[str, Any]:
    medians = statistics.median(few) * 1000, statistics.median(many) * 1000
    holds = not whole and medians[1] <= GROWTH * medians[0]
    print(
        f"  {name:16} {medians[0]:8.2f} ms {medians[1]:8.2f} ms   {medians[1] / medians[0]:5.2f}  {'' if holds else 'NO'}",
        *(f"reads all of {statement}" for statement in whole),
        sep="\n    ",
    )
    return {
        "few_ms": medians[0],
        "many_ms": medians[1],
        "ratio": medians[1] / medians[0],
        "whole_tables": whole,
        "holds": holds,
    }


class Place:
    """A process that works on one database and answers requests."""

    def __init__(self, url: str, rows: int, waiting: int):
        self._here, there = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, url, rows, waiting))
        self._process.start()
        self._here.recv()

    def ask(self, what: str, name: str) -> Any:
        self._here.send((what, name))
        return self._here.recv()

    def end(self) -> None:
        self._here.send(("end", ""))
        self._process.join()


@contextmanager
def _filled(kind: str, rows: int, all_wait: bool) -> Iterator[Place]:
    with ExitStack() as stack:
        if kind == "sqlite":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="million-"))
            url = f"sqlite:///{folder}/jobs.db"
        else:
            from tests import servers

            server = stack.enter_context(servers.postgres())
            url = server.create()
            stack.callback(server.drop, url)
        place = Place(url, rows, rows if all_wait else WAITING)
        stack.callback(place.end)
        yield place


def _serve(pipe: Any, url: str, rows: int, waiting: int) -> None:
    with tempfile.TemporaryDirectory(prefix="million-data-") as folder:
        os.environ |= {"DISTILL_DATABASE_URL": url, "DISTILL_DATA": folder}
        from models import migrate

        migrate.upgrade()
        fill(rows, waiting)
        scene = Scene(rows)
        pipe.send("ready")
        while (asked := pipe.recv())[0] != "end":
            what, name = asked
            action = ACTIONS[name]
            pipe.send(whole_tables(lambda action=action: action(scene)) if what == "plans" else _seconds(action, scene))


def _seconds(action: "Callable[[Scene], object]", scene: "Scene") -> float:
    begin = time.perf_counter()
    action(scene)
    return time.perf_counter() - begin


def fill(rows: int, waiting: int) -> None:
    """Insert rows of jobs; the newest `waiting` are queued, the others have ended, and half belong to the first key."""
    from models.database import transaction
    from models.records import Attempt, Event, Inspection, Job, Key, Metric
    from models.status import JobStatus

    spec = {"teacher": "tch_" + "0" * 32, "training": {"steps": 1000}, "padding": "a spec of the usual length. " * 20}
    with transaction() as session:
        keys = [
            Key(id=f"key_{number:032x}", name=str(number), hash=f"{number:064x}", scopes=[]) for number in range(KEYS)
        ]
        session.add_all(keys)
        session.flush()
        template = {"key_id": KEY, "name": "", "spec": spec, "resolved": spec}
        session.add(Job(id="job_" + "f" * 32, status=JobStatus.SUCCEEDED, **template))
        session.flush()
        ended = f"n <= {rows - waiting}"
        key = _text(session, f"CASE WHEN n % 2 = 0 THEN 0 ELSE n % {KEYS} END")
        identifier = _text(session, "n.n")
        _multiply(session, Job, rows, {
            "id": f"'job_' || {identifier}",
            "key_id": f"'key_' || {key}",
            "status": f"CASE WHEN {ended} THEN CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'succeeded' END ELSE 'queued' END",
            "ready": f"CASE WHEN {ended} THEN {_false(session)} ELSE {_true(session)} END",
            "attempt": "1",
            "event_seq": "1",
            "created_at": "created_at - 1000000 + n",
            "started_at": f"CASE WHEN {ended} THEN created_at - 1000000 + n END",
            "finished_at": f"CASE WHEN {ended} THEN created_at - 1000000 + n + 60 END",
            "due_at": "created_at - 1000000 + n",
            "deleted_at": f"CASE WHEN {ended} AND n % 50 = 1 THEN created_at - 1000000 + n + 90 END",
            "history_removed_at": f"CASE WHEN {ended} AND n % 50 = 1 THEN created_at - 1000000 + n + 99 END",
        })  # fmt: skip
        session.add(Attempt(job_id="job_" + "f" * 32, number=1, worker_id="wrk_0", outcome="succeeded"))
        session.add(Event(job_id="job_" + "f" * 32, seq=1, attempt=1, type="status", level="info", message="succeeded"))
        session.add(Metric(job_id="job_" + "f" * 32, name="loss", step=1, value=0.5, attempt=1))
        session.add(Inspection(id="ins_" + "f" * 32, kind="job", subject_id="job_" + "f" * 32, status="done"))
        session.flush()
        _multiply(session, Metric, rows, {"job_id": f"'job_' || {identifier}"})
        inspected = {"id": f"'ins_' || {identifier}", "subject_id": f"'job_' || {identifier}"}
        times = dict.fromkeys(("created_at", "finished_at"), "created_at - 1000000 + n")
        _multiply(session, Inspection, rows, inspected | times)
        _multiply(session, Attempt, rows, {"job_id": f"'job_' || {identifier}", "ended_at": "started_at"})
        _multiply(session, Event, rows, {"job_id": f"'job_' || {identifier}"})
    _analyse()


def _multiply(session: Any, table: Any, rows: int, changed: dict[str, str]) -> None:
    """Copy a table's last row `rows` times, in the database, with some columns computed from `n`."""
    from sqlalchemy import text

    columns = [column.name for column in table.__table__.columns if column.autoincrement is not True]
    first = next(iter(changed))
    values = ", ".join(changed.get(name, f'model."{name}"') for name in columns)
    names = ", ".join(f'"{name}"' for name in columns)
    last = f"SELECT * FROM {table.__tablename__} ORDER BY {first} DESC LIMIT 1"
    series = f"WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})"
    if rows:
        session.execute(
            text(f"INSERT INTO {table.__tablename__} ({names}) {series} SELECT {values} FROM n, ({last}) AS model")
        )


def _text(session: Any, number: str) -> str:
    """SQL for a number with 32 hexadecimal digits."""
    if session.get_bind().dialect.name == "postgresql":
        return f"lpad(to_hex({number}), 32, '0')"
    return f"printf('%032x', {number})"


def _true(session: Any) -> str:
    return "true" if session.get_bind().dialect.name == "postgresql" else "1"


def _false(session: Any) -> str:
    return "false" if session.get_bind().dialect.name == "postgresql" else "0"


def _analyse() -> None:
    from sqlalchemy import text

    from models.database import engine

    vacuum = engine().dialect.name == "postgresql"  # as autovacuum does after a while; index-only scans need it
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE" if vacuum else "ANALYZE"))


class Scene:
    """A filled database: a worker, and jobs to read, in the same proportions for any number of rows."""

    def __init__(self, rows: int):
        from worker.ledger import presence

        self._rows, self._draw = rows, random.Random(0)
        self.worker = presence.register("distill")

    def job(self) -> str:
        """A random job of the first key."""
        return f"job_{2 * self._draw.randint(1, self._rows // 2):032x}"


def _poll(scene: Scene) -> object:
    from api.jobs.shared_reads import SharedReads

    return asyncio.run(SharedReads().read(KEY, scene.job(), None))


def _follow(scene: Scene) -> object:
    from api.jobs.feed_reads import Followed, read_updates

    return read_updates([Followed(scene.job(), "", 0, 0), Followed(scene.job(), "")])


def _list(scene: Scene) -> object:
    return _page(None, ())


def _list_further(scene: Scene) -> object:
    return _page(scene.job(), ())


def _list_failed(scene: Scene) -> object:
    return _page(None, ("failed",))


def _page(after: str | None, statuses: tuple[str, ...]) -> object:
    from api.http.paging import Window, encode
    from api.jobs import service
    from models.status import JobStatus

    window = Window(20, encode(after) if after else None)
    return service.page(KEY, window, [JobStatus(status) for status in statuses])


def _claim(scene: Scene) -> object:
    from worker.ledger.claims import claim

    return claim("distill", scene.worker)


def _claim_inspection(scene: Scene) -> object:
    from worker.ledger.claims import SLOTS, claim

    return [claim("inspect", scene.worker, takes) for takes in SLOTS["inspect"]]


def _sweep(scene: Scene) -> object:
    from worker.upkeep.sweep import sweep

    return sweep([scene.worker])


ACTIONS: dict[str, Callable[[Scene], object]] = {
    "poll": _poll,
    "follow": _follow,
    "list": _list,
    "list further": _list_further,
    "list failed": _list_failed,
    "claim": _claim,
    "claim an inspection": _claim_inspection,
    "sweep": _sweep,
}


def whole_tables(action: Callable[[], object]) -> list[str]:
    """The statements of an action whose plan scans one of the big tables completely."""
    from sqlalchemy import event

    from models.database import engine

    statements: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not many and statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            statements.append((statement, parameters))

    event.listen(engine(), "before_cursor_execute", note)
    try:
        action()
    finally:
        event.remove(engine(), "before_cursor_execute", note)
    explain = _explain_postgres if engine().dialect.name == "postgresql" else _explain_sqlite
    return [
        f"{table}: {' '.join(statement.split())}"
        for statement, parameters in statements
        for table in explain(statement, parameters)
    ]


def _explain_postgres(statement: str, parameters: Any) -> list[str]:
    from models.database import engine

    with engine().connect() as connection:
        (plan,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).one()
    nodes, found = [plan[0]["Plan"]], []
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", ())
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG:
            found.append(node["Relation Name"])
    return found


def _explain_sqlite(statement: str, parameters: Any) -> list[str]:
    from models.database import engine

    with engine().connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    words = [str(row[3]).split() for row in rows]
    return [said[1] for said in words if said[0] == "SCAN" and said[1] in BIG and "INDEX" not in said]


if __name__ == "__main__":
    sys.exit(main())
