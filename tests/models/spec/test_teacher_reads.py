"""Specs of jobs whose teacher reads another image of each sample than the student."""

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
    """A teacher that reads RGB, and a dataset of greyscale images with privileged images of `channels` channels."""
    other = channels and {"channels": channels, "height": 28, "width": 28}
    known_of = dataset_facts().findings or {}
    return Facts(TeacherFacts("lenet5", 10, teacher), DatasetFacts({**known_of, "privileged": other}))


def found(body: dict[str, Any], of: Facts | None = None) -> dict[str, str]:
    of = of or facts()
    return {problem.pointer: problem.message for problem in check(resolve(JobSpec.model_validate(body), of), of)}


@pytest.mark.parametrize("objective", ["kd", "crd", "hint", "privileged"])
@pytest.mark.parametrize("channels", [1, 3])
def test_teacher_and_student_have_separate_inputs(objective: str, channels: int) -> None:
    body = JOB | {"objectives": [objective]}
    assert resolve(JobSpec.model_validate(body), facts())["student"]["input"] == CONTRACT
    assert not found(body, facts(channels))


def test_the_students_input_is_not_taken_from_a_teacher_that_reads_other_images() -> None:
    body = JOB | {"student": {"network": "lenet5_half"}}
    assert resolve(JobSpec.model_validate(body), facts())["student"]["input"] is None
    assert found(body).keys() == {"/student/input"}


def test_the_privileged_field_needs_teacher_reads() -> None:
    body = JOB | {"objectives": ["privileged"], "source": "dataset", "student": {"network": "lenet5_half"}}
    words = "privileged needs the field 'privileged'; set source/teacher_reads to 'privileged', or remove privileged"
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
def test_problems_have_pointers(part: dict[str, Any], of: Facts, pointer: str) -> None:
    assert found(JOB | part, of).keys() == {pointer}


def test_augmentation_is_accepted_for_images_of_one_size() -> None:
    assert not found(JOB | {"source": READS | {"augmentation": "standard"}})


def test_a_dataset_is_not_checked_before_its_inspection() -> None:
    assert not found(JOB, Facts(TeacherFacts("lenet5", 10, COLOUR), DatasetFacts()))


def test_only_the_dataset_source_has_privileged_images() -> None:
    reading = {name for name, entry in known("sources").items() if "teacher_reads" in str(entry["parameters"])}
    assert reading == {"dataset"}
