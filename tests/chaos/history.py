"""What happened in a campaign, as lines of JSON with their seconds since its beginning."""

import json
import threading
import time
from pathlib import Path
from typing import Any


class History:
    """A file that grows; `counts` says how often each kind of fault was done."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.begun = path, time.monotonic()
        self.violations: list[str] = []
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def note(self, what: str, **fields: Any) -> None:
        """Write one line."""
        with self._lock:
            line = {"at": round(self.seconds, 2), "what": what} | fields
            self._file.write(json.dumps(line, default=str) + "\n")
            self._file.flush()

    def violation(self, sentence: str) -> None:
        """Remember something that must not happen, which no reading of the database would tell."""
        self.note("violation", sentence=sentence)
        with self._lock:
            self.violations.append(sentence)

    def lines(self) -> list[dict[str, Any]]:
        """All that was noted so far."""
        with self._lock:
            return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def close(self) -> None:
        self._file.close()
