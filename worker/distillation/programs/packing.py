"""Packing: any `torch.nn.Module` as a program, which is tensors and a list of known operations (docs/programs.md).

This file needs torch and safetensors alone. It is in the engine and, byte for byte the same, in the client; a test
compares the two. Everything here runs where the network's own code runs, so nothing here reads a stranger's file.
"""

import copy
import json
import math
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

VERSION = 1
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-5
"""An output may differ by `ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * (the largest output)`."""
EXAMPLES, CHECKED = 2, 3
"""Batch sizes: of the export, and of the comparison after it."""
RENAMED = {
    "aten.empty.memory_format": "aten.zeros.default",
    "aten.new_empty.default": "aten.new_zeros.default",
    "aten.empty_like.default": "aten.zeros_like.default",
}
"""Operations whose result would depend on what was in memory before, and what takes their place."""
DROPPED_ARGUMENTS = ("layout", "pin_memory")
DROPPED = (
    "aten._assert_tensor_metadata.default",
    "aten._assert_async.msg",
    "aten._assert_scalar.default",
    "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
)
MAY_RETURN_ARGUMENT = (
    "aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default", "aten.type_as.default",
    "aten.einsum.default", "aten.pad.default",
)  # fmt: skip
"""Operations that do not say so in their schema."""
ROOT = "L__self__"

Values = dict[Any, Any]


class CannotPack(Exception):
    """The network cannot be packed; the message says why and what to do."""


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
    ours = copy.deepcopy(network).to("cpu", torch.float32)
    contract = {"channels": channels, "height": height, "width": width, "mean": list(mean), "std": list(std)}
    program, tensors = program_of(ours, contract, class_names, train, made_by)
    compare(program, tensors, ours)
    write(program, tensors, path)
    return program


def program_of(
    network: nn.Module, contract: Mapping[str, Any], class_names: Sequence[str], train: bool, made_by: str = ""
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The program and its tensors by name, of a network on the CPU in single precision."""
    image = _images(contract, EXAMPLES)
    with torch.no_grad():
        logits = network.eval()(image)
    if isinstance(logits, Mapping) and len(logits) == 1:
        logits = next(iter(logits.values()))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != EXAMPLES:
        raise CannotPack("the network must return one tensor of logits, (batch, classes), in evaluation mode")
    classes = logits.shape[1]
    if class_names and len(class_names) != classes:
        raise CannotPack(f"there are {len(class_names)} class names for {classes} outputs")
    tensors, kinds, alias = _tensors_of(network)
    graphs = {}
    for mode in ("eval", "train") if train else ("eval",):
        exported = _export(network.train(mode == "train"), image, mode)
        graphs[mode] = Translation(exported, tensors, kinds, alias).graph()
    network.eval()
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


def compare(program: Mapping[str, Any], tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """See that the program computes what the network does, in every mode that it has, for a batch of another size.

    Raises:
        CannotPack: outputs or buffers differ.
    """
    image = _images(program["input"], CHECKED)
    for mode in program["graphs"]:
        own = copy.deepcopy(network).train(mode == "train")
        theirs = {name: tensor.clone() for name, tensor in tensors.items()}
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(1)
            expected = own(image)
            expected = next(iter(expected.values())) if isinstance(expected, Mapping) else expected
            torch.manual_seed(1)
            given = replay(program, theirs, mode, image)
        _compare_tensors(f"the logits in mode {mode}", given, expected)
        for name, tensor in own.state_dict().items():
            stored = program["alias"].get(name, name)
            _compare_tensors(f"`{name}` after a pass in mode {mode}", theirs[stored], tensor)


def _compare_tensors(what: str, given: Tensor, expected: Tensor) -> None:
    if given.shape != expected.shape:
        raise CannotPack(f"{what} have the shape {tuple(given.shape)} in the program, {tuple(expected.shape)} in yours")
    given, expected = given.double(), expected.double()
    allowed = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * float(expected.abs().max() if expected.numel() else 0)
    difference = float((given - expected).abs().max()) if given.numel() else 0.0
    if not difference <= allowed:
        raise CannotPack(f"{what} differ by {difference:.2g} between the program and your network: nothing is written")


def replay(program: Mapping[str, Any], tensors: Mapping[str, Tensor], mode: str, image: Tensor) -> Tensor:
    """Run a graph of a program that this file made, operation by operation; for the comparison."""
    graph, values = program["graphs"][mode], [image]

    def filled(argument: Any) -> Any:
        if isinstance(argument, list):
            return [filled(each) for each in argument]
        if not isinstance(argument, dict):
            return argument
        ((kind, value),) = argument.items()
        if kind == "v":
            return values[value]
        if kind == "t":
            return tensors[program["alias"].get(value, value)]
        if kind in ("dtype", "memory_format"):
            return getattr(torch, value)
        return image.device if kind == "device" else float(value)

    for name, _, arguments, keywords in graph["nodes"]:
        values.append(_resolve(name)(*filled(arguments), **{key: filled(value) for key, value in keywords.items()}))
    result: Tensor = values[graph["output"]]
    return result


def _resolve(name: str) -> Callable[..., Any]:
    found: Any = {"aten": torch.ops.aten, "operator": operator, "torch": torch}[name.partition(".")[0]]
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    resolved: Callable[..., Any] = found
    return resolved


def _images(contract: Mapping[str, Any], count: int) -> Tensor:
    shape = (count, contract["channels"], contract["height"], contract["width"])
    return torch.randn(shape, generator=torch.Generator().manual_seed(count))


def _tensors_of(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    """Tensors that are stored, the kinds of all names, and the names that share another's tensor."""
    persistent = network.state_dict(keep_vars=True).keys()
    named = {
        **dict(network.named_parameters(remove_duplicate=False)),
        **dict(network.named_buffers(remove_duplicate=False)),
    }
    ordered = [*persistent, *(name for name in named if name not in persistent)]
    tensors: dict[str, Tensor] = {}
    kinds: dict[str, str] = {}
    alias: dict[str, str] = {}
    first: dict[int, str] = {}
    for name in ordered:
        tensor = named.get(name)
        if tensor is None:
            raise CannotPack(f"the state dict's entry `{name}` is neither a parameter nor a buffer")
        kept = "buffer" if name in persistent else "constant"
        kinds[name] = "param" if isinstance(tensor, nn.Parameter) else kept
        if id(tensor) in first:
            alias[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor.detach().contiguous().clone()
    return tensors, kinds, alias


def _export(network: nn.Module, image: Tensor, mode: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
    except Exception as error:  # whatever torch or the network's own code raises says why
        words = " ".join(str(error).split())[:500] or type(error).__name__
        hint = "data-dependent Python code and batch sizes that are written into shapes cannot be exported"
        raise CannotPack(f"torch.export cannot export the network in mode {mode} ({hint}): {words}") from error


class Translation:
    """One exported graph on its way into a program. Value 0 is the image, value i + 1 what node i gives."""

    def __init__(self, exported: Any, tensors: dict[str, Tensor], kinds: dict[str, str], alias: dict[str, str]):
        self.exported, self.tensors, self.kinds, self.alias = exported, tensors, kinds, alias
        self.nodes: list[list[Any]] = []
        self.stacks: list[tuple[tuple[str, str, str], ...]] = []
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
        return {"calls": self._calls(), "nodes": self.nodes, "output": last}

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
                self._call(node, values, stack + _stack_of(node), position, later)
        return []

    def _call(self, node: Any, values: Values, stack: Any, position: int, later: Mapping[Any, int]) -> None:
        name = _name_of(node.target)
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
        if not _may_share(name):
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
            changes = name.startswith("aten.") and _changes(name)
            if number in needed or changes:
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

    def _calls(self) -> list[list[Any]]:
        """The calls of modules as [caller, path, class name]; every node gets the number of its own.

        Calls lie within each other like brackets. A node whose call is over belongs to the innermost that is not.
        """
        calls: list[list[Any]] = [[-1, "", ""]]
        numbers: dict[tuple[str, ...], int] = {}
        open_calls: list[tuple[tuple[str, ...], int]] = []
        over: set[tuple[str, ...]] = set()
        for node, stack in zip(self.nodes, self.stacks, strict=True):
            place: list[tuple[str, ...]] = []
            entries = list(_nested(stack))
            for depth in range(len(entries)):
                key = tuple(entry[0] for entry in entries[: depth + 1])
                if key in over:
                    break
                place.append(key)
            while open_calls and open_calls[-1][0] not in place:
                over.add(open_calls.pop()[0])
            for depth, key in enumerate(place):
                if key not in numbers:
                    caller = numbers[place[depth - 1]] if depth else 0
                    numbers[key] = len(calls)
                    calls.append([caller, entries[depth][1], entries[depth][2]])
                    open_calls.append((key, numbers[key]))
            node[1] = open_calls[-1][1] if open_calls else 0
        calls[0][2] = next((stack[0][2] for stack in self.stacks if stack), "")
        return calls


class _Held:
    """A graph that another graph holds."""

    def __init__(self, value: Any):
        self.value = value


class _Results:
    """What a region gives."""

    def __init__(self, values: list[Any]):
        self.values = values


def _may_share(name: str) -> bool:
    """Whether what an operation gives may lie in the memory of an argument; `compare` finds out where this is wrong."""
    if name.startswith(("operator.", "torch.")) or name in MAY_RETURN_ARGUMENT:
        return True
    target: Any = _resolve(name)
    return any(each.alias_info is not None for each in target._schema.returns)


def _changes(name: str) -> bool:
    return bool(_resolve(name)._schema.is_mutable)  # type: ignore[attr-defined]


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


def _name_of(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    module = getattr(target, "__module__", "").lstrip("_")
    return f"{module}.{getattr(target, '__name__', target)}"


def _placeholders(graph: Any) -> list[Any]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _last_uses(graph: Any) -> dict[Any, int]:
    positions = {node: position for position, node in enumerate(graph.nodes)}
    return {node: max((positions[user] for user in node.users), default=-1) for node in graph.nodes}


def _stack_of(node: Any) -> tuple[tuple[str, str, str], ...]:
    """The calls around a node, outermost first: key (with the number of the call), path, class name."""
    stack = node.meta.get("nn_module_stack") or {}
    entries = ((key, *value) for key, value in stack.items() if key.startswith(ROOT))
    return tuple((str(key), str(path), str(kind).rpartition(".")[2]) for key, path, kind in entries)


def _nested(stack: Sequence[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """The entries whose path lies within that of the entry before: a module that is held elsewhere has no call of its own."""
    around = ""
    for entry in stack:
        path = entry[1]
        if path and (not around or path.startswith(f"{around}.")):
            around = path
            yield entry
        elif path:
            return
