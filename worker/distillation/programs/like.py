"""A student with the graphs of another network and fewer channels."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.programs.build import Checked, checked, tensors_of
from worker.distillation.programs.fresh import initialise
from worker.distillation.programs.narrowing import CannotNarrow, Narrowed, narrowed
from worker.distillation.programs.network import ProgramNetwork
from worker.distillation.programs.packing import CannotPack, program_of
from worker.distillation.programs.reading import header_for, parsed
from worker.distillation.programs.saving import text_of

HINT = "Name the student's `network` instead: GET /v1/catalogue lists the networks."


@dataclass(frozen=True)
class Source:
    """A program, and its tensors on a device."""

    checked: Checked
    tensors: Callable[[torch.device], Mapping[str, Tensor]]
    narrower: dict[float, tuple[Checked, Narrowed]] = field(default_factory=dict)
    """The narrower programs that have been made, by width."""


_SOURCES: dict[Any, Source] = {}
MOST_KEPT = 4


def of_file(path: Path) -> Source:
    """The program of a file.

    Raises:
        SpecError: it is refused.
    """
    try:
        found = checked(path)
    except UploadError as error:
        raise SpecError([Problem("/like", error.message)], error.hint) from error
    return _kept(found, lambda: Source(found, lambda device: tensors_of(path, found.program, device)))


def of_network(key: Any, build: Callable[[], nn.Module], contract: InputContract) -> Source:
    """The program of a network with new weights; networks with the same `key` are exported once.

    Raises:
        SpecError: torch cannot export the network.
    """
    return _kept(key, lambda: _exported(build, contract))


def _kept(key: Any, make: Callable[[], Source]) -> Source:
    if key not in _SOURCES:
        made = make()
        while len(_SOURCES) >= MOST_KEPT:
            del _SOURCES[next(iter(_SOURCES))]
        _SOURCES[key] = made
    return _SOURCES[key]


def _exported(build: Callable[[], nn.Module], contract: InputContract) -> Source:
    values = {name: list(each) if isinstance(each, tuple) else each for name, each in asdict(contract).items()}
    try:
        with torch.device("cpu"), torch.random.fork_rng([]):
            program, tensors = program_of(build(), values, (), train=True)
        dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        found = Checked(parsed(text_of(program), header_for(shapes, dtypes)))
    except (CannotPack, UploadError) as error:
        message = f"needs the teacher's network as a program, which cannot be made of it: {error}"
        raise SpecError([Problem("/like", message)], HINT) from error
    return Source(found, lambda device: {name: tensor.to(device) for name, tensor in tensors.items()})


def student(source: Source, width: float) -> ProgramNetwork:
    """A network with the source's graphs, `width` times its channels, and fresh weights, on torch's default device.

    Raises:
        SpecError: its channels cannot be removed, or it has no graph of training mode.
    """
    program = source.checked.program
    if "train" not in program.graphs:
        message = "needs the graph of training mode, which the teacher's program lacks: pack it with `--student`"
        raise SpecError([Problem("/like", message)], HINT)
    try:
        if width not in source.narrower:
            found = narrowed(program, width)
            source.narrower[width] = Checked(found.program), found
    except CannotNarrow as error:
        raise SpecError([Problem("/like", f"the teacher cannot be made narrower: {error}")], HINT) from error
    except UploadError as error:
        message = f"the teacher's channels cannot be removed one by one: {error.message}"
        raise SpecError([Problem("/like", message)], HINT) from error
    fewer, found = source.narrower[width]
    network = fewer.build(found.of(source.tensors(torch.get_default_device())))
    initialise(network)
    return network
