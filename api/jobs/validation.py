"""Validation of a spec without a job: checks against the catalogue, then a check by an engine that builds the networks.

The second takes an inspect worker some seconds. It is an inspection row without a job, which the request inserts, waits
for and deletes. If no worker finishes it in time, the response says what was not checked.
"""

import time

from sqlalchemy import delete
from starlette.concurrency import run_in_threadpool

from api.health.workers import missing_worker
from api.http.at_once import AtOnce
from api.http.errors import Invalid
from api.http.observe import current_request_id
from api.http.row_watch import RowWatch, token_of
from api.jobs.job_inputs import InputRows, Inputs
from api.jobs.schemas import Validated
from models.database import reading, transaction
from models.queue.wake_up import wake_up
from models.records import Inspection
from models.records.columns import new_id
from models.spec.compression import with_choice
from models.spec.job_spec import JobSpec
from models.status import InspectionStatus

PRIORITY = 1000
"""Above the priority of every job, because a client waits."""
MAX_CONCURRENT = 4
"""Checks of one key that this process waits for at once. Further requests are answered without building networks."""
FINISHED = (InspectionStatus.DONE, InspectionStatus.FAILED)

_waiting = AtOnce()


async def validate(watch: RowWatch, key_id: str, spec: JobSpec, wait_seconds: int) -> Validated:
    """The resolved spec, and which parts were checked.

    Raises:
        Invalid: the spec cannot work; lists every problem, found by the catalogue or by the engine.
    """
    first, obstacle = await run_in_threadpool(_check_spec, key_id, spec)
    if obstacle is None and wait_seconds <= 0:
        obstacle = "the request did not wait. Send 'Prefer: wait=30'"
    with _waiting.one_more(key_id, MAX_CONCURRENT) as free:
        if obstacle is None and not free:
            obstacle = f"{MAX_CONCURRENT} validations of this key are in progress. Try again when they have ended"
        if obstacle is not None:
            return first.model_copy(update={"unchecked": f"The networks were not built: {obstacle}."})
        return await _build_networks(watch, key_id, first, wait_seconds)


def _check_spec(key_id: str, spec: JobSpec) -> tuple[Validated, str | None]:
    """The checks that need no engine, and why the networks cannot be built now (None if they can)."""
    with reading() as session:
        inputs = Inputs(InputRows(session), key_id, spec)
        waits_for = inputs.waits_for()
        found = Validated(resolved=inputs.resolved(spec), waits_for=waits_for, checked=["spec"])
        return found, f"a job with this spec {waits_for}" if waits_for else missing_worker(session, "inspect")


async def _build_networks(watch: RowWatch, key_id: str, first: Validated, wait_seconds: int) -> Validated:
    identifier = await run_in_threadpool(_insert_check, key_id, first)
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            row = await run_in_threadpool(_read_check, identifier)
            if row is not None and row.status in FINISHED:
                return _result(first, row)
            left = deadline - time.monotonic()
            if row is None or left <= 0 or watch.closing:
                why = f"no inspect worker finished within {wait_seconds} s. Try again with a longer 'Prefer: wait=…'"
                return first.model_copy(update={"unchecked": f"The networks were not built: {why}."})
            await watch.changed(Inspection, identifier, token_of(row), left)
    finally:
        await run_in_threadpool(_delete_check, identifier)


def _insert_check(key_id: str, first: Validated) -> str:
    identifier = new_id("ins")
    check = Inspection(
        id=identifier, kind="check", subject_id=identifier, key_id=key_id, priority=PRIORITY, resolved=first.resolved,
        request_id=current_request_id(),
    )  # fmt: skip
    with transaction() as session:
        session.add(check)
    wake_up("inspect")
    return identifier


def _read_check(identifier: str) -> Inspection | None:
    with reading() as session:
        return session.get(Inspection, identifier)


def _delete_check(identifier: str) -> None:
    with transaction() as session:
        session.execute(delete(Inspection).where(Inspection.id == identifier))


def _result(first: Validated, row: Inspection) -> Validated:
    error = row.error or {}
    if row.status == InspectionStatus.DONE:
        facts = row.facts or {}
        chosen = with_choice(first.resolved, facts)
        return first.model_copy(update={"resolved": chosen, "checked": ["spec", "networks"], "facts": facts})
    if error.get("fault") == "service":
        return first.model_copy(update={"unchecked": f"The networks could not be built: {error.get('message')}."})
    found = [(one["pointer"], one["message"]) for one in error.get("errors") or ()]
    problems = found or [("", str(error.get("message") or "the networks cannot be built"))]
    raise Invalid(problems, hint=error.get("hint"))
