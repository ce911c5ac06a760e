"""What happened in a campaign, as JSON lines with seconds since its start."""

import json
import threading
import time
from pathlib import Path
from typing import Any


class History:
    """An append-only file; `counts` holds the number of faults of each kind."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.started_at = path, time.monotonic()
        self.violations: list[str] = []
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_at

    def note(self, what: str, **fields: Any) -> None:
        """Write one line."""
        with self._lock:
            line = {"at": round(self.seconds, 2), "what": what} | fields
            self._file.write(json.dumps(line, default=str) + "\n")
            self._file.flush()

    def violation(self, sentence: str) -> None:
        """Record a violation that cannot be found in the database."""
        self.note("violation", sentence=sentence)
        with self._lock:
            self.violations.append(sentence)

    def lines(self) -> list[dict[str, Any]]:
        """All lines so far."""
        with self._lock:
            return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def close(self) -> None:
        self._file.close()
