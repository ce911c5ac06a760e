"""Packing: any `torch.nn.Module` as a program, which is tensors and a list of known operations (docs/programs.md).

This folder needs torch and safetensors alone. It is in the engine and, byte for byte the same, in the client; a test
compares the two. Everything here runs where the network's own code runs, so nothing here reads a stranger's file.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .comparison import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE, compare, random_images
from .network_copy import copy_of
from .refusal import CannotPack
from .tensors import tensors_of
from .translation import Translation

__all__ = [
    "ABSOLUTE_TOLERANCE",
    "RELATIVE_TOLERANCE",
    "CannotPack",
    "compare",
    "copy_of",
    "pack",
    "program_of",
    "write",
]

VERSION = 1
EXAMPLES = 2
"""Batch size of the export."""


def pack(
    network: nn.Module,
    path: Path,
    *,
    channels: int,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str] = (),
    train: bool = False,
    made_by: str = "",
) -> dict[str, Any]:
    """Write a network as a program, after a comparison of the program with the network; gives the program.

    The network reads images (B, channels, height, width), `(pixel / 255 - mean) / std`, and returns logits (B, K).
    `train` adds the graph of training mode, which a student needs; a teacher does not. The network is left as it is.

    Raises:
        CannotPack: torch cannot export the network, it uses something that no program can hold, or the program
            computes something else than the network.
    """
    ours = copy_of(network).to("cpu", torch.float32)
    contract = {"channels": channels, "height": height, "width": width, "mean": list(mean), "std": list(std)}
    program, tensors = program_of(ours, contract, class_names, train, made_by)
    compare(program, tensors, ours)
    write(program, tensors, path)
    return program


def program_of(
    network: nn.Module, contract: Mapping[str, Any], class_names: Sequence[str], train: bool, made_by: str = ""
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The program and its tensors by name, of a network on the CPU in single precision."""
    image = random_images(contract, EXAMPLES)
    with torch.no_grad():
        logits = copy_of(network).eval()(image)
    if isinstance(logits, Mapping) and len(logits) == 1:
        logits = next(iter(logits.values()))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != EXAMPLES:
        raise CannotPack("the network must return one tensor of logits, (batch, classes), in evaluation mode")
    classes = logits.shape[1]
    if class_names and len(class_names) != classes:
        raise CannotPack(f"there are {len(class_names)} class names for {classes} outputs")
    tensors, kinds, alias = tensors_of(network)
    graphs = {}
    for mode in ("eval", "train") if train else ("eval",):
        exported = _export(copy_of(network).train(mode == "train"), image, mode)
        graphs[mode] = Translation(exported, tensors, kinds, alias).graph()
    program = {
        "format": "program",
        "version": VERSION,
        "made_by": made_by or f"torch {torch.__version__}",
        "input": dict(contract),
        "classes": classes,
        "class_names": list(class_names),
        "tensors": kinds,
        "alias": alias,
        "graphs": graphs,
    }
    return program, tensors


def write(program: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write the file: tensors under their names, the program as JSON in the metadata."""
    text = json.dumps(program, separators=(",", ":"), allow_nan=False)
    stored = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(stored, path, {"format": "pt", "program": text})


def _export(network: nn.Module, image: Tensor, mode: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
    except Exception as error:  # whatever torch or the network's own code raises says why
        words = " ".join(str(error).split())[:500] or type(error).__name__
        hint = "data-dependent Python code and batch sizes that are written into shapes cannot be exported"
        raise CannotPack(f"torch.export cannot export the network in mode {mode} ({hint}): {words}") from error
