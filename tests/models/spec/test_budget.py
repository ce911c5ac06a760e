"""Budgets in a spec: their defaults, what is refused, and what a check has chosen."""

from typing import Any

import pytest
from pydantic import ValidationError

from models.spec.compression import plans, with_choice
from models.spec.job_spec import JobSpec, check, problems_of, resolve
from tests.models.spec.specs import DATASET, FACTS, TEACHER

SMALLEST = {"teacher": TEACHER, "dataset": DATASET}
LIMITS = {"bytes": 200_000, "milliseconds": 2}


def resolved_with(budget: dict[str, Any], student: dict[str, Any] | None = None, **part: Any) -> dict[str, Any]:
    spec = SMALLEST | {"student": {**(student or {}), "budget": budget}} | part
    return resolve(JobSpec.model_validate(spec), FACTS)


def test_a_budget_alone_is_a_student_like_its_teacher() -> None:
    resolved = resolved_with(LIMITS)
    student = resolved["student"]
    assert (student["network"], student["like"], student["width"]) == (None, "teacher", 1.0)
    assert student["budget"] == {
        "file": "onnx", "bytes": 200_000, "milliseconds": 2.0, "batch": 1, "threads": 1,
        "allow": ["int8", "width", "prune_channels"],
    }  # fmt: skip
    assert check(resolved, FACTS) == [] and plans(resolved)
    assert resolved["name"].startswith("within a budget from ")
    assert resolve(JobSpec.model_validate(resolved), FACTS) == resolved
    assert not plans(resolve(JobSpec.model_validate(SMALLEST | {"student": {"network": "lenet5_half"}}), FACTS))


@pytest.mark.parametrize(
    ("budget", "pointer"),
    [
        ({}, "/student/budget"),
        ({"bytes": 9, "file": "packed", "milliseconds": 1}, "/student/budget/milliseconds"),
        ({"bytes": 9, "allow": ["int8", "int8"]}, "/student/budget/allow"),
        ({"bytes": 9, "allow": []}, "/student/budget/allow"),
        ({"bytes": 0}, "/student/budget/bytes"),
        ({"bytes": 9, "file": "huffman"}, "/student/budget/file"),
    ],
)
def test_budgets_that_are_refused_at_once(budget: dict[str, Any], pointer: str) -> None:
    with pytest.raises(ValidationError) as refused:
        JobSpec.model_validate(SMALLEST | {"student": {"budget": budget}})
    assert [problem.pointer for problem in problems_of(refused.value)] == [pointer]


@pytest.mark.parametrize(
    ("student", "part", "pointer", "message"),
    [
        ({}, {"exports": ["safetensors"]}, "/exports", "must include `onnx`"),
        ({}, {"transforms": ["int8"]}, "/student/budget/allow/0", "int8 is among `transforms` already"),
        (
            {"network": "lenet5_half"},
            {"dataset": None, "source": "noise"},
            "/student/budget/allow/0",
            "int8 measures activations",
        ),
        ({}, {"teacher": None}, "/student/like", "needs one teacher"),
    ],
)
def test_budgets_that_do_not_fit_the_rest(
    student: dict[str, Any], part: dict[str, Any], pointer: str, message: str
) -> None:
    resolved = resolved_with(LIMITS, student, **part)
    found = {problem.pointer: problem.message for problem in check(resolved, FACTS)}
    assert found[pointer].startswith(message)


def test_a_packed_file_may_be_packed_by_what_the_budget_allows() -> None:
    packed = {"file": "packed", "bytes": 9000}
    assert check(resolved_with(packed, exports=["safetensors", "packed"]), FACTS) == []
    found = check(resolved_with(packed | {"allow": ["width"]}, exports=["safetensors", "packed"]), FACTS)
    assert [problem.pointer for problem in found] == ["/exports/1"]


def test_what_a_check_has_chosen_becomes_part_of_the_spec() -> None:
    resolved = resolved_with(LIMITS)
    budget = resolved["student"]["budget"] | {"chosen": {"bytes": 190_000, "milliseconds": 1.0}}
    int8 = resolve(JobSpec.model_validate(SMALLEST | {"student": {"network": "lenet5"}, "transforms": ["int8"]}), FACTS)
    transforms = int8["transforms"]
    reasons = {"/student/width": "it fits"}
    facts = {"chosen": {"student": {"width": 0.75, "budget": budget}, "transforms": transforms, "reasons": reasons}}
    done = with_choice(resolved, facts)
    assert done["student"]["width"] == 0.75 and done["transforms"] == transforms and not plans(done)
    assert done["reasons"] == resolved["reasons"] | reasons
    assert check(done, FACTS) == [] and resolve(JobSpec.model_validate(done), FACTS) == done
    assert with_choice(resolved, {"stages": []}) == resolved
