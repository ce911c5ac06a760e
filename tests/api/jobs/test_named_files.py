"""Jobs whose methods refer to uploaded files."""

from typing import Any

from models.records import File
from tests.api.service import User, pointers, problem

FINDINGS = {"kind": "statistics", "classes": 10, "rank": 8, "taps": {"fc2:in": 84}, "bytes": 1}


def statistics(user: User, status: str = "ready", **values: Any) -> str:
    known = {"findings": FINDINGS if status == "ready" else None, "kind": "statistics", "options": {}} | values
    return user._add(File, "fil", status=status, name="statistics", **known)


def spec(user: User, file: str) -> dict[str, Any]:
    source = {"name": "metadata", "statistics": file}
    return {"teacher": user.teacher(), "student": {"network": "lenet5_half"}, "source": source}


def test_a_file_of_a_queued_job_cannot_be_deleted(user: User) -> None:
    file = statistics(user)
    response = user.http.post("/jobs", json=spec(user, file))
    assert response.status_code == 202, response.text
    job = response.json()
    assert job["resolved"]["source"]["statistics"] == file
    assert job["reason"].startswith("its spec is being checked")
    assert job["id"] in problem(user.http.delete(f"/files/{file}"), 409, "conflict")["detail"]


def test_a_job_waits_for_its_file(user: User) -> None:
    file = statistics(user, "inspecting")
    job = user.http.post("/jobs", json=spec(user, file)).json()
    assert file in job["reason"] and "inspection" in job["reason"]


def test_a_file_that_does_not_exist_or_has_the_wrong_kind_is_a_422_with_its_pointer(user: User, service: Any) -> None:
    with service.user() as other_user:
        theirs = statistics(other_user)
    rejected, other = statistics(user, "rejected"), statistics(user, kind="weights")
    for file in ("fil_" + "0" * 32, theirs, rejected, other):
        assert pointers(user.http.post("/jobs", json=spec(user, file))) == ["/source/statistics"], file
    assert pointers(user.http.post("/jobs", json=spec(user, "tch_1"))) == ["/source/statistics"]
