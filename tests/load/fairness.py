"""Fair turns: one key's single job starts before the third of another's thousand."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.records import Attempt, Inspection, Job
from tests.api.service import User
from tests.attack.findings import Findings
from tests.attack.target import Target
from tests.integration.whole import TEACHER, eventually

BEFORE = 2
"""How many jobs of the other key may start before the single one."""
SENDERS = 8


def inputs_of(target: Target, user: User) -> dict[str, str]:
    """A ready teacher and dataset of a user."""
    found = {}
    for kind, file, body in (("teacher", "teacher.safetensors", TEACHER), ("dataset", "images.npz", {})):
        record = user.http.post(f"/{kind}s", json=body).raise_for_status().json()
        user.http.put(record["upload"], content=(target.inputs / file).read_bytes()).raise_for_status()
        found[kind] = record["id"]

        def ready(path: str = f"/{kind}s/{record['id']}") -> bool:
            return user.http.get(path, headers={"Prefer": "wait=5"}).json()["status"] == "ready"

        eventually(ready, f"the {kind} is ready")
    return found


def spec(inputs: dict[str, str], steps: int = 2) -> dict[str, Any]:
    """A job of a second or two."""
    training = {"steps": steps, "batch_size": 16}
    return inputs | {"student": {"network": "lenet5_half"}, "training": training, "exports": ["safetensors"]}


def measure(target: Target, findings: Findings, jobs: int) -> None:
    """Submit `jobs` of one key and one of another, then start the worker that distils; then another single job beside them."""
    whole = target.whole
    whole.processes["distill"].terminate()
    whole.processes["distill"].wait(30)
    with target.user() as greedy, target.user() as modest:
        many, one = spec(inputs_of(target, greedy)), spec(inputs_of(target, modest))
        began = time.monotonic()
        with ThreadPoolExecutor(SENDERS) as pool:
            sent = list(pool.map(lambda _: greedy.http.post("/jobs", json=many).status_code, range(jobs)))
        seconds = time.monotonic() - began
        findings.require(set(sent) == {202}, "no 5xx", f"submissions: {set(sent)}")
        single = _submit(modest, one)
        passed = _await_check(target, single, greedy.key_id)
        whole.start("distill")
        first = _await_start(target, single, greedy.key_id)
        second = _await_start(target, _submit(modest, one), greedy.key_id)
        for name, count in (("after all", first), ("beside them", second)):
            findings.require(count <= BEFORE, "fair turns", f"{name}: {count} jobs of the other key started first")
        findings.note(
            "fairness", jobs=jobs, submitted_a_second=round(jobs / seconds, 1), checks_of_the_other_key_first=passed,
            jobs_of_the_other_key_first=first, jobs_of_the_other_key_first_later=second,
        )  # fmt: skip
        whole.processes["distill"].terminate()
        whole.processes["distill"].wait(30)
        _cancel_all(target, greedy)
        whole.start("distill")


def _submit(user: User, body: dict[str, Any]) -> str:
    return str(user.http.post("/jobs", json=body).raise_for_status().json()["id"])


def _await_check(target: Target, job: str, other: str) -> int:
    """Wait until a job's spec is checked; returns how many checks of the other key ended since it was submitted."""
    with Session(target.service.engine) as session:
        since = session.get_one(Job, job).created_at

    def checked() -> bool:
        with Session(target.service.engine) as session:
            return session.get_one(Job, job).ready

    eventually(checked, "the single job is checked", 300)
    with Session(target.service.engine) as session:
        query = (
            select(func.count()).select_from(Inspection).where(Inspection.key_id == other, Inspection.status == "done")
        )
        return session.scalar(query.where(Inspection.finished_at > since)) or 0


def _await_start(target: Target, job: str, other: str) -> int:
    """Wait until a job starts; returns how many jobs of the other key started since it was submitted."""

    def started() -> float | None:
        with Session(target.service.engine) as session:
            return session.scalar(select(Attempt.started_at).where(Attempt.job_id == job))

    at = eventually(started, "the single job starts", 300)
    with Session(target.service.engine) as session:
        since = session.get_one(Job, job).created_at
        query = select(func.count()).select_from(Attempt).join(Job, Job.id == Attempt.job_id).where(Job.key_id == other)
        return session.scalar(query.where(Attempt.started_at > since, Attempt.started_at < at)) or 0


def _cancel_all(target: Target, user: User) -> None:
    with Session(target.service.engine) as session:
        waiting = session.scalars(
            select(Job.id).where(Job.key_id == user.key_id, Job.status.in_(("queued", "running")))
        ).all()
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(lambda job: user.http.post(f"/jobs/{job}/cancel"), waiting))
