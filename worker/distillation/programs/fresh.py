"""Fresh weights: what a student of a program begins with.

torch's own layers draw theirs as torch does (`reset_parameters`). Weights that the network gives to an operation by itself
are drawn alike by what the operation is. Whatever else is stored keeps its packed values: position embeddings, scales.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from worker.distillation.programs.arguments import bound
from worker.distillation.programs.format import Program, TensorName
from worker.distillation.programs.network import ProgramNetwork

_WEIGHTED = ("conv", "linear", "addmm", "bilinear")
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
_VALUES = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}


def initialise(network: ProgramNetwork) -> tuple[str, ...]:
    """Draw all weights anew from torch's global generator, in the order of modules; gives the names of the parameters
    that keep their packed values.

    Linear layers and convolutions are uniform within 1 / sqrt(inputs) (He et al., arXiv:1502.01852, with a = sqrt(5), as
    torch has it), normalisations begin with the scale 1, the shift 0, the mean 0 and the variance 1.
    """
    drawn: set[str] = set()
    for path, module in network.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset) and module is not network:
            reset()
            drawn |= {f"{path}.{name}" for name, _ in (*module.named_parameters(), *module.named_buffers())}
    with torch.no_grad():
        for name, tensor, role in _used_directly(network, network.program):
            if name not in drawn:
                drawn.add(name)
                _draw(tensor, role, network, name)
    return tuple(name for name, _ in network.named_parameters() if name not in drawn)


def _used_directly(network: ProgramNetwork, program: Program) -> Iterator[tuple[str, Tensor, str]]:
    """Tensors that operations outside torch's layers read, each with its role: `weight`, `fan`, or a normalisation's."""
    tensors = dict(network.named_parameters(remove_duplicate=False)) | dict(
        network.named_buffers(remove_duplicate=False)
    )
    for node in program.graphs["eval"].nodes:
        if node.operation.schema is None:
            continue
        kind = node.operation.name.removeprefix("aten.")
        for argument, value in bound(node.operation, node.arguments, node.keywords).items():
            if not isinstance(value, TensorName):
                continue
            if kind.startswith(_NORMS) and argument in _VALUES:
                yield value.name, tensors[value.name], argument
            elif kind.startswith(_WEIGHTED) and argument in ("weight", "mat2", "bias"):
                yield value.name, tensors[value.name], "bias of layer" if argument == "bias" else "fan"


def _draw(tensor: Tensor, role: str, network: nn.Module, name: str) -> None:
    if role in _VALUES:
        tensor.fill_(_VALUES[role])
    elif role == "fan" and tensor.ndim >= 2:
        nn.init.kaiming_uniform_(tensor, a=math.sqrt(5))
    else:
        tensor.zero_()
