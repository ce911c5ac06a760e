"""Programs: networks of any architecture as data, without any Python of theirs (docs/programs.md).

Belongs here: the format, its checks, the network that is built of it, fresh weights for it, packing a network into it,
and reading ONNX into it. Does not: what an upload is otherwise checked for (`uploads/`). May import `contract.py`,
`errors.py`, `limits.py` and `introspection/`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.programs import like
from worker.distillation.programs.build import checked, load
from worker.distillation.programs.format import NETWORK, Program
from worker.distillation.programs.fresh import initialise
from worker.distillation.programs.network import ProgramNetwork
from worker.distillation.programs.reading import is_program

__all__ = [
    "LIKE_TEACHER", "NETWORK", "Program", "ProgramNetwork", "completed", "file_of", "is_program", "like", "load", "student",
    "student_like", "student_options", "teacher",
]  # fmt: skip

FILE = "program"
"""The key of a network's options that names the program's file among a job's files."""
LIKE_TEACHER = "teacher"
"""Its value for a student that is a narrower program of the teacher's network."""


def file_of(teacher: Mapping[str, Any], folder: Path) -> Path:
    """The file of a job file's teacher that is a program.

    Raises:
        SpecError: the job file names none.
    """
    name = teacher.get("program") or teacher.get("weights")
    if not name:
        raise SpecError([Problem("/teacher", "is a program, and the job file names no file of it")])
    return folder / str(name)


def completed(values: Any, folder: Path) -> Any:
    """A job file in which teachers that are programs have the classes and the input contract that their files say.

    Raises:
        SpecError: such a file is refused.
    """
    if not isinstance(values, dict) or values.get("kind") not in ("distill", "check"):
        return values
    whole = dict(values)
    if isinstance(whole.get("teacher"), dict):
        whole["teacher"] = _completed(whole["teacher"], folder)
    if isinstance(whole.get("teachers"), list):
        whole["teachers"] = [_completed(each, folder) if isinstance(each, dict) else each for each in whole["teachers"]]
    return whole


def _completed(teacher: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    if teacher.get("network") != NETWORK or not (teacher.get("program") or teacher.get("weights")):
        return dict(teacher)
    try:
        program = checked(file_of(teacher, folder)).program
    except (UploadError, OSError) as error:
        raise SpecError([Problem("/teacher", f"its program cannot be read: {error}")]) from error
    own = {"classes": program.classes, "class_names": list(program.class_names), "input": asdict(program.contract)}
    return own | {"weights": teacher.get("program")} | dict(teacher)


def student_options(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a spec's student; that of a program names its file."""
    named = {FILE: spec[FILE]} if spec.get(FILE) else {}
    return dict(spec.get("options") or {}) | named


def teacher(path: Path, device: torch.device) -> ProgramNetwork:
    """A program as a teacher: its own weights, on the meta device none.

    Raises:
        SpecError: the file holds no program, or one that is refused.
    """
    try:
        return load(path, device)
    except UploadError as error:
        raise SpecError([Problem("/teacher", error.message)], error.hint) from error


def student(
    files: Mapping[str, Path], options: Mapping[str, Any], classes: int, contract: InputContract
) -> ProgramNetwork:
    """A program as a student with fresh weights, on torch's default device; see `fresh.py` for what they are.

    Raises:
        SpecError: the job has no such file, the program is refused or has no graph of training mode, or it reads other
            images or gives other classes than the job's.
    """
    path = files.get(str(options.get(FILE)))
    if path is None:
        raise SpecError([Problem("/program", f"the file {options.get(FILE)!r} is not among the job's `files`")])
    try:
        program = checked(path).program
        _check_student(program, classes, contract)
        network = load(path, torch.get_default_device())
    except UploadError as error:
        raise SpecError([Problem("/program", error.message)], error.hint) from error
    initialise(network)
    return network


def _check_student(program: Program, classes: int, contract: InputContract) -> None:
    problems = _mismatches(program, classes, contract, "/program")
    if "train" not in program.graphs:
        problems.append(Problem("/program", "has no graph of training mode: pack it with `--student`"))
    if problems:
        raise SpecError(problems)


def student_like(source: like.Source, width: float, classes: int, contract: InputContract) -> ProgramNetwork:
    """A student with the graphs of its teacher and `width` times the channels, with fresh weights.

    Raises:
        SpecError: see `like.student`; or the student reads other images or gives other classes than the teacher.
    """
    if problems := _mismatches(source.checked.program, classes, contract, "/like"):
        raise SpecError(problems, like.HINT)
    return like.student(source, width)


def _mismatches(program: Program, classes: int, contract: InputContract, pointer: str) -> list[Problem]:
    own = program.contract
    problems = []
    if program.classes != classes:
        problems.append(Problem(pointer, f"gives {program.classes} outputs, and the job has {classes} classes"))
    if (own.channels, own.height, own.width) != (contract.channels, contract.height, contract.width):
        sizes = [f"{each.channels}x{each.height}x{each.width}" for each in (own, contract)]
        problems.append(Problem(pointer, f"reads images of {sizes[0]}, and the job's are {sizes[1]}"))
    return problems
