"""The processes of a job on several devices: rank 0 starts the others, and all end together.

A rank exits when its input closes, which happens whenever rank 0 ends, and when nothing has arrived from rank 0 for
`silence_seconds` (rank 0 is stopped); Linux adds PDEATHSIG. Rank 0 exits when any rank has ended or is silent for that
long, and reports which rank it was and how it ended. All processes are in the engine's process group, so the worker's
kill ends all of them.
"""

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from worker.distillation.errors import EngineError
from worker.distillation.process.event_pipe import Channel

REFUSED = 3
SETTLE_SECONDS = 0.3
"""After one rank ends, how long to collect the ends of others, to find which one was the cause."""
FAILED_RANK_SECONDS = 10.0
"""After a collective operation fails in rank 0, how long to wait for the end of the rank that caused it."""
END_SECONDS = 5.0
"""How long ranks may take to exit after their work is done."""
LINES_KEPT = 5


@dataclass(frozen=True)
class Place:
    """A process's rank, the number of ranks, and the rendezvous file, relative to the job's folder."""

    rank: int
    size: int
    rendezvous: Path


class RankLost(EngineError):
    """One of the job's processes has died or hangs."""

    fault, code = "service", "rank_lost"


def ranks_wanted(job_file: Path) -> int:
    """Number of ranks that a job file requests; 1 if the file cannot be read, which the engine reports later."""
    try:
        values = json.loads(job_file.read_text())
        return int(values.get("ranks") or 1) if values.get("kind") == "distill" else 1
    except (OSError, ValueError, AttributeError, TypeError):
        return 1


@dataclass
class Rank:
    """A rank other than 0, as rank 0 sees it."""

    number: int
    process: subprocess.Popen[bytes]
    error: Mapping[str, Any] | None = None
    last_heard: float = math.inf  # until the first line: the rank may have to import torch first
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))

    def end(self) -> str:
        """A description of how it ended."""
        code = self.process.returncode
        if code is None:
            return "has sent nothing for too long"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        hint = ", possibly out of memory" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code} ({name}){hint}"


class RankProcesses:
    """Ranks 1 and up, as new interpreters, because a fork does not work with CUDA or with torch's threads on macOS.

    Create it in the main thread, before other threads start, and after rank 0 has entered its sandbox: the ranks inherit
    the sandbox and its network. Call `watch` when there is a channel.
    """

    def __init__(self, job_file: Path, size: int):
        rendezvous = Path("tmp") / f"ranks-{os.getpid()}-{time.time_ns()}"
        self.place = Place(0, size, rendezvous)
        self._ended: queue.Queue[Rank] = queue.Queue()
        self._over = threading.Event()
        (job_file.parent / rendezvous).parent.mkdir(exist_ok=True)
        self.ranks = [Rank(number, self._start(job_file, number)) for number in range(1, size)]
        self._copiers: list[threading.Thread] = []

    def _start(self, job_file: Path, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "worker.distillation", str(job_file)]
        place = ["--rank", str(number), "--rendezvous", str(self.place.rendezvous)]
        pipe = subprocess.PIPE
        return subprocess.Popen([*command, *place], stdin=pipe, stdout=pipe, stderr=pipe)

    def watch(self, channel: Channel, silence_seconds: float | None) -> None:
        """Start threads that send heartbeats to the ranks, copy their output, and exit when the first rank ends."""
        for rank in self.ranks:
            _start_thread(self._read_events, rank)
            self._copiers.append(_start_thread(self._copy_output, rank))
            _start_thread(self._await_end, rank)
        _start_thread(self._end_with_the_first, channel)
        if silence_seconds is not None:
            _start_thread(self._send_heartbeats, silence_seconds)

    def await_failed_rank(self) -> None:
        """Call after a failed collective operation: wait for the end of the rank that failed, which ends this process."""
        self._over.wait(FAILED_RANK_SECONDS)

    def close(self) -> None:
        """Wait for the ranks to exit, kill those that do not, and copy the rest of their output."""
        self._over.set()
        until = time.monotonic() + END_SECONDS
        for rank in self.ranks:
            assert rank.process.stdin
            with contextlib.suppress(OSError):
                rank.process.stdin.close()
            try:
                rank.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                rank.process.kill()
                rank.process.wait()
        for copier in self._copiers:
            copier.join(1.0)

    def _read_events(self, rank: Rank) -> None:
        assert rank.process.stdout
        for line in rank.process.stdout:
            rank.last_heard = time.monotonic()
            with contextlib.suppress(ValueError):  # the rank was killed while it wrote the line
                event = json.loads(line)
                rank.error = event if event["event"] == "error" else rank.error

    def _copy_output(self, rank: Rank) -> None:
        assert rank.process.stderr
        for line in rank.process.stderr:
            text = line.decode(errors="replace")
            rank.last_lines.append(text)
            sys.stderr.write(f"[rank {rank.number}] {text}")
            sys.stderr.flush()

    def _await_end(self, rank: Rank) -> None:
        if rank.process.wait() != 0:
            self._ended.put(rank)

    def _send_heartbeats(self, silence_seconds: float) -> None:
        while not self._over.wait(silence_seconds / 4):
            for rank in self.ranks:
                _write(rank.process.stdin)
                if time.monotonic() - rank.last_heard > silence_seconds:
                    self._ended.put(rank)

    def _end_with_the_first(self, channel: Channel) -> None:
        ended = [self._ended.get()]
        until = time.monotonic() + SETTLE_SECONDS
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                ended.append(self._ended.get(timeout=left))
        if not self._over.is_set():
            self._end(channel, ended)

    def _end(self, channel: Channel, ended: list[Rank]) -> NoReturn:
        """Report the cause: a rank that sent an error, else a rank that was killed, else the first that ended."""
        cause = next((rank for rank in ended if rank.error), None)
        if cause is not None and cause.error is not None:
            channel.say(**cause.error)
        else:
            rank = next((rank for rank in ended if (rank.process.returncode or 0) < 0), ended[0])
            message = f"rank {rank.number} of {self.place.size} {rank.end()}"
            channel.say(**RankLost(message, "".join(rank.last_lines)).as_event())
        for rank in self.ranks:
            with contextlib.suppress(ProcessLookupError):
                rank.process.kill()
        os._exit(REFUSED)


def _start_thread(target: Callable[[Any], None], argument: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=(argument,), daemon=True)
    thread.start()
    return thread


def _write(pipe: IO[bytes] | None) -> None:
    try:
        assert pipe
        pipe.write(b'{"command": "beat"}\n')
        pipe.flush()
    except (OSError, ValueError):
        return  # the rank is ending, which its own thread reports
