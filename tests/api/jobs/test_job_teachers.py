"""Teachers of a job: uploads, students of other jobs, ensembles, and networks that the job trains first."""

from typing import Any

import pytest

from models.records import Artifact, Dataset, Job
from tests.api.service import INPUT, User, pointers, problem

CARD = {
    "network": "lenet5_half", "options": {}, "classes": 10, "class_names": [], "input": INPUT, "added_by": [],
    "findings": {"differentiable": True, "batch_norm": False},
}  # fmt: skip


def spec(teacher: Any, **more: Any) -> dict[str, Any]:
    return {"teacher": teacher, "student": {"network": "lenet5_half"}} | more


def made(user: User, status: str = "succeeded", **values: Any) -> str:
    """A job, with its student's weights if it has succeeded."""
    student = {"network": "lenet5_half", "options": {}, "classes": 10, "input": INPUT}
    resolved = {"teacher": None, "student": student, "exports": ["safetensors"]} | values.pop("resolved", {})
    card = {"student": CARD} if status == "succeeded" else {}
    job = user.job(status, resolved=resolved, **(card | values))
    if status == "succeeded":
        user.blob(Artifact, job, "student.safetensors", b"weights")
    return job


def submitted(user: User, body: dict[str, Any]) -> dict[str, Any]:
    response = user.http.post("/jobs", json=body)
    assert response.status_code == 202, response.text
    return dict(response.json())


def refused(user: User, body: dict[str, Any]) -> dict[str, str]:
    """Messages by pointer; those of the dry run must be the same."""
    responses = [user.http.post(path, json=body) for path in ("/jobs", "/jobs:validate")]
    first, second = (
        {one["pointer"]: one["message"] for one in problem(response, 422)["errors"]} for response in responses
    )
    assert first == second
    return first


def test_several_teachers_are_resolved_to_an_ensemble(user: User) -> None:
    one, two = user.teacher(), user.teacher(network="lenet5_half")
    job = submitted(user, spec([one, two], objectives=[{"name": "kd", "temperature": 3}]))
    assert job["resolved"]["teacher"] == {
        "members": [one, two], "combine": "probabilities", "weights": None, "temperature": 3.0,
    }  # fmt: skip
    assert job["name"] == "lenet5_half from 2 teachers" and job["spec"]["teacher"] == [one, two]
    with user.service.rows() as session:
        assert session.get_one(Job, job["id"]).teacher_id is None
    for teacher in (one, two):
        assert job["id"] in problem(user.http.delete(f"/teachers/{teacher}"), 409)["detail"]


def test_an_invalid_teacher_of_an_ensemble_has_its_own_pointer(user: User, other: User) -> None:
    fine = user.teacher()
    assert list(refused(user, spec([fine, other.teacher()]))) == ["/teacher/1"]
    assert list(refused(user, spec({"members": [user.teacher("rejected"), fine]}))) == ["/teacher/members/0"]
    few = user.teacher(classes=7)
    assert refused(user, spec([fine, few])) == {"/teacher/1": "has 7 classes, but the first teacher has 10"}
    large = user.teacher(input=INPUT | {"height": 64, "width": 64})
    assert refused(user, spec({"members": [fine, large]})) == {
        "/teacher/members/1": "reads images of 1 x 64 x 64, but the first teacher reads 1 x 32 x 32"
    }
    assert submitted(user, spec([fine, user.teacher(input=INPUT | {"mean": [0.0], "std": [1.0]})]))


def test_a_job_waits_for_each_of_its_teachers(user: User) -> None:
    waiting, running = user.teacher("inspecting"), made(user, "running")
    job = submitted(user, spec([user.teacher(), waiting, running]))
    assert job["reason"].startswith(f"waits for the inspection of {waiting}; waits for the end of {running}")


def test_the_student_of_a_job_can_be_a_teacher(user: User) -> None:
    teacher = made(user)
    job = submitted(user, spec(teacher))
    assert job["reason"].startswith("its spec is being checked") and job["name"] == "lenet5_half from lenet5_half"
    assert (job["resolved"]["student"]["classes"], job["resolved"]["student"]["input"]) == (10, INPUT)
    with user.service.rows() as session:
        assert session.get_one(Job, job["id"]).teacher_id is None


@pytest.mark.parametrize(
    ("status", "values", "message"),
    [
        ("failed", {}, "has failed: it has no student"),
        ("cancelled", {}, "was cancelled: it has no student"),
        ("succeeded", {"student": None}, "is from a version that does not describe its student"),
        ("succeeded", {"student": CARD | {"added_by": ["similarity_head"]}}, "layers added by similarity_head cannot be loaded"),
        ("running", {"resolved": {"exports": ["onnx"]}}, "does not export its student as safetensors"),
    ],
)  # fmt: skip
def test_jobs_without_a_student_that_can_be_loaded_are_refused(
    user: User, status: str, values: dict[str, Any], message: str
) -> None:
    teacher = made(user, status, **values)
    problems = refused(user, spec(teacher))
    assert (
        list(problems) == ["/teacher"] and problems["/teacher"].startswith(teacher) and message in problems["/teacher"]
    )


def test_a_student_without_weights_or_of_another_key_is_refused(user: User, other: User) -> None:
    gone = user.job("succeeded", student=CARD, resolved={"student": {}, "exports": ["safetensors"]})
    assert "have been removed" in refused(user, spec(gone))["/teacher"]
    for job in (made(other), "job_" + "0" * 32):
        assert refused(user, spec(job)) == {"/teacher": f"the job {job} does not exist"}
    deleted = made(user)
    assert user.http.delete(f"/jobs/{deleted}").status_code == 204
    assert refused(user, spec(deleted)) == {"/teacher": f"the job {deleted} does not exist"}


def test_a_job_cannot_be_deleted_while_an_unfinished_job_uses_its_student(user: User) -> None:
    teacher = made(user)
    student_job = submitted(user, spec([teacher, user.teacher()]))["id"]
    assert student_job in problem(user.http.delete(f"/jobs/{teacher}"), 409)["detail"]
    user.http.post(f"/jobs/{student_job}/cancel")
    assert user.http.delete(f"/jobs/{teacher}").status_code == 204


def test_the_classes_of_a_student_must_match_the_first_teacher(user: User) -> None:
    teacher = made(user, student=CARD | {"classes": 7})
    assert "has 7 classes" in refused(user, spec([user.teacher(), teacher]))["/teacher/1"]


def test_a_transfer_can_compare_features_but_not_logits(user: User) -> None:
    findings = {"classes": 3, "image": {"channels": 1, "height": 32, "width": 32}, "splits": {"train": 100, "test": 9}}
    dataset = user.dataset("waiting")
    with user.service.rows() as session:
        row = session.get_one(Dataset, dataset)
        row.status, row.findings = "ready", findings
    body = spec(user.teacher(), dataset=dataset)
    problems = refused(user, body)
    assert list(problems) == ["/objectives/1"]
    assert problems["/objectives/1"] == "kd compares logits, but the teacher has 10 classes and the student 3"
    job = submitted(user, body | {"objectives": ["cross_entropy", "fsp"]})
    assert job["resolved"]["student"]["classes"] == 3


def test_a_job_can_train_its_teacher_first(user: User) -> None:
    teacher = {"network": "lenet5", "training": {"epochs": 3}}
    student = {"network": "lenet5_half", "input": INPUT}
    body = {"teacher": teacher, "student": student, "dataset": user.dataset(), "training": {"batch_size": 32}}
    resolved = submitted(user, body)["resolved"]["teacher"]
    assert (resolved["training"]["epochs"], resolved["training"]["batch_size"]) == (3, 32)
    assert refused(user, body | {"dataset": None}).keys() >= {"/teacher"}
    assert list(refused(user, body | {"student": {"network": "lenet5_half"}})) == ["/student/input"]


@pytest.mark.parametrize(
    ("teacher", "pointer"),
    [
        (["tch_1"], "/teacher"),
        (["tch_1", "tch_1"], "/teacher/1"),
        (["tch_1", "fil_1"], "/teacher/1"),
        ({"members": ["tch_1", "tch_2"], "weights": [1]}, "/teacher/weights"),
        ({"members": ["tch_1", "tch_2"], "combine": "logits", "temperature": 2}, "/teacher/temperature"),
        ({"network": "lenet55"}, "/teacher/network"),
        ({"network": "lenet5", "training": {"seed": 1}}, "/teacher/training/seed"),
    ],
)
def test_an_invalid_teacher_is_a_422_with_its_pointer(user: User, teacher: Any, pointer: str) -> None:
    assert pointers(user.http.post("/jobs", json=spec(teacher))) == [pointer]
