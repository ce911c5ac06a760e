"""The engine's errors for exceptions of Python, torch and the system."""

import errno
import re
from collections.abc import Iterator

import torch

from worker.distillation.errors import CheckFailed, DiskError, EngineError, OutOfMemory, Unreadable, UploadError

DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""Error numbers of a disk that is full or fails."""
TOO_LONG = errno.EFBIG
"""Error number of a file that is longer than the engine may write (RLIMIT_FSIZE)."""
UPLOADS = ("teacher", "dataset", "file")
ALLOCATORS = ("DefaultCPUAllocator", "std::bad_alloc")
"""What torch says in a RuntimeError if the memory of the CPU runs out."""
LONGEST_CHAIN = 20
_NUMBER = re.compile(r"\(os error (\d+)\)")


def engine_error(error: Exception, kind: str) -> EngineError | None:
    """The error that a run of this kind reports for an exception; None if it is a bug of the engine.

    In an inspection, every exception but those of memory and disk says something about the upload or the spec.
    """
    numbers = {number for each in _chain(error) if (number := _error_number(each)) is not None}
    if broken := numbers & DISK:
        return _of_disk(min(broken))
    if TOO_LONG in numbers:
        return _too_long(kind)
    if isinstance(error, EngineError):
        return error
    if any(map(_is_of_memory, _chain(error))):
        return _of_memory(error, kind)
    first = (str(error).strip().splitlines() or [""])[0][:300]
    words = f"{type(error).__name__}: {first}" if first else type(error).__name__
    if kind in UPLOADS:
        hint = "Check that the file opens where it was made, save it again, and upload that."
        return Unreadable(f"the file cannot be read: {words}", hint)
    if kind == "check":
        return CheckFailed(f"the networks of the spec cannot be built: {words}", "Change the networks or the input.")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that led to it."""
    for _ in range(LONGEST_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _error_number(error: BaseException) -> int | None:
    """The system's error number; Rust's libraries write it into their message only."""
    if isinstance(error, OSError):
        return error.errno
    found = _NUMBER.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(found.group(1)) if found else None


def _is_of_memory(error: BaseException) -> bool:
    words = str(error) if isinstance(error, RuntimeError) else ""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(each in words for each in ALLOCATORS)


def _of_disk(number: int) -> DiskError:
    reason = {errno.EIO: "fails", errno.EDQUOT: "has reached its quota"}.get(number, "is full")
    message = f"the disk of the worker's machine {reason}"
    return DiskError(message, "Wait: it is tried again. The operator has to free space or replace the disk.")


def _too_long(kind: str) -> EngineError:
    if kind in UPLOADS:
        message = "the upload needs more bytes on disk than an upload of its size may"
        return UploadError(message, "Send the same data with less compression, or in smaller images.")
    return DiskError("a file would be longer than the free space of the disk", "Wait: the job is tried again.")


def _of_memory(error: Exception, kind: str) -> OutOfMemory:
    if kind in UPLOADS:
        message = "reading the file needs more memory than an inspection of its size may use"
        return OutOfMemory(message, "Send a smaller file, or smaller images. The operator can raise the limit.")
    message = f"the device has too little memory: {(str(error).splitlines() or ['out of memory'])[0]}"
    return OutOfMemory(message, "Lower training/batch_size, or choose a smaller student or fewer taps.")
