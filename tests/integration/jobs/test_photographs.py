"""Photographs through the whole service: sent in ranges, and by reference; two jobs on one copy."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from distillery_client import uploads
from tests.integration.whole import TEACHER, Whole
from tests.worker.distillation.data.photos import photographs, zipped

SIZES = ((300, 280), (70, 90))
SPEC: dict[str, Any] = {
    "student": {"network": "lenet5_half", "initial_weights": "random"},
    "source": {"name": "dataset", "augmentation": "consistent"},
    "objectives": [{"name": "kd", "weight": 1.0}],
    "training": {"steps": 3, "batch_size": 8},
    "exports": ["safetensors"],
}


@pytest.mark.slow
def test_two_jobs_read_photographs_from_one_copy(tmp_path: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = photographs(48, SIZES, classes=4)
    upload = zipped(tmp_path / "photographs.zip", files)
    monkeypatch.setattr(uploads, "RANGE_BYTES", upload.stat().st_size // 6)
    shared = tmp_path / "shared"
    shutil.unpack_archive(upload, shared)
    data = tmp_path / "data"
    with Whole(data, sandbox="preferred", dataset_sources=shared.as_uri()) as whole, whole.client() as client:
        teacher = client.teachers.send(inputs / "teacher.safetensors", **TEACHER)["id"]
        options = {"form": "jpeg", "test_fraction": 0.25}
        sent = client.datasets.send(upload, options=options, timeout_seconds=240)
        created = client.datasets.create(name="shared", source=shared.as_uri(), options=options)
        referred = client.datasets.wait(created["id"], 240)
        for record in (sent, referred):
            assert record["findings"]["stored"]["form"] == "jpeg"
            assert record["findings"]["splits"] == {"train": 36, "test": 12}
        spec = SPEC | {"teacher": teacher, "dataset": sent["id"]}
        for _ in range(2):
            ended = client.jobs.wait(client.jobs.submit(spec)["id"], 240)
            assert ended["status"] == "succeeded", ended
        cached = [path.name for path in data.glob("cache/blobs/*/*")]
        assert len(cached) == 2 and "dataset.safetensors" in cached
        assert client.datasets.delete(sent["id"]) is None
        left = [path for path in data.glob(f"blobs/blobs/{sent['id']}/*") if path.is_file()]
        assert left == []
