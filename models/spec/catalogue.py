"""The catalogue of objectives, procedures, sources, transforms and networks, from the generated `catalogue.json`."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

KINDS = ("objectives", "procedures", "sources", "transforms")
MOST_ITEMS = 1024
"""Maximum length of a list parameter without its own bound."""
MOST_OBJECTIVES = 16
# `$ref` of parameters that are objectives, networks, families of networks, or layers of a network.
OBJECTIVES = "#/objectives"
NETWORK = "#/network"
NETWORK_SPACE = "#/network_space"
LAYER = "#/layer"
PROGRAM = "program"
"""Name of a network that an uploaded file defines."""
FILES = "#/files/"
"""Prefix of the `$ref` of a parameter that is the id of an uploaded file. The file's kind follows."""


@lru_cache(maxsize=1)
def catalogue() -> dict[str, Any]:
    """The catalogue, as written by `make catalogue`."""
    return dict(json.loads(Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8")))


def known(kind: str) -> Mapping[str, Any]:
    """The methods of a kind, or the networks, by name."""
    return dict(catalogue()[kind])


def part(name: str) -> Mapping[str, Any]:
    """A part of a spec that is not a method, such as `training`: its description, and its parameters as JSON schema."""
    return dict(known("parts")[name])


def choices(name: str) -> tuple[str, ...]:
    """The allowed values of a field without its own schema, such as `export_formats`."""
    return tuple(known("choices")[name])


def limit(name: str) -> int:
    """A limit that the engine and the API share, such as the maximum number of `classes`."""
    return int(known("limits")[name])


def effective(kind: str, method: Mapping[str, Any], attribute: str) -> Any:
    """An attribute of a method, such as its `needs`, for the given parameters."""
    _, value = _case(kind, method, attribute)
    return value


def decided_by(kind: str, method: Mapping[str, Any], attribute: str) -> str | None:
    """The parameter whose value changes this attribute of a method; None if the attribute has its usual value."""
    parameter, _ = _case(kind, method, attribute)
    return parameter


def _case(kind: str, method: Mapping[str, Any], attribute: str) -> tuple[str | None, Any]:
    """As in the engine's `Method`: if several cases apply, the first counts."""
    entry = known(kind)[method["name"]]
    for case in entry["when"]:
        if attribute in case["then"] and method.get(case["parameter"]) == case["value"]:
            return case["parameter"], case["then"][attribute]
    return None, entry[attribute]


def values_with(kind: str, name: str, attribute: str) -> Iterator[tuple[str, Any, Any]]:
    """The parameter values that change an attribute of a method, as (parameter, value, attribute)."""
    for case in known(kind)[name]["when"]:
        if attribute in case["then"]:
            yield case["parameter"], case["value"], case["then"][attribute]


def needs_of(objective: Mapping[str, Any]) -> Mapping[str, Any]:
    """The needs of an objective with the given parameters."""
    return dict(effective("objectives", objective, "needs"))


def network_is_known(name: str) -> bool:
    """Whether a network is listed by name, matches the pattern of a family, or is a program."""
    return name == PROGRAM or bool(network_entry(name))


def network_entry(name: str) -> Mapping[str, Any]:
    """What the catalogue says of a network, or of the pattern that its name matches; empty if there is none."""
    patterns = catalogue()["network_patterns"]
    matched = (entry for entry in patterns if re.fullmatch(entry["pattern"], name))
    return known("networks").get(name) or next(matched, {})


def nested_objectives(kind: str, name: str) -> tuple[str, ...]:
    """The parameters of a method that are lists of objectives."""
    return _of_reference(kind, name, OBJECTIVES)


def nested_networks(kind: str, name: str) -> tuple[str, ...]:
    """The parameters of a method that are networks or lists of networks."""
    return _of_reference(kind, name, NETWORK)


def nested_files(kind: str, name: str) -> dict[str, str]:
    """The parameters of a method that are ids of uploaded files, mapped to the required kinds of file."""
    properties = known(kind)[name]["parameters"].get("properties", {})
    return {
        parameter: reference.removeprefix(FILES)
        for parameter, schema in properties.items()
        for reference in _references(schema)
        if reference and reference.startswith(FILES)
    }


@lru_cache(maxsize=4096)
def _of_reference(kind: str, name: str, reference: str) -> tuple[str, ...]:
    """The parameters of a method whose schema, or the schema of whose items, has this `$ref`."""
    properties = known(kind)[name]["parameters"].get("properties", {})
    return tuple(parameter for parameter, schema in properties.items() if reference in _references(schema))


def _references(schema: Mapping[str, Any]) -> set[str | None]:
    places = (schema, *schema.get("anyOf", ()))
    return {found for place in places for found in (place.get("$ref"), (place.get("items") or {}).get("$ref"))}
