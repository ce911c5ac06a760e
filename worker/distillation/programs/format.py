"""The format of a program as plain objects, with its limits and what its names may be (docs/programs.md)."""

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import UploadError
from worker.distillation.programs.operators import Operation

VERSION = 1
PROGRAM_BYTES = 32 * 2**20
# Most nodes and calls of a graph, levels of calls and of lists, characters of a name, items of a list.
NODES = 20_000
CALLS = 20_000
DEPTH = 64
NAME = 255
LIST = 4096
LARGEST_INTEGER = 2**40
NO_END = 2**63 - 1
"""The end of a slice that has none."""
ARGUMENTS = 64
KINDS = ("param", "buffer", "constant")
MODES = ("eval", "train")
NETWORK = "program"
"""What stands for the network's name in job files and records."""
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""Number formats by torch's name, with safetensors' name."""
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
MEMORY_FORMATS = ("contiguous_format", "channels_last", "preserve_format")
REFERENCES = ("v", "t", "dtype", "memory_format", "device", "float")
_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")
_RESERVED = frozenset(dir(nn.Module)) | frozenset(vars(nn.Module()))
AGAIN = "Pack the network again with `distillery pack`."


@dataclass(frozen=True)
class Value:
    """A reference to value 0, the image, or to value i + 1, the result of node i."""

    number: int


@dataclass(frozen=True)
class TensorName:
    """A reference to a stored tensor."""

    name: str


@dataclass(frozen=True)
class Special:
    """A dtype, a memory format, the image's device, or a float that JSON cannot hold."""

    kind: str
    value: str


@dataclass(frozen=True)
class Node:
    """One operation; `call` is the number of the module call that it belongs to."""

    operation: Operation
    call: int
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """One call of a module, made within another call; call 0 is that of the whole network."""

    caller: int
    path: str


@dataclass(frozen=True)
class Graph:
    """What the network does in one mode."""

    calls: tuple[Call, ...]
    nodes: tuple[Node, ...]
    output: int


@dataclass(frozen=True)
class Program:
    """A network as data. `shapes` and `dtypes` are those of the stored tensors, `alias` maps names to the stored ones."""

    contract: InputContract
    classes: int
    class_names: tuple[str, ...]
    made_by: str
    kinds: Mapping[str, str]
    alias: Mapping[str, str]
    graphs: Mapping[str, Graph]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    text: str
    """The JSON as it was read."""

    def stored(self, name: str) -> str:
        """Under which name a tensor is stored."""
        return self.alias.get(name, name)

    def __deepcopy__(self, memo: Any) -> "Program":
        return self


def refuse(message: str, hint: str = AGAIN) -> UploadError:
    """The error of a file that is not a program, or no allowed one."""
    return UploadError(f"the program is refused: {message}", hint)


def is_integer(value: Any, least: int = -LARGEST_INTEGER, most: int = LARGEST_INTEGER) -> bool:
    """Whether a value is an integer, which a boolean is not, within bounds."""
    return type(value) is int and least <= value <= most


def check_name(name: Any, what: str) -> str:
    """See that a dotted name can be that of a module or tensor, and hides nothing that a module has.

    Raises:
        UploadError: it cannot.
    """
    if not isinstance(name, str) or not 0 < len(name) <= NAME:
        raise refuse(f"a {what} has no name, or one of more than {NAME} characters")
    parts = name.split(".")
    if len(parts) > DEPTH:
        raise refuse(f"the {what} {name[:80]!r} lies more than {DEPTH} modules deep")
    for part in parts:
        if (
            not _PART.fullmatch(part)
            or keyword.iskeyword(part)
            or part.startswith(("__", "_program"))
            or part in _RESERVED
        ):
            raise refuse(
                f"the {what} {name[:80]!r} has the part {part[:80]!r}, which no module or tensor can be called"
            )
    return name


def is_name(name: str) -> bool:
    """Whether a dotted name can be that of a module or tensor."""
    try:
        check_name(name, "name")
    except UploadError:
        return False
    return True
