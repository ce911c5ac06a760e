"""A copy of a network that any forward pass may have left tensors in."""

import copy
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _Detached(TorchFunctionMode):
    """A context in which tensors that are results of others, with a gradient, are copied without it."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        """What was copied, so that no other tensor gets its id while the copy is made."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            args = (args[0].detach(), *args[1:])
            self.kept.append(args[0])
        return func(*args, **(kwargs or {}))


def copy_of(network: nn.Module) -> nn.Module:
    """A deep copy, which `copy.deepcopy` refuses where the network keeps results of an earlier pass, as timm's caches of
    attention biases do."""
    with _Detached():
        return copy.deepcopy(network)
