"""The catalogue that is committed is what the engine has."""

import json

import pytest

from worker.distillation import catalogue, networks, registry


def test_committed_catalogue_is_fresh():
    assert catalogue.JSON_PATH.read_text(encoding="utf-8") == catalogue.text(), "run `make catalogue`"


def test_committed_page_is_fresh():
    page = catalogue.page(json.loads(catalogue.text()))
    assert catalogue.PAGE_PATH.read_text(encoding="utf-8") == page, "run `make catalogue`"


def test_has_everything_by_kind_and_name():
    data = json.loads(catalogue.text())
    assert data.keys() == {*registry.BASES, "networks", "network_patterns"}
    assert all(tuple(sorted(data[kind])) == registry.names(kind) for kind in registry.BASES)
    assert tuple(sorted(data["networks"])) == networks.names()
    assert not any("/" in name for name in data["networks"])


def entries():
    data = json.loads(catalogue.text())
    return [(f"{kind}/{name}", entry) for kind in (*registry.BASES, "networks") for name, entry in data[kind].items()]


@pytest.mark.parametrize("place_and_entry", entries(), ids=lambda pair: pair[0])
def test_every_entry_is_described(place_and_entry):
    _, entry = place_and_entry
    assert entry["description"].endswith(".")
    assert entry["parameters"]["type"] == "object"
    for parameter, rule in entry["parameters"]["properties"].items():
        assert rule.get("description"), parameter
        assert "default" in rule or parameter in entry["parameters"]["required"]


def test_needs_are_told():
    data = json.loads(catalogue.text())["objectives"]
    assert data["cross_entropy"]["needs"]["fields"] == ["label"]
    assert not data["cross_entropy"]["needs"]["teacher"]
    cases = {(case["parameter"], case["value"]): case["needs"] for case in data["kd"]["needs_when"]}
    assert cases["standardise", True]["minimum_classes"] == 3


def test_first_sentence_ends_where_the_first_sentence_does():
    class Described:
        """One thing,
        over two lines. And another.

        More.
        """

    assert catalogue.first_sentence(Described) == "One thing, over two lines."
