"""Arguments of operations against torch's own schemas, and what a graph may write into."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from worker.distillation.programs.format import Graph, Node, Program, Special, TensorName, Value, refuse
from worker.distillation.programs.operators import Operation

TEXTS = frozenset(
    ["none", "tanh", "floor", "trunc", "same", "valid", "constant", "reflect", "replicate", "circular", "ij", "xy"]
)
"""Texts that an argument may be, besides einsum's equation."""
_EQUATION = re.compile(r"[A-Za-z., >-]{1,200}")
_OF_TYPE = {"dtype": "ScalarType", "memory_format": "MemoryFormat", "device": "Device", "float": "float"}


def check(program: Program) -> None:
    """See that every node calls its operation as torch's schema says, and writes into nothing that others read.

    Raises:
        UploadError: a node does not.
    """
    for mode, graph in program.graphs.items():
        for number, node in enumerate(graph.nodes):
            where = f"node {number} of {mode!r} ({node.operation.name})"
            if node.operation.schema is None:
                _check_operator(node, where)
            else:
                _check_schema(node, where)
        _check_writes(graph, mode, program)


def bound(operation: Operation, arguments: Sequence[Any], keywords: Any) -> dict[str, Any]:
    """Arguments by their names in the schema."""
    names = [argument.name for argument in operation.schema.arguments]
    return dict(zip(names, arguments, strict=False)) | dict(keywords)


def _check_operator(node: Node, where: str) -> None:
    """Operators on integers take one or two values or numbers."""
    if node.keywords or not 1 <= len(node.arguments) <= 2:
        raise refuse(f"{where} does not take these arguments")
    if not all(isinstance(each, (Value, int, float)) for each in node.arguments):
        raise refuse(f"{where} takes integers and results alone")


def _check_schema(node: Node, where: str) -> None:
    given, schema = node.arguments, node.operation.schema.arguments
    positional = [argument for argument in schema if not argument.kwarg_only]
    names = {argument.name for argument in schema}
    if len(given) > len(positional) or not set(node.keywords) <= names:
        raise refuse(f"{where} has arguments that the operation does not take")
    taken = {argument.name for argument in positional[: len(given)]}
    if taken & set(node.keywords):
        raise refuse(f"{where} has an argument twice")
    values = bound(node.operation, given, node.keywords)
    for argument in schema:
        if argument.name not in values:
            if not argument.has_default_value():
                raise refuse(f"{where} lacks the argument {argument.name!r}")
        elif argument.is_out or not _fits(str(argument.real_type), values[argument.name], node.operation.name):
            raise refuse(f"{where} has an argument {argument.name!r} that is not of the type {argument.real_type}")


def _fits(kind: str, value: Any, operation: str) -> bool:
    """Whether a value may be of a schema's type; what results are is found out in the dry run."""
    if kind.startswith("Optional["):
        return value is None or _fits(kind[9:-1], value, operation)
    if kind.startswith("List["):
        inner = kind[5:-1]
        if isinstance(value, list):
            return all(_fits(inner, each, operation) for each in value)
        return isinstance(value, Value) or (inner in ("int", "SymInt") and type(value) is int)
    if isinstance(value, Value):
        return kind in ("Tensor", "int", "SymInt", "float", "SymFloat", "number", "Scalar", "bool")
    if isinstance(value, TensorName):
        return kind == "Tensor"
    if isinstance(value, Special):
        return kind == _OF_TYPE[value.kind] or (value.kind == "float" and kind in ("number", "Scalar"))
    if kind == "str":
        known = isinstance(value, str) and value in TEXTS
        return known or (
            operation == "aten.einsum.default" and isinstance(value, str) and bool(_EQUATION.fullmatch(value))
        )
    types: dict[str, tuple[type, ...]] = {
        "bool": (bool,), "int": (int,), "SymInt": (int,), "float": (int, float), "SymFloat": (int, float),
        "number": (int, float, bool), "Scalar": (int, float, bool), "Tensor": (int, float, bool),
    }  # fmt: skip
    return type(value) in types.get(kind, ())


def references(value: Any) -> Iterator[Value | TensorName]:
    """All references to values and tensors within arguments."""
    if isinstance(value, (Value, TensorName)):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from references(each)


def read_by(node: Node) -> Iterator[Value | TensorName]:
    """All values and tensors that a node reads."""
    yield from references(node.arguments)
    yield from references(list(node.keywords.values()))


def _check_writes(graph: Graph, mode: str, program: Program) -> None:
    """See that in-place operations write into results of the graph alone, in mode `train` also into whole buffers.

    What a result's memory may belong to is followed through all operations that might return a view.
    """
    owners: list[frozenset[str | int]] = [frozenset([0])]
    for number, node in enumerate(graph.nodes, start=1):
        own: frozenset[str | int] = frozenset() if node.operation.changes else frozenset([number])
        if node.operation.may_share:
            for each in read_by(node):
                own |= owners[each.number] if isinstance(each, Value) else {program.stored(each.name)}
        owners.append(own)
        where = f"node {number - 1} of {mode!r} ({node.operation.name})"
        if node.operation.changes:
            target = node.arguments[0] if node.arguments else None
            if not isinstance(target, (Value, TensorName)):
                raise refuse(f"{where} writes into nothing that can be told")
            of_target = owners[target.number] if isinstance(target, Value) else {program.stored(target.name)}
            _check_written(of_target, isinstance(target, TensorName), where, mode, program)
        for name in _statistics(node, where):
            _check_written({program.stored(name)}, True, where, mode, program)


def _check_written(owners: Any, whole: bool, where: str, mode: str, program: Program) -> None:
    names = [each for each in owners if isinstance(each, str)]
    if 0 in owners:
        raise refuse(f"{where} writes into the image")
    if names and (mode == "eval" or not whole or any(program.kinds[name] != "buffer" for name in names)):
        raise refuse(f"{where} writes into the stored tensor {names[0]!r}")


def _statistics(node: Node, where: str) -> list[str]:
    """The buffers that a normalisation in training mode moves, which its schema does not say."""
    flag = {"aten.batch_norm.default": "training", "aten.instance_norm.default": "use_input_stats"}.get(
        node.operation.name
    )
    if flag is None:
        return []
    values = bound(node.operation, node.arguments, node.keywords)
    kept = [values[name] for name in ("running_mean", "running_var") if values.get(name) is not None]
    if values[flag] is False:
        return []
    if values[flag] is not True or not all(isinstance(each, TensorName) for each in kept):
        raise refuse(f"{where} must say whether it trains, and name its statistics")
    return [each.name for each in kept]
