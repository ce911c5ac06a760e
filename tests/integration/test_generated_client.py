"""A client that is generated from the OpenAPI document works, from the upload to the download."""

import hashlib
import importlib
import io
import json
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.main import app
from tests.integration.test_kills import SPEC
from tests.integration.whole import TEACHER, Whole

CONFIG = "content_type_overrides: {application/zip: application/octet-stream}\npost_hooks: []\n"
"""The generator knows no zip files. Its hooks only format the code."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a package `generated_client`."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(app.openapi()))
    (folder / "config.yaml").write_text(CONFIG)
    command = [
        str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--path", "openapi.json",
        "--config", "config.yaml", "--meta", "none", "--output-path", "generated_client", "--fail-on-warning",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_document_is_valid() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(app.openapi()).iter_errors()] == []


def test_every_operation_is_generated(generated: Path) -> None:
    operations = [one for path in app.openapi()["paths"].values() for one in path.values()]
    found = {path.stem for path in (generated / "generated_client" / "api").rglob("*.py")}
    assert {operation["operationId"] for operation in operations} <= found


@pytest.mark.slow
def test_it_uploads_submits_and_downloads(
    generated: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(generated)

    def call(operation: str, *identifiers: str, **options: Any) -> Any:
        module = importlib.import_module(f"generated_client.api.{operation}")
        return module.sync(*identifiers, client=client, **options)

    package = {name: importlib.import_module(f"generated_client.{name}") for name in ("client", "models", "types")}
    models, file = package["models"], package["types"].File
    with Whole(tmp_path / "data") as whole, ExitStack() as stack:
        key = (whole.data / "key").read_text().strip()
        options = {"base_url": whole.url, "token": key, "timeout": 90.0, "httpx_args": {"trust_env": False}}
        client = stack.enter_context(package["client"].AuthenticatedClient(**options))
        teacher = call("teachers.create_teacher", body=models.TeacherSpec.from_dict(TEACHER))
        dataset = call("datasets.create_dataset", body=models.DatasetSpec.from_dict({"name": "images"}))
        for kind, record, name in (("teacher", teacher, "teacher.safetensors"), ("dataset", dataset, "images.npz")):
            with (inputs / name).open("rb") as payload:
                sent = call(f"{kind}s.upload_{kind}", record.id, body=file(payload=payload), prefer="wait=60")
            assert sent.status == "ready", sent
        spec = SPEC | {"teacher": teacher.id, "dataset": dataset.id, "training": {"steps": 20, "batch_size": 32}}
        job = call("jobs.submit_job", body=models.JobSpec.from_dict(spec))
        while job.status not in ("succeeded", "failed"):
            job = call("jobs.get_job", job.id, prefer="wait=30")
        assert job.status == "succeeded", job
        artifacts = call("jobs.list_artifacts", job.id).data
        for one in artifacts:
            data = call("jobs.download_artifact", job.id, one.name).payload.read()
            assert hashlib.sha256(data).hexdigest() == one.sha256
        with zipfile.ZipFile(io.BytesIO(call("jobs.download_artifacts", job.id).payload.read())) as archive:
            assert {each.filename for each in archive.infolist()} == {one.name for one in artifacts}
        missing = call("jobs.get_job", "job_none")
        assert (type(missing).__name__, missing.status) == ("ProblemBody", 404)
