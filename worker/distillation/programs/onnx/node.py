"""One ONNX node on its way to operations of a program: its operands, its attributes, and what is added for it.

Every value of an ONNX graph is a result of the program (`Value`), a stored tensor (`Constant`), or integers (`Integers`)
that shapes are computed with, of which some may be results themselves, since they depend on the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.distillation.programs.format import TensorName, Value
from worker.distillation.programs.onnx.building import Building, NoTranslation

INTEGERS_AT_MOST = 4096


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


class Context:
    """One ONNX node on its way: its operands and attributes, and what to add to the program with."""

    def __init__(self, program: Building, opset: int, node: Any, operands: Sequence[Operand], path: str):
        self.program = program
        self.node = node
        self.operands = operands
        self.path = path
        self.opset = opset
        self.attributes = {each.name: _attribute(each) for each in node.attribute}
        self.used: dict[str, int] = {}

    def add(self, operation: str, *arguments: Any, **keywords: Any) -> Value:
        """Add an operation to the node's call; gives its result."""
        return self.program.add(self.path, operation, arguments, keywords)

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
        if key not in self.program.stored:  # the array is kept, so that no other gets its id
            self.used[name] = self.used.get(name, -1) + 1
            suffix = f"_{self.used[name]}" if self.used[name] else ""
            kind = kind if np.asarray(array).dtype.kind == "f" else "constant"
            self.program.stored[key] = array, self.program.store(f"{self.path}.{name}{suffix}", array, kind)
        return self.program.stored[key][1]

    def constant(self, array: Any) -> Constant:
        """A constant that is not in the file."""
        self.program.spend(array.nbytes)
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
        return self.program.shape(operand)

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
