"""Specs of jobs whose teacher reads another picture of each sample than the student."""

from typing import Any

import pytest

from models.spec.catalogue import known
from models.spec.job_spec import DatasetFacts, Facts, JobSpec, TeacherFacts, check, resolve
from tests.models.spec.specs import CONTRACT, DATASET, TEACHER, dataset_facts

COLOUR = CONTRACT | {"channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}
READS = {"name": "dataset", "teacher_reads": "privileged"}
JOB = {
    "teacher": TEACHER,
    "student": {"network": "lenet5_half", "input": CONTRACT},
    "dataset": DATASET,
    "source": READS,
}


def facts(channels: int | None = 3, teacher: dict[str, Any] = COLOUR) -> Facts:
    """Of a teacher that reads colour, and a dataset of grey images beside privileged ones of so many channels."""
    other = channels and {"channels": channels, "height": 28, "width": 28}
    known_of = dataset_facts().findings or {}
    return Facts(TeacherFacts("lenet5", 10, teacher), DatasetFacts({**known_of, "privileged": other}))


def found(body: dict[str, Any], of: Facts | None = None) -> dict[str, str]:
    of = of or facts()
    return {problem.pointer: problem.message for problem in check(resolve(JobSpec.model_validate(body), of), of)}


@pytest.mark.parametrize("objective", ["kd", "crd", "hint", "privileged"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_network_has_an_input_of_its_own(objective: str, channels: int) -> None:
    body = JOB | {"objectives": [objective]}
    assert resolve(JobSpec.model_validate(body), facts())["student"]["input"] == CONTRACT
    assert not found(body, facts(channels))


def test_the_students_input_is_not_taken_from_a_teacher_that_reads_other_images() -> None:
    body = JOB | {"student": {"network": "lenet5_half"}}
    assert resolve(JobSpec.model_validate(body), facts())["student"]["input"] is None
    assert found(body).keys() == {"/student/input"}


def test_a_field_is_there_only_where_the_teacher_reads_it() -> None:
    body = JOB | {"objectives": ["privileged"], "source": "dataset", "student": {"network": "lenet5_half"}}
    words = "privileged needs the field 'privileged'; set source/teacher_reads to 'privileged', or leave privileged out"
    assert found(body, facts(teacher=CONTRACT)) == {"/objectives/0": words}


@pytest.mark.parametrize(
    ("part", "of", "pointer"),
    [
        ({}, facts(None), "/dataset"),
        ({}, facts(4), "/dataset"),
        ({"objectives": ["cross_entropy", "attention_gradient"]}, facts(), "/objectives/1"),
        ({"objectives": ["multi_level"]}, facts(), "/objectives/0"),
        ({"source": READS | {"augmentation": "shift"}}, facts(teacher=COLOUR | {"height": 64}), "/source/augmentation"),
        ({"teacher": None, "objectives": ["cross_entropy"]}, facts(), "/source/teacher_reads"),
    ],
)
def test_what_cannot_work_is_said_with_its_place(part: dict[str, Any], of: Facts, pointer: str) -> None:
    assert found(JOB | part, of).keys() == {pointer}


def test_views_of_one_size_are_moved_alike() -> None:
    assert not found(JOB | {"source": READS | {"augmentation": "standard"}})


def test_nothing_is_said_of_a_dataset_that_is_not_yet_inspected() -> None:
    assert not found(JOB, Facts(TeacherFacts("lenet5", 10, COLOUR), DatasetFacts()))


def test_only_a_dataset_has_second_pictures() -> None:
    reading = {name for name, entry in known("sources").items() if "teacher_reads" in str(entry["parameters"])}
    assert reading == {"dataset"}
