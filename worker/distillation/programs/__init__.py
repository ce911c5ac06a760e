"""Programs: networks of any architecture as data, without any Python of theirs (docs/programs.md).

Belongs here: the format, its checks, the network that is built of it, fresh weights for it, packing a network into it,
and reading ONNX into it. Does not: what an upload is otherwise checked for (`uploads/`). May import `contract.py`,
`errors.py` and `limits.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.programs.build import checked, load
from worker.distillation.programs.format import NETWORK, Program, is_program
from worker.distillation.programs.fresh import initialise
from worker.distillation.programs.network import ProgramNetwork

__all__ = ["NETWORK", "Program", "ProgramNetwork", "is_program", "load", "student", "teacher"]

FILE = "program"
"""The key of a network's options that names the program's file among a job's files."""


def teacher(path: Path, device: torch.device) -> ProgramNetwork:
    """A program as a teacher: its own weights, on the meta device none.

    Raises:
        SpecError: the file holds no program, or one that is refused.
    """
    try:
        return load(path, device)
    except UploadError as error:
        raise SpecError([Problem("/teacher", error.message)], error.hint) from error


def student(files: Mapping[str, Path], options: Mapping[str, Any], classes: int, contract: InputContract) -> ProgramNetwork:
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
    own = program.contract
    problems = []
    if "train" not in program.graphs:
        problems.append(Problem("/program", "has no graph of training mode: pack it with `--student`"))
    if program.classes != classes:
        problems.append(Problem("/program", f"gives {program.classes} outputs, and the job has {classes} classes"))
    if (own.channels, own.height, own.width) != (contract.channels, contract.height, contract.width):
        sizes = [f"{each.channels}x{each.height}x{each.width}" for each in (own, contract)]
        problems.append(Problem("/program", f"reads images of {sizes[0]}, and the job's are {sizes[1]}"))
    if problems:
        raise SpecError(problems)
