"""The engine as a child process: start it, read its events, send commands, stop it, and always reap it.

It runs in a session of its own. Its environment contains no address of a database or storage, and no secret. It starts in a
fresh interpreter or is forked (engine_start.py). Its process group is killed before it is reaped, so that its own children
end with it.
"""

import json
import math
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import structlog

from worker.engine.confinement import EngineLimits, environment
from worker.engine.engine_log import EngineLog
from worker.engine.engine_start import Started, forks
from worker.engine.pipes import chunks, lines

ENGINE = (sys.executable, "-P", "-m", "worker.distillation")
"""The engine's command, without the job file's name."""
LINE_BYTES = 1 << 20
"""Maximum length of a line; longer lines are dropped."""
WAITING_EVENTS = 1000
"""Maximum number of events in the queue; when it is full, the engine's pipe is not read."""
LINGER_SECONDS = 10.0
"""Time for an engine to exit after its final event, before it is killed."""
FINAL_EVENTS = frozenset({"done", "checked", "findings", "stopped", "error"})

Event = dict[str, Any]
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Exit:
    """How an engine ended: an exit code, or minus the number of the signal that killed it."""

    code: int
    out_of_memory: bool = False

    def __str__(self) -> str:
        if self.out_of_memory:
            return "the engine was killed because it and its processes used more memory than a job may"
        if self.code >= 0:
            return f"the engine ended with exit code {self.code} without a final event"
        name = signal.Signals(-self.code).name if -self.code in set(signal.Signals) else "unknown"
        hint = ", possibly out of memory" if -self.code == signal.SIGKILL else ""
        return f"the engine was killed by signal {-self.code} ({name}){hint}"


@dataclass
class EngineProcess:
    """One engine. `folder` contains `job.json` and all files that the engine reads and writes. One that `trains` sees the GPUs.

    Start it from a thread that outlives it: Linux kills the engine when the thread that started it ends.
    """

    folder: Path
    command: Sequence[str] = ENGINE
    threads: int | None = None
    trains: bool = True
    limits: EngineLimits = field(default_factory=EngineLimits)

    def __post_init__(self) -> None:
        self.log = EngineLog(self.folder / "engine.log")
        self.final_event: Event | None = None
        self._events: queue.Queue[Event | None] = queue.Queue(WAITING_EVENTS)
        self._process: Started | None = None
        self._listeners: list[threading.Thread] = []
        self._ended = threading.Event()
        self._dead = threading.Event()
        self._abandoned = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> "EngineProcess":
        (self.folder / "tmp").mkdir(exist_ok=True)
        seen = environment(self.folder, self.threads, self.trains, self.trains)
        self._process = process = forks.start([*self.command, "job.json"], self.folder, seen, self.limits)
        os.set_blocking(process.stdin.fileno(), False)  # an engine that does not read must not block the worker
        self._listeners = [
            threading.Thread(target=self._read_events, args=(process.stdout,), name="engine-events", daemon=True),
            threading.Thread(target=self._copy_log, args=(process.stderr,), name="engine-log", daemon=True),
            threading.Thread(target=self._await_end, name="engine-end", daemon=True),
        ]
        for listener in self._listeners:
            listener.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._abandoned.set()
        self.kill()
        self.exit()

    def events(self, patience_seconds: float) -> Iterator[Event | None]:
        """The engine's events until its end; None each time it has sent nothing for `patience_seconds`."""
        while True:
            try:
                event = self._events.get(timeout=patience_seconds)
            except queue.Empty:
                yield None
                continue
            if event is None:
                return
            yield event

    def send(self, command: str) -> None:
        """Write a command to the engine's input; does nothing if the engine does not read it or has ended."""
        assert self._process
        with self._lock:
            try:
                self._process.stdin.write(json.dumps({"command": command}).encode() + b"\n")
                self._process.stdin.flush()
            except (BlockingIOError, BrokenPipeError, ValueError):
                log.debug("engine_does_not_read_commands", command=command)

    def kill(self) -> None:
        """Kill the engine and its process group immediately; does nothing if it has been reaped."""
        assert self._process
        self._process.kill()

    def exit(self) -> Exit:
        """Wait for the engine's end, and return how it ended."""
        assert self._process
        for listener in self._listeners:
            listener.join()
        code = self._process.exit_code()
        with self._lock:
            try:
                self._process.stdin.close()
            except (BrokenPipeError, BlockingIOError):
                log.debug("engine_did_not_read_all_commands")
        return Exit(code, self._process.out_of_memory)

    def _read_events(self, pipe: IO[bytes]) -> None:
        for line in lines(chunks(pipe, self._dead), LINE_BYTES):
            if not line.endswith(b"\n"):
                log.warning("engine_line_too_long", begins=line[:200].decode(errors="replace"))
                continue
            event = _parse(line)
            if event is None:
                log.warning("engine_line_dropped", size=len(line), begins=line[:200].decode(errors="replace"))
                continue
            self._pass_on(event)
            if event["event"] in FINAL_EVENTS and self.final_event is None:
                self.final_event = event
                threading.Thread(target=self._end_lingering, name="engine-linger", daemon=True).start()
        self._ended.set()
        self._pass_on(None)

    def _copy_log(self, pipe: IO[bytes]) -> None:
        self.log.copy(chunks(pipe, self._dead))

    def _await_end(self) -> None:
        assert self._process
        try:
            self._process.await_end()
        finally:
            self._dead.set()

    def _pass_on(self, event: Event | None) -> None:
        while not self._abandoned.is_set():
            try:
                self._events.put(event, timeout=0.5)
            except queue.Full:
                continue
            return

    def _end_lingering(self) -> None:
        if not self._ended.wait(LINGER_SECONDS):
            log.warning("engine_did_not_exit", seconds=LINGER_SECONDS)
            self.kill()


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None
    return clean(event) if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def clean(value: Any) -> Any:
    """JSON that every database accepts: no infinite numbers or NaN, no NUL characters, no unpaired surrogates."""
    if isinstance(value, dict):
        return {clean(name): clean(item) for name, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.replace("\0", "").encode(errors="replace").decode()
    return value
