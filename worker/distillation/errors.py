"""The engine's errors, by who can fix them.

EngineError                 fault: "user" | "job" | "service"; code, message, hint
├── SpecError               user     the spec is invalid; lists every problem with its pointer
├── UploadError             user     an upload is invalid; lists problems like SpecError
│   └── Unreadable          user     reading an upload failed with an exception that no reader foresees
├── CheckFailed             job      checking a spec failed with an exception that no check foresees
├── Diverged                job      a loss became infinite or NaN
├── Collapsed               job      a synthesiser makes only one kind of image
├── OutOfMemory             job      the device has too little memory
├── CheckpointError         service  a checkpoint cannot be read
└── DiskError               service  the disk is full or fails
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

Fault = Literal["user", "job", "service"]


@dataclass(frozen=True)
class Problem:
    """One problem of a spec or an upload; `pointer` is a JSON pointer (RFC 6901) into it."""

    pointer: str
    message: str


class EngineError(Exception):
    """A failed run; the hint says what to do."""

    fault: ClassVar[Fault] = "job"
    code: ClassVar[str] = "failed"

    def __init__(self, message: str, hint: str = "", problems: Sequence[Problem] = ()):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)

    def as_event(self) -> dict[str, Any]:
        """The event `error` (docs/architecture.md)."""
        return {
            "event": "error",
            "fault": self.fault,
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "errors": [asdict(problem) for problem in self.problems],
        }


class SpecError(EngineError):
    """The job's spec is invalid."""

    fault, code = "user", "invalid_spec"

    def __init__(self, problems: Sequence[Problem], hint: str = ""):
        super().__init__("; ".join(f"{p.pointer}: {p.message}" for p in problems), hint, problems)


class UploadError(EngineError):
    """An uploaded file is invalid."""

    fault, code = "user", "rejected"

    def __init__(self, message: str, hint: str = "", pointer: str = ""):
        super().__init__(message, hint, [Problem(pointer, message)])


class Unreadable(UploadError):
    """Reading an uploaded file failed in a way that the reader does not foresee."""

    fault, code = "user", "unreadable"


class CheckFailed(EngineError):
    """Building the networks of a spec failed in a way that the check does not foresee."""

    fault, code = "job", "check_failed"


class Diverged(EngineError):
    """The training diverged: a loss became infinite or NaN."""

    code = "diverged"


class Collapsed(EngineError):
    """The synthesiser collapsed: it makes only one kind of image.

    `restart_may_help`: other loss weights may prevent it.
    """

    code = "collapsed"

    def __init__(self, message: str, hint: str = "", restart_may_help: bool = True):
        super().__init__(message, hint)
        self.restart_may_help = restart_may_help


class OutOfMemory(EngineError):
    """The device has too little memory for the job, or an inspection needs more than it may use."""

    code = "out_of_memory"


class CheckpointError(EngineError):
    """A checkpoint cannot be read."""

    fault, code = "service", "checkpoint_unreadable"


class DiskError(EngineError):
    """The disk of the worker's machine is full or fails. The job or inspection is tried again later."""

    fault, code = "service", "disk_error"
