"""A program in the making: its operations, stored tensors and modules, with shapes known on the way."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.programs.dry_run import BATCHES, SECONDS, DryRun, on_meta
from worker.distillation.programs.format import Node, Special, TensorName, Value
from worker.distillation.programs.onnx.reading import refuse
from worker.distillation.programs.operators import OPERATIONS


class NoTranslation(Exception):
    """An operation, or this use of it, has no translation."""


class Building:
    """A program to which operations are added. Every one is run without numbers, for two batches of different sizes."""

    def __init__(self, contract: InputContract, room: int):
        """`room`: bytes that constants may take which are not in the file."""
        self.nodes: list[Node] = []
        self.calls: list[tuple[int, str]] = [(-1, "")]
        self.tensors: dict[str, Tensor] = {}
        self.kinds: dict[str, str] = {}
        self.stored: dict[tuple[int, str], tuple[Any, TensorName]] = {}
        self.turned: dict[int, Any] = {}
        """Matrices turned, by the id of what they were."""
        self.room = room
        deadline = time.monotonic() + SECONDS
        size = (contract.channels, contract.height, contract.width)
        self.runs = [DryRun(on_meta((batch, *size)), {}, {}, "eval", deadline) for batch in BATCHES]

    def graph(self, output: int) -> dict[str, Any]:
        """The operations and modules as JSON; `output` is the number of the result that the program gives."""
        return {
            "calls": [[caller, path, path.rpartition(".")[2]] for caller, path in self.calls],
            "nodes": [_as_json(node) for node in self.nodes],
            "output": output,
        }

    def add(self, path: str, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Value:
        """Add a node to the call of `path`, and run it without numbers."""
        if name not in OPERATIONS:
            raise NoTranslation(f"needs {name}, which this version of torch does not have")
        if self.calls[-1][1] != path:
            self.calls.append((0, path))
        node = Node(OPERATIONS[name], len(self.calls) - 1, tuple(arguments), dict(keywords))
        for run in self.runs:
            run.step(node, name)
        self.nodes.append(node)
        return Value(len(self.nodes))

    def store(self, name: str, array: Any, kind: str) -> TensorName:
        """A stored tensor; half and double precision become single."""
        tensor = torch.from_numpy(np.array(array))
        if tensor.is_floating_point():
            tensor = tensor.float()
        self.spend(tensor.nbytes)
        while name in self.tensors:
            name += "_"
        self.tensors[name], self.kinds[name] = tensor.contiguous(), kind
        for run in self.runs:
            run.tensors[name] = tensor.to("meta")
        return TensorName(name)

    def spend(self, count: int) -> None:
        """Take bytes for constants that are not in the file.

        Raises:
            UploadError: there are none left.
        """
        self.afford(count)
        self.room -= count

    def afford(self, count: int) -> None:
        """See that so many bytes are left for constants."""
        if count > self.room:
            raise refuse("its operations need far more memory for constants than the file has")

    def shape(self, operand: Any) -> list[int | None]:
        """The shape of a result or stored tensor, None where it differs between two batches."""
        if isinstance(operand, TensorName):
            return list(self.tensors[operand.name].shape)
        one, other = (run.values[operand.number].shape for run in self.runs)
        return [a if a == b else None for a, b in zip(one, other, strict=True)]

    def dtype(self, operand: Any) -> torch.dtype:
        """The number format of a result or stored tensor."""
        tensors = self.runs[0].tensors[operand.name] if isinstance(operand, TensorName) else None
        found: Tensor = self.runs[0].values[operand.number] if tensors is None else tensors
        return found.dtype


def _as_json(node: Node) -> list[Any]:
    arguments = [_written(each) for each in node.arguments]
    return [node.operation.name, node.call, arguments, {key: _written(value) for key, value in node.keywords.items()}]


def _written(value: Any) -> Any:
    if isinstance(value, Value):
        return {"v": value.number}
    if isinstance(value, TensorName):
        return {"t": value.name}
    if isinstance(value, Special):
        return {value.kind: 0 if value.kind == "device" else value.value}
    return [_written(each) for each in value] if isinstance(value, (list, tuple)) else value
