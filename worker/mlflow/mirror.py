"""The mirror: a thread in every worker that shows jobs as runs of the operator's MLflow server. Several may run at the same time.

It reads rows and sends; no job waits for it. A server that refuses or does not answer delays only the runs.
"""

import time
from typing import Self

import structlog
from sqlalchemy import select

from models.database import reading
from models.records import Artifact, Job, Key
from models.settings import settings
from models.status import JobStatus
from models.storage.errors import StorageError
from models.storage.opening import storage
from worker.ledger.changes import Taken
from worker.mlflow import contents, rows
from worker.mlflow.rows import DueRun
from worker.mlflow.server import BYTES_A_SECOND, MlflowError, Server, Unreachable
from worker.sending_thread import SendingThread

FAREWELL_SECONDS = 3.0
"""How long a stopping worker waits for a running visit. Another worker continues it."""
PAUSE_SECONDS = 30.0
"""Pause of this worker after a server did not answer."""
VISIT_SECONDS = 60.0
"""Time after which a visit begins no further batch of metrics; the next visit continues."""

log = structlog.get_logger(__name__)


class Mirror(SendingThread):
    """Sends what is due, from entering to leaving the context; does nothing without a server."""

    name = "mlflow"

    def __enter__(self) -> Self:
        return super().__enter__() if settings().mlflow_tracking_uri else self

    def next_pause(self) -> float:
        try:
            return 0.0 if visit_next() else settings().sweep_seconds
        except Unreachable:
            return PAUSE_SECONDS

    def await_end(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(FAREWELL_SECONDS)


def visit_next() -> bool:
    """Visit the run that has been due the longest; returns whether there was one.

    Raises:
        Unreachable: the server does not answer. The failed try is recorded.
    """
    run = rows.claim()
    if run is None:
        return False
    try:
        with Server(settings()) as server:
            visit(server, run)
    except Taken:
        log.info("mlflow_run_taken_over", job=run.job_id)
    except (MlflowError, StorageError, KeyError, TypeError) as error:  # the last two: not an answer of MLflow
        _fail(run, error)
        if isinstance(error, Unreachable):
            raise
    return True


def _fail(run: DueRun, error: Exception) -> None:
    try:
        status = rows.fail(run, f"{type(error).__name__}: {error}")
    except Taken:
        return
    log.warning("mlflow_not_sent", job=run.job_id, status=status, error=str(error)[:300])


def visit(server: Server, run: DueRun) -> None:
    """Send what is new of one job, and end its run if the job has ended.

    Raises:
        Taken: another worker has taken the run over, or the job was deleted.
        MlflowError, StorageError: sending failed; what is sent is recorded.
    """
    with reading() as session:
        job = session.get(Job, run.job_id)
        key_name = session.scalar(select(Key.name).join(Job, Job.key_id == Key.id).where(Job.id == run.job_id)) or ""
    if job is None or job.deleted_at is not None:
        rows.end(run)
        return
    run_id = _run_id(server, run, job)
    if not run.described:
        server.describe(run_id, contents.parameters(job.resolved), contents.tags(job, key_name))
        run.described = True
        rows.keep(run)
    all_sent = _send_metrics(server, run, run_id)
    if not JobStatus(job.status).final or not all_sent:
        rows.release(run)
        return
    _end(server, run, run_id, job)
    rows.end(run)
    log.info("mlflow_run_sent", job=run.job_id, run=run_id)


def _run_id(server: Server, run: DueRun, job: Job) -> str:
    if run.run_id is None:
        experiment = server.experiment(settings().mlflow_experiment)
        started = contents.milliseconds(job.started_at or job.created_at)
        # after a lost answer, the run exists already
        run.run_id = server.run_of(experiment, job.id) or server.create_run(experiment, job.id, job.name, started)
        rows.keep(run)
    return run.run_id


def _send_metrics(server: Server, run: DueRun, run_id: str) -> bool:
    """Send the values that are not sent yet; returns whether these are all."""
    ends_at = time.monotonic() + VISIT_SECONDS
    while time.monotonic() < ends_at:
        with reading() as session:
            found = contents.unsent_values(session, run.job_id, run.metrics)
        if not found:
            return True
        server.log(run_id, contents.entries(found))
        run.metrics |= {row.name: row.step for row in found}  # by name and step, so the last of a name wins
        rows.keep(run)
    return False


def _end(server: Server, run: DueRun, run_id: str, job: Job) -> None:
    """Send the report's numbers and the artifacts, and end the run."""
    with reading() as session:
        results = contents.result_entries(session, job, max(run.metrics.values(), default=0))
        query = select(Artifact).where(Artifact.job_id == job.id, Artifact.attempt == job.attempt)
        artifacts = session.scalars(query.order_by(Artifact.name)).all()
    server.log(run_id, results)
    folder = server.artifact_folder(run_id) if artifacts and settings().mlflow_artifact_bytes else None
    fitting = [one for one in artifacts if folder is not None and one.size <= settings().mlflow_artifact_bytes]
    for artifact in fitting:
        if artifact.name in run.files:
            continue
        rows.keep(run, artifact.size / BYTES_A_SECOND)
        server.put(folder or "", artifact.name, artifact.size, storage().get(artifact.key))
        run.files.append(artifact.name)
    rows.keep(run)
    unsent = [one.name for one in artifacts if one not in fitting]
    server.describe(run_id, {}, contents.end_tags(job, unsent))
    server.end(run_id, contents.STATUSES[job.status], contents.milliseconds(job.finished_at or 0.0))
