"""The processes of a job on several devices: rank 0 starts the others, and none outlives another.

A rank ends when its input closes, which it does however rank 0 ends, and when rank 0 has been silent for
`silence_seconds` (it is stopped); Linux adds PDEATHSIG. Rank 0 ends when any rank has ended or been silent, and says
which and how. All are in the engine's process group, so that the worker's kill takes all.
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
"""When one rank dies the others fail a moment later: so long are their ends collected, to say which was the cause."""
FAILED_RANK_SECONDS = 10.0
"""An exchange that fails in rank 0 means that another rank is dying: so long is its end waited for."""
END_SECONDS = 5.0
"""Ranks that have done their work have so long to end."""
LINES_KEPT = 5


@dataclass(frozen=True)
class Place:
    """Which rank a process is, of how many, and the file in the job's folder by which they find each other."""

    rank: int
    size: int
    meeting: Path


class RankLost(EngineError):
    """One of the job's processes has died, or hangs."""

    fault, code = "service", "rank_lost"


def ranks_wanted(job_file: Path) -> int:
    """How many ranks a job file asks for; 1 where it cannot be read, of which the engine will complain itself."""
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
    heard: float = math.inf  # it may have to import torch first
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))

    def end(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode
        if code is None:
            return "has been silent for too long"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        return f"was killed by signal {-code} ({name})" + (", perhaps out of memory" if -code == signal.SIGKILL else "")


class RankProcesses:
    """Ranks 1 and up, as fresh interpreters: a fork would not survive CUDA, nor the threads of torch on macOS.

    Start it from the main thread, before any other and once rank 0 is confined, since the ranks are as it is and share its
    network; `watch` it once there is a channel to speak on.
    """

    def __init__(self, job_file: Path, size: int):
        meeting = Path("tmp") / f"ranks-{os.getpid()}-{time.time_ns()}"
        self.place = Place(0, size, meeting)
        self._ended: queue.Queue[Rank] = queue.Queue()
        self._over = threading.Event()
        (job_file.parent / meeting).parent.mkdir(exist_ok=True)
        self.ranks = [Rank(number, self._start(job_file, number)) for number in range(1, size)]
        self._copiers: list[threading.Thread] = []

    def _start(self, job_file: Path, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "worker.distillation", str(job_file)]
        place = ["--rank", str(number), "--meeting", str(self.place.meeting)]
        pipe = subprocess.PIPE
        return subprocess.Popen([*command, *place], stdin=pipe, stdout=pipe, stderr=pipe)

    def watch(self, channel: Channel, silence_seconds: float | None) -> None:
        """From now on tell the ranks that rank 0 lives, copy what they print, and end with the first that ends."""
        for rank in self.ranks:
            _begin(self._hear, rank)
            self._copiers.append(_begin(self._copy, rank))
            _begin(self._await_end, rank)
        _begin(self._end_with_the_first, channel)
        if silence_seconds is not None:
            _begin(self._beat, silence_seconds)

    def await_failed_rank(self) -> None:
        """An exchange with the others has failed: wait for the end of the one that failed, which ends this process."""
        self._over.wait(FAILED_RANK_SECONDS)

    def close(self) -> None:
        """Let the ranks end, end those that do not, and copy the last of what they print."""
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

    def _hear(self, rank: Rank) -> None:
        assert rank.process.stdout
        for line in rank.process.stdout:
            rank.heard = time.monotonic()
            with contextlib.suppress(ValueError):  # it was killed within a line
                event = json.loads(line)
                rank.error = event if event["event"] == "error" else rank.error

    def _copy(self, rank: Rank) -> None:
        assert rank.process.stderr
        for line in rank.process.stderr:
            text = line.decode(errors="replace")
            rank.last_lines.append(text)
            sys.stderr.write(f"[rank {rank.number}] {text}")
            sys.stderr.flush()

    def _await_end(self, rank: Rank) -> None:
        if rank.process.wait() != 0:
            self._ended.put(rank)

    def _beat(self, silence_seconds: float) -> None:
        while not self._over.wait(silence_seconds / 4):
            for rank in self.ranks:
                _write(rank.process.stdin)
                if time.monotonic() - rank.heard > silence_seconds:
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
        """Say whose end was the cause: of a rank that said what is wrong, else of one that was killed, else the first."""
        cause = next((rank for rank in ended if rank.error), None)
        if cause is not None and cause.error is not None:
            channel.say(**cause.error)
        else:
            rank = next((rank for rank in ended if (rank.process.returncode or 0) < 0), ended[0])
            words = f"rank {rank.number} of {self.place.size} {rank.end()}"
            channel.say(**RankLost(words, "".join(rank.last_lines)).as_event())
        for rank in self.ranks:
            with contextlib.suppress(ProcessLookupError):
                rank.process.kill()
        os._exit(REFUSED)


def _begin(work: Callable[[Any], None], subject: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=(subject,), daemon=True)
    thread.start()
    return thread


def _write(pipe: IO[bytes] | None) -> None:
    try:
        assert pipe
        pipe.write(b'{"command": "beat"}\n')
        pipe.flush()
    except (OSError, ValueError):
        return  # it is ending, of which its watcher tells
