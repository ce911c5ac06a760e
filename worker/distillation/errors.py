"""What can go wrong in a run, told apart by whose it is.

EngineError                 fault: "user" | "job" | "service"; code, sentence, hint
├── SpecError               user     the spec cannot work; lists every problem with its pointer
├── UploadError             user     an upload is not what it should be; lists problems like SpecError
├── Diverged                job      a loss became infinite or not a number
├── Collapsed               job      a synthesiser makes only one kind of picture
├── OutOfMemory             job      the device has too little memory
└── CheckpointError         service  a checkpoint cannot be read back
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

Fault = Literal["user", "job", "service"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a spec or an upload; `pointer` is a JSON pointer (RFC 6901) into it."""

    pointer: str
    message: str


class EngineError(Exception):
    """An end of a run that somebody can act on."""

    fault: ClassVar[Fault] = "job"
    code: ClassVar[str] = "failed"

    def __init__(self, message: str, hint: str = "", problems: Sequence[Problem] = ()):
        super().__init__(message)
        self.message, self.hint, self.problems = message, hint, tuple(problems)

    def as_event(self) -> dict[str, Any]:
        return {
            "event": "error",
            "fault": self.fault,
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "errors": [asdict(problem) for problem in self.problems],
        }


class SpecError(EngineError):
    """The job's spec cannot work."""

    fault, code = "user", "invalid_spec"

    def __init__(self, problems: Sequence[Problem], hint: str = ""):
        super().__init__("; ".join(f"{p.pointer}: {p.message}" for p in problems), hint, problems)


class UploadError(EngineError):
    """An uploaded file is refused."""

    fault, code = "user", "rejected"

    def __init__(self, message: str, hint: str = "", pointer: str = ""):
        super().__init__(message, hint, [Problem(pointer, message)])


class Diverged(EngineError):
    """The training diverged."""

    code = "diverged"


class Collapsed(EngineError):
    """The synthesiser collapsed; `mendable`: with other weights it may not."""

    code = "collapsed"

    def __init__(self, message: str, hint: str = "", mendable: bool = True):
        super().__init__(message, hint)
        self.mendable = mendable


class OutOfMemory(EngineError):
    """The device has too little memory for the job."""

    code = "out_of_memory"


class CheckpointError(EngineError):
    """A checkpoint cannot be read back."""

    fault, code = "service", "checkpoint_unreadable"
