"""Jobs of all tasks over HTTP: the findings of a dataset decide which tasks it suits."""

from typing import Any

import pytest

from tests.api.jobs.test_jobs import pointers, spec
from tests.api.service import INPUT, User

KINDS = {"multi_label": "multi_label", "regression": "target", "embedding": "class"}


@pytest.mark.parametrize(("task", "labels"), KINDS.items())
def test_a_job_that_suits_its_task_is_accepted(user: User, task: str, labels: str) -> None:
    dataset = user.dataset(found={"labels": labels})
    body = spec(user.teacher(), dataset=dataset, task=task)
    response = user.http.post("/jobs", json=body)
    assert response.status_code == 202
    assert response.json()["spec"]["task"] == task


@pytest.mark.parametrize(("task", "labels"), KINDS.items())
def test_a_spec_that_does_not_suit_its_task_is_a_422_with_pointers(user: User, task: str, labels: str) -> None:
    dataset = user.dataset(found={"labels": labels})
    body: dict[str, Any] = spec(user.teacher(), dataset=dataset, task=task, objectives=["hint", "cross_entropy", "kd"])
    for path in ("/jobs", "/jobs:validate"):
        assert pointers(user.http.post(path, json=body)) == ["/objectives/1", "/objectives/2"]
    other = user.dataset(found={"labels": "target" if labels != "target" else "class"})
    wrong = body | {"dataset": other, "objectives": ["hint"]}
    assert pointers(user.http.post("/jobs", json=wrong)) == ["/dataset"]


def test_a_dataset_is_created_with_the_kind_of_its_labels(user: User) -> None:
    made = user.http.post("/datasets", json={"options": {"labels": "target"}}).json()
    assert made["options"]["labels"] == "target"
    assert pointers(user.http.post("/datasets", json={"options": {"labels": "polygons"}})) == ["/options/labels"]


@pytest.mark.parametrize(
    ("procedure", "pointer"),
    [
        ("architecture_search", "/training/validation_fraction"),
        ({"name": "two_stage", "preset": "saputra", "guided": "relu3", "hint": "relu3"}, "/procedure/preset"),
    ],
)
def test_a_procedure_that_cannot_work_is_a_422_with_pointers(user: User, procedure: Any, pointer: str) -> None:
    body = spec(user.teacher(), dataset=user.dataset(), procedure=procedure)
    for path in ("/jobs", "/jobs:validate"):
        assert set(pointers(user.http.post(path, json=body))) == {pointer}


def test_a_greedy_route_without_held_out_images_is_a_422_with_pointers(user: User) -> None:
    student = {"network": "lenet5_half", "input": INPUT}
    body: dict[str, Any] = {
        "student": student,
        "dataset": user.dataset(),
        "procedure": {"name": "route", "choice": "greedy"},
    }
    for path in ("/jobs", "/jobs:validate"):
        assert pointers(user.http.post(path, json=body)) == ["/training/validation_fraction"]
    body["training"] = {"epochs": 4, "validation_fraction": 0.25}
    assert user.http.post("/jobs", json=body).status_code == 202
