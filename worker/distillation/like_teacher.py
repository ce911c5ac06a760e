"""Students that are like their teacher: which network they are (docs/architecture.md, the engine's job file)."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from worker.distillation import networks, programs, registry
from worker.distillation.contract import InputContract, read_contract
from worker.distillation.data.truth import DENSE
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.narrowing import Likeness, narrowed
from worker.distillation.parameters import parse
from worker.distillation.planning.teacher_first import trained_teacher

POINTER = "/student/like"
DENSE_HINT = (
    "For maps and boxes, `fpn`, `fpn_depth`, `tiny_faster_rcnn`, `tiny_retinanet` and `tiny_fcos` can be made narrower, and by enough"
    " that a number of channels changes. Name the student's `network` instead: any network of the same task can learn from this teacher."
)


def completed(values: Any) -> Any:
    """A job file in which a student that is like its teacher is named: by options of the catalogue's network, as a list of
    layers, or as a program.

    Raises:
        SpecError: the student names a network too, there is not exactly one teacher, or it is not known what the student
            reads.
    """
    spec = values.get("spec") if isinstance(values, dict) else None
    student = spec.get("student") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(student, Mapping) or not student.get("like"):
        return values
    asked = parse(Likeness, {name: student[name] for name in ("like", "width") if name in student}, "/student")
    if student.get("network"):
        raise SpecError([Problem(POINTER, "cannot be set if `network` is")])
    teacher = _teacher(values)
    given = student.get("input") or teacher.get("input")
    classes = student.get("classes") or teacher.get("classes")
    if not given or not classes:
        missing = "input" if not given else "classes"
        raise SpecError([Problem(f"/student/{missing}", "is required: the teacher has none yet")])
    own = _described(teacher, asked.width, int(classes), read_contract(given), spec.get("task", "classification"))
    return {**values, "spec": {**spec, "student": {**student, **own}}}


def _teacher(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The network that teaches, as plain data."""
    given = values.get("teachers") or [
        each for each in (values.get("teacher"), trained_teacher(values["spec"])) if each
    ]
    if len(given) != 1 or not isinstance(given[0], Mapping):
        why = "the job has several" if given else "the job has none"
        raise SpecError([Problem(POINTER, f"needs one teacher, and {why}")], programs.like.HINT)
    return given[0]


def _described(
    teacher: Mapping[str, Any], width: float, classes: int, contract: InputContract, task: str
) -> dict[str, Any]:
    name, options = teacher["network"], teacher.get("options") or {}
    found = None if name == programs.NETWORK else narrowed(name, options, width, classes, contract)
    if found is None and registry.find("tasks", task, "/task").labels in DENSE:
        raise SpecError([Problem(POINTER, f"has no narrower `{name}` with {width:g} times the channels")], DENSE_HINT)
    if found is None:
        return {"network": programs.NETWORK, programs.FILE: programs.LIKE_TEACHER, "options": {"width": width}}
    return {"network": found[0], "options": found[1]}


def program_source(
    values: Mapping[str, Any], folder: Path, classes: int, contract: InputContract
) -> programs.like.Source:
    """The program of a job's teacher, of which its student is a narrower one.

    Raises:
        SpecError: there is none.
    """
    teacher = _teacher(values)
    if teacher["network"] == programs.NETWORK:
        return programs.like.of_file(programs.file_of(teacher, folder))
    options = dict(teacher.get("options") or {})
    classes = teacher.get("classes") or classes
    build = partial(networks.build, teacher["network"], classes, contract, options)
    key = (teacher["network"], json.dumps(options, sort_keys=True), classes, contract)
    return programs.like.of_network(key, build, contract)
