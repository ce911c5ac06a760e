"""Translation: one exported graph as the graph of a program."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .module_calls import Stack, calls_of, stack_of
from .operations import DROPPED, DROPPED_ARGUMENTS, RENAMED, changes, may_share, name_of
from .refusal import CannotPack

Values = dict[Any, Any]


class Translation:
    """One exported graph on its way into a program. Value 0 is the image, value i + 1 what node i gives."""

    def __init__(self, exported: Any, tensors: dict[str, Tensor], kinds: dict[str, str], alias: dict[str, str]):
        self.exported = exported
        self.tensors = tensors
        self.kinds = kinds
        self.alias = alias
        self.nodes: list[list[Any]] = []
        self.stacks: list[Stack] = []
        self.aliases: list[set[Any]] = [set()]
        """Of every value what its memory may belong to: numbers of values, names of tensors."""

    def graph(self) -> dict[str, Any]:
        values: Values = {}
        for node, spec in zip(
            _placeholders(self.exported.graph), self.exported.graph_signature.input_specs, strict=True
        ):
            values[node] = {"v": 0} if spec.kind.name == "USER_INPUT" else {"t": self._tensor(spec.target)}
        output = self._translate(self.exported.graph_module, values, ())
        if len(output) != 1 or "v" not in (output[0] or {}):
            raise CannotPack(f"the network returns {len(output)} tensors; let it return the logits alone")
        last = self._live(output[0]["v"])
        return {"calls": calls_of(self.nodes, self.stacks), "nodes": self.nodes, "output": last}

    def _tensor(self, target: str) -> str:
        """The name of a parameter, buffer or constant."""
        if target not in self.kinds:
            self.kinds[target] = "constant"
            self.tensors[target] = self.exported.constants[target].detach().contiguous().clone()
        return target

    def _translate(self, module: Any, values: Values, stack: tuple[Any, ...]) -> list[Any]:
        """Add a graph's nodes; gives its outputs."""
        later = _last_uses(module.graph)
        for position, node in enumerate(module.graph.nodes):
            if node.op == "output":
                flat = node.args[0] if isinstance(node.args[0], (tuple, list)) else [node.args[0]]
                return [self._argument(each, values) for each in flat]
            if node.op == "get_attr" and not node.users:
                continue
            if node.op == "get_attr":
                values[node] = _Held(getattr(module, str(node.target)))
            elif node.op == "call_function":
                self._call(node, values, stack + stack_of(node), position, later)
        return []

    def _call(self, node: Any, values: Values, stack: Any, position: int, later: Mapping[Any, int]) -> None:
        name = name_of(node.target)
        if name in DROPPED:
            return
        if name.endswith("wrap_with_set_grad_enabled"):
            values[node] = self._region(node, values, stack)
            return
        if name == "operator.getitem" and isinstance(values.get(node.args[0]), _Results):
            values[node] = values[node.args[0]].values[node.args[1]]
            return
        if not name.startswith(("aten.", "operator.", "torch.sym_")):
            raise CannotPack(f"the network uses `{name}`, which no program can hold")
        name = RENAMED.get(name, name)
        keywords = {
            key: self._argument(value, values)
            for key, value in node.kwargs.items()
            if key not in DROPPED_ARGUMENTS and not (key == "memory_format" and name == "aten.zeros.default")
        }
        arguments = [self._argument(each, values) for each in node.args]
        pure = self._pure(name, node, values, position, later)
        values[node] = {"v": self._add(pure or name, arguments, keywords, stack)}

    def _add(self, name: str, arguments: list[Any], keywords: dict[str, Any], stack: Any) -> int:
        self.nodes.append([name, 0, arguments, keywords])
        self.stacks.append(stack)
        self.aliases.append(self._roots(name, arguments))
        return len(self.nodes)

    def _region(self, node: Any, values: Values, stack: Any) -> "_Results":
        """The nodes of a region with its own gradient mode, whose results are detached where it has no gradients."""
        enabled, held, *given = node.args
        inner = values[held].value
        bound = dict(zip(_placeholders(inner.graph), (self._argument(each, values) for each in given), strict=True))
        results = self._translate(inner, bound, ())
        if not enabled:
            results = [{"v": self._add("aten.detach.default", [each], {}, stack)} for each in results]
        return _Results(results)

    def _argument(self, value: Any, values: Values) -> Any:
        if isinstance(value, torch.fx.Node):
            found = values[value]
            if isinstance(found, dict):
                return found
            raise CannotPack("the network holds a region (autocast, control flow) that no program can hold")
        if isinstance(value, (list, tuple)):
            return [self._argument(each, values) for each in value]
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": 0}
        if isinstance(value, torch.memory_format):
            return {"memory_format": str(value).removeprefix("torch.")}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise CannotPack(f"the network uses a value of type {type(value).__name__}, which no program can hold")

    def _pure(self, name: str, node: Any, values: Values, position: int, later: Mapping[Any, int]) -> str | None:
        """The out-of-place form of an in-place operation, if nobody reads the overwritten memory afterwards."""
        base, _, overload = name.rpartition(".")
        if not base.endswith("_") or base.endswith("__") or not name.startswith("aten."):
            return None
        pure = f"{base[:-1]}.{overload}"
        if not hasattr(torch.ops.aten, base[5:-1]) or not hasattr(getattr(torch.ops.aten, base[5:-1]), overload):
            return None
        overwritten = values.get(node.args[0], {})
        roots = self._memory(overwritten)
        if "v" not in overwritten or 0 in roots or any(isinstance(root, str) for root in roots):
            return None
        if base in ("aten.copy_", "aten.fill_", "aten.bernoulli_"):
            return None
        for other, value in values.items():
            shares = isinstance(value, dict) and self._memory(value) & roots
            if other is not node and shares and later.get(other, -1) > position:
                return None
        return pure

    def _memory(self, reference: Any) -> set[Any]:
        if "t" in reference:
            return {reference["t"]}
        number = reference.get("v")
        return set() if number is None else self.aliases[number] | ({0} if number == 0 else set())

    def _roots(self, name: str, arguments: Sequence[Any]) -> set[Any]:
        own = {len(self.nodes)}
        if not may_share(name):
            return own
        found: set[Any] = set()
        for reference in _references(list(arguments)):
            found |= self._memory(reference)
        return found | own

    def _live(self, output: int) -> int:
        """Remove what neither the output nor any change of a stored tensor depends on; gives the output's new number."""
        needed = {output}
        for number in range(len(self.nodes), 0, -1):
            name, _, arguments, keywords = self.nodes[number - 1]
            if number in needed or changes(name):
                needed.add(number)
                needed |= {each["v"] for each in _references([arguments, keywords]) if "v" in each}
        kept = [number for number in range(1, len(self.nodes) + 1) if number in needed]
        renumbered = {0: 0} | {old: new for new, old in enumerate(kept, start=1)}
        self.nodes = [self.nodes[number - 1] for number in kept]
        self.stacks = [self.stacks[number - 1] for number in kept]
        for node in self.nodes:
            for reference in _references(node[2:]):
                if "v" in reference:
                    reference["v"] = renumbered[reference["v"]]
        return renumbered[output]


class _Held:
    """A graph that another graph holds."""

    def __init__(self, value: Any):
        self.value = value


class _Results:
    """What a region gives."""

    def __init__(self, values: list[Any]):
        self.values = values


def _references(value: Any) -> Iterator[dict[str, Any]]:
    """Every reference to a value or a tensor within arguments."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _references(each)
    elif isinstance(value, dict):
        if "v" in value or "t" in value:
            yield value
        else:
            for each in value.values():
                yield from _references(each)


def _placeholders(graph: Any) -> list[Any]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _last_uses(graph: Any) -> dict[Any, int]:
    positions = {node: position for position, node in enumerate(graph.nodes)}
    return {node: max((positions[user] for user in node.users), default=-1) for node in graph.nodes}
