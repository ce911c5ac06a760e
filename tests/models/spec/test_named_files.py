"""Files that methods name: their pointers, and checks of them."""

from typing import Any

import pytest

from models.records import File
from models.spec.facts import Facts, TeacherFacts
from models.spec.job_spec import JobSpec, check, resolve
from models.spec.named_files import NamedFile, named_files
from tests.models.spec.specs import CONTRACT, DATASET, FILE, TEACHER

SMALLEST = {"teacher": TEACHER, "student": {"network": "lenet5_half"}}
METADATA = SMALLEST | {"source": {"name": "metadata", "statistics": FILE}}
TAPS = {"conv1": [6, 28, 28], "fc1": [84]}
FINDINGS = {"classes": 10, "rank": 8, "taps": {"conv1": 6 * 28 * 28, "fc2:in": 84}}


def found(body: dict[str, Any], kind: str = "statistics", **findings: Any) -> dict[str, str]:
    teacher = TeacherFacts("lenet5", 10, CONTRACT, findings={"differentiable": True, "batch_norm": False, "taps": TAPS})
    spec = JobSpec.model_validate(body)
    named = named_files(resolve(spec, Facts(teacher)))
    files = {one.pointer: File(id=one.id, kind=kind, findings=FINDINGS | findings) for one in named}
    facts = Facts(teacher, files=files)
    return {problem.pointer: problem.message for problem in check(resolve(spec, facts), facts)}


def test_files_are_found_in_specs_as_sent_and_resolved() -> None:
    expected = [NamedFile("/source/statistics", FILE, "statistics")]
    assert named_files(METADATA) == expected
    assert named_files(resolve(JobSpec.model_validate(METADATA), Facts())) == expected
    assert named_files(SMALLEST) == named_files(SMALLEST | {"source": "dafl", "objectives": ["kd"]}) == []
    nayer = SMALLEST | {"source": {"name": "nayer", "embeddings": FILE}}
    assert named_files(nayer) == [NamedFile("/source/embeddings", FILE, "embeddings")]


def test_each_file_of_a_list_has_its_own_pointer() -> None:
    route = SMALLEST | {"dataset": DATASET, "procedure": {"name": "route", "checkpoints": [FILE, FILE]}}
    expected = [NamedFile(f"/procedure/checkpoints/{index}", FILE, "weights") for index in range(2)]
    assert named_files(route) == expected
    assert named_files(resolve(JobSpec.model_validate(route), Facts())) == expected
    assert set(found(route, classes=None, taps={})) == {one.pointer for one in expected}  # they are statistics
    assert found(route, kind="weights", taps={}) == {}


def test_matching_files_have_no_problems() -> None:
    assert found(METADATA) == {}


def test_a_source_may_require_a_file() -> None:
    for source in ("metadata", {"name": "metadata", "statistics": None}):
        problems = found(SMALLEST | {"source": source})
        assert problems == {"/source/statistics": "is required: set the id of a file of the kind `statistics`"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"kind": "weights"}, "must be a file of the kind `statistics`, not `weights`"),
        ({"classes": 7}, "is for 7 classes, but the teacher has 10"),
        ({"taps": {"conv9": 5, "fc2:in": 84}}, "but the teacher has no such tap"),
        ({"taps": {"conv1": 5, "fc2:in": 84}}, "but the teacher has 4704 values there"),
    ],
)
def test_files_that_do_not_match_are_refused_with_their_pointer(more: dict[str, Any], words: str) -> None:
    problems = found(METADATA, **more)
    assert list(problems) == ["/source/statistics"] and words in problems["/source/statistics"]
