"""`student.py`: one file that builds a finished student and loads its weights with PyTorch alone.

Belongs here: writing that file, and checking it. Does not: files of weights (`export/`). May import `export/`,
`programs/`, `contract.py` and `networks/`.
"""

import types
from pathlib import Path
from string import Template
from typing import Any

import torch
from torch import nn

from worker.distillation.compression import unpacking
from worker.distillation.compression.plain import plain
from worker.distillation.export.card import Card
from worker.distillation.export.portable import portable, random_images
from worker.distillation.networks.detectors.detector import Detector
from worker.distillation.programs import ProgramNetwork
from worker.distillation.student_file import detector_loading, loading, packed_loading
from worker.distillation.student_file.expressions import CannotBeWritten, Writer
from worker.distillation.student_file.source_code import module_body

CHECKED_IMAGES = 2
ROUNDING = 1e-5
"""Largest difference of the outputs, as a part of the largest output; 0 where torch chooses the same kernels."""
NOT_RUN = (
    ArithmeticError,
    AttributeError,
    ImportError,
    KeyError,
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What running the code may raise."""
TEXT = Template((Path(__file__).parent / "student.py.template").read_text())


def write(student: nn.Module, card: Card, weights: Path, path: Path, packed: Path | None = None) -> None:
    """Write the file for a student whose weights are in the safetensors file `weights`.

    If there is one, it also reads the `packed` file. The file is run once, on the CPU: with `weights`, it has to build a network with exactly the student's state dict, and
    outputs that are equal up to rounding.

    Raises:
        CannotBeWritten: the student contains a module that cannot be written as code, or the file computes something else.
    """
    network = portable(plain(student))
    text = source_of(network, card, weights.name, path.stem, reads_packed=packed is not None)
    for file in (weights, packed):
        if file is not None:
            _check(text, network, card, file)
    path.write_text(text)


def source_of(network: nn.Module, card: Card, weights: str, stem: str = "student", reads_packed: bool = False) -> str:
    """The text of the file `STEM.py`; `weights` is the name of the file that `load` reads by default.

    Raises:
        CannotBeWritten: the network contains a module that cannot be written as code.
    """
    writer = Writer()
    expression = writer.expression(network, indent=4)
    libraries = "".join(f"import {name}\n" for name in writer.libraries())
    needs = "".join(f" and {name}" for name in writer.libraries())
    contract = card.contract
    bodies = [loading, *([unpacking, packed_loading] if reads_packed else [])]
    bodies += [detector_loading] if isinstance(network, Detector) else []
    return TEXT.substitute(
        stem=stem,
        network=card.network,
        needs=needs or " alone",
        weights=weights,
        libraries=libraries,
        class_names=_tuple(card.class_names),
        task=repr(card.task),
        channels=contract.channels,
        height=contract.height,
        width=contract.width,
        mean=repr(contract.mean),
        std=repr(contract.std),
        loader=(packed_loading.with_packed_weights if reads_packed else loading.with_weights).__name__,
        loading="\n\n\n".join(map(module_body, bodies)),
        definitions="".join(f"{text}\n\n\n" for text in writer.definitions()),
        expression=expression,
    )


def _tuple(names: tuple[str, ...]) -> str:
    """A tuple of strings as code, one in a line if it is long."""
    plain = repr(names)
    return plain if len(plain) < 100 else "(\n" + "".join(f"    {name!r},\n" for name in names) + ")"


def _check(text: str, network: nn.Module, card: Card, weights: Path) -> None:
    module: Any = types.ModuleType("student")
    images = random_images(card.contract, CHECKED_IMAGES)
    try:
        with torch.random.fork_rng([]), torch.no_grad():
            exec(compile(text, "student.py", "exec"), module.__dict__)
            built = module.load(weights)
            given, expected = built(images), network(images)
    except NOT_RUN as error:
        raise CannotBeWritten(f"the code does not run: {error}") from error
    state = built.state_dict()
    stored = network.program.stored if isinstance(network, ProgramNetwork) else str
    same = all(torch.equal(state[stored(name)], tensor) for name, tensor in network.state_dict().items())
    if not same or float((given - expected).abs().max()) > ROUNDING * float(expected.abs().max()):
        raise CannotBeWritten("the code gives other outputs than the student")
