"""Pydantic types from the catalogue's JSON schemas."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, Field, Strict, StringConstraints, create_model

from models.spec.body import Body, FileId
from models.spec.catalogue import FILES, LAYER, MOST_ITEMS, MOST_OBJECTIVES, NETWORK, NETWORK_SPACE, OBJECTIVES, part
from models.spec.layers import LayerSpec

References = Mapping[str, Callable[[], Any]]
"""What a `$ref` of a schema stands for: a type, made when it is needed."""
NO_REFERENCES: References = {}


def annotation(schema: Mapping[str, Any], references: References = NO_REFERENCES) -> Any:
    """The Python type of a parameter's JSON schema; `references` has the types of what its `$ref` may name."""
    if (schema.get("items") or {}).get("$ref") == OBJECTIVES:
        return Annotated[list[references[OBJECTIVES]()], Field(max_length=MOST_OBJECTIVES)]  # type: ignore[misc]
    if schema.get("$ref") in (NETWORK, NETWORK_SPACE):
        return references[schema["$ref"]]()
    if schema.get("$ref") == LAYER:
        return LayerSpec
    if schema.get("$ref", "").startswith(FILES):
        return FileId
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    if "anyOf" in schema:
        options = (None if each == {"type": "null"} else annotation(each, references) for each in schema["anyOf"])
        return Union[tuple(options)]  # noqa: UP007
    if schema["type"] == "array":
        return _array(schema, references)
    bounds = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
    given = {bounds[name]: bound for name, bound in schema.items() if name in bounds}
    types: dict[str, Any] = {"number": float, "integer": int, "boolean": bool}
    if schema["type"] == "string":
        return Annotated[str, StringConstraints(max_length=schema.get("maxLength", 255))]
    return Annotated[types[schema["type"]], Field(**given)] if given else types[schema["type"]]


def _array(schema: Mapping[str, Any], references: References) -> Any:
    if "prefixItems" in schema:
        items = tuple(annotation(item, references) for item in schema["prefixItems"])
        return Annotated[tuple[items], Strict(False)]  # type: ignore[valid-type]
    length = Field(min_length=schema.get("minItems", 0), max_length=schema.get("maxItems", MOST_ITEMS))
    return Annotated[list[annotation(schema["items"], references)], length]  # type: ignore[misc]


def model(
    title: str,
    parameters: Mapping[str, Any],
    extra: Mapping[str, Any],
    about: str = "",
    references: References = NO_REFERENCES,
) -> type[BaseModel]:
    """A pydantic model from the JSON schema of an object, with further fields before its own."""
    fields: dict[str, Any] = dict(extra)
    for name, schema in parameters.get("properties", {}).items():
        # a parameter may be called as a method of pydantic's is
        attribute, alias = (f"{name}_", name) if hasattr(BaseModel, name) else (name, None)
        default = schema.get("default", ...)
        fields[attribute] = (
            annotation(schema, references),
            Field(default, alias=alias, description=schema.get("description"), examples=schema.get("examples")),
        )
    return create_model(title, __base__=Body, __doc__=about or title, **fields)


def part_model(name: str, **changed: Mapping[str, Any]) -> type[BaseModel]:
    """The model of a part of a spec, from the catalogue; `changed` are the schemas of parameters that differ in a request."""
    entry = part(name)
    parameters = {key: changed.get(key, schema) for key, schema in entry["parameters"]["properties"].items()}
    title = "".join(word.capitalize() for word in name.split("_"))
    return model(title, {"properties": parameters}, {}, entry["description"])
