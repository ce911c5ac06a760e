"""The OpenAPI document is complete, and the service keeps to it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.main import app
from api.scopes import SCOPES
from tests.api.service import Service

SCHEMA: dict[str, Any] = app.openapi()
OPERATIONS = [
    pytest.param(operation, path, id=f"{method} {path}")
    for path, operations in SCHEMA["paths"].items()
    for method, operation in operations.items()
]


@pytest.mark.parametrize(("operation", "path"), OPERATIONS)
def test_every_operation_is_described_with_its_errors(operation: dict[str, Any], path: str) -> None:
    assert operation["summary"] and operation["description"] and operation["operationId"] and operation["tags"]
    errors = {status: answer for status, answer in operation["responses"].items() if status[0] in "45"}
    for status, answer in errors.items():
        assert set(answer["content"]) == {"application/problem+json"}, status
        assert answer["content"]["application/problem+json"]["schema"]["$ref"].endswith("/ProblemBody")
    if path.startswith("/v1/"):
        assert {"401", "403", "422", "429", "500", "503"} <= set(errors)
        assert "404" in errors or "{" not in path


def test_operations_have_names_of_their_own_and_bodies_have_examples() -> None:
    operations = [operation for operations in SCHEMA["paths"].values() for operation in operations.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
            known = body["schema"].get("$ref", "").rpartition("/")[2]
            described = SCHEMA["components"]["schemas"].get(known, {})
            assert (
                media_type == "application/octet-stream"
                or body.get("examples")
                or body["schema"].get("examples")
                or (all("description" in one for one in described["properties"].values()))
            ), operation["operationId"]


LATER = ("unsupported_method", "positive_data_acceptance", "negative_data_rejection", "missing_required_header")
"""Checks that hold no rule of ours: a body may fit its schema and still ask for what cannot work."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("phases", "examples"),
    [("fuzzing", 3), pytest.param("examples,coverage", 5, marks=pytest.mark.slow, id="slow")],
)
def test_the_service_keeps_to_its_document(embedded: Service, tmp_path: Path, phases: str, examples: int) -> None:
    key, _ = embedded.new_key(scopes=list(SCOPES))
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{embedded.url}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--phases", phases, "--max-examples", str(examples), "--seed", "1",
        "--generation-database", "none", "--request-timeout", "30", "--no-color", "--exclude-checks", ",".join(LATER),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
