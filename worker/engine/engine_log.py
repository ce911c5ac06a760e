"""What an engine wrote to its standard error: the attempt's log, bounded."""

import threading
from collections import deque
from pathlib import Path
from typing import IO

import structlog

HEAD_BYTES = 4 << 20
"""The beginning of the log that is kept."""
TAIL_BYTES = 1 << 20
"""The end of the log that is kept."""
CHUNK_BYTES = 1 << 16

log = structlog.get_logger(__name__)


class EngineLog:
    """The first 4 MiB and the last MiB of what was written; the file is whole once `copy` has returned."""

    def __init__(self, path: Path):
        self.path = path
        self._tail: deque[bytes] = deque()
        self._tail_size = self._left_out = 0
        self._lock = threading.Lock()

    def copy(self, pipe: IO[bytes]) -> None:
        """Read to the end of the pipe."""
        room = HEAD_BYTES
        with self.path.open("wb", buffering=0) as file:
            while chunk := pipe.read1(CHUNK_BYTES):  # type: ignore[attr-defined]  # Popen's pipes are buffered readers
                self._remember(chunk, beyond_head=max(0, len(chunk) - room))
                room -= self._write(file, chunk[:room])
            self._finish(file)
        pipe.close()

    def _write(self, file: IO[bytes], chunk: bytes) -> int:
        try:
            return file.write(chunk)
        except OSError as error:  # a full disk: the engine must not be held up by its log
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
            self._left_out += beyond_head
            while self._tail_size - len(self._tail[0]) >= TAIL_BYTES:
                self._tail_size -= len(self._tail.popleft())

    def _finish(self, file: IO[bytes]) -> None:
        if self._left_out == 0:
            return
        tail = b"".join(self._tail)[-min(self._left_out, TAIL_BYTES) :]
        if self._left_out > len(tail):
            self._write(file, b"\n... %d bytes are left out ...\n" % (self._left_out - len(tail)))
        self._write(file, tail)
