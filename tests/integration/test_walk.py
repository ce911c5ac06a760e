"""Upload a teacher, distil it with data and without, download the students: on Postgres, Redis and S3."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests import servers
from tests.integration.composed import Composed
from tests.integration.whole import TEACHER

STUDENT = {"network": "lenet5_half"}
WITH_DATA: dict[str, Any] = {
    "student": STUDENT,
    "objectives": [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}, {"name": "nst"}],
    "training": {"epochs": 20, "batch_size": 32, "optimizer": "adam", "learning_rate": 3e-3},
}
DAFL = {"name": "dafl", "generator_width": 8, "latent": 16, "generator_batch": 64, "pool_images": 1024}
WITHOUT_DATA: dict[str, Any] = {"student": STUDENT, "source": DAFL, "training": {"steps": 80, "batch_size": 64}}


@pytest.fixture
def production(tmp_path: Path, postgres: servers.Postgres) -> Iterator[Composed]:
    """The services of docker-compose.yml in production: Postgres, Redis, an S3 server, the API and two workers."""
    try:
        with Composed(tmp_path, postgres).running() as services:
            yield services
    except servers.Missing as missing:
        pytest.skip(str(missing))


def test_upload_distil_and_download_on_servers(production: Composed, inputs: Path, tmp_path: Path):
    with production.client() as client:
        teacher = client.teachers.send(inputs / "teacher.safetensors", **TEACHER)
        dataset = client.datasets.send(inputs / "images.npz")
        assert teacher["findings"]["parameters"] > 0
        with_data = client.jobs.submit(WITH_DATA | {"teacher": teacher["id"], "dataset": dataset["id"]})["id"]
        without = client.jobs.submit(WITHOUT_DATA | {"teacher": teacher["id"]})["id"]
        for job in (with_data, without):
            ended = client.jobs.wait(job, 150)
            assert ended["status"] == "succeeded", ended
            (tmp_path / job).mkdir()
            for artifact in client.artifacts.list(job):
                client.artifacts.download(job, artifact["name"], tmp_path / job)
        assert list(client.jobs.metrics(with_data))
        assert client.jobs.get(without)["resolved"]["source"]["name"] == "dafl"
    accuracy = onnx_accuracy(tmp_path / with_data / "student.onnx", inputs)
    assert accuracy > 0.9
    report = json.loads((tmp_path / with_data / "report.json").read_text())
    assert report["summary"]["accuracy"] == pytest.approx(accuracy)
    score = json.loads((tmp_path / without / "report.json").read_text())
    assert score["evaluation"] is None
    assert score["without_data"]["agreement_with_teacher"] > 0.5
    assert production.stop() == {"api": 0, "distill": 0, "inspect": 0}, production.log()
    assert not production.healthy("distill")


def onnx_accuracy(path: Path, inputs: Path) -> float:
    with np.load(inputs / "images.npz") as arrays:
        image, label = arrays["x_test"], arrays["y_test"]
    x = ((image[:, None].astype(np.float32) / 255) - 0.5) / 0.25
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"image": x})
    return float((logits.argmax(1) == label).mean())
