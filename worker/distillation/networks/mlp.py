"""Multilayer perceptrons on flattened pixels; linear classifiers if they have no hidden layers or no activation."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes
from worker.distillation.parameters import Items, Range


@dataclass(frozen=True)
class Options:
    """Sizes of a multilayer perceptron."""

    hidden: Annotated[
        tuple[Annotated[int, Range(ge=1, le=65536)], ...],
        Items(most=16),
        "Units of each hidden layer, from input to output. If empty: a linear classifier.",
    ] = (1200, 1200)
    activation: Annotated[
        Literal["relu", "none"], "Activation between the layers; `none` gives a deep linear network."
    ] = "relu"
    bias: Annotated[bool, "Whether the layers have a bias."] = True


def build(classes: int, contract: InputContract, options: Options) -> nn.Sequential:
    """`fc1`, `relu1`, `fc2`, ...: one linear layer more than there are hidden layers, with the activation between them."""
    sizes = (contract.channels * contract.height * contract.width, *options.hidden, classes)
    network = nn.Sequential()
    network.add_module("flatten", nn.Flatten())
    for number, (width_in, width_out) in enumerate(pairwise(sizes), start=1):
        network.add_module(f"fc{number}", nn.Linear(width_in, width_out, options.bias))
        if options.activation == "relu" and number < len(sizes) - 1:
            network.add_module(f"relu{number}", nn.ReLU())
    return network


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The hidden layers' units; whether there are biases is tried."""
    if shapes and all(len(shape) == 2 for shape in shapes):
        hidden = [shape[0] for shape in shapes[:-1]]
        yield from ({"hidden": hidden, "bias": bias} for bias in (True, False))


NETWORKS = {
    "mlp": Network(
        "A multilayer perceptron on the flattened pixels; by default ReLU and two hidden layers of 1200 units, as in Hinton's MNIST teacher.",
        build,
        "arXiv:1503.02531",
        Options,
        widths=("hidden",),
        guess=guess,
        unseen={"activation": "relu"},
    )
}
