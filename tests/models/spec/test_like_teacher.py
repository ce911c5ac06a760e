"""Students that are like their teacher, in requests."""

import pytest
from pydantic import ValidationError

from models.spec.facts import Facts, TeacherFacts
from models.spec.job_spec import JobSpec, check, problems_of, resolve

INPUT = {"channels": 1, "height": 32, "width": 32, "mean": [0.5], "std": [0.5]}
BODY = {"teacher": "tch_" + "0" * 32, "student": {"like": "teacher"}}
LENET = TeacherFacts("lenet5", 10, INPUT)


def test_the_structure_is_left_to_the_engine_and_the_width_has_a_default():
    full = resolve(JobSpec.model_validate(BODY), Facts(LENET))
    assert full["student"] | {"network": None, "options": {}, "like": "teacher", "width": 0.5} == full["student"]
    assert full["name"] == "0.5 of the teacher from lenet5"
    assert resolve(JobSpec.model_validate(full), Facts(LENET)) == full
    assert check(full, Facts(LENET)) == []


@pytest.mark.parametrize(
    ("student", "pointer", "words"),
    [
        ({}, "/student/network", "is required, or `like` the teacher"),
        ({"network": "lenet5", "like": "teacher"}, "/student/network", "cannot be set if `like` is"),
        ({"network": "lenet5", "width": 0.5}, "/student/width", "is for students that are `like` the teacher"),
        ({"like": "teacher", "options": {"width": 3}}, "/student/options", "must be empty"),
        ({"like": "teacher", "program": "fil_0"}, "/student/program", "is only for the network"),
        ({"like": "teacher", "width": 0}, "/student/width", "must be greater than 0"),
        ({"like": "teacher", "width": 1.5}, "/student/width", "must be at most 1"),
        ({"like": "student"}, "/student/like", "must be"),
    ],
)
def test_what_makes_no_sense_is_refused(student, pointer, words):
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(BODY | {"student": student})
    found = {problem.pointer: problem.message for problem in problems_of(caught.value)}
    assert words in found[pointer]


@pytest.mark.parametrize(("teacher", "why"), [(None, "none"), ([BODY["teacher"], "tch_" + "1" * 32], "several")])
def test_it_needs_one_teacher(teacher, why):
    facts = Facts(LENET, others=(LENET,)) if teacher else Facts()
    full = resolve(JobSpec.model_validate(BODY | {"teacher": teacher}), facts)
    found = {problem.pointer: problem.message for problem in check(full, facts)}
    assert found["/student/like"] == f"needs one teacher, and the job has {why}; set `network` instead"
