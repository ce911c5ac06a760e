"""Turns what an engine says into rows and blobs, while it runs.

Rows are written in batches by whoever reads the events; blobs are uploaded by one thread beside it, so that a slow store
holds up no event.
"""

import math
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from models.database import AWAY
from models.settings import settings
from models.status import Phase
from models.storage.blobs import Exists, StorageError, Unavailable, storage
from worker.attempt.inputs import part_key
from worker.attempt.lease import Lease
from worker.attempt.retrying import persist
from worker.attempt.time_left import Pace
from worker.clock import clock
from worker.engine.engine_process import Event
from worker.engine.folder import Folder
from worker.ledger.attempts import AttemptLedger, EventBatch, File
from worker.ledger.changes import Note, Taken

FLUSH_SECONDS = 1.0
MOST_LOG_LINES = 5000
"""So many lines of one attempt become events; all of them are in its log."""
MESSAGE_CHARACTERS = 4000
PROGRESS_EVENTS_A_RUN = 600
"""Progress is an event at most once a second, and the longer a run takes, the more seldom."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
CONTENT_TYPE = re.compile(r"[a-z0-9]+/[a-z0-9.+-]{1,100}")
SHA256 = re.compile(r"[0-9a-f]{64}")
LEVELS = {"info": "info", "warning": "warning", "warn": "warning", "error": "error", "debug": "info"}

log = structlog.get_logger(__name__)


class Malformed(ValueError):
    """The engine said something that the contract does not know."""


class Superseded(Exception):
    """A newer checkpoint waits, or none is of use any more."""


def log_key(ledger: AttemptLedger) -> str:
    """Where an attempt's log lies in storage."""
    return f"jobs/{ledger.job_id}/{ledger.number}/engine.log"


class Reporter:
    """Reports one attempt at a job. `artifacts` are the files to publish at its end."""

    def __init__(self, ledger: AttemptLedger, folder: Folder, lease: Lease):
        self.artifacts: list[Event] = []
        self.unreadable_checkpoint = False
        self._ledger, self._folder, self._lease = ledger, folder, lease
        self._batch = EventBatch()
        self._begun = self._flushed = clock()
        self._pace = Pace()
        self._progress_noted = -math.inf
        self._log_lines = 0
        self._uploads = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._newest_checkpoint: Mapping[str, Any] | None = None
        self._stored: set[str] = set()
        self._hurry_by = math.inf
        self._log_kept, self._log_looked = 0, -math.inf
        self._log_upload = threading.Lock()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._newest_checkpoint = None
        self._uploads.shutdown(wait=True, cancel_futures=True)

    def hear(self, event: Event) -> None:
        """Take one event; what is malformed is logged and left out.

        Raises:
            Taken: the attempt is not the job's any more.
        """
        handler: Callable[[Event], None] | None = getattr(self, f"_on_{event['event']}", None)
        if handler is None:
            return
        try:
            handler(event)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
            log.warning("event_left_out", event_name=event["event"], error=repr(error))

    def flush(self, now: bool = False) -> None:
        """Write what has gathered, if it is a second old, or `now`; a database that is away is tried again later."""
        self._lease.demand()
        if not self._batch or (not now and clock() - self._flushed < FLUSH_SECONDS):
            return
        self._flushed = clock()
        try:
            self._ledger.write(self._batch)
        except AWAY as error:
            log.warning("events_not_written_yet", error=str(error).partition("\n")[0])
            return
        self._batch = EventBatch()

    def finish_uploads(self, checkpoints: bool) -> None:
        """Wait for the previews that are on their way, and for `checkpoints` if they are still of use.

        Where the storage is away, that is for the grace of a drain.
        """
        if not checkpoints:
            self._newest_checkpoint = None
        self._hurry_by = clock() + settings().drain_grace_seconds
        self._uploads.shutdown(wait=True)

    def keep_log(self, path: Path) -> None:
        """Upload the log every beat, if it has grown, so that it is there when this worker or its machine dies."""
        if clock() - self._log_looked < settings().beat_seconds:
            return
        self._log_looked = clock()
        size = path.stat().st_size if path.exists() else 0
        if size > self._log_kept and self._log_upload.acquire(blocking=False):
            self._submit(lambda: self._upload_log(path, size), "log", self._log_upload.release)

    def _upload_log(self, path: Path, size: int) -> None:
        self._lease.demand()
        key = log_key(self._ledger)
        storage().put(key, path)
        if not self._log_kept:
            self._ledger.keep_log(key)
        self._log_kept = size

    def _note(self, type: str, message: str, level: str = "info", data: Mapping[str, Any] | None = None) -> None:
        self._batch.notes.append(Note(type, message[:MESSAGE_CHARACTERS], level, data))

    def _on_started(self, event: Event) -> None:
        data = {name: value for name, value in event.items() if name != "event"}
        resumed = event.get("resumed_from")
        where = "afresh" if resumed is None else f"from step {resumed}"
        self._note("log", f"the engine has started {where}", data=data)
        self.flush(now=True)

    def _on_sandbox(self, event: Event) -> None:
        data = {name: value for name, value in event.items() if name != "event"}
        parts = ", ".join(f"{name} {data[name]}" for name in ("filesystem", "network", "memory", "signals"))
        whole = data["filesystem"] != "open" and data["network"] != "shared"
        self._note("log", f"the engine's sandbox: {parts}", "info" if whole else "warning", data)

    def _on_phase(self, event: Event) -> None:
        phase, stage = Phase(event["phase"]), event.get("stage")
        if self._batch.phase is not None:
            self.flush(now=True)
        self._batch.phase, self._batch.stage = phase.value, _stage(stage)
        message = phase.value.replace("_", " ") + (f" ({stage})" if stage else "")
        self._note("phase", message, data={"phase": phase.value, "stage": stage})
        self.flush(now=True)

    def _on_progress(self, event: Event) -> None:
        names = ("stage", "step", "steps", "fraction", "epoch")
        left = {"seconds_left": self._pace.seconds_left(event.get("fraction"))}
        self._batch.progress = {name: event.get(name) for name in names} | left
        self._batch.stage = _stage(event.get("stage"))
        first = self._progress_noted == -math.inf
        interval = max(1.0, (clock() - self._begun) / PROGRESS_EVENTS_A_RUN)
        if clock() - self._progress_noted >= interval or event.get("step") == event.get("steps"):
            self._progress_noted = clock()
            message = f"step {event.get('step')} of {event.get('steps')}"
            self._note("progress", message, data=self._batch.progress)
        if first:
            self.flush(now=True)  # whoever waits sees at once that it trains

    def _on_metrics(self, event: Event) -> None:
        step = _step(event["step"])
        for name, value in event["values"].items():
            if len(name) <= 128 and (value is None or isinstance(value, int | float)):
                self._batch.metrics[name, step] = None if value is None or not math.isfinite(value) else float(value)

    def _on_log(self, event: Event) -> None:
        self._log_lines += 1
        if self._log_lines <= MOST_LOG_LINES:
            self._note("log", str(event["message"]), LEVELS.get(str(event.get("level")), "info"))
        elif self._log_lines == MOST_LOG_LINES + 1:
            self._note("log", "further lines are in the attempt's log only", "warning")

    def _on_artifact(self, event: Event) -> None:
        self.artifacts = [known for known in self.artifacts if known["name"] != event["name"]] + [event]

    def _on_error(self, event: Event) -> None:
        self.unreadable_checkpoint = event.get("code") == "checkpoint_unreadable"

    # Uploads, in a thread of their own

    def _on_checkpoint(self, event: Event) -> None:
        manifest = event["manifest"]
        _step(manifest["step"])
        links = {}
        for part in manifest["parts"].values():
            sha256, size = part["sha256"], part["size"]
            if not SHA256.fullmatch(sha256) or not isinstance(size, int):
                raise Malformed("a checkpoint's part is not named by its SHA-256")
            if sha256 not in links and sha256 not in self._stored:
                links[sha256] = self._keep(sha256)
        self._newest_checkpoint = manifest
        self._submit(lambda: self._upload_checkpoint(manifest, links), "checkpoint")

    def _keep(self, sha256: str) -> Path:
        # a second name, since the engine removes parts that its newest checkpoints do not name
        kept = self._folder.path / "pending" / f"{sha256}.{os.urandom(4).hex()}"
        os.link(self._folder.inside(f"checkpoints/{sha256}"), kept)
        return kept

    def _upload_checkpoint(self, manifest: Mapping[str, Any], links: Mapping[str, Path]) -> None:
        def attend() -> None:
            self._lease.demand()
            if manifest is not self._newest_checkpoint:
                raise Superseded
            if clock() > self._hurry_by:
                raise Unavailable("checkpoint", "the storage does not answer, and this attempt is at its end")

        try:
            for part in manifest["parts"].values():
                persist(attend, lambda part=part: self._upload_part(part["sha256"], part["size"], links), math.inf)  # type: ignore[misc]
            unnamed = self._ledger.checkpoint(manifest)
            self._stored -= set(unnamed)
            for sha256 in unnamed:
                self._lease.demand()
                storage().delete(part_key(self._ledger.job_id, sha256))
        except Superseded:
            log.info("checkpoint_superseded", step=manifest["step"])
        finally:
            for path in links.values():
                path.unlink(missing_ok=True)

    def _upload_part(self, sha256: str, size: int, links: Mapping[str, Path]) -> None:
        key = part_key(self._ledger.job_id, sha256)
        if sha256 in self._stored:
            return
        if storage().size(key) != size:
            path = links[sha256]
            try:
                stored = storage().put(key, path, create_only=True)
            except Exists:
                stored = storage().put(key, path)  # one of another size lay there: it was cut short
            if (stored.size, stored.sha256) != (size, sha256):
                storage().delete(key)
                raise Malformed(f"the part {sha256} has other bytes than its name says")
        self._stored.add(sha256)

    def _on_preview(self, event: Event) -> None:
        name, step, content_type = event["name"], _step(event["step"]), str(event["content_type"])
        if not NAME.fullmatch(name) or not CONTENT_TYPE.fullmatch(content_type):
            raise Malformed(f"a preview is named {name!r}")
        path = self._folder.inside(event["path"])
        self._submit(lambda: self._upload_preview(path, name, step, content_type), "preview")

    def _upload_preview(self, path: Path, name: str, step: int, content_type: str) -> None:
        self._lease.demand()
        key = f"jobs/{self._ledger.job_id}/{self._ledger.number}/previews/{step}-{name}"
        stored = storage().put(key, path)
        replaced = self._ledger.preview(File(name, key, content_type, stored.size, stored.sha256), step)
        if replaced is not None:
            storage().delete(replaced)

    def _submit(self, upload: Callable[[], None], what: str, after: Callable[[], None] = lambda: None) -> None:
        def attempt() -> None:
            try:
                upload()
            except Taken:
                self._lease.give_up()
            except (StorageError, Malformed, OSError, *AWAY) as error:
                # the run goes on: the next one may fare better
                log.warning("upload_failed", what=what, error=str(error).partition("\n")[0])
            finally:
                after()

        self._uploads.submit(attempt).add_done_callback(_complain)


def _step(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise Malformed(f"a step is {value!r}")
    return value


def _stage(value: Any) -> str | None:
    return None if value is None else str(value)[:255]


def _complain(upload: "Future[None]") -> None:
    if not upload.cancelled() and (mistake := upload.exception()) is not None:
        log.error("upload_broke", exc_info=mistake)
