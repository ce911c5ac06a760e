"""The catalogue that is committed is what the engine has."""

import json
from typing import get_args

import pytest

from models.status import Phase
from worker.distillation import networks, registry
from worker.distillation.catalogue.__main__ import JSON_PATH, PAGE_PATH
from worker.distillation.catalogue.contents import first_sentence, text
from worker.distillation.catalogue.page import page
from worker.ledger import failures


def test_committed_catalogue_is_fresh():
    assert JSON_PATH.read_text(encoding="utf-8") == text(), "run `make catalogue`"


def test_committed_page_is_fresh():
    assert PAGE_PATH.read_text(encoding="utf-8") == page(json.loads(text())), "run `make catalogue`"


def test_has_everything_by_kind_and_name():
    data = json.loads(text())
    assert data.keys() == {*registry.BASES, "networks", "network_patterns", "layers", "parts", "choices", "limits"}
    assert all(tuple(sorted(data[kind])) == registry.names(kind) for kind in registry.BASES)
    assert tuple(sorted(data["networks"])) == networks.names()
    assert not any("/" in name for name in data["networks"])


def entries():
    data = json.loads(text())
    return [
        (f"{kind}/{name}", entry)
        for kind in (*registry.BASES, "networks", "layers", "parts")
        for name, entry in data[kind].items()
    ]


@pytest.mark.parametrize("place_and_entry", entries(), ids=lambda pair: pair[0])
def test_every_entry_is_described(place_and_entry):
    _, entry = place_and_entry
    assert entry["description"].endswith(".")
    assert entry["parameters"]["type"] == "object"
    for parameter, rule in entry["parameters"]["properties"].items():
        assert rule.get("description"), parameter
        assert "default" in rule or parameter in entry["parameters"]["required"]


def test_the_service_knows_every_phase_that_the_engine_enters():
    assert {*json.loads(text())["choices"]["phases"], Phase.VALIDATING} == set(Phase)


def test_the_worker_knows_whose_fault_an_error_of_the_engine_may_be():
    assert set(json.loads(text())["choices"]["faults"]) == set(get_args(failures.Fault))


def test_needs_are_told():
    data = json.loads(text())["objectives"]
    assert data["cross_entropy"]["needs"]["fields"] == ["label"]
    assert not data["cross_entropy"]["needs"]["teacher"]
    cases = {(case["parameter"], case["value"]): case["then"]["needs"] for case in data["kd"]["when"]}
    assert cases["standardise", True]["minimum_classes"] == 3


def test_first_sentence_ends_where_the_first_sentence_does():
    class Described:
        """One thing,
        over two lines. And another.

        More.
        """

    assert first_sentence(Described) == "One thing, over two lines."
