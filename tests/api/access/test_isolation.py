"""A key sees only its own records: those of other keys are 404."""

import re
from typing import Any

import pytest

from api.main import app
from models.records import Artifact, Experiment, Preview
from tests.api.service import User, problem

SCHEMA = app.openapi()
OPERATIONS = sorted(
    (method.upper(), path)
    for path, operations in SCHEMA["paths"].items()
    for method in operations
    if "{identifier}" in path
)
BODIES: dict[str, dict[str, Any]] = {"PATCH": {"json": {"name": "stolen"}}, "PUT": {"content": b"stolen"}}


@pytest.fixture
def owned(other: User) -> dict[str, str]:
    """One record of each kind that belongs to another key."""
    job = other.job("succeeded")
    other.blob(Artifact, job, "student.onnx", b"secret")
    other.blob(Preview, job, "student.onnx", b"secret", step=1)
    other.events(job, 2)
    other.metrics(job, "loss", [1.0])
    weights = other.http.post("/files", json={"kind": "weights"}).json()["id"]
    experiment = other._add(Experiment, "exp", name="secret", spec={})
    return {
        "jobs": job, "experiments": experiment, "teachers": other.teacher("waiting"), "datasets": other.dataset("waiting"), "files": weights,
    }  # fmt: skip


NOT_OWNED = {"keys": "a key with the scope admin sees all keys"}
"""Resources that belong to no key, and why; a key without the scope admin gets a 403 there."""


def test_every_operation_on_another_keys_record_is_a_404(user: User, other: User, owned: dict[str, str]) -> None:
    assert len(OPERATIONS) >= 25
    for method, template in OPERATIONS:
        kind = re.match(r"/v1/(\w+)", template)[1]  # type: ignore[index]
        if kind in NOT_OWNED:
            problem(user.http.request(method, user.service.url + template.format(identifier=other.key_id)), 403)
            continue
        path = template.replace("{identifier}", owned[kind]).replace("{name}", "student.onnx")
        path = path.replace("{number}", "1")
        response = user.http.request(method, user.service.url + path, **BODIES.get(method, {}))
        assert response.status_code == 404, f"{method} {path}: {response.text}"
        if method != "HEAD":
            problem(response, 404, "not-found")
            assert "secret" not in response.text
    for kind, identifier in owned.items():
        assert user.http.get(f"/{kind}").json()["data"] == []
        assert [one["id"] for one in other.http.get(f"/{kind}").json()["data"]] == [identifier]
    assert other.http.get(f"/jobs/{owned['jobs']}/artifacts/student.onnx").content == b"secret"


def test_every_operation_except_health_needs_a_key(user: User) -> None:
    for path, operations in SCHEMA["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/v1/"):
                assert operation["security"], path
                address = user.service.url + path.replace("{identifier}", "x").replace("{name}", "x")
                response = user.http.request(method.upper(), address, headers={"Authorization": "Bearer x"})
                assert response.status_code == 401, f"{method} {path}"
            else:
                assert "security" not in operation, path
