"""Fields of forms, made from a JSON schema of the catalogue, and the values that their texts stand for."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

WHOLE = re.compile(r"[+-]?\d{1,18}")


@dataclass(frozen=True)
class Field:
    """One field of the form. `at` is the JSON pointer of its value in the spec."""

    at: str
    name: str
    about: str
    default: str
    kind: str
    choices: tuple[str, ...] = ()
    limits: str = ""

    @property
    def id(self) -> str:
        """The id of its element."""
        return "f" + self.at.replace("/", "-")


def fields(schema: Mapping[str, Any], at: str) -> list[Field]:
    """A field for every parameter of a schema of the catalogue."""
    return [_field(f"{at}/{name}", name, each) for name, each in schema.get("properties", {}).items()]


def _field(at: str, name: str, schema: Mapping[str, Any]) -> Field:
    types, choices = types_of(schema), choices_of(schema)
    several = choices_of(schema["items"]) if types == {"array"} and "items" in schema else ()
    kind = (
        "several"
        if several
        else "choice"
        if choices
        else "switch"
        if "boolean" in types
        else "number"
        if types & {"integer", "number"}
        else "text"
    )
    given = schema.get("default")
    default = "" if given is None else given if isinstance(given, str) else json.dumps(given)
    default = ", ".join(map(str, given)) if several and given else default
    about = re.sub(r"\b(i|I)f null\b", r"\1f empty", str(schema.get("description", "")))
    return Field(at, name.replace("_", " "), about, default, kind, several or choices, _limits(schema))


def _alternatives(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]


def types_of(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema allows, besides null."""
    found: set[str] = set()
    for each in _alternatives(schema):
        kind = each.get("type")
        found |= {kind} if isinstance(kind, str) else set(kind or ())
        found |= {
            "integer" if isinstance(value, int) else "string" for value in each.get("enum", ()) if value is not None
        }
    return found - {"null"}


def choices_of(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of an enumeration; empty if a value may be something else."""
    found = _alternatives(schema)
    if not all("enum" in each for each in found):
        return ()
    return tuple(str(value) for each in found for value in each["enum"] if value is not None)


def _limits(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    found = [
        f"{word} {each[name]:g}"
        for each in (schema, *schema.get("anyOf", ()))
        for name, word in words.items()
        if name in each
    ]
    return ", ".join(["a list, with commas", *found] if types_of(schema) == {"array"} else found)


def typed_values(schema: Mapping[str, Any], texts: Mapping[str, str], at: str) -> dict[str, Any]:
    """The values of the fields below `at` that have a text."""
    properties = schema.get("properties", {})
    return {
        name: value_of(texts[f"{at}/{name}"], types_of(each))
        for name, each in properties.items()
        if f"{at}/{name}" in texts
    }


def value_of(text: str, types: set[str]) -> Any:
    """The value that a text stands for; the text itself if it is none of these types, so that the check of the spec says so."""
    if types & {"integer", "number"} and WHOLE.fullmatch(text):
        return int(text)
    if "number" in types:
        with suppress(ValueError):
            return float(text)
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    if types == {"array"}:
        return _list_of(text)
    if types & {"array", "object"} or not types:
        return _json_of(text)
    return text


def _json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _list_of(text: str) -> Any:
    """A list as JSON, or with commas alone: `1, 2` and `#ff0000, #00ff00`."""
    found = next((found for each in (text, f"[{text}]") if isinstance(found := _json_of(each), list)), None)
    return [part.strip() for part in text.split(",")] if found is None else found
