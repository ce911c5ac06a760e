"""Programs in a spec: a student whose network an uploaded file brings (docs/programs.md)."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from models.spec.catalogue import PROGRAM
from models.spec.problems import Problem, complaint

ProgramFile = Annotated[str, StringConstraints(pattern=r"^fil_[0-9a-f]{1,60}$")]
PROGRAM_FIELD: Any = Field(
    None,
    description="The id of a file of the kind `program`, for the network `program`: the student is built of it, with fresh "
    "weights.",
    examples=["fil_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"],
)


def check_program(network: str | None, program: str | None) -> None:
    """See that a student names a file if and only if its network is a program.

    Raises:
        PydanticCustomError: it does not.
    """
    if network == PROGRAM and program is None:
        raise complaint(Problem("/program", "is required: the network is a program, so name the file that holds it"))
    if network != PROGRAM and program is not None:
        raise complaint(Problem("/program", f"is only for the network {PROGRAM!r}, and the network is {network!r}"))


def program_of(spec: Mapping[str, Any]) -> str | None:
    """The id of the file that a spec's student is built of; None if its network has a name."""
    student = spec.get("student")
    return student.get("program") if isinstance(student, Mapping) else None
