"""A network's tensors under the names that a program stores them by."""

from torch import Tensor, nn

from .refusal import CannotPack


def tensors_of(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    """Tensors that are stored, the kinds of all names, and the names that share another's tensor."""
    persistent = network.state_dict(keep_vars=True).keys()
    named = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    ordered = [*persistent, *(name for name in named if name not in persistent)]
    tensors: dict[str, Tensor] = {}
    kinds: dict[str, str] = {}
    alias: dict[str, str] = {}
    first: dict[int, str] = {}
    for name in ordered:
        tensor = named.get(name)
        if tensor is None:
            raise CannotPack(f"the state dict's entry `{name}` is neither a parameter nor a buffer")
        kept = "buffer" if name in persistent else "constant"
        kinds[name] = "param" if isinstance(tensor, nn.Parameter) else kept
        if id(tensor) in first:
            alias[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor.detach().contiguous().clone()
    return tensors, kinds, alias
