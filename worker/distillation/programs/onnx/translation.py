"""Translation: an ONNX graph as the graph of a program, node after node, with shapes known on the way.

Every value of the ONNX graph is a result of the program (`Value`), a stored tensor (`Constant`), or integers (`Integers`)
that shapes are computed with, of which some may be results themselves, since they depend on the batch.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.errors import UploadError
from worker.distillation.programs.dry_run import BATCHES, SECONDS, DryRun, on_meta
from worker.distillation.programs.format import Node, Special, TensorName, Value, is_name
from worker.distillation.programs.onnx.reading import EXPORT_AGAIN, OnnxGraph, dims_of, is_channels_last, refuse
from worker.distillation.programs.operators import OPERATIONS

INTEGERS_AT_MOST = 4096
CHANNELS_LAST = "channels_last"
SPARE_BYTES = 16 * 2**20
"""What constants that are not in the file may take at most, beside four times those that are."""


@dataclass(frozen=True)
class Constant:
    """Numbers of the file, which become a stored tensor when an operation reads them."""

    array: Any
    name: str = ""


@dataclass(frozen=True)
class Integers:
    """Integers, each a number or a result; `flat` if they are one number and not a list."""

    items: tuple[Any, ...]
    flat: bool = False


Operand = Value | Constant | Integers | None


class NoTranslation(Exception):
    """An operation, or this use of it, has no translation."""


class Context:
    """One ONNX node on its way: its operands and attributes, and what to add to the program with."""

    def __init__(self, translator: "Translator", node: Any, operands: Sequence[Operand], path: str):
        self.translator = translator
        self.node = node
        self.operands = operands
        self.path = path
        self.opset = translator.source.opset
        self.attributes = {each.name: _attribute(each) for each in node.attribute}
        self.used: dict[str, int] = {}

    def add(self, operation: str, *arguments: Any, **keywords: Any) -> Value:
        """Add an operation to the node's call; gives its result."""
        return self.translator.add(self.path, operation, arguments, keywords)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def has(self, number: int) -> bool:
        return len(self.operands) > number and self.operands[number] is not None

    def operand(self, number: int) -> Operand:
        return self.operands[number] if len(self.operands) > number else None

    def tensor(self, number: int, name: str = "value", kind: str = "constant") -> Any:
        """An operand as a tensor: a result, or a stored tensor called `name` within the node's path."""
        return self.as_tensor(self.operand(number), name, kind)

    def as_tensor(self, operand: Operand, name: str = "value", kind: str = "constant") -> Any:
        if isinstance(operand, Value):
            return operand
        if isinstance(operand, Constant):
            return self.store(operand.array, name, kind)
        if isinstance(operand, Integers) and all(isinstance(each, int) for each in operand.items):
            array = np.array(operand.items, dtype=np.int64)
            return self.store(array[0] if operand.flat else array, name, "constant")
        raise NoTranslation("reads a shape as numbers")

    def store(self, array: Any, name: str, kind: str) -> TensorName:
        """A stored tensor of these numbers."""
        key = (id(array), kind)
        if key not in self.translator.stored:  # the array is kept, so that no other gets its id
            self.used[name] = self.used.get(name, -1) + 1
            suffix = f"_{self.used[name]}" if self.used[name] else ""
            kind = kind if np.asarray(array).dtype.kind == "f" else "constant"
            self.translator.stored[key] = array, self.translator.store(f"{self.path}.{name}{suffix}", array, kind)
        return self.translator.stored[key][1]

    def constant(self, array: Any) -> Constant:
        """A constant that is not in the file."""
        self.translator.spend(array.nbytes)
        return Constant(array)

    def array(self, number: int) -> Any:
        """A constant operand's numbers."""
        operand = self.operand(number)
        if isinstance(operand, Constant):
            return operand.array
        if isinstance(operand, Integers) and all(isinstance(each, int) for each in operand.items):
            return np.array(operand.items, dtype=np.int64)
        raise NoTranslation(f"computes its input {number}")

    def number(self, number: int, default: Any = None) -> Any:
        """A constant operand of one number."""
        if not self.has(number):
            return default
        array = np.asarray(self.array(number))
        if array.size != 1:
            raise NoTranslation(f"has a list as its input {number}")
        return array.reshape(()).item()

    def integers(self, number: int) -> list[Any]:
        """An operand as a list of integers, some of which may be results."""
        operand = self.operand(number)
        if isinstance(operand, Integers):
            return list(operand.items)
        array = np.asarray(self.array(number))
        if array.size > INTEGERS_AT_MOST:
            raise NoTranslation("reads too many integers")
        return [int(each) for each in array.reshape(-1)]

    def static(self, number: int) -> list[int]:
        """An operand as a list of integers that do not depend on the batch."""
        found = self.integers(number)
        if not all(isinstance(each, int) for each in found):
            raise NoTranslation("has a shape that depends on the batch where it cannot")
        return found

    def shape(self, operand: Any) -> list[int | None]:
        """The shape of a tensor, None where it depends on the batch."""
        return self.translator.shape(operand)

    def rank(self, number: int = 0) -> int:
        return len(self.shape(self.tensor(number)))

    def size(self, operand: Any, dimension: int) -> Any:
        """A length: a number, or a result where it depends on the batch."""
        known = self.shape(operand)[dimension]
        return self.add("aten.sym_size.int", operand, dimension) if known is None else known


Rule = Callable[[Context], Any]
"""What adds an ONNX node's operations, and gives the node's results."""


def _attribute(attribute: Any) -> Any:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class Translator:
    """Translates one graph by `rules`, one for each operation; `fold` computes what can be computed at once; `said` holds
    what the file does not."""

    def __init__(
        self,
        source: OnnxGraph,
        contract: InputContract,
        said: Mapping[str, Any],
        rules: Mapping[str, "Rule"],
        fold: "Rule",
    ):
        self.source = source
        self.contract = contract
        self.said = said
        self.rules = rules
        self.fold = fold
        self.values: dict[str, Operand] = {"": None}
        self.nodes: list[Node] = []
        self.calls: list[tuple[int, str]] = [(-1, "")]
        self.tensors: dict[str, Tensor] = {}
        self.kinds: dict[str, str] = {}
        self.paths: set[str] = set()
        self.stored: dict[tuple[int, str], tuple[Any, TensorName]] = {}
        self.turned: dict[int, Any] = {}
        """Matrices turned, by the id of what they were."""
        self.room = 4 * sum(array.nbytes for array in source.arrays.values()) + SPARE_BYTES
        deadline = time.monotonic() + SECONDS
        size = (contract.channels, contract.height, contract.width)
        self.runs = [DryRun(on_meta((batch, *size)), {}, {}, "eval", deadline) for batch in BATCHES]

    def program(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The program as JSON, and its tensors.

        Raises:
            UploadError: operations have no translation; it names them all.
        """
        self._bind()
        self._refuse_unknown()
        for number, node in enumerate(self.source.graph.node):
            self._translate(node, number)
        output = self._output()
        graph = {
            "calls": [[caller, path, path.rpartition(".")[2]] for caller, path in self.calls],
            "nodes": [_as_json(node) for node in self.nodes],
            "output": output,
        }
        contract = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.contract).items()
        }
        return {
            "format": "program", "version": 1, "made_by": f"ONNX, opset {self.source.opset}", "input": contract,
            "classes": int(self.said["classes"]), "class_names": list(self.said.get("class_names") or []),
            "tensors": self.kinds, "alias": {}, "graphs": {"eval": graph},
        }, self.tensors  # fmt: skip

    def _bind(self) -> None:
        graph = self.source.graph
        self.values |= {name: Constant(array, name) for name, array in self.source.arrays.items()}
        inputs = [each for each in graph.input if each.name not in self.source.arrays]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise refuse(f"it has {len(inputs)} inputs and {len(graph.output)} outputs; one of each is read")
        self.values[inputs[0].name] = self._image(inputs[0])

    def _image(self, given: Any) -> Value:
        """The graph's input: the images, with their channels last where the graph reads them so, as Keras's do."""
        if not is_channels_last(dims_of(given), self.contract):
            return Value(0)
        self.paths.add(CHANNELS_LAST)
        return self.add(CHANNELS_LAST, "aten.permute.default", [Value(0), [0, 2, 3, 1]], {})

    def _refuse_unknown(self) -> None:
        unknown = sorted({node.op_type for node in self.source.graph.node} - set(self.rules))
        if unknown:
            raise refuse(
                f"it uses {', '.join(each[:60] for each in unknown[:12])}, which have no translation", EXPORT_AGAIN
            )

    def _translate(self, node: Any, number: int) -> None:
        where = f"node {number}, {node.op_type}"
        missing = [name for name in node.input if name not in self.values]
        if missing:
            raise refuse(f"{where} reads {missing[0][:80]!r}, which no node before it gives")
        operands = [self.values[name] for name in node.input]
        context = Context(self, node, operands, self._path(node))
        rule = self.rules[node.op_type]
        try:
            found = self.fold(context)
            found = rule(context) if found is None else found
        except NoTranslation as error:
            raise refuse(f"{where} {error}, which has no translation") from error
        except UploadError as error:
            raise refuse(f"{where} has no translation: {error.message}", EXPORT_AGAIN) from error
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, ZeroDivisionError) as error:
            raise refuse(f"{where} has inputs or attributes that make no sense: {str(error)[:200]}") from error
        results = list(found) if isinstance(found, (list, tuple)) else [found]
        for name, result in zip(node.output, results, strict=False):
            if name:
                self.values[name] = result

    def _path(self, node: Any) -> str:
        """The module of a node: after the name of its weights where they have one of the kind, else after its operation."""
        stem = re.sub(r"[^a-z0-9]", "", node.op_type.lower())
        names = [name for name in node.input[1:3] if name in self.source.arrays]
        base = names[0].rpartition(".")[0] if names and names[0].endswith(".weight") else ""
        if base and is_name(base) and base not in self.paths:
            self.paths.add(base)
            return base
        number = 0
        while f"{stem}_{number}" in self.paths:
            number += 1
        self.paths.add(f"{stem}_{number}")
        return f"{stem}_{number}"

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

    def _output(self) -> int:
        name = self.source.graph.output[0].name
        found = self.values.get(name)
        if not isinstance(found, Value) or found.number == 0:
            raise refuse("its output does not depend on its input")
        return found.number


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
