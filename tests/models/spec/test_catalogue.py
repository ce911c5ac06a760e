"""Pydantic types from the catalogue's JSON schemas."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from models.spec import catalogue
from models.spec.catalogue import known, nested_networks, network_is_known
from models.spec.defaults import method as method_in_full
from models.spec.method_spec import REFERENCES, method
from models.spec.schema_types import annotation, model


def accepts(schema: dict[str, Any], value: Any) -> bool:
    adapter = TypeAdapter(model("Holder", {"properties": {"x": schema}}, {}))
    try:
        return bool(adapter.validate_python({"x": value}).model_dump(mode="json", by_alias=True) == {"x": value})
    except ValidationError:
        return False


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "number"}, [0, -1.5], ["1", True, None, float("nan"), float("inf")]),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, [0, 0.5], [-0.1, 1]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, [1e-9, 1], [0, 1.1]),
        ({"type": "integer", "minimum": 2}, [2, 10**12], [1, 2.0, True, "2"]),
        ({"type": "boolean"}, [True, False], [0, 1, "true", None]),
        ({"type": "string"}, ["", "x" * 255], [1, None, "x" * 256]),
        ({"enum": ["a", "b"]}, ["a"], ["c", None, 0]),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, [None, 1], [0, "x"]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3], ["1"], 1]),
        ({"type": "array", "items": {"type": "integer"}}, [[], [1] * 1024], [[1] * 1025]),
        ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}, [["a", 1]], [["a"], ["a", "b"], ["a", 1, 2], "ab"]),
    ],
)  # fmt: skip
def test_types_accept_the_same_values_as_their_schemas(
    schema: dict[str, Any], right: list[Any], wrong: list[Any]
) -> None:
    assert [value for value in right if not accepts(schema, value)] == []
    assert [value for value in wrong if accepts(schema, value)] == []


def test_a_parameter_may_have_the_name_of_a_pydantic_method() -> None:
    names = ("copy", "schema", "json", "validate", "model_config_", "dict", "construct", "register")
    made = model("Shadowing", {"properties": {name: {"type": "integer"} for name in names}}, {})
    values = {name: index for index, name in enumerate(names)}
    assert made.model_validate(values).model_dump(by_alias=True) == values
    assert set(made.model_json_schema()["properties"]) == set(names)


def test_a_parameter_without_a_default_is_required() -> None:
    made = model("Strict", {"properties": {"x": {"type": "integer"}, "y": {"type": "integer", "default": 3}}}, {})
    assert made.model_validate({"x": 1}).model_dump() == {"x": 1, "y": 3}
    with pytest.raises(ValidationError):
        made.model_validate({"y": 1})


def test_an_unknown_type_raises() -> None:
    with pytest.raises(KeyError):
        annotation({"type": "complex"})


def test_networks_are_known_by_name_or_by_pattern() -> None:
    assert network_is_known("lenet5")
    assert network_is_known("torchvision/resnet18")
    assert not network_is_known("torchvision/resnet18\n")
    assert not network_is_known("resnet18")
    assert not network_is_known("")


def test_every_method_has_a_type() -> None:
    for kind in catalogue.KINDS:
        adapter: TypeAdapter[Any] = TypeAdapter(method(kind))
        for name, entry in catalogue.known(kind).items():
            if not entry["parameters"]["required"]:
                assert adapter.validate_python(name).name == name
        with pytest.raises(ValidationError, match=f"there is no {kind[:-1]} 'nothing'"):
            adapter.validate_python("nothing")


NETWORK = TypeAdapter(annotation({"anyOf": [{"$ref": "#/network"}, {"type": "null"}]}, REFERENCES))


def test_a_network_within_a_method_is_checked_as_the_student_is() -> None:
    assert NETWORK.validate_python(None) is None
    chosen = NETWORK.validate_python({"network": "mlp", "options": {"hidden": [8]}})
    assert (chosen.network, chosen.options) == ("mlp", {"hidden": [8]})
    for wrong in ({"network": "mpl"}, {"network": "mlp", "options": {"hidden": "8"}}, "mlp", {}):
        with pytest.raises(ValidationError):
            NETWORK.validate_python(wrong)


def test_networks_within_a_method_have_all_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = {"type": "array", "items": {"$ref": "#/network"}, "default": []}
    one = {"anyOf": [{"$ref": "#/network"}, {"type": "null"}], "default": None}
    entry = {"parameters": {"properties": {"chain": networks, "first": one, "other": one}}}
    for place in ("models.spec.catalogue.known", "models.spec.defaults.known"):
        monkeypatch.setattr(place, lambda kind: {"toy": entry} if kind == "procedures" else known(kind))
    assert nested_networks("procedures", "toy") == ("chain", "first", "other")
    full = method_in_full("procedures", {"name": "toy", "chain": [{"network": "mlp"}], "first": {"network": "lenet5"}})
    options = known("networks")["mlp"]["parameters"]["properties"]
    defaults = {name: rule["default"] for name, rule in options.items()}
    assert {"hidden", "bias"} < defaults.keys()
    assert full["chain"] == [{"network": "mlp", "options": defaults}]
    assert (full["first"], full["other"]) == ({"network": "lenet5", "options": {}}, None)
