"""The OpenAPI document is complete, and the service keeps to it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.main import app
from tests.api.service import Service, running

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
        assert {"401", "422", "500", "503"} <= set(errors)
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


def test_the_service_keeps_to_its_document(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("fuzzed"), queued_jobs=100_000) as service:
        key, _ = service.new_key()
        done = _fuzz(service, key, tmp_path)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


def _fuzz(service: Service, key: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--max-examples", "6", "--seed", "1", "--workers", "2",
        "--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--no-color",
        "--exclude-checks", "unsupported_method,positive_data_acceptance,negative_data_rejection,missing_required_header",
    ]  # fmt: skip
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
