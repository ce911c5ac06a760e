"""The engine's standard error: the attempt's log, of limited size."""

import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import structlog

HEAD_BYTES = 4 << 20
"""Bytes kept from the beginning of the log."""
TAIL_BYTES = 1 << 20
"""Bytes kept from the end of the log."""

log = structlog.get_logger(__name__)


class EngineLog:
    """The first 4 MiB and the last MiB of an engine's output; the file is complete when `copy` has returned."""

    def __init__(self, path: Path):
        self.path = path
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._omitted = 0
        self._lock = threading.Lock()

    def copy(self, chunks: Iterable[bytes]) -> None:
        """Copy all chunks to the file."""
        room = HEAD_BYTES
        with self.path.open("wb", buffering=0) as file:
            for chunk in chunks:
                self._remember(chunk, beyond_head=max(0, len(chunk) - room))
                room -= self._write(file, chunk[:room])
            self._finish(file)

    def _write(self, file: IO[bytes], chunk: bytes) -> int:
        try:
            return file.write(chunk)
        except OSError as error:  # such as a full disk, which must not block the engine
            log.warning("engine_log_not_written", error=str(error))
            return len(chunk)

    def last_lines(self, count: int = 12, characters: int = 2000) -> str:
        """The last lines, for the hint of an error."""
        with self._lock:
            text = b"".join(self._tail)[-8 * characters :].decode(errors="replace")
        return "\n".join(text.splitlines()[-count:])[-characters:].strip()

    def _remember(self, chunk: bytes, beyond_head: int) -> None:
        with self._lock:
            self._tail.append(chunk)
            self._tail_size += len(chunk)
            self._omitted += beyond_head
            while self._tail_size - len(self._tail[0]) >= TAIL_BYTES:
                self._tail_size -= len(self._tail.popleft())

    def _finish(self, file: IO[bytes]) -> None:
        if self._omitted == 0:
            return
        tail = b"".join(self._tail)[-min(self._omitted, TAIL_BYTES) :]
        if self._omitted > len(tail):
            self._write(file, b"\n... %d bytes omitted ...\n" % (self._omitted - len(tail)))
        self._write(file, tail)
