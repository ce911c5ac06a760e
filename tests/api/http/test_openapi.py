"""The OpenAPI document is complete, and the service conforms to it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from api.access.scopes import SCOPES
from api.main import app
from tests.api.service import Service

SCHEMA: dict[str, Any] = app.openapi()
OPERATIONS = [
    pytest.param(operation, path, id=f"{method} {path}")
    for path, operations in SCHEMA["paths"].items()
    for method, operation in operations.items()
]


def examples_of(body: dict[str, Any]) -> list[Any]:
    """Every example of a body: in the media type or in its schema."""
    named = [one["value"] for one in body["examples"].values()] if isinstance(body.get("examples"), dict) else []
    return [*([body["example"]] if "example" in body else []), *named, *body.get("schema", {}).get("examples", [])]


def require_examples(body: dict[str, Any], place: str) -> None:
    """Require that a JSON body has examples and that they match its schema."""
    found = examples_of(body)
    assert found, f"{place} has no example: give its model one, or put one into api/http/examples.py"
    schema = {"allOf": [body["schema"]], "components": SCHEMA["components"]}
    for example in found:
        errors = [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(example)]
        assert errors == [], f"{place}: {errors}"


@pytest.mark.parametrize(("operation", "path"), OPERATIONS)
def test_every_operation_has_a_description_and_its_errors(operation: dict[str, Any], path: str) -> None:
    assert operation["summary"] and operation["description"]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation["operationId"])
    assert set(operation["tags"]) <= {tag["name"] for tag in SCHEMA["tags"]}
    errors = {status: response for status, response in operation["responses"].items() if status[0] in "45"}
    for status, response in errors.items():
        assert set(response["content"]) == {"application/problem+json"}, status
        body = response["content"]["application/problem+json"]
        assert body["schema"]["$ref"].endswith("/ProblemBody")
        assert body["example"]["status"] == int(status)
        require_examples(body, f"{path} {status}")
    if path.startswith("/v1/"):
        assert {"401", "422", "500", "503"} <= set(errors)
        assert operation["security"]
        assert "404" in errors or "{" not in path


@pytest.mark.parametrize(("operation", "path"), OPERATIONS)
def test_every_body_has_an_example_that_matches_its_schema(operation: dict[str, Any], path: str) -> None:
    for status, response in operation["responses"].items():
        assert response["description"]
        if (body := response.get("content", {}).get("application/json")) is not None:
            require_examples(body, f"{path} {status}")
    if (body := operation.get("requestBody", {}).get("content", {}).get("application/json")) is not None:
        require_examples(body, f"the request of {path}")


def test_operation_ids_are_unique_and_the_event_stream_is_documented() -> None:
    operations = [operation for operations in SCHEMA["paths"].values() for operation in operations.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    events = SCHEMA["paths"]["/v1/jobs/{identifier}/events"]["get"]["responses"]
    assert "retry:" in events["200"]["content"]["text/event-stream"]["example"] and "204" in events


EXCLUDED_CHECKS = (
    "unsupported_method",
    "positive_data_acceptance",
    "negative_data_rejection",
    "missing_required_header",
)
"""Checks that do not apply: a body can match its schema and still describe a job that cannot work."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("phases", "examples"),
    [("fuzzing", 3), pytest.param("examples,coverage", 5, marks=pytest.mark.slow, id="slow")],
)
def test_the_service_conforms_to_its_document(embedded: Service, tmp_path: Path, phases: str, examples: int) -> None:
    key, _ = embedded.new_key(scopes=list(SCOPES))
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{embedded.url}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--phases", phases, "--max-examples", str(examples), "--seed", "1",
        "--generation-database", "none", "--request-timeout", "30", "--no-color", "--exclude-checks", ",".join(EXCLUDED_CHECKS),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


def test_the_form_of_cursors_and_labels_is_in_the_document() -> None:
    parameters = {one["name"]: one["schema"] for one in SCHEMA["paths"]["/v1/jobs"]["get"]["parameters"]}
    assert re.search(parameters["cursor"]["pattern"], "am9iX3") and not re.search(parameters["cursor"]["pattern"], "!")
    [labels] = [one for one in parameters["label"]["anyOf"] if one.get("type") == "array"]
    assert re.search(labels["items"]["pattern"], "team:vision") and not re.search(labels["items"]["pattern"], "team")


@pytest.mark.parametrize(("operation", "path"), OPERATIONS)
def test_what_reads_a_body_can_be_too_slow_and_what_writes_can_find_a_full_disk(
    operation: dict[str, Any], path: str
) -> None:
    method = next(name for name, one in SCHEMA["paths"][path].items() if one is operation)
    assert ("408" in operation["responses"]) == ("requestBody" in operation)
    assert ("507" in operation["responses"]) == (method not in ("get", "head"))
