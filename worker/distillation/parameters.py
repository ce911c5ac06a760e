"""Parameters of methods, and other parts of a job's spec: dataclasses whose annotations carry ranges and descriptions.

A method declares

    @dataclass(frozen=True)
    class Parameters:
        temperature: Annotated[float, Range(gt=0), "Softens both softmaxes."] = 4.0

`parse` turns JSON values into an instance, and `parameter_schema.py` turns the class into JSON Schema for the catalogue,
from which the API builds its types: both check the same rules.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, Union

from worker.distillation.errors import Problem, SpecError

P = TypeVar("P")

MOST_LAYERS = 500
"""Layers of a network that is described layer by layer."""
MOST_VALUES = 64
"""Values of one option in a space of networks."""
WORDS: dict[type, str] = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


@dataclass(frozen=True)
class Range:
    """Bounds of a number."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def complaint(self, value: float) -> str | None:
        checks = {
            "greater than": (self.gt, lambda bound: value > bound),
            "at least": (self.ge, lambda bound: value >= bound),
            "less than": (self.lt, lambda bound: value < bound),
            "at most": (self.le, lambda bound: value <= bound),
        }
        for words, (bound, holds) in checks.items():
            if bound is not None and not holds(bound):
                return f"must be {words} {bound}, not {value}"
        return None


@dataclass(frozen=True)
class Items:
    """Bounds of a list's length."""

    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Example:
    """A value to show in documentation, as JSON."""

    value: Any


class Objectives(tuple[dict[str, Any], ...]):
    """The type of a parameter that is a list of weighted objectives, written as in a job's `objectives`."""


@dataclass(frozen=True)
class NetworkChoice:
    """The type of a parameter that is a network: its name and its options, written as in a job's `student`."""

    network: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class NetworkSpace:
    """The type of a parameter that is a family of networks: a name, and a list of values for each option that varies."""

    network: str
    options: dict[str, list[Any]] = dataclasses.field(default_factory=dict)


class LayerItem(dict[str, Any]):
    """The type of one layer in a parameter that describes a network layer by layer (`networks/layer_list.py`)."""


class UploadedFile(str):
    """The type of a parameter that is the id of an uploaded file; subclasses say of which kind."""

    kind: ClassVar[str]


class WeightsFile(UploadedFile):
    """Weights of a network."""

    kind = "weights"


class StatisticsFile(UploadedFile):
    """Statistics of a teacher's activations on real data."""

    kind = "statistics"


class EmbeddingsFile(UploadedFile):
    """A vector for each class."""

    kind = "embeddings"


FILE_KINDS: dict[str, type[UploadedFile]] = {each.kind: each for each in (WeightsFile, StatisticsFile, EmbeddingsFile)}
"""The kinds of files that may be uploaded, with the types of parameters that name one."""
TapPair = tuple[str, str]
"""A student's tap and the teacher's tap that it is compared with."""


def parse(parameters: type[P], values: Mapping[str, Any], pointer: str = "") -> P:
    """An instance of a `Parameters` dataclass from JSON values.

    Raises:
        SpecError: a name is unknown, a value is missing, of the wrong type or out of range; it lists them all.
    """
    hints = typing.get_type_hints(parameters, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(parameters)}  # type: ignore[arg-type]
    problems = [
        Problem(f"{pointer}/{_token(name)}", f"unknown parameter; known are {', '.join(fields) or 'none'}")
        for name in values
        if name not in fields
    ]
    parsed = {}
    for name, field in fields.items():
        if name in values:
            try:
                parsed[name] = _parse_value(hints[name], values[name])
            except ValueError as error:
                problems.append(Problem(f"{pointer}/{name}", str(error)))
        elif field.default is dataclasses.MISSING:
            problems.append(Problem(f"{pointer}/{name}", "required"))
    if problems:
        raise SpecError(problems)
    return parameters(**parsed)


def _token(name: str) -> str:
    """A name as part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


class Hint(NamedTuple):
    """A field's annotation, taken apart."""

    base: Any
    bounds: Range
    items: Items
    description: str
    examples: tuple[Any, ...]

    @classmethod
    def of(cls, annotation: Any) -> "Hint":
        if typing.get_origin(annotation) is not typing.Annotated:
            return cls(annotation, Range(), Items(), "", ())
        base, *extras = typing.get_args(annotation)
        bounds = next((extra for extra in extras if isinstance(extra, Range)), Range())
        items = next((extra for extra in extras if isinstance(extra, Items)), Items())
        description = next((extra for extra in extras if isinstance(extra, str)), "")
        return cls(base, bounds, items, description, tuple(each.value for each in extras if isinstance(each, Example)))

    @property
    def optional(self) -> Any | None:
        """X, with its bounds, of `X | None`; else None."""
        if typing.get_origin(self.base) not in (Union, types.UnionType):
            return None
        inner = [arg for arg in typing.get_args(self.base) if arg is not type(None)]
        return typing.Annotated[inner[0], self.bounds, self.items] if len(inner) == 1 else None


def _parse_value(hint: Any, value: Any) -> Any:
    base, bounds, items, *_ = given = Hint.of(hint)
    if given.optional is not None:
        return None if value is None else _parse_value(given.optional, value)
    origin, args = typing.get_origin(base), typing.get_args(base)
    if origin is Literal:
        if not any(value == arg and type(value) is type(arg) for arg in args):
            raise ValueError(f"must be one of {', '.join(map(str, args))}, not {value!r}")
        return value
    if base is NetworkChoice:
        return _parse_network(value)
    if base is NetworkSpace:
        return _parse_space(value)
    if base is LayerItem:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"must have objects as items, not {value!r}"[:300])
        return LayerItem(value)
    if base is Objectives or origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"must be a list, not {value!r}")
        return _parse_list(base, args, items, value)
    return _bounded(bounds, _parse_plain(base, value))


def _parse_plain(base: type, value: Any) -> Any:
    base = str if issubclass(base, UploadedFile) else base
    allowed: tuple[type[Any], ...] = (int, float) if base is float else (base,)
    if not isinstance(value, allowed) or (base is not bool and isinstance(value, bool)):
        raise ValueError(f"must be {WORDS[base]}, not {value!r}")
    if base is not float:
        return value
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("must be finite")
    return number


def _parse_network(value: Any) -> NetworkChoice:
    right = isinstance(value, Mapping) and isinstance(value.get("network"), str)
    if not right or value.keys() - {"network", "options"} or not isinstance(value.get("options") or {}, Mapping):
        raise ValueError(f"must be an object with the name of a `network` and perhaps its `options`, not {value!r}")
    return NetworkChoice(value["network"], dict(value.get("options") or {}))


def _parse_space(value: Any) -> NetworkSpace:
    given = _parse_network(value)
    for name, values in given.options.items():
        if not isinstance(values, list) or not 0 < len(values) <= MOST_VALUES:
            raise ValueError(f"must have a list of 1 to {MOST_VALUES} values for the option {name!r}, not {values!r}")
    return NetworkSpace(given.network, given.options)


def _parse_list(base: Any, args: tuple[Any, ...], items: Items, values: Any) -> Any:
    if base is Objectives:
        if not all(isinstance(value, Mapping) and isinstance(value.get("name"), str) for value in values):
            raise ValueError("must be a list of objects that each have a name")
        return Objectives(values)
    if args[-1:] != (Ellipsis,):
        if len(values) != len(args):
            raise ValueError(f"must have {len(args)} items, not {len(values)}")
        return tuple(_parse_value(arg, value) for arg, value in zip(args, values, strict=True))
    if len(values) < items.least or (items.most is not None and len(values) > items.most):
        allowed = f"at least {items.least}" if items.most is None else f"{items.least} to {items.most}"
        raise ValueError(f"must have {allowed} items, not {len(values)}")
    return tuple(_parse_value(args[0], value) for value in values)


def _bounded(bounds: Range, value: Any) -> Any:
    complaint = bounds.complaint(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if complaint:
        raise ValueError(complaint)
    return value
