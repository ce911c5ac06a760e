"""Packing a network of your own, so that the service can use it without its Python code.

The work is in `packing`, which needs torch and safetensors; they are imported when a network is packed.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery_client.errors import DistilleryError

if TYPE_CHECKING:
    from torch import nn


class CannotPack(DistilleryError):
    """A network cannot be packed; the message says why and what to do."""


def pack(
    network: "nn.Module",
    path: Path | str,
    *,
    channels: int,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str] = (),
    student: bool = False,
) -> dict[str, Any]:
    """Write a network with its weights to a file that `client.teachers.send(path)` uploads; gives what it says of itself.

    It reads images (B, channels, height, width), `(pixel / 255 - mean) / std`, and returns logits (B, K). `student` adds
    what a network needs to be trained. The file is written only once the packed network has given what yours does.

    Raises:
        CannotPack: torch or safetensors is missing, torch cannot export the network, or it uses something that cannot be
            packed.
    """
    packing = _packing()
    size = {"channels": channels, "height": height, "width": width}
    about = {"mean": list(mean), "std": list(std), "class_names": list(class_names)}
    try:
        program = packing.pack(network, Path(path), **size, **about, train=student)
    except packing.CannotPack as error:
        raise CannotPack(str(error)) from error
    return {name: program[name] for name in ("classes", "class_names", "input")}


def network_of(factory: str, weights: Path | None = None) -> "nn.Module":
    """What `module:function` makes, with the weights of a file (.pth, .pt or .safetensors) where one is given.

    Raises:
        CannotPack: there is no such function, it makes no network, or the weights are not the network's.
    """
    _packing()
    from torch import nn

    name, _, attribute = factory.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise CannotPack(f"{factory!r} names no function: write it as module:function ({error})") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    network = found if isinstance(found, nn.Module) else found()
    if not isinstance(network, nn.Module):
        raise CannotPack(f"{factory} makes a {type(network).__name__}, not a torch.nn.Module")
    if weights is not None:
        _load(network, weights)
    return network


def _load(network: "nn.Module", weights: Path) -> None:
    """Load weights of your own, as weights alone: nothing that a file holds is run."""
    import torch
    from safetensors.torch import load_file

    try:
        if weights.suffix == ".safetensors":
            state: Any = load_file(weights)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        for key in ("state_dict", "model"):
            state = state[key] if isinstance(state.get(key), dict) else state
        network.load_state_dict(state)
    except Exception as error:  # whatever torch says of a file that it cannot read or that does not fit
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CannotPack(f"{weights} cannot be loaded into the network: {words}") from error


def _packing() -> Any:
    try:
        return importlib.import_module("distillery_client.packing")
    except ImportError as error:
        words = f"packing a network needs torch and safetensors, and one is missing ({error}): pip install torch safetensors"
        raise CannotPack(words) from error
