"""The student's state dict as safetensors, with the metadata needed to build it and to preprocess its inputs."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from worker.distillation.compression.plain import plain
from worker.distillation.errors import EngineError
from worker.distillation.export.card import Card
from worker.distillation.programs import ProgramNetwork
from worker.distillation.programs.saving import program_and_tensors, text_of


def write(student: nn.Module, card: Card, path: Path) -> None:
    """Write the weights, and read them again; shared tensors are written once for each of their names.

    Raises:
        EngineError: a weight is not finite, or the file holds other weights than the student.
    """
    student = plain(student)
    state = state_dict(student)
    bad = next((name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())), None)
    if bad is not None:
        raise EngineError(f"the student's `{bad}` contains NaN or infinite values", "Lower the learning rate.")
    texts = card.texts()
    if isinstance(student, ProgramNetwork):  # without its program, nobody could build it
        values, tensors = program_and_tensors(student, card.contract, card.class_names)
        texts["program"] = text_of(values)
        state = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    path.write_bytes(serialise(state, {"format": "pt", **texts}))
    written = read(path)
    if written.keys() != state.keys() or not all(torch.equal(written[name], state[name]) for name in state):
        raise EngineError(f"{path.name} holds other weights than the student", "Submit the job again.")


def state_dict(network: nn.Module) -> dict[str, Tensor]:
    """All tensors of a network by name, copied to the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a file."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name."""
    return load(path.read_bytes())


def serialise(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file whose bytes depend on its content alone.

    The library writes metadata in an order that varies between calls. So the header is written again, with sorted metadata
    and padded with spaces to a multiple of 8 bytes as the format requires.
    """
    written = save(dict(state), dict(metadata))
    start = 8 + int.from_bytes(written[:8], "little")
    header = json.loads(written[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps({"__metadata__": header.pop("__metadata__"), **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + written[start:]
