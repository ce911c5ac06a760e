"""The function of a `student.py` that reads packed weights too."""

import json
from pathlib import Path

from torch import nn

from worker.distillation.compression.unpacking import unpacked
from worker.distillation.student_file.loading import read_safetensors, with_weights


def with_packed_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """The network with the weights of a safetensors file, plain or packed, for inference."""
    with Path(path).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    text = header.get("__metadata__", {}).get("packed")
    if text is None:
        return with_weights(network, path)
    network.load_state_dict(unpacked(read_safetensors(path), text))
    return network.eval().requires_grad_(False)
