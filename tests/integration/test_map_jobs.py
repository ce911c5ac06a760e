"""Segmentation and depth through the whole service, as a new user would run them."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.whole import Whole

SIZE, COUNT = 32, 24
INPUT = {"channels": 3, "height": SIZE, "width": SIZE, "mean": [0.5] * 3, "std": [0.25] * 3}
TRAINING = {"steps": 12, "batch_size": 8}


def write_archive(path: Path, depth: bool) -> None:
    """Images of a bright rectangle, with masks or depth of 16 bits, in `train` and `val`."""
    draw = np.random.default_rng(3)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(COUNT):
            map_ = np.zeros((SIZE, SIZE), dtype=np.uint16)
            top, left = draw.integers(0, 16, 2)
            map_[top : top + 12, left : left + 12] = 1
            image = (map_[..., None] * 150 + draw.integers(0, 80, (SIZE, SIZE, 3))).astype(np.uint8)
            split = "val" if number % 4 == 0 else "train"
            truth = (map_ + 1) * 1000 if depth else map_.astype(np.uint8)
            for kind, pixels in (("images", image), ("depth" if depth else "masks", truth)):
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                archive.writestr(f"{split}/{kind}/{number}.png", stream.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segmentation", "depth"])
def test_a_job_with_a_teacher_of_another_job(task: str, tmp_path: Path):
    depth = task == "depth"
    write_archive(tmp_path / "data.zip", depth)
    options: dict[str, Any] = {"labels": "depth", "depth_scale": 1000.0} if depth else {"labels": "mask"}
    network = "fpn_depth" if depth else "fpn"
    with Whole(tmp_path / "service", checkpoint_seconds="30") as whole, whole.client() as client:
        dataset = client.datasets.send(tmp_path / "data.zip", options=options)
        assert dataset["findings"]["splits"] == {"train": COUNT * 3 // 4, "test": COUNT // 4}
        assert dataset["findings"]["classes"] == (1 if depth else 2)
        usual = {"task": task, "dataset": dataset["id"], "training": TRAINING}
        alone = {"student": {"network": network, "options": {"width": 8}, "input": INPUT}, "exports": ["safetensors"]}
        teacher = client.jobs.submit(usual | alone)["id"]
        taught = {"student": {"network": network, "options": {"width": 4}}, "teacher": teacher, "contract": "trust"}
        job = client.jobs.submit(usual | taught | {"training": {**TRAINING, "validation_fraction": 0.2}})["id"]
        ended = client.jobs.wait(job, 280)
        assert ended["status"] == "succeeded", ended
        resolved = client.jobs.get(job)["resolved"]
        assert resolved["source"]["augmentation"] == "scale_crop_flip"
        assert [one["name"] for one in resolved["objectives"]] == (
            ["depth_error"] * 2 if depth else ["pixel_cross_entropy", "pixel_wise"]
        )
        names = {each["name"] for each in client.artifacts.list(job)}
        assert {"student.onnx", "student.py", "report.json"} <= names
        client.artifacts.download(job, "report.json", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["evaluation"]["main_metric"] in report["evaluation"]["student"]
    assert {name.split("-")[0] for name in report["previews"]} >= {"examples", "worst"}
