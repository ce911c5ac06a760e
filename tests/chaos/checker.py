"""Checks every guarantee. Reads the public API, the database and storage, and nothing else.

Each rule takes a `World` and yields sentences about violations; none if the guarantee held.
"""

import hashlib
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from safetensors import SafetensorError, safe_open
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models.database import Record
from models.records import (
    Artifact,
    Attempt,
    Checkpoint,
    Dataset,
    File,
    Inspection,
    Job,
    Metric,
    Preview,
    Teacher,
    Worker,
)  # fmt: skip
from models.status import TRANSITIONS, JobStatus
from models.storage import keys
from models.storage.blobs import Storage
from models.storage.errors import StorageError

FINAL = {status.value for status in JobStatus if status.final}
STUDENT = "student.safetensors"
ARTIFACTS = frozenset({STUDENT, "report.json"})
DOWNLOADED = 10
"""Number of students that are downloaded through the API; all of them are read from storage."""


@dataclass(frozen=True)
class Wanted:
    """What the users know about one order."""

    number: int
    variant: str
    answers: frozenset[str]
    cancel_accepted: bool = False


@dataclass
class World:
    """The API's answers, the database and the storage. `twins` maps a variant to the SHA-256 of the student of an
    undisturbed run. Checkpoints of jobs that ended after `ended_before` may still exist."""

    http: httpx.Client
    engine: Engine
    storage: Storage
    wanted: Sequence[Wanted]
    twins: Mapping[str, str]
    final_seconds: float
    ended_before: float = math.inf
    damaged: frozenset[str] = frozenset()
    """Uploads whose canonical forms a fault has damaged for good."""

    def rows(self, table: type[Record]) -> Sequence[Any]:
        # without a transaction, which Postgres would end while a slow machine makes objects of many rows
        with Session(self.engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
            return session.scalars(select(table)).all()

    @cached_property
    def jobs(self) -> dict[str, Any]:
        """Jobs as the API shows them, by id."""
        return {job["id"]: job for job in self.pages("jobs")}

    @cached_property
    def job_rows(self) -> dict[str, Job]:
        return {job.id: job for job in self.rows(Job)}

    @cached_property
    def variants(self) -> dict[str, str]:
        return {job: order.variant for order in self.wanted for job in order.answers}

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """Every entry of a list of the API; none for an unknown job, which another rule reports."""
        query: dict[str, Any] = {"limit": 200}
        while True:
            answer = self.http.get(path, params=query)
            if answer.status_code == 404:
                return
            page = answer.raise_for_status().json()
            yield from page["data"]
            if not page.get("next_cursor"):
                return
            query = {"limit": 200, "cursor": page["next_cursor"]}

    def by_job(self, table: type[Record]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = defaultdict(list)
        for row in self.rows(table):
            found[row.job_id].append(row)  # type: ignore[attr-defined]
        return found


Rule = Callable[[World], Iterator[str]]


def no_job_is_lost(world: World) -> Iterator[str]:
    """Every accepted job reaches a final state."""
    for order in world.wanted:
        if not order.answers:
            yield f"order {order.number} was never accepted"
        for job in order.answers:
            shown = world.jobs.get(job)
            if shown is None:
                yield f"{job} was accepted, but the API does not know it"
            elif shown["status"] not in FINAL:
                yield f"{job} was accepted, but is still {shown['status']}: {shown.get('reason')}"


def jobs_end_in_time(world: World) -> Iterator[str]:
    """Every job ends within a bound."""
    for job in world.job_rows.values():
        if job.finished_at is not None and job.finished_at - job.created_at > world.final_seconds:
            yield f"{job.id} took {job.finished_at - job.created_at:.0f} s to its final state"


def no_job_is_duplicated(world: World) -> Iterator[str]:
    """Each order has one job, however often its POST was sent."""
    for order in world.wanted:
        if len(order.answers) > 1:
            yield f"the POSTs of order {order.number} were answered with different jobs: {sorted(order.answers)}"
    accepted = {job for order in world.wanted for job in order.answers}
    for job in world.job_rows.keys() - accepted:
        yield f"{job} exists, but no POST was answered with it"
    labels = Counter(row.labels.get("order") for row in world.job_rows.values())
    for label, count in labels.items():
        if count > 1:
            yield f"order {label} has {count} jobs"


def event_histories_are_legal(world: World) -> Iterator[str]:
    """Events are numbered without gaps and report legal transitions only; the last one leads to the job's status."""
    for id, job in world.job_rows.items():
        events = list(world.pages(f"jobs/{id}/events"))
        if [event["seq"] for event in events] != list(range(1, job.event_seq + 1)):
            yield f"{id} has {len(events)} events, not 1 to {job.event_seq} without a gap"
        path = [event["data"]["status"] for event in events if event["type"] == "status"]
        if not path or path[0] != "queued" or path[-1] != job.status:
            yield f"{id} is {job.status}, but its events say {path}"
        for before, after in pairwise(path):
            waits_on = before == after == "queued"  # the check of its spec has passed
            if not waits_on and JobStatus(after) not in TRANSITIONS[JobStatus(before)]:
                yield f"{id} went from {before} to {after}"


def attempts_are_consistent(world: World) -> Iterator[str]:
    """Attempts are numbered without gaps and closed; at most one has succeeded, and it is the last."""
    attempts = world.by_job(Attempt)
    for id, job in world.job_rows.items():
        mine = sorted(attempts[id], key=lambda attempt: attempt.number)
        outcomes = [attempt.outcome for attempt in mine]
        if [attempt.number for attempt in mine] != list(range(1, job.attempt + 1)):
            yield f"{id} is at attempt {job.attempt}, and has the attempts {[attempt.number for attempt in mine]}"
        if None in outcomes or any(attempt.ended_at is None for attempt in mine):
            yield f"{id} has attempts that never ended: {outcomes}"
        right = outcomes[-1:] == ["succeeded"] if job.status == "succeeded" else "succeeded" not in outcomes
        if outcomes.count("succeeded") > 1 or not right:
            yield f"{id} is {job.status}, and its attempts ended {outcomes}"


def ends_have_a_cause(world: World) -> Iterator[str]:
    """No job fails, since no spec here can fail, unless its input was damaged; only jobs that a user cancelled are
    cancelled."""
    asked = {job for order in world.wanted if order.cancel_accepted for job in order.answers}
    for id, job in world.job_rows.items():
        inputs = {job.teacher_id, job.dataset_id, job.evaluation_id}
        lost = (job.error or {}).get("code") == "input_missing" and inputs & world.damaged
        if job.status == "failed" and not lost:
            yield f"{id} ({world.variants.get(id)}) failed: {job.error}"
        if job.status == "cancelled" and id not in asked:
            yield f"{id} was cancelled, but no user had cancelled it"
        if job.status == "succeeded" and job.error is not None:
            yield f"{id} succeeded, but has the error {job.error}"


def artifacts_are_complete(world: World) -> Iterator[str]:
    """A succeeded job has all its artifacts, with the bytes that their rows describe; any other job has none."""
    rows = world.by_job(Artifact)
    for id, job in world.job_rows.items():
        mine = rows[id]
        names = {row.name for row in mine}
        if job.status == "succeeded" and not names >= ARTIFACTS:
            yield f"{id} succeeded, but lacks {sorted(ARTIFACTS - names)}"
        if job.status != "succeeded" and mine:
            yield f"{id} is {job.status}, but has artifacts: {sorted(names)}"
        if {shown["name"] for shown in world.pages(f"jobs/{id}/artifacts")} != names:
            yield f"the API shows other artifacts of {id} than the database has"
        if any(row.attempt != job.attempt for row in mine):
            yield f"{id} ended with attempt {job.attempt}, but has artifacts of another"
        for row in mine:
            yield from _blob_is_right(world.storage, row)


def _blob_is_right(storage: Storage, row: Artifact) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "artifact"
        try:
            stored = storage.download(row.key, path)
        except StorageError as error:
            yield f"{row.job_id} has {row.name}, whose bytes cannot be read: {error}"
            return
        if (stored.size, stored.sha256) != (row.size, row.sha256):
            yield f"the bytes of {row.name} of {row.job_id} differ from its row"
        elif row.name.endswith(".safetensors"):
            try:
                with safe_open(path, "numpy") as file:
                    for name in file.keys():  # noqa: SIM118 - not a dictionary
                        file.get_slice(name)
            except SafetensorError as error:
                yield f"{row.name} of {row.job_id} cannot be read: {error}"


def metrics_are_unique(world: World) -> Iterator[str]:
    """A metric has one value per step, and the API shows the values of the database."""
    kept = Counter(row.job_id for row in world.rows(Metric))
    for id, job in world.job_rows.items():
        shown = list(world.pages(f"jobs/{id}/metrics"))
        steps = Counter((metric["name"], metric["step"]) for metric in shown)
        if any(count > 1 for count in steps.values()) or len(shown) != kept[id]:
            yield f"{id} has {kept[id]} metrics, but the API shows {len(shown)}, {len(steps)} of them different"
        if job.status == "succeeded" and not shown:
            yield f"{id} succeeded, but has no metrics"


def students_are_bit_equal(world: World) -> Iterator[str]:
    """A student is bit-equal to that of an undisturbed run."""
    students = [row for row in world.rows(Artifact) if row.name == STUDENT]
    for row in students:
        variant = world.variants.get(row.job_id, "")
        if row.sha256 != world.twins.get(variant):
            yield f"the student of {row.job_id} ({variant}) differs from that of an undisturbed run"
    for row in students[:: max(1, len(students) // DOWNLOADED)][:DOWNLOADED]:
        answer = world.http.get(f"jobs/{row.job_id}/artifacts/{STUDENT}", follow_redirects=True)
        if not answer.is_success or hashlib.sha256(answer.content).hexdigest() != row.sha256:
            yield f"the downloaded student of {row.job_id} differs from the stored one ({answer.status_code})"


def no_lease_is_left(world: World) -> Iterator[str]:
    """No lease, open inspection, waiting upload or busy worker is left."""
    for job in world.job_rows.values():
        if job.lease_owner is not None or job.lease_expires_at is not None:
            yield f"{job.id} is {job.status}, but leased to {job.lease_owner}"
    for inspection in world.rows(Inspection):
        if inspection.status not in ("done", "failed") or inspection.lease_owner is not None:
            yield f"the inspection of {inspection.subject_id} is {inspection.status}"
        if inspection.status == "failed":
            yield f"the inspection of {inspection.subject_id} failed: {inspection.error}"
    for table in (Teacher, Dataset, File):
        for upload in world.rows(table):
            if upload.status != "ready" or upload.upload_key is not None:
                yield f"the upload {upload.id} is {upload.status}: {upload.problem}"
    for worker in world.rows(Worker):
        if worker.busy_with is not None:
            yield f"the worker {worker.id} reports that it is busy with {worker.busy_with}"


def no_blob_is_orphaned(world: World) -> Iterator[str]:
    """Every blob has a row, and every row's blob exists."""
    named = {row.key for table in (Artifact, Preview) for row in world.rows(table)}
    named |= {row.log_key for row in world.rows(Attempt) if row.log_key}
    for upload in (row for table in (Teacher, Dataset, File) for row in world.rows(table) if row.blob_key):
        named |= {
            upload.blob_key,
            *(keys.canonical_part(upload.id, part["sha256"]) for part in upload.blob_parts or ()),
        }
        named |= {keys.samples(upload.blob_key)} if "samples" in (upload.findings or {}) else set()
    fresh = {job.id for job in world.job_rows.values() if (job.finished_at or math.inf) > world.ended_before}
    stored = {entry.key for entry in world.storage.list()}
    stored -= {key for key in stored if "/parts/" in key and key.split("/")[1] in fresh}
    for key in sorted(stored - named):
        yield f"no row names {key}"
    for key in sorted(named - stored):
        yield f"a row names {key}, which is not in storage"
    for checkpoint in world.rows(Checkpoint):
        if checkpoint.job_id not in fresh:
            yield f"{checkpoint.job_id} has ended, but still has a checkpoint"


RULES: tuple[Rule, ...] = (
    no_job_is_lost, jobs_end_in_time, no_job_is_duplicated, event_histories_are_legal, attempts_are_consistent, ends_have_a_cause,
    artifacts_are_complete, metrics_are_unique, students_are_bit_equal,
)  # fmt: skip
IN_THE_END: tuple[Rule, ...] = (no_lease_is_left, no_blob_is_orphaned)
"""Rules that hold once the sweeps have removed everything."""


def broken(world: World, rules: Sequence[Rule] = RULES + IN_THE_END) -> dict[str, list[str]]:
    """The sentences of each broken rule."""
    said = {rule.__name__: list(rule(world)) for rule in rules}
    return {name: sentences for name, sentences in said.items() if sentences}
