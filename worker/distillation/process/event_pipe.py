"""The engine's side of the pipe: JSON lines out, commands in.

The engine must not outlive the worker that started it. It exits when its input closes, when no line has arrived for
`silence_seconds` (a stopped worker), and on Linux when its parent dies.
"""

import ctypes
import json
import math
import os
import signal
import sys
import threading
import time
from typing import Any, TextIO

ORPHANED = 5
"""Exit code of an engine whose worker has died."""
FINAL_EVENTS = frozenset({"done", "checked", "findings", "stopped", "error"})
"""Events after which the engine sends nothing."""


def claim_standard_output() -> TextIO:
    """The pipe to the worker; later prints to standard output are redirected to standard error."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    sys.stdout.flush()
    os.dup2(2, 1)
    return pipe


def die_with_parent() -> None:
    """On Linux, have the kernel kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


class Channel:
    """Sends events, and receives commands: `request` is the worker's last command (`drain`, `cancel`, or None)."""

    def __init__(self, output: TextIO, silence_seconds: float | None = None, commands: TextIO | None = None):
        self._output = output
        self._lock = threading.Lock()
        self.request: str | None = None
        self._finished = False
        self._heard = self._listens_from()
        self._silence_seconds = silence_seconds
        if commands is not None:
            threading.Thread(target=self._listen, args=(commands,), daemon=True).start()
        if silence_seconds is not None:
            threading.Thread(target=self._watch, daemon=True).start()

    def say(self, event: str, **fields: Any) -> None:
        """Send one event, unless a final event was sent before; infinite numbers and NaN become null."""
        line = json.dumps({"event": event, **_finite(fields)}, allow_nan=False)
        with self._lock:
            if self._finished:
                return
            self._finished = event in FINAL_EVENTS
            self._output.write(line + "\n")
            self._output.flush()

    def log(self, message: str, level: str = "info") -> None:
        """Send an event `log`."""
        self.say("log", level=level, message=message)

    def _listen(self, commands: TextIO) -> None:
        for line in commands:
            self._heard = time.monotonic()
            try:
                command = json.loads(line).get("command")
            except (ValueError, AttributeError):
                continue
            if command in ("drain", "cancel"):
                self.request = command
        if self._silence_seconds is not None:
            os._exit(ORPHANED)

    @staticmethod
    def _listens_from() -> float:
        """The time from which silence is measured."""
        return time.monotonic()

    def _watch(self) -> None:
        assert self._silence_seconds is not None
        while time.monotonic() - self._heard < self._silence_seconds:
            time.sleep(min(1.0, self._silence_seconds / 4))
        os._exit(ORPHANED)


class RankChannel(Channel):
    """The channel of a rank other than 0 to rank 0: it sends heartbeats and errors only; rank 0 sends the job's events.

    Silence is measured from the first message of rank 0, which may have to import torch first.
    """

    def __init__(self, output: TextIO, silence_seconds: float | None, commands: TextIO):
        super().__init__(output, silence_seconds, commands)
        if silence_seconds is not None:
            threading.Thread(target=self._beat, args=(silence_seconds / 4,), daemon=True).start()

    def say(self, event: str, **fields: Any) -> None:
        if event in ("beat", "error"):
            super().say(event, **fields)

    def _listen(self, commands: TextIO) -> None:
        super()._listen(commands)
        os._exit(ORPHANED)

    @staticmethod
    def _listens_from() -> float:
        return math.inf

    def _beat(self, seconds: float) -> None:
        while True:
            self.say("beat")
            time.sleep(seconds)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
