"""The student's state dict as safetensors, with the metadata by which it is built and fed."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from worker.distillation.errors import EngineError
from worker.distillation.export.card import Card


def write(student: nn.Module, card: Card, path: Path) -> None:
    """Write the weights; shared tensors are written once for each of their names.

    Raises:
        EngineError: a weight is not finite.
    """
    state = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in student.state_dict().items()
    }
    bad = next((name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())), None)
    if bad is not None:
        raise EngineError(f"the student's `{bad}` holds NaN or infinite values", "Lower the learning rate.")
    save_file(state, path, metadata={"format": "pt", **card.texts()})
