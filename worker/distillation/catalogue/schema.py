"""JSON Schema of parameters, for the catalogue (`parameters.py` says how they are declared)."""

import dataclasses
import typing
from typing import Any, Literal

from worker.distillation.parameters import Hint, LayerItem, NetworkChoice, NetworkSpace, Objectives, Range, UploadedFile

TYPES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


def schema(parameters: type) -> dict[str, Any]:
    """JSON Schema of a `Parameters` dataclass: an object whose properties all have a description and a default or are required."""
    hints = typing.get_type_hints(parameters, include_extras=True)
    properties: dict[str, Any] = {}
    required = []
    for field in dataclasses.fields(parameters):
        entry = _schema_of(hints[field.name])
        if field.default is not dataclasses.MISSING:
            entry["default"] = _jsonable(field.default)
        else:
            required.append(field.name)
        properties[field.name] = entry
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _schema_of(hint: Any) -> dict[str, Any]:
    base, bounds, items, description, examples = given = Hint.of(hint)
    text: dict[str, Any] = {"description": description} if description else {}
    text |= {"examples": list(examples)} if examples else {}
    if given.optional is not None:
        return {"anyOf": [_schema_of(given.optional), {"type": "null"}]} | text
    origin, args = typing.get_origin(base), typing.get_args(base)
    if base is Objectives:
        return {"type": "array", "items": {"$ref": "#/objectives"}} | text
    if base in (NetworkChoice, NetworkSpace):
        return {"$ref": "#/network" if base is NetworkChoice else "#/network_space"} | text
    if base is LayerItem:
        return {"$ref": "#/layer"} | text
    if isinstance(base, type) and issubclass(base, UploadedFile):
        return {"$ref": f"#/files/{base.kind}"} | text
    if origin is Literal:
        return {"enum": list(args)} | text
    if origin is tuple and args[-1:] == (Ellipsis,):
        length = {"minItems": items.least} | ({"maxItems": items.most} if items.most is not None else {})
        return {"type": "array", "items": _schema_of(args[0])} | length | text
    if origin is tuple:
        return {
            "type": "array",
            "prefixItems": [_schema_of(arg) for arg in args],
            "minItems": len(args),
            "maxItems": len(args),
        } | text
    return {"type": TYPES[base]} | _bounds(bounds) | text


def _bounds(bounds: Range) -> dict[str, float]:
    return {BOUNDS[key]: bound for key, bound in dataclasses.asdict(bounds).items() if bound is not None}


def _jsonable(value: Any) -> Any:
    return list(map(_jsonable, value)) if isinstance(value, tuple) else value
