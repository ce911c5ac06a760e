"""What the residual networks for images of about 32x32 pixels have in common."""

from collections.abc import Callable

from torch import nn

from worker.distillation.errors import Problem, SpecError


def group(
    block: Callable[[int, int, int], nn.Module], channels_in: int, channels_out: int, blocks: int, stride: int
) -> nn.Sequential:
    """Blocks after each other, the first of which changes width and resolution; `block(channels_in, channels_out, stride)`."""
    rest = (block(channels_out, channels_out, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(channels_in, channels_out, stride), *rest)


def initialise(network: nn.Module) -> None:
    """Draw the weights of all convolutions as He et al. do (arXiv:1502.01852), so that gradients keep their size."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def blocks_at_each_of_three(depth: int, beside: int) -> int:
    """How many blocks of two convolutions a network of three resolutions has, of whose layers so many are in no block.

    Raises:
        SpecError: the depth is not that of such a network.
    """
    if (depth - beside) % 6:
        nearest = 6 * round((depth - beside) / 6) + beside
        raise SpecError([Problem("/options/depth", f"must be 6 n + {beside}, such as {nearest}, not {depth}")])
    return (depth - beside) // 6
