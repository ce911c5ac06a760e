"""The committed catalogue matches the engine."""

import json
from typing import get_args

import pytest

from models.status import Phase
from worker.distillation import networks, registry
from worker.distillation.catalogue.__main__ import JSON_PATH, PAGE_PATH
from worker.distillation.catalogue.contents import first_sentence, text
from worker.distillation.catalogue.page import page
from worker.ledger import failures


def test_committed_catalogue_is_up_to_date():
    assert JSON_PATH.read_text(encoding="utf-8") == text(), "run `make catalogue`"


def test_committed_page_is_up_to_date():
    assert PAGE_PATH.read_text(encoding="utf-8") == page(json.loads(JSON_PATH.read_text(encoding="utf-8"))), (
        "run `make catalogue`"
    )


def test_contains_all_methods_by_kind_and_name():
    data = json.loads(JSON_PATH.read_text(encoding="utf-8"))
    assert data.keys() == {*registry.BASES, "networks", "network_patterns", "layers", "parts", "choices", "limits"}
    assert all(tuple(sorted(data[kind])) == registry.names(kind) for kind in registry.BASES)
    assert tuple(sorted(data["networks"])) == networks.names()
    assert not any("/" in name for name in data["networks"])


def entries():
    data = json.loads(JSON_PATH.read_text(encoding="utf-8"))
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
    assert {*json.loads(JSON_PATH.read_text(encoding="utf-8"))["choices"]["phases"], Phase.VALIDATING} == set(Phase)


def test_the_worker_knows_every_fault_of_the_engines_errors():
    assert set(json.loads(JSON_PATH.read_text(encoding="utf-8"))["choices"]["faults"]) == set(get_args(failures.Fault))


def test_contains_the_needs_of_objectives():
    data = json.loads(JSON_PATH.read_text(encoding="utf-8"))["objectives"]
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
