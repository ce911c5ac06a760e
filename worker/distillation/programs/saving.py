"""Saving: a program's network, or any other, as a program again."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.programs.network import ProgramNetwork
from worker.distillation.programs.packing import program_of


def program_and_tensors(
    network: nn.Module, contract: InputContract, class_names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The program of a network on the CPU and its tensors, with this contract and these names.

    That of a program's network has the graphs that it was built of; another's is exported, with a graph of training mode.

    Raises:
        CannotPack: torch cannot export the network, or no program can hold it.
    """
    values = json.loads(json.dumps(asdict(contract)))
    if not isinstance(network, ProgramNetwork):
        return program_of(network, values, class_names, train=True)
    program = json.loads(network.program.text) | {"input": values}
    if len(class_names) == network.program.classes:
        program["class_names"] = list(class_names)
    named = dict(network.named_parameters(remove_duplicate=False)) | dict(network.named_buffers(remove_duplicate=False))
    return program, {name: named[name].detach() for name in network.program.shapes}


def text_of(program: dict[str, Any]) -> str:
    """The program as the text that a file's metadata hold."""
    return json.dumps(program, separators=(",", ":"), allow_nan=False)
