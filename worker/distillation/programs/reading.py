"""Reading a program: JSON in a safetensors header, checked for its form and made plain objects.

Form is sizes, keys, names and references. `arguments.py` checks calls of operations against torch's schemas, and
`dry_run.py` shapes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.distillation.contract import InputContract
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.programs.calls import read_calls
from worker.distillation.programs.format import (
    ARGUMENTS,
    BYTES,
    DTYPES,
    KINDS,
    LARGEST_INTEGER,
    LIST,
    MEMORY_FORMATS,
    MODES,
    NAME,
    NO_END,
    NODES,
    PROGRAM_BYTES,
    REFERENCES,
    VERSION,
    Graph,
    Node,
    Program,
    Special,
    TensorName,
    Value,
    check_name,
    is_integer,
    refuse,
)
from worker.distillation.programs.operators import OPERATIONS


def header_of(path: Path, limits: UploadLimits) -> dict[str, Any]:
    """The JSON header of a safetensors file.

    Raises:
        UploadError: the header is malformed or too large, or a name is in it twice.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(limits.header_bytes, size - 8):
            raise refuse(f"the safetensors header has {length} bytes")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise refuse(f"the safetensors header is not JSON: {str(error)[:200]}") from error
    if not isinstance(header, dict):
        raise refuse("the safetensors header is not a JSON object")
    return header


def is_program(path: Path, limits: UploadLimits | None = None) -> bool:
    """Whether a safetensors file says that it holds a program."""
    try:
        metadata = header_of(path, limits or UploadLimits()).get("__metadata__")
    except UploadError:
        return False
    return isinstance(metadata, dict) and "program" in metadata


def read(path: Path, limits: UploadLimits | None = None) -> Program:
    """The program of a file, by its header alone.

    Raises:
        UploadError: it has another form than `distillery pack` writes; the message says where.
    """
    header = header_of(path, limits or UploadLimits())
    metadata = header.pop("__metadata__", None)
    text = metadata.get("program") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise refuse("the file's metadata hold no `program`")
    return parsed(text, header)


def parsed(text: str, header: Mapping[str, Any]) -> Program:
    """The program of a text, whose tensors are those of a safetensors header.

    Raises:
        UploadError: as `read`.
    """
    if len(text.encode("utf-8", "replace")) > PROGRAM_BYTES:
        raise refuse(f"its JSON has more than {PROGRAM_BYTES} bytes")
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        return _Reader(header, text).program(values)
    except (ValueError, RecursionError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as error:
        raise refuse(f"its JSON is malformed: {type(error).__name__}: {str(error)[:200]}") from error


def header_for(shapes: Mapping[str, Sequence[int]], dtypes: Mapping[str, str]) -> dict[str, Any]:
    """The header of a safetensors file that would hold tensors of these shapes and number formats."""
    header, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + math.prod(shape) * BYTES[DTYPES[dtypes[name]]]
        header[name] = {"dtype": DTYPES[dtypes[name]], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _keys(values: Any, wanted: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(values, dict) or set(values) != set(wanted):
        raise refuse(f"{where} must have the keys {', '.join(wanted)} and no others")
    return values


class _Reader:
    """Reads the JSON of one program, whose tensors are those of a safetensors header."""

    def __init__(self, header: Mapping[str, Any], text: str):
        self.text = text
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        for name, entry in header.items():
            self._tensor(name, entry)
        self.kinds: dict[str, str] = {}

    def _tensor(self, name: str, entry: Any) -> None:
        _keys(entry, ("dtype", "shape", "data_offsets"), f"the tensor {name[:80]!r}")
        shape, (begin, end) = entry["shape"], entry["data_offsets"]
        known = {safe: ours for ours, safe in DTYPES.items()}
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in known:
            raise refuse(f"the tensor {name[:80]!r} has the number format {str(entry['dtype'])[:20]!r}")
        if not isinstance(shape, list) or len(shape) > 16 or not all(is_integer(each, 0) for each in shape):
            raise refuse(f"the tensor {name[:80]!r} has no valid shape")
        if math.prod(shape) * BYTES[entry["dtype"]] != end - begin:
            raise refuse(f"the tensor {name[:80]!r} has not the bytes that its shape asks for")
        self.shapes[name], self.dtypes[name] = tuple(shape), known[entry["dtype"]]

    def program(self, values: Any) -> Program:
        names = ("format", "version", "made_by", "input", "classes", "class_names", "tensors", "alias", "graphs")
        _keys(values, names, "the program")
        if values["format"] != "program" or not is_integer(values["version"], VERSION, VERSION):
            words = f"it is {str(values['format'])[:40]!r} of version {str(values['version'])[:20]!r}"
            raise refuse(f"{words}; `program` of version {VERSION} is read")
        if not isinstance(values["made_by"], str) or len(values["made_by"]) > NAME:
            raise refuse("`made_by` is not a short text")
        alias = self._tensors(values["tensors"], values["alias"])
        _keys(values["graphs"], [mode for mode in MODES if mode in values["graphs"] or mode == "eval"], "`graphs`")
        return Program(
            contract=_contract(values["input"]),
            classes=_classes(values["classes"]),
            class_names=_class_names(values["class_names"], values["classes"]),
            made_by=values["made_by"],
            kinds=self.kinds,
            alias=alias,
            graphs={mode: self._graph(graph, mode) for mode, graph in values["graphs"].items()},
            shapes=self.shapes,
            dtypes=self.dtypes,
            text=self.text,
        )

    def _tensors(self, kinds: Any, alias: Any) -> dict[str, str]:
        if not isinstance(kinds, dict) or not isinstance(alias, dict):
            raise refuse("`tensors` and `alias` must be objects")
        for name, kind in kinds.items():
            check_name(name, "tensor")
            if kind not in KINDS:
                raise refuse(f"the tensor {name!r} is of the kind {str(kind)[:40]!r}; there are {', '.join(KINDS)}")
        if set(self.shapes) | set(alias) != set(kinds) or set(self.shapes) & set(alias):
            raise refuse("the tensors that are stored and those in `alias` are not those of `tensors`")
        for name, stored in alias.items():
            if not isinstance(stored, str) or stored not in self.shapes or kinds[stored] != kinds[name]:
                raise refuse(f"the alias {name!r} names no stored tensor of its kind")
        for name, kind in kinds.items():
            if kind == "param" and "float" not in self.dtypes[str(alias.get(name, name))]:
                raise refuse(f"the parameter {name!r} holds integers, which cannot be trained")
        self.kinds = kinds
        return alias

    def _graph(self, values: Any, mode: str) -> Graph:
        _keys(values, ("calls", "nodes", "output"), f"the graph {mode!r}")
        calls, nodes = values["calls"], values["nodes"]
        if not isinstance(calls, list) or not isinstance(nodes, list) or not 0 < len(nodes) <= NODES:
            raise refuse(f"the graph {mode!r} has no nodes, or more than {NODES}")
        if not is_integer(values["output"], 1, len(nodes)):
            raise refuse(f"the graph {mode!r} has no node as its output")
        checked = tuple(self._node(node, number, len(calls)) for number, node in enumerate(nodes))
        return Graph(read_calls(calls, [node.call for node in checked]), checked, values["output"])

    def _node(self, node: Any, number: int, calls: int) -> Node:
        where = f"node {number}"
        if not isinstance(node, list) or len(node) != 4:
            raise refuse(f"{where} is not a list of operation, call, arguments and named arguments")
        name, call, arguments, keywords = node
        operation = OPERATIONS.get(name) if isinstance(name, str) else None
        if operation is None:
            words = f"{where} uses the operation {str(name)[:80]!r}, which is not on the list"
            raise refuse(words, "docs/programs.md lists the operations; write the network with those.")
        if not is_integer(call, 0, calls - 1):
            raise refuse(f"{where} belongs to no call")
        if (
            not isinstance(arguments, list)
            or not isinstance(keywords, dict)
            or len(arguments) + len(keywords) > ARGUMENTS
        ):
            raise refuse(f"{where} has no list of arguments, or too many")
        if any(type(key) is not str or not key.isidentifier() or len(key) > NAME for key in keywords):
            raise refuse(f"{where} has a named argument whose name is none")
        given = {key: self._argument(value, number, where) for key, value in keywords.items()}
        return Node(operation, call, tuple(self._argument(each, number, where) for each in arguments), given)

    def _argument(self, value: Any, number: int, where: str, depth: int = 0) -> Any:
        if isinstance(value, list):
            if len(value) > LIST or depth > 3:
                raise refuse(f"{where} has a list of more than {LIST} items, or too deep a one")
            return [self._argument(each, number, where, depth + 1) for each in value]
        if isinstance(value, dict):
            return self._reference(value, number, where)
        if isinstance(value, int) and not isinstance(value, bool) and not is_integer(value) and value != NO_END:
            raise refuse(f"{where} has an integer beyond {LARGEST_INTEGER}")
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(f"{where} has a number that is not finite")
        if isinstance(value, str) and len(value) > NAME:
            raise refuse(f"{where} has a text of more than {NAME} characters")
        return value

    def _reference(self, value: Mapping[str, Any], number: int, where: str) -> Any:
        if len(value) != 1 or (kind := next(iter(value))) not in REFERENCES:
            raise refuse(f"{where} has an argument that is not a reference")
        name = value[kind]
        if kind == "v":
            if not is_integer(name, 0, number):
                raise refuse(f"{where} reads a value that is not there yet")
            return Value(name)
        if kind == "t":
            if not isinstance(name, str) or name not in self.kinds:
                raise refuse(f"{where} reads the tensor {str(name)[:80]!r}, which is not there")
            return TensorName(name)
        allowed = {
            "dtype": tuple(DTYPES), "memory_format": MEMORY_FORMATS, "device": (0,), "float": ("inf", "-inf", "nan"),
        }[kind]  # fmt: skip
        if isinstance(name, bool) or name not in allowed:
            raise refuse(f"{where} has the {kind} {str(name)[:40]!r}")
        return Special(kind, str(name))


def _contract(values: Any) -> InputContract:
    _keys(values, ("channels", "height", "width", "mean", "std"), "`input`")
    channels, height, width = (values[name] for name in ("channels", "height", "width"))
    if not (is_integer(channels, 1, 64) and is_integer(height, 1, 4096) and is_integer(width, 1, 4096)):
        raise refuse("`input` must have 1 to 64 channels and 1 to 4096 rows and columns")
    for name in ("mean", "std"):
        numbers = values[name]
        if not isinstance(numbers, list) or len(numbers) != channels or not all(_is_number(each) for each in numbers):
            raise refuse(f"`input` must have one finite number for each channel as `{name}`")
    if min(values["std"]) <= 0:
        raise refuse("`input` has a `std` that is not greater than 0")
    mean, std = (tuple(float(each) for each in values[name]) for name in ("mean", "std"))
    return InputContract(channels, height, width, mean=mean, std=std)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e12


def _classes(value: Any) -> int:
    if not is_integer(value, 1, UploadLimits().classes):
        raise refuse(f"`classes` must be an integer from 1 to {UploadLimits().classes}")
    return int(value)


def _class_names(values: Any, classes: int) -> tuple[str, ...]:
    if not isinstance(values, list) or len(values) not in (0, classes):
        raise refuse(f"`class_names` must name each of {classes} classes, or none")
    if not all(isinstance(name, str) and 0 < len(name) <= NAME and name.isprintable() for name in values):
        raise refuse("`class_names` has one that is not a short printable text")
    return tuple(values)
