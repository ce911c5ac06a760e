"""Memory, processes and open files of the service, watched in a thread of their own."""

import re
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

LOOK_SECONDS = 0.05
MEGABYTE = 2**20


def resident_bytes(process: int, peak: bool = False) -> int:
    """Resident memory of a process, or its peak; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def open_sockets(process: int) -> int:
    """The number of open sockets."""
    found = 0
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):
            found += str(descriptor.readlink()).startswith("socket:")
    return found


def descendants(process: int) -> list[int]:
    """All living descendants of a process."""
    found: list[int] = []
    waiting = [process]
    while waiting:
        with suppress(OSError):
            for task in Path(f"/proc/{waiting.pop()}/task").iterdir():
                with suppress(OSError):
                    waiting += [int(child) for child in (task / "children").read_text().split()]
        found += [child for child in waiting if child not in found]
    return found


@dataclass
class Watch:
    """Peaks since its start: of the API, and of each engine by the upload or job that it works for."""

    api: int
    workers: list[int]
    api_bytes: int = 0
    most_processes: int = 0
    engines: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __enter__(self) -> "Watch":
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def count(self) -> int:
        """Processes of the workers now."""
        return sum(1 + len(descendants(worker)) for worker in self.workers)

    def settled(self, most: int, seconds: float = 60) -> bool:
        """Whether the workers come back to `most` processes within some seconds."""
        deadline = time.monotonic() + seconds
        while self.count() > most:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self.api_bytes = max(self.api_bytes, resident_bytes(self.api))
            alive = [child for worker in self.workers for child in descendants(worker)]
            self.most_processes = max(self.most_processes, len(self.workers) + len(alive))
            for child in alive:
                with suppress(OSError):
                    parts = Path(f"/proc/{child}/cwd").readlink().parts
                    if "work" in parts[:-1]:
                        subject = parts[parts.index("work") + 1]
                        self.engines[subject] = max(self.engines[subject], resident_bytes(child, peak=True))
