"""Transforms in a spec: their order, and what they need of the other parts."""

from typing import Any

import pytest

from models.spec.catalogue import known
from models.spec.job_spec import JobSpec, check, resolve
from tests.models.spec.specs import DATASET, FACTS, TEACHER

SMALLEST = {"teacher": TEACHER, "student": {"network": "lenet5_half"}, "dataset": DATASET}


def problems(**part: Any) -> dict[str, str]:
    resolved = resolve(JobSpec.model_validate(SMALLEST | part), FACTS)
    return {problem.pointer: problem.message for problem in check(resolved, FACTS)}


def test_a_name_is_enough_and_defaults_are_written_out() -> None:
    resolved = resolve(JobSpec.model_validate(SMALLEST | {"transforms": ["quantise"]}), FACTS)
    assert resolved["transforms"] == [
        {"name": "quantise", "scheme": "lsq", "bits": 4, "ends": "8", "activations": None}
    ]
    assert resolve(JobSpec.model_validate(resolved), FACTS) == resolved


def test_all_in_their_order_fit() -> None:
    names = ["factorise", "prune_channels", "prune", "share", "quantise", "learned_points", "int8"]
    assert set(names) == set(known("transforms"))
    assert problems(transforms=["factorise", "prune", "share", "int8"], exports=["onnx", "packed", "huffman"]) == {}


@pytest.mark.parametrize(
    ("part", "pointer", "message"),
    [
        ({"transforms": ["int8", "prune"]}, "/transforms/1", "prune must come before int8; the order is factorise, "),
        ({"transforms": ["prune", "prune"]}, "/transforms/1", "prune can be used once"),
        ({"exports": ["packed"]}, "/exports/0", "needs a transform that stores weights as codes: int8, "),
        ({"exports": ["huffman"], "transforms": ["factorise"]}, "/exports/0", "needs a transform that stores weights"),
        ({"transforms": ["int8"], "dataset": None, "source": "noise"}, "/transforms/0", "int8 measures activations on"),
        (
            {"transforms": [{"name": "quantise", "activations": 4}], "dataset": None, "source": "noise"},
            "/transforms/0",
            "quantise measures activations on",
        ),
        (
            {"transforms": ["share"], "training": {"average_weights": 0.9}},
            "/training/average_weights",
            "must be null: share begins to change weights late",
        ),
    ],
)
def test_what_does_not_fit_is_refused(part: dict[str, Any], pointer: str, message: str) -> None:
    found = problems(**part)
    assert list(found) == [pointer]
    assert found[pointer].startswith(message)


def test_synthesised_images_calibrate() -> None:
    assert problems(transforms=["int8"], dataset=None, source="dafl") == {}


def test_apprentices_learn_of_a_peer_in_scheme_a_only() -> None:
    both = {"transforms": ["quantise"], "objectives": ["cross_entropy", "mutual"]}
    assert problems(**both, procedure={"name": "apprentice", "scheme": "a"}) == {}
    found = problems(**both, procedure={"name": "apprentice", "scheme": "b"})
    assert found["/objectives/1"].startswith("mutual needs other members of a cohort")
    resolved = resolve(JobSpec.model_validate(SMALLEST | {"procedure": {"name": "apprentice", "scheme": "a"}}), FACTS)
    assert [(each["name"], each["weight"]) for each in resolved["objectives"]] == [
        ("cross_entropy", 0.5),
        ("mutual", 0.5),
    ]
