"""Jobs whose methods name uploaded files."""

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


def test_a_job_names_a_file_and_keeps_it_from_deletion(user: User) -> None:
    file = statistics(user)
    answer = user.http.post("/jobs", json=spec(user, file))
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert job["resolved"]["source"]["statistics"] == file
    assert job["reason"].startswith("its spec is being checked")
    assert job["id"] in problem(user.http.delete(f"/files/{file}"), 409, "conflict")["detail"]


def test_a_job_waits_for_its_file(user: User) -> None:
    file = statistics(user, "inspecting")
    job = user.http.post("/jobs", json=spec(user, file)).json()
    assert file in job["reason"] and "inspection" in job["reason"]


def test_a_file_that_is_not_there_or_not_of_the_kind_is_refused_at_its_place(user: User, service: Any) -> None:
    with service.user() as stranger:
        theirs = statistics(stranger)
    rejected, other = statistics(user, "rejected"), statistics(user, kind="weights")
    for file in ("fil_" + "0" * 32, theirs, rejected, other):
        assert pointers(user.http.post("/jobs", json=spec(user, file))) == ["/source/statistics"], file
    assert pointers(user.http.post("/jobs", json=spec(user, "tch_1"))) == ["/source/statistics"]
