"""What a student may cost at most, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Example, Items, Range, parse

POINTER = "/student/budget"
CHOSEN = "chosen"
"""The key under which a planned budget has what was chosen and measured."""
Way = Literal["int8", "width", "prune_channels", "factorise"]


@dataclass(frozen=True)
class Budget:
    """The largest file and the longest time of a student. The service chooses the largest student that keeps both."""

    file: Annotated[
        Literal["onnx", "packed", "safetensors"],
        "The file that is measured; it must be among `exports`. Only `onnx` has a time.",
        Example("onnx"),
    ] = "onnx"
    bytes: Annotated[int | None, Range(ge=1), "Largest size of the file, in bytes. If null: any.", Example(200_000)] = (
        None
    )
    milliseconds: Annotated[
        float | None,
        Range(gt=0),
        "Longest time for one batch in onnxruntime on the CPU, the median of many. It is measured on the machine of the worker that checks "
        "the spec, and again on that of the worker that trains. If null: any.",
        Example(2.0),
    ] = None
    batch: Annotated[int, Range(ge=1, le=1024), "Images of a batch whose time is measured.", Example(1)] = 1
    threads: Annotated[int, Range(ge=1, le=64), "CPU threads that compute a batch.", Example(1)] = 1
    allow: Annotated[
        tuple[Way, ...],
        Items(1, 4),
        "What may be done to the student. `int8` comes first. If it is not enough, the first of the others that is: `width` (of a student "
        "`like` its teacher; other students have none), `prune_channels`, `factorise`, by as little as possible.",
        Example(["int8", "width"]),
    ] = ("int8", "width", "prune_channels")


def budget_of(student: Mapping[str, Any]) -> Budget | None:
    """The budget of a spec's student; None if it has none.

    Raises:
        SpecError: it limits nothing, or a time of a file that is not run, or allows something twice.
    """
    given = student.get("budget")
    if not given:
        return None
    budget = parse(Budget, {name: value for name, value in given.items() if name != CHOSEN}, POINTER)
    problems = []
    if budget.bytes is None and budget.milliseconds is None:
        problems.append(Problem(POINTER, "limits nothing: set `bytes`, `milliseconds` or both"))
    if budget.milliseconds is not None and budget.file != "onnx":
        problems.append(Problem(f"{POINTER}/milliseconds", f"must be null: a file `{budget.file}` is not run"))
    if len(set(budget.allow)) != len(budget.allow):
        problems.append(Problem(f"{POINTER}/allow", "must name each once"))
    if problems:
        raise SpecError(problems)
    return budget


def is_planned(student: Mapping[str, Any]) -> bool:
    """Whether a student has no budget, or one for which a student was chosen."""
    given = student.get("budget")
    return not given or bool(given.get(CHOSEN))


def require_planned(student: Mapping[str, Any]) -> None:
    """Check that a job can be run.

    Raises:
        SpecError: its student is not chosen yet.
    """
    if not is_planned(student):
        hint = "Run the engine with --check, and write `chosen` of its facts into the spec."
        raise SpecError([Problem(POINTER, "has no student yet: it is chosen when the spec is checked")], hint)
