"""The finished student beside its budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.distillation.budget.limits import CHOSEN, budget_of
from worker.distillation.contract import InputContract
from worker.distillation.export import ENDINGS, onnx

NOTE = (
    "The student does not keep its budget: `{name}` has {bytes:,} bytes{time}. The sizes and times of its plan were measured before the "
    "training, perhaps on another machine."
)


def against_budget(
    student: Mapping[str, Any], files: Sequence[Mapping[str, Any]], contract: InputContract
) -> dict[str, Any] | None:
    """What the file of a budget costs, with the limits and what was planned; None without a budget. `student` is that of the spec.

    `bytes` and `milliseconds` (None if the budget does not limit the time) are those of the file `name`; `kept` says whether both keep their
    limits.
    """
    budget = budget_of(student)
    if budget is None:
        return None
    name = f"student.{ENDINGS.get(budget.file, budget.file)}"
    path = next(Path(file["path"]) for file in files if file["name"] == name)
    size, time = path.stat().st_size, None
    if budget.milliseconds is not None:
        (time,) = onnx.latency_of([path], contract, batch=budget.batch, threads=budget.threads)
    small = budget.bytes is None or size <= budget.bytes
    fast = budget.milliseconds is None or (time is not None and time <= budget.milliseconds)
    limits = {"bytes": budget.bytes, "milliseconds": budget.milliseconds}
    measured = {"name": name, "bytes": size, "milliseconds": time, "batch": budget.batch, "threads": budget.threads}
    return {**measured, "limits": limits, "planned": student["budget"].get(CHOSEN), "kept": small and fast}


def note_of(found: Mapping[str, Any]) -> str | None:
    """A sentence for the report if the budget is not kept."""
    if found["kept"]:
        return None
    time = f" and takes {found['milliseconds']:.3g} ms" if found["milliseconds"] is not None else ""
    return NOTE.format(name=found["name"], bytes=found["bytes"], time=time)
