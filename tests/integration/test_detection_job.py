"""Detection through the whole service, as a new user would run it."""

import json
from pathlib import Path

import pytest

from tests.integration.whole import Whole

CELLS = Path(__file__).parents[1] / "worker/distillation/data/blood_cells"
INPUT = {"channels": 3, "height": 64, "width": 80, "mean": [0.66, 0.64, 0.68], "std": [0.13, 0.14, 0.07]}
SMALL = {"anchors": [6, 12, 24], "proposals": 60, "regions": 32}
TRAINING = {"steps": 6, "batch_size": 4, "optimizer": "sgd", "learning_rate": 0.01, "gradient_clip": 10.0}


@pytest.mark.slow
def test_a_detector_is_distilled_from_that_of_another_job(tmp_path: Path):
    with Whole(tmp_path / "service", checkpoint_seconds="30") as whole, whole.client() as client:
        dataset = client.datasets.send(CELLS / "coco.zip", options={"labels": "boxes"})
        assert dataset["findings"]["splits"] == {"train": 12, "test": 6}
        assert dataset["findings"]["boxes"]["class_ids"] == {"RBC": 1, "WBC": 2, "Platelets": 3}
        usual = {"task": "detection", "dataset": dataset["id"], "training": TRAINING}
        network = {"network": "tiny_faster_rcnn", "options": SMALL | {"width": 12, "features": 24, "hidden": 32}}
        teacher = client.jobs.submit(usual | {"student": network | {"input": INPUT}, "exports": ["safetensors"]})["id"]
        student = {"network": "tiny_faster_rcnn", "options": SMALL}
        job = client.jobs.submit(usual | {"student": student, "teacher": teacher})["id"]
        ended = client.jobs.wait(job, 290)
        assert ended["status"] == "succeeded", ended
        resolved = client.jobs.get(job)["resolved"]
        assert resolved["source"]["augmentation"] == "scale_crop_flip"
        assert [one["name"] for one in resolved["objectives"]] == [
            "detection_loss", "soft_detection", "bounded_boxes", "hint", "roi_mimic",
        ]  # fmt: skip
        assert {"student.onnx", "report.json"} <= {each["name"] for each in client.artifacts.list(job)}
        client.artifacts.download(job, "report.json", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["evaluation"]["main_metric"] in report["evaluation"]["student"]
    assert len(report["evaluation"]["by_class"]["student"]["average_precision"]) == 3
    assert {name.split("-")[0] for name in report["previews"]} >= {"examples", "worst"}
