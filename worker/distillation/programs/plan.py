"""Plans: a graph as the steps of each module's call, with what goes in and out, and when a value can be forgotten."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.programs.arguments import read_by
from worker.distillation.programs.format import Call, Graph, Node, Program, Value
from worker.distillation.programs.layers import ACTIVATION_OPERATIONS, Layer, layer_of

Shapes = Sequence[tuple[int, ...] | None]


@dataclass(frozen=True)
class Operate:
    """One operation of the call itself; `number` is that of its result, `forget` the values that nobody reads later."""

    number: int
    node: Node
    forget: tuple[int, ...]


@dataclass(frozen=True)
class Enter:
    """The call of a module within: `path` is relative, `layer` is what it is if it is a layer of torch's."""

    call: int
    path: str
    reads: int | None
    gives: int | None
    layer: Layer | None
    forget: tuple[int, ...]


@dataclass(frozen=True)
class Body:
    """What one call does: the value that it is called with, the one that it returns, and its steps."""

    path: str
    reads: int | None
    gives: int | None
    steps: tuple[Operate | Enter, ...]


@dataclass(frozen=True)
class Plan:
    """A graph's bodies by call, and how many values it has."""

    bodies: Mapping[int, Body]
    values: int
    output: int
    called: Mapping[str, tuple[int, ...]]
    """The calls of each module."""
    added: frozenset[str]
    """Paths of the activations that the network applied as functions, and that became modules."""

    def __deepcopy__(self, memo: Any) -> "Plan":
        return self


def plans(program: Program, shapes: Mapping[str, Shapes]) -> dict[str, Plan]:
    """The plans by mode; a module is a layer only if it is the same layer in all its calls of all modes."""
    layers = _layers(program, shapes)
    taken = {part for name in program.kinds for part in _prefixes(name)}
    taken |= {call.path for graph in program.graphs.values() for call in graph.calls}
    names = _Names(taken)
    return {
        mode: _Planner(program, graph, shapes[mode], layers, names).plan() for mode, graph in program.graphs.items()
    }


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _layers(program: Program, shapes: Mapping[str, Shapes]) -> dict[str, Layer]:
    """The layers by path."""
    found: dict[str, list[Layer | None]] = {}
    for mode, graph in program.graphs.items():
        callers = {call.caller for call in graph.calls}
        nodes: dict[int, list[Node]] = {}
        for node in graph.nodes:
            nodes.setdefault(node.call, []).append(node)
        for number, call in enumerate(graph.calls):
            layer = (
                None if number in callers or not number else layer_of(program, call.path, nodes[number], shapes[mode])
            )
            if layer is not None and layer.training is not None and layer.training != (mode == "train"):
                layer = None
            found.setdefault(call.path, []).append(layer)
    paths = {name.rpartition(".")[0] for name in program.kinds}
    inner = {prefix for path in (*paths, *found) for prefix in _prefixes(path)[:-1]}
    return {
        path: layers[0]
        for path, layers in found.items()
        if layers[0] is not None and path not in inner and all(layer == layers[0] for layer in layers)
    }


class _Names:
    """Paths for activations that the network applies as functions: the same in all modes where they are alike."""

    def __init__(self, taken: set[str]):
        self.taken, self.made = taken, dict[tuple[str, Layer, int], str]()

    def name(self, path: str, layer: Layer, ordinal: int) -> str:
        """The name within the module at `path` of the activation `layer` that is applied as the `ordinal`-th of its kind."""
        key = (path, layer, ordinal)
        if key not in self.made:
            stem = getattr(layer.build, "__name__", "activation").lower()
            number, prefix = 0, f"{path}." if path else ""
            while f"{prefix}{stem}_{number}" in self.taken:
                number += 1
            self.taken.add(f"{prefix}{stem}_{number}")
            self.made[key] = f"{stem}_{number}"
        return self.made[key]


class _Planner:
    def __init__(self, program: Program, graph: Graph, shapes: Shapes, layers: Mapping[str, Layer], names: _Names):
        self.program = program
        self.graph = graph
        self.shapes = shapes
        self.layers = layers
        self.names = names
        self.readers: dict[int, list[int]] = {}
        for number, node in enumerate(graph.nodes, start=1):
            for value in {each.number for each in read_by(node) if isinstance(each, Value)}:
                self.readers.setdefault(value, []).append(number)
        self.readers.setdefault(graph.output, []).append(len(graph.nodes) + 1)
        self.forget: dict[int, list[int]] = {}
        for value, readers in self.readers.items():
            self.forget.setdefault(readers[-1], []).append(value)
        self.spans = _spans(graph)
        self.added: set[str] = set()
        self.ordinals: dict[tuple[str, Layer], int] = {}

    def plan(self) -> Plan:
        calls = list(enumerate(self.graph.calls))
        bodies = {number: self._body(number, call) for number, call in calls if call.path not in self.layers}
        called: dict[str, tuple[int, ...]] = {}
        for number, call in enumerate(self.graph.calls):
            called[call.path] = (*called.get(call.path, ()), number)
        return Plan(bodies, len(self.graph.nodes) + 1, self.graph.output, called, frozenset(self.added))

    def _body(self, number: int, call: Call) -> Body:
        steps: list[Operate | Enter] = []
        position, end = self.spans[number]
        while position < end:
            node = self.graph.nodes[position - 1]
            if node.call == number:
                steps.append(self._operate(position, node, call.path))
                position += 1
                continue
            inner = self._within(number, node.call)
            steps.append(self._enter(inner, call.path))
            position = self.spans[inner][1]
        reads, gives = self._ends(number)
        return Body(call.path, reads, gives, tuple(steps))

    def _operate(self, number: int, node: Node, path: str) -> Operate | Enter:
        """The operation, or the module that takes the place of an activation applied as a function."""
        forget = tuple(self.forget.get(number, ()))
        layer = None
        if node.operation.name in ACTIVATION_OPERATIONS:
            layer = layer_of(self.program, "\0", [node], self.shapes)
        if layer is None:
            return Operate(number, _with_functions(node), forget)
        ordinal = self.ordinals[path, layer] = self.ordinals.get((path, layer), -1) + 1
        name = self.names.name(path, layer, ordinal)
        self.added.add(f"{path}.{name}" if path else name)
        return Enter(-1, name, node.arguments[0].number, number, layer, forget)

    def _within(self, caller: int, call: int) -> int:
        """The call made by `caller` in which `call` lies, or which it is."""
        while self.graph.calls[call].caller != caller:
            call = self.graph.calls[call].caller
        return call

    def _enter(self, call: int, path: str) -> Enter:
        of = self.graph.calls[call].path
        relative = of.removeprefix(f"{path}.") if path else of
        layer, (begin, end) = self.layers.get(of), self.spans[call]
        forget = tuple(value for number in range(begin, end) for value in self.forget.get(number, ())) if layer else ()
        return Enter(call, relative, *self._ends(call), layer, forget)

    def _ends(self, call: int) -> tuple[int | None, int | None]:
        """The first tensor from outside that the call reads, and the last of its own that is read outside."""
        begin, end = self.spans[call]
        if call == 0:
            return 0, self.graph.output
        reads = next(
            (
                each.number
                for node in self.graph.nodes[begin - 1 : end - 1]
                for each in read_by(node)
                if isinstance(each, Value) and each.number < begin and self.shapes[each.number] is not None
                and not node.operation.name.startswith("aten.sym_")
            ),
            None,
        )  # fmt: skip
        own = [number for number in range(end - 1, begin - 1, -1) if self.shapes[number] is not None]
        outside = (number for number in own if any(reader >= end for reader in self.readers.get(number, ())))
        unread = (number for number in own if not self.readers.get(number))
        return reads, next(outside, next(unread, None))


def _spans(graph: Graph) -> list[tuple[int, int]]:
    """Of each call the number of its first value and that after its last."""
    spans = [(len(graph.nodes) + 1, 0)] * len(graph.calls)
    for number, node in enumerate(graph.nodes, start=1):
        call = node.call
        while call >= 0:
            begin, end = spans[call]
            spans[call] = min(begin, number), max(end, number + 1)
            call = graph.calls[call].caller
    return spans


def _with_functions(node: Node) -> Node:
    """The node with `F.batch_norm` for its operation, if it normalises a batch.

    So ranks and sources that watch that function see it in programs too, and cuDNN is used where it is enabled: an export
    on a CPU writes that it is not.
    """
    if node.operation.name != "aten.batch_norm.default" or len(node.arguments) != 9 or node.keywords:
        return node
    return replace(node, operation=replace(node.operation, function=_batch_norm))


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    epsilon: float,
    _cudnn: bool,
) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, training, momentum, epsilon)


def cut_points(program: Program, shapes: Shapes) -> frozenset[int]:
    """The values of the evaluation graph after which nothing earlier is read: all that is known of the image is in them."""
    graph = program.graphs["eval"]
    last = dict[int, int]()
    for number, node in enumerate(graph.nodes, start=1):
        last |= {each.number: number for each in read_by(node) if isinstance(each, Value)}
    found, reach = set(), 0
    for number in range(1, len(graph.nodes) + 1):
        before = number - 1
        if shapes[before] is not None:
            reach = max(reach, last.get(before, 0))
        if shapes[number] is not None and reach <= number:
            found.add(number)
    return frozenset(found)
