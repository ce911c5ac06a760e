"""The dry run: a program on torch's meta device, which computes shapes and no numbers."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from worker.distillation.programs.arguments import bound
from worker.distillation.programs.format import NO_END, Graph, Node, Program, Special, TensorName, Value, refuse

BATCHES = (2, 5)
"""Batch sizes that a program must take; the first one's shapes are kept."""
ELEMENTS, ALL_ELEMENTS = 2**31, 2**34
"""Most numbers of one value, and of all values of a graph together, for two images."""
OPERATIONS_PER_IMAGE = 2 * 10**13
"""Most multiplications and additions for one image; torch counts those of convolutions, products and attention."""
LARGEST_INTEGER = 2**40
PARTS = 4096
"""Most tensors that one operation gives."""
WORK = 2**36
"""Most numbers that a pooling or other window reads for two images."""
SECONDS = 120
_COUNTED = {"aten.split.Tensor": "split_size", "aten.unbind.int": None, "aten.chunk.default": "chunks"}


@dataclass(frozen=True)
class Sizes:
    """What a dry run finds: the shape of every value (None where it is not a tensor), and operations for one image."""

    shapes: tuple[tuple[int, ...] | None, ...]
    operations: int


def dry_run(program: Program) -> dict[str, Sizes]:
    """Run every graph without numbers, with batches of 2 and 5; gives the sizes by mode.

    Raises:
        UploadError: an operation refuses its arguments, a value is too large, or the output is not (batch, classes).
    """
    found = {}
    deadline = time.monotonic() + SECONDS
    for mode, graph in program.graphs.items():
        with FlopCounterMode(display=False) as counter:
            shapes = _shapes(program, graph, mode, BATCHES[0], deadline)
        operations = counter.get_total_flops() // BATCHES[0]
        if operations > OPERATIONS_PER_IMAGE:
            raise refuse(f"one image costs {operations:.2g} operations; at most {OPERATIONS_PER_IMAGE:.2g} are allowed")
        _shapes(program, graph, mode, BATCHES[1], deadline)
        found[mode] = Sizes(shapes, operations)
    return found


def on_meta(shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=getattr(torch, widened(dtype)), device="meta")


def _shapes(
    program: Program, graph: Graph, mode: str, batch: int, deadline: float
) -> tuple[tuple[int, ...] | None, ...]:
    contract, expected = program.contract, (batch, program.classes)
    tensors = {name: on_meta(shape, program.dtypes[name]) for name, shape in program.shapes.items()}
    image = on_meta((batch, contract.channels, contract.height, contract.width))
    run = DryRun(image, tensors, program.alias, mode, deadline)
    with torch.no_grad(), torch.random.fork_rng([]):
        for number, node in enumerate(graph.nodes):
            run.step(node, f"node {number} of {mode!r} ({node.operation.name})")
    output = run.values[graph.output]
    if not isinstance(output, Tensor) or tuple(output.shape) != expected or not output.is_floating_point():
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise refuse(f"for {batch} images the graph {mode!r} gives {shape}, not logits {expected}")
    return tuple(tuple(each.shape) if isinstance(each, Tensor) else None for each in run.values)


class DryRun:
    """A graph on the meta device, node after node; `tensors` are the stored ones by their stored names."""

    def __init__(self, image: Tensor, tensors: dict[str, Tensor], alias: Mapping[str, str], mode: str, deadline: float):
        self.tensors = tensors
        self.alias = alias
        self.mode = mode
        self.deadline = deadline
        self.total = 0
        self.values: list[Any] = [image]

    def step(self, node: Node, where: str) -> Any:
        """Run one node; gives its result.

        Raises:
            UploadError: it does not take its arguments, or gives something too large.
        """
        if time.monotonic() > self.deadline:
            raise refuse(f"its dry run takes more than {SECONDS} seconds")
        arguments = [self._filled(each) for each in node.arguments]
        keywords = {name: self._filled(value) for name, value in node.keywords.items()}
        keywords |= forced_device(node, self.values[0].device)
        self._check_parts(node, arguments, keywords, where)
        try:
            result = node.operation.function(*arguments, **keywords)
        except Exception as error:  # whatever torch raises on these arguments
            words = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise refuse(f"{where} does not take what it is given: {words}") from error
        self._check_value(result, where)
        self.values.append(result)
        return result

    def _filled(self, value: Any) -> Any:
        return filled(value, self.values, self._tensor, self.values[0].device)

    def _tensor(self, name: str) -> Tensor:
        return self.tensors[self.alias.get(name, name)]

    def _check_parts(self, node: Node, arguments: list[Any], keywords: Mapping[str, Any], where: str) -> None:
        """See that an operation neither gives too many tensors nor reads too large windows, before it runs."""
        name = node.operation.name
        if node.operation.schema is None:
            _check_operands(name, arguments, where)
            return
        given = bound(node.operation, arguments, keywords)
        first = given.get("self", given.get("input"))
        try:
            if name in _COUNTED and isinstance(first, Tensor):
                size = _COUNTED[name]
                length = first.shape[given.get("dim", 0)]
                parts = given["chunks"] if size == "chunks" else length // max(1, given[size] if size else 1)
                if parts > PARTS:
                    raise refuse(f"{where} gives {parts} tensors; at most {PARTS} are allowed")
            window = math.prod(given["kernel_size"]) if "pool" in name and "kernel_size" in given else 1
            if isinstance(first, Tensor) and first.numel() * window > WORK:
                raise refuse(f"{where} reads windows of {window} numbers, too many for its map")
        except (TypeError, IndexError, KeyError) as error:
            raise refuse(f"{where} does not take what it is given: {error}") from error

    def _check_value(self, value: Any, where: str, depth: int = 0) -> None:
        if isinstance(value, Tensor):
            if value.device.type != "meta":
                raise refuse(f"{where} gives a tensor on another device than the image's")
            if value.numel() > ELEMENTS:
                raise refuse(f"{where} gives {value.numel()} numbers; at most {ELEMENTS} are allowed")
            self.total += value.numel()
            if self.total > ALL_ELEMENTS:
                raise refuse(f"the values of {self.mode!r} have more than {ALL_ELEMENTS} numbers")
        elif isinstance(value, (list, tuple)) and depth == 0 and len(value) <= PARTS:
            for each in value:
                self._check_value(each, where, depth + 1)
        elif isinstance(value, int):
            if abs(value) > LARGEST_INTEGER and value != NO_END:
                raise refuse(f"{where} gives an integer beyond {LARGEST_INTEGER}")
        elif not isinstance(value, float):
            raise refuse(f"{where} gives a {type(value).__name__}")


def _check_operands(name: str, arguments: Sequence[Any], where: str) -> None:
    """See that an operator gets numbers, or a list and a place in it: Python has others, such as a list times a number."""
    of_list = name == "operator.getitem"
    kinds = [(list, tuple), (int,)] if of_list else [(int, float)] * len(arguments)
    if not all(isinstance(each, kind) for each, kind in zip(arguments, kinds, strict=False)):
        raise refuse(f"{where} gets something else than {'a list and an integer' if of_list else 'numbers'}")


def widened(dtype: str) -> str:
    """The number format that a stored tensor is read in: half precision becomes single."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def filled(value: Any, values: Any, tensor: Any, device: torch.device) -> Any:
    """An argument with its references replaced; `values` are results by number, `tensor` gives a stored one by name."""
    if isinstance(value, Value):
        return values[value.number]
    if isinstance(value, TensorName):
        return tensor(value.name)
    if isinstance(value, list):
        return [filled(each, values, tensor, device) for each in value]
    if isinstance(value, Special):
        return device if value.kind == "device" else _constant(value)
    return value


def _constant(special: Special) -> Any:
    if special.kind == "float":
        return float(special.value)
    return _TORCH[special.value]


_TORCH: Mapping[str, Any] = {
    "float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "int64": torch.int64, "int32": torch.int32, "int16": torch.int16, "int8": torch.int8, "uint8": torch.uint8,
    "bool": torch.bool, "contiguous_format": torch.contiguous_format, "channels_last": torch.channels_last,
    "preserve_format": torch.preserve_format,
}  # fmt: skip


def forced_device(node: Node, device: torch.device) -> dict[str, Any]:
    """The image's device as an argument of an operation that makes tensors and does not say where."""
    schema = node.operation.schema
    if schema is None or "device" in node.keywords:
        return {}
    places = [argument for argument in schema.arguments if argument.name == "device" and argument.kwarg_only]
    reads_tensor = any(str(argument.real_type) == "Tensor" for argument in schema.arguments)
    return {"device": device} if places and not reads_tensor else {}
