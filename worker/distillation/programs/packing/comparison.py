"""The comparison of a program with the network that it was made of."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .network_copy import copy_of
from .operations import resolve
from .refusal import CannotPack

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-5
"""An output may differ by `ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * (the largest output)`."""
CHECKED = 3
"""Batch size of the comparison, another than that of the export."""


def compare(program: Mapping[str, Any], tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """See that the program computes what the network does, in every mode that it has, for a batch of another size.

    Raises:
        CannotPack: outputs or buffers differ.
    """
    image = random_images(program["input"], CHECKED)
    for mode in program["graphs"]:
        own = copy_of(network).train(mode == "train")
        theirs = {name: tensor.clone() for name, tensor in tensors.items()}
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(1)
            expected = own(image)
            expected = next(iter(expected.values())) if isinstance(expected, Mapping) else expected
            torch.manual_seed(1)
            given = replay(program, theirs, mode, image)
        _compare_tensors(f"the logits in mode {mode}", given, expected)
        for name, tensor in own.state_dict().items():
            stored = program["alias"].get(name, name)
            _compare_tensors(f"`{name}` after a pass in mode {mode}", theirs[stored], tensor)


def _compare_tensors(what: str, given: Tensor, expected: Tensor) -> None:
    if given.shape != expected.shape:
        raise CannotPack(f"{what} have the shape {tuple(given.shape)} in the program, {tuple(expected.shape)} in yours")
    given, expected = given.double(), expected.double()
    allowed = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * float(expected.abs().max() if expected.numel() else 0)
    difference = float((given - expected).abs().max()) if given.numel() else 0.0
    if not difference <= allowed:
        raise CannotPack(f"{what} differ by {difference:.2g} between the program and your network: nothing is written")


def replay(program: Mapping[str, Any], tensors: Mapping[str, Tensor], mode: str, image: Tensor) -> Tensor:
    """Run a graph of a program that this file made, operation by operation; for the comparison."""
    graph, values = program["graphs"][mode], [image]

    def filled(argument: Any) -> Any:
        if isinstance(argument, list):
            return [filled(each) for each in argument]
        if not isinstance(argument, dict):
            return argument
        ((kind, value),) = argument.items()
        if kind == "v":
            return values[value]
        if kind == "t":
            return tensors[program["alias"].get(value, value)]
        if kind in ("dtype", "memory_format"):
            return getattr(torch, value)
        return image.device if kind == "device" else float(value)

    for name, _, arguments, keywords in graph["nodes"]:
        values.append(resolve(name)(*filled(arguments), **{key: filled(value) for key, value in keywords.items()}))
    result: Tensor = values[graph["output"]]
    return result


def random_images(contract: Mapping[str, Any], count: int) -> Tensor:
    """Images as the contract has them, the same for the same count."""
    shape = (count, contract["channels"], contract["height"], contract["width"])
    return torch.randn(shape, generator=torch.Generator().manual_seed(count))
