"""A network with one output for two classes, as code with a sigmoid at the end has it, as one with two.

The sigmoid of z is the softmax of (0, z): the row of weights for the first class is zero.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.heads import last_linear

WARNING = (
    "the network has one output for two classes: it was read as two, of which that for the first class is always 0"
)


def has_single_output(candidate: Candidate) -> bool:
    """Whether the last linear layer of a candidate has one output."""
    weight = candidate.tensors.get(f"{last_linear(candidate)}.weight")
    return weight is not None and len(weight.shape) == 2 and weight.shape[0] == 1


def with_two_outputs(candidate: Candidate, state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict as safetensors, with a zero before the output of a candidate's last linear layer."""
    head = last_linear(candidate)
    both = {
        name: torch.cat((torch.zeros_like(tensor), tensor)) if name in (f"{head}.weight", f"{head}.bias") else tensor
        for name, tensor in state.items()
    }
    save_file({name: tensor.contiguous().clone() for name, tensor in both.items()}, path)
