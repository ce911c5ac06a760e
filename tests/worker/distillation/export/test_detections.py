"""ONNX files of detectors, on real images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.worker.distillation.tasks.test_detection_runs import CELLS, STUDENT
from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.export import detections, onnx
from worker.distillation.export.card import Card
from worker.distillation.limits import UploadLimits

CONTRACT = InputContract(3, 64, 80, (0.66, 0.64, 0.68), (0.13, 0.14, 0.07))


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "dataset.safetensors"
    read_dataset(CELLS, Options(labels="boxes"), UploadLimits()).write(path)
    images = Images.load(path, "test", CONTRACT, "cpu")
    return images.normalise(images.image)


def card(name, sample=None):
    return Card(name, {}, ("a", "b", "c"), CONTRACT, "detection", "detections", sample=sample)


def detector(name):
    torch.manual_seed(0)
    network = networks.build(name, 3, CONTRACT, STUDENT).eval()
    for (
        path,
        module,
    ) in network.named_modules():  # different scores and boxes with an area, so that there is something to compare
        if "head" in path and isinstance(module, torch.nn.Conv2d) and name != "tiny_faster_rcnn":
            torch.nn.init.kaiming_normal_(module.weight)
        if path.endswith("cls_logits"):
            torch.nn.init.constant_(module.bias, -0.5)
        if path.endswith("bbox_reg"):
            torch.nn.init.normal_(module.weight, std=0.01)
            torch.nn.init.constant_(module.bias, 1.0)
    return network


@pytest.mark.parametrize(
    "name",
    [
        "tiny_faster_rcnn",
        pytest.param("tiny_fcos", marks=pytest.mark.slow),
        pytest.param("tiny_retinanet", marks=pytest.mark.slow),
    ],
)
def test_a_file_detects_what_the_student_detects(name, sample, tmp_path):
    network = detector(name)
    measured = detections.write(network, card(name, sample), tmp_path / "student.onnx")
    assert (measured["output"], measured["images"]) == ("detections", 6)
    assert measured["agreement"] >= 0.99
    assert onnx.run(tmp_path / "student.onnx", sample[:1]).shape[2] == 6


@pytest.mark.slow
def test_the_heads_are_written_where_detections_cannot_be(sample, tmp_path, monkeypatch):
    def fail(*_given):
        raise onnx.ExportFailed("as if torch could not", "")

    monkeypatch.setattr(detections, "_write_detections", fail)
    network = detector("tiny_fcos")
    path: Path = tmp_path / "student.onnx"
    assert detections.write(network, card("tiny_fcos", sample), path)["output"] == "heads"
    heads = onnx.run(path, sample[:1])
    corners, offsets, logits = heads.split([4, 4, 4], dim=2)
    with torch.no_grad():
        read = network.read(sample[:1], None)
        centre = (corners[..., :2] + corners[..., 2:]) / 2
    torch.testing.assert_close(logits, read.logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(offsets, read.parts["deltas"], rtol=1e-3, atol=1e-4)
    whole = network.whole.box_coder.decode(offsets[0], corners[0])  # as the description says: distances from the centre
    size = (corners[0, :, 2] - corners[0, :, 0])[:, None]
    slow = torch.cat([centre[0] - offsets[0, :, :2] * size, centre[0] + offsets[0, :, 2:] * size], dim=1)
    torch.testing.assert_close(whole, slow)
    with pytest.raises(onnx.ExportFailed):
        detections.write(detector("tiny_faster_rcnn"), card("tiny_faster_rcnn"), path)


def test_classes_do_not_suppress_each_other(sample):
    network = detector("tiny_faster_rcnn")
    form = detections.Detections(network)
    with torch.no_grad():
        expected = form(sample[:1])
        with detections.convertible(81.0):
            given = form(sample[:1])
    torch.testing.assert_close(given, expected)
    assert replace(card("a"), output="heads").output == "heads"
