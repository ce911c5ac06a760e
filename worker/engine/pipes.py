"""Reading an engine's output, which ends soon after the engine even if a process that it left behind holds the pipe open."""

import os
import select
import threading
from collections.abc import Iterator
from typing import IO

CHUNK_BYTES = 1 << 16
LEFT_BYTES = 1 << 20
"""Most that an engine can have written before its end and nobody has read: the largest size of a pipe."""
LOOK_SECONDS = 0.5


def chunks(pipe: IO[bytes], ended: threading.Event) -> Iterator[bytes]:
    """What is written to a pipe, until it is closed; once the engine has `ended`, what it has left in the pipe."""
    ready = select.poll()
    ready.register(pipe.fileno(), select.POLLIN)
    left = LEFT_BYTES
    with pipe:
        while left > 0:
            over = ended.is_set()
            if ready.poll(0 if over else LOOK_SECONDS * 1000):
                chunk = os.read(pipe.fileno(), CHUNK_BYTES)
                if not chunk:
                    return
                left -= len(chunk) if over else 0
                yield chunk
            elif over:
                return


def lines(parts: Iterator[bytes], longest: int) -> Iterator[bytes]:
    """The complete lines of a stream; of one that is longer than `longest` bytes, the first bytes, without its end."""
    line, omitted = b"", False
    for part in parts:
        *ends, rest = part.split(b"\n")
        for end in ends:
            if not omitted:
                yield (line + end)[:longest] + (b"\n" if len(line) + len(end) < longest else b"")
            line, omitted = b"", False
        if not omitted:
            line += rest
            if len(line) >= longest:
                yield line[:longest]
                line, omitted = b"", True
