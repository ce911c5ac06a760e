"""Finding the batch normalisation before an activation."""

from collections.abc import Sequence

from torch import nn

from worker.distillation.introspection.tracing import is_activation

LINEAR = (nn.modules.conv._ConvNd, nn.Linear)


def normalisation_before(network: nn.Module, tap: str, order: Sequence[str]) -> nn.BatchNorm2d | None:
    """The BatchNorm2d that produces the values at a tap `PATH:pre`, or None.

    It is the last BatchNorm2d before the activation in the same module, with no convolution or linear layer between them
    (layers of a shortcut that is added after it do not count), or the layer that contains the activation itself. `order`:
    the network's taps in order of execution.
    """
    path = tap.removesuffix(":pre")
    if path == tap or tap not in order:
        return None
    names = list(order[: order.index(tap) + 1])
    activation = next((name for name in reversed(names) if _is_activation_within(network, name, path)), None)
    if activation is None:
        return None
    parent = activation.removesuffix(":pre").rpartition(".")[0]
    holder = network.get_submodule(parent)
    if isinstance(holder, nn.BatchNorm2d):
        return holder
    for name in reversed(names[: names.index(activation)]):
        is_sibling = ":" not in name and name.rpartition(".")[0] == parent
        module = network.get_submodule(name) if is_sibling else None
        if isinstance(module, nn.BatchNorm2d):
            return module
        if isinstance(module, LINEAR):
            return None
    return None


def _is_activation_within(network: nn.Module, tap: str, path: str) -> bool:
    inner = tap.removesuffix(":pre")
    return inner != tap and f"{inner}.".startswith(f"{path}.") and is_activation(network.get_submodule(inner))
