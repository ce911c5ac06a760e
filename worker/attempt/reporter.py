"""Writes a running engine's events to the database.

Rows are written in batches by the thread that reads the events; a separate thread uploads blobs (`uploads.py`).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from models.database import UNAVAILABLE
from models.status import Phase
from worker.attempt.event_fields import stage_of, step_of
from worker.attempt.lease import Lease
from worker.attempt.time_left import Pace
from worker.attempt.uploads import Uploads
from worker.clock import clock
from worker.engine.engine_process import Event
from worker.engine.folder import Folder
from worker.ledger.attempts import AttemptLedger, EventBatch
from worker.ledger.changes import Note

FLUSH_SECONDS = 1.0
MOST_LOG_LINES = 5000
"""Maximum number of log lines of one attempt that become events. The attempt's log has all of them."""
MESSAGE_CHARACTERS = 4000
PROGRESS_EVENTS_A_RUN = 600
"""Approximate maximum number of progress events of a run: at most one per second, and fewer the longer the run."""
LEVELS = {"info": "info", "warning": "warning", "warn": "warning", "error": "error", "debug": "info"}

log = structlog.get_logger(__name__)


class Reporter:
    """The reporter of one attempt at a job. `artifacts` are the files to publish at its end."""

    def __init__(self, ledger: AttemptLedger, folder: Folder, lease: Lease):
        self.artifacts: list[Event] = []
        self.unreadable_checkpoint = False
        self.uploads = Uploads(ledger, folder, lease)
        self._ledger = ledger
        self._lease = lease
        self._batch = EventBatch()
        self._started_at = self._flushed = clock()
        self._pace = Pace()
        self._progress_noted = -math.inf
        self._log_lines = 0

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.uploads.close()

    def handle(self, event: Event) -> None:
        """Process one event; a malformed one is logged and ignored.

        Raises:
            Taken: the lease was lost.
        """
        handler: Callable[[Event], None] | None = getattr(self, f"_on_{event['event']}", None)
        if handler is None:
            return
        try:
            handler(event)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
            log.warning("event_ignored", event_name=event["event"], error=repr(error))

    def flush(self, now: bool = False) -> None:
        """Write the batch if it is a second old, or `now`. If the database is unavailable, it is kept for the next
        flush."""
        self._lease.check_held()
        if not self._batch or (not now and clock() - self._flushed < FLUSH_SECONDS):
            return
        self._flushed = clock()
        try:
            self._ledger.try_to_write(self._batch)
        except UNAVAILABLE as error:
            log.warning("events_not_written_yet", error=str(error).partition("\n")[0])
            return
        self._batch = EventBatch()

    def finish(self) -> None:
        """Write the batch; retried while the database is unavailable and the lease is held."""
        if self._batch:
            self._ledger.write(self._batch)
            self._batch = EventBatch()

    def _note(self, type: str, message: str, level: str = "info", data: Mapping[str, Any] | None = None) -> None:
        self._batch.notes.append(Note(type, message[:MESSAGE_CHARACTERS], level, data))

    def _on_started(self, event: Event) -> None:
        data = {name: value for name, value in event.items() if name != "event"}
        resumed = event.get("resumed_from")
        where = "" if resumed is None else f" from step {resumed}"
        self._note("log", f"the engine has started{where}", data=data)
        self.flush(now=True)

    def _on_sandbox(self, event: Event) -> None:
        data = {name: value for name, value in event.items() if name != "event"}
        parts = ", ".join(f"{name} {data[name]}" for name in ("filesystem", "network", "memory", "signals"))
        confined = data["filesystem"] != "open" and data["network"] != "shared"
        self._note("log", f"the engine's sandbox: {parts}", "info" if confined else "warning", data)

    def _on_phase(self, event: Event) -> None:
        phase, stage = Phase(event["phase"]), event.get("stage")
        if self._batch.phase is not None:
            self.flush(now=True)
        self._batch.phase, self._batch.stage = phase.value, stage_of(stage)
        message = phase.value.replace("_", " ") + (f" ({stage})" if stage else "")
        self._note("phase", message, data={"phase": phase.value, "stage": stage})
        self.flush(now=True)

    def _on_progress(self, event: Event) -> None:
        names = ("stage", "step", "steps", "fraction", "epoch")
        left = {"seconds_left": self._pace.seconds_left(event.get("fraction"))}
        self._batch.progress = {name: event.get(name) for name in names} | left
        self._batch.stage = stage_of(event.get("stage"))
        first = self._progress_noted == -math.inf
        interval = max(1.0, (clock() - self._started_at) / PROGRESS_EVENTS_A_RUN)
        if clock() - self._progress_noted >= interval or event.get("step") == event.get("steps"):
            self._progress_noted = clock()
            message = f"step {event.get('step')} of {event.get('steps')}"
            self._note("progress", message, data=self._batch.progress)
        if first:
            self.flush(now=True)  # so that users see at once that the training has started

    def _on_metrics(self, event: Event) -> None:
        step = step_of(event["step"])
        for name, value in event["values"].items():
            if len(name) <= 128 and (value is None or isinstance(value, int | float)):
                self._batch.metrics[name, step] = None if value is None or not math.isfinite(value) else float(value)

    def _on_log(self, event: Event) -> None:
        self._log_lines += 1
        if self._log_lines <= MOST_LOG_LINES:
            self._note("log", str(event["message"]), LEVELS.get(str(event.get("level")), "info"))
        elif self._log_lines == MOST_LOG_LINES + 1:
            self._note("log", "further log lines are only in the attempt's log file", "warning")

    def _on_artifact(self, event: Event) -> None:
        self.artifacts = [known for known in self.artifacts if known["name"] != event["name"]] + [event]

    def _on_error(self, event: Event) -> None:
        self.unreadable_checkpoint = event.get("code") == "checkpoint_unreadable"

    def _on_checkpoint(self, event: Event) -> None:
        self.uploads.checkpoint(event["manifest"])

    def _on_preview(self, event: Event) -> None:
        self.uploads.preview(event)
