"""Parameters: the schema and the parser agree."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from worker.distillation.catalogue.schema import schema
from worker.distillation.errors import SpecError
from worker.distillation.parameters import (
    Items,
    NetworkChoice,
    Objectives,
    Range,
    StatisticsFile,
    TapPair,
    parse,
)


@dataclass(frozen=True)
class Example:
    """One parameter of each kind."""

    rate: Annotated[float, Range(gt=0, le=1), "A rate."] = 0.5
    count: Annotated[int, Range(ge=1)] = 3
    on: bool = False
    kind: Literal["a", "b", 1] = "a"
    limit: Annotated[int | None, Range(ge=2, lt=10), "A limit."] = None
    sizes: Annotated[tuple[Annotated[int, Range(ge=1)], ...], Items(most=2), "Sizes."] = ()
    pairs: Annotated[tuple[TapPair, ...] | None, Items(least=1), "Pairs."] = None
    losses: Annotated[Objectives | None, "Losses."] = None
    network: Annotated[NetworkChoice | None, "A network."] = None
    chain: tuple[NetworkChoice, ...] = ()
    statistics: Annotated[StatisticsFile | None, "A file."] = None


@dataclass(frozen=True)
class Required:
    """A parameter without a default."""

    name: Annotated[str, "A name."]


def test_schema_of_each_kind():
    properties = schema(Example)["properties"]
    assert properties == {
        "rate": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": "A rate.", "default": 0.5},
        "count": {"type": "integer", "minimum": 1, "default": 3},
        "on": {"type": "boolean", "default": False},
        "kind": {"enum": ["a", "b", 1], "default": "a"},
        "limit": {
            "anyOf": [{"type": "integer", "minimum": 2, "exclusiveMaximum": 10}, {"type": "null"}],
            "description": "A limit.", "default": None,
        },
        "sizes": {
            "type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 0, "maxItems": 2,
            "description": "Sizes.", "default": [],
        },
        "pairs": {
            "anyOf": [
                {
                    "type": "array", "minItems": 1,
                    "items": {
                        "type": "array", "prefixItems": [{"type": "string"}, {"type": "string"}], "minItems": 2, "maxItems": 2,
                    },
                },
                {"type": "null"},
            ],
            "description": "Pairs.", "default": None,
        },
        "losses": {
            "anyOf": [{"type": "array", "items": {"$ref": "#/objectives"}}, {"type": "null"}],
            "description": "Losses.", "default": None,
        },
        "network": {"anyOf": [{"$ref": "#/network"}, {"type": "null"}], "description": "A network.", "default": None},
        "chain": {"type": "array", "items": {"$ref": "#/network"}, "minItems": 0, "default": []},
        "statistics": {
            "anyOf": [{"$ref": "#/files/statistics"}, {"type": "null"}], "description": "A file.", "default": None,
        },
    }  # fmt: skip


def test_required_parameters():
    assert schema(Required)["required"] == ["name"]
    assert schema(Example)["required"] == []
    with pytest.raises(SpecError, match="/at/name: required"):
        parse(Required, {}, "/at")
    assert parse(Required, {"name": "x"}) == Required("x")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"rate": 1, "count": 1, "on": True, "kind": 1, "limit": 2, "sizes": [5, 6], "pairs": [["s", "t"]]},
        {"limit": None, "pairs": None, "losses": None},
        {"losses": [{"name": "kd", "weight": 2}]},
        {"statistics": "fil_1"},
    ],
)
def test_valid_values_parse(values):
    parsed = parse(Example, values)
    for name, value in values.items():
        given = tuple(map(tuple, value)) if name == "pairs" and value else value
        assert getattr(parsed, name) == (tuple(given) if isinstance(given, list) else given)


def test_networks_have_a_name_and_optional_options():
    written = {"network": "mlp", "options": {"hidden": [8]}}
    parsed = parse(Example, {"network": written, "chain": [{"network": "lenet5"}, written]})
    assert parsed.network == NetworkChoice("mlp", {"hidden": [8]})
    assert parsed.chain == (NetworkChoice("lenet5"), parsed.network)
    assert parse(Example, {"network": {"network": "mlp", "options": None}}).network == NetworkChoice("mlp")


def test_whole_numbers_become_floats():
    assert isinstance(parse(Example, {"rate": 1}).rate, float)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", 0), ("rate", 1.01), ("rate", float("nan")), ("rate", float("inf")), ("rate", 10**400), ("rate", "1"),
        ("rate", True), ("rate", None), ("count", 0), ("count", 1.0), ("count", True), ("on", 1), ("on", "true"),
        ("kind", "c"), ("kind", True), ("kind", ["a"]), ("limit", 1), ("limit", 10), ("limit", 2.5), ("sizes", [1, 2, 3]),
        ("sizes", [0]), ("sizes", 5), ("sizes", "12"), ("pairs", []), ("pairs", [["s"]]), ("pairs", [["s", "t", "u"]]),
        ("pairs", [["s", 1]]), ("pairs", ["st"]), ("losses", ["kd"]), ("losses", [{}]), ("losses", {"name": "kd"}),
        ("network", "mlp"), ("network", {}), ("network", {"network": 1}), ("network", {"network": "mlp", "options": [1]}),
        ("network", {"network": "mlp", "weights": 1}), ("chain", ["mlp"]), ("chain", {"network": "mlp"}),
        ("statistics", 1), ("statistics", ["fil_1"]),
    ],
)  # fmt: skip
def test_invalid_values_are_refused_with_their_pointer(name, value):
    with pytest.raises(SpecError) as caught:
        parse(Example, {name: value}, "/objectives/0")
    assert [problem.pointer for problem in caught.value.problems] == [f"/objectives/0/{name}"]


def test_all_problems_are_reported_together():
    with pytest.raises(SpecError) as caught:
        parse(Example, {"rate": -1, "count": "x", "a/b~c": 1})
    assert {problem.pointer for problem in caught.value.problems} == {"/rate", "/count", "/a~1b~0c"}
    assert "known are rate, count" in str(caught.value)
