"""One hostile file, and the traces that a payload in it would leave."""

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TEACHER = {
    "network": "lenet5", "classes": 4, "input": {"channels": 1, "height": 16, "width": 16, "mean": [0.5], "std": [0.25]},
}  # fmt: skip
"""A teacher whose network is named."""
UNNAMED = {"classes": 4, "input": TEACHER["input"]}
"""A teacher whose network the inspection must find."""


@dataclass(frozen=True)
class Case:
    """A file and the record that it is sent to. `make` writes the bytes when it is sent. `verdict` is the expected
    status, None if both are right: `ready` for a file whose hostile part is never read."""

    family: str
    name: str
    make: Callable[[], bytes]
    resource: str = "teachers"
    record: Mapping[str, Any] = field(default_factory=lambda: TEACHER)
    verdict: str | None = None


@dataclass
class Canary:
    """A folder in which only a payload makes files, and a port to which only a payload connects."""

    folder: Path
    _listener: socket.socket | None = None
    connections: int = 0

    def __enter__(self) -> "Canary":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o777)
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._listener
        self._listener.close()

    @property
    def port(self) -> int:
        assert self._listener
        return int(self._listener.getsockname()[1])

    def mark(self, name: str) -> str:
        """The path that the payload of this name makes."""
        return str(self.folder / f"made-by-{name}")

    def traces(self) -> list[str]:
        """What payloads have done so far."""
        made = sorted(path.name for path in self.folder.iterdir())
        return made + [f"{self.connections} connections"] * bool(self.connections)

    def clear(self) -> None:
        """Forget all traces, after a control that made some."""
        import shutil

        self.connections = 0
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _listen(self) -> None:
        assert self._listener
        with suppress(OSError):  # it was closed
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                connection.close()
