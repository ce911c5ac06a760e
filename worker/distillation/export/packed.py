"""The student's weights as codes: one safetensors file, from which the plain weights are decoded bit for bit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.plain import plain
from worker.distillation.compression.storage import Encoding, encodings
from worker.distillation.compression.unpacking import unpacked
from worker.distillation.errors import EngineError
from worker.distillation.export.card import Card
from worker.distillation.export.safetensors import metadata_of, read, serialise, state_dict

PACKED = "packed"
"""The metadata that says how weights are stored."""
NOTHING = "the student has no weights that are stored as codes, so there is nothing to pack"


def write(student: nn.Module, card: Card, path: Path) -> Mapping[str, Any]:
    """Write the codes and tables of all encoded weights, and the other tensors as they are; read the file again.

    Returns the bytes of the weights in codes and in float32, by `encoded_bytes` and `float32_bytes`.

    Raises:
        EngineError: nothing is encoded, or the file decodes to other weights than the student's.
    """
    found = encodings(student)
    if not found:
        raise EngineError(NOTHING, "Remove `packed` from `exports`, or add a transform such as `quantise`.")
    state = state_dict(plain(student))
    parts = parts_of(state, found)
    entries = {name: encoding.entry() for name, encoding in found.items()}
    path.write_bytes(serialise(parts, {"format": "pt", **card.texts(), PACKED: json.dumps(entries)}))
    verify(unpacked(read(path), metadata_of(path)[PACKED]), state, path.name)
    return {
        "encoded_bytes": sum(encoding.bytes() for encoding in found.values()),
        "float32_bytes": sum(4 * state[name].numel() for name in found),
    }


def parts_of(state: Mapping[str, Tensor], found: Mapping[str, Encoding]) -> dict[str, Tensor]:
    """The tensors of the file by name."""
    parts = {name: tensor for name, tensor in state.items() if name not in found}
    for name, encoding in found.items():
        parts |= {f"{name}.{part}": tensor for part, tensor in encoding.parts.items()}
    return parts


def verify(given: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str) -> None:
    """Check that decoded weights are the student's.

    Raises:
        EngineError: they differ.
    """
    if given.keys() != state.keys() or not all(torch.equal(given[key], state[key]) for key in state):
        raise EngineError(f"{name} decodes to other weights than the student's", "Submit the job again.")
