"""`student.py` of detectors: it needs torch and torchvision alone, and gives exactly the student's detections."""

import runpy

import pytest
import torch

from tests.worker.distillation.student_file.test_student_file import DETECTORS, expected, outputs_alone, trained
from worker.distillation import networks, student_file
from worker.distillation.contract import InputContract
from worker.distillation.export import safetensors
from worker.distillation.export.card import Card
from worker.distillation.student_file.expressions import CannotBeWritten

CONTRACT = InputContract(3, 72, 88, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))  # not a multiple of 16
NAMES = ("red", "white")
OPTIONS = {"tiny_faster_rcnn": {"anchors": [8, 20, 40], "detections": 20}, "tiny_retinanet": {}, "tiny_fcos": {}}
NEEDED_BY_TORCHVISION = ("torchvision", "torchvision.libs", "numpy", "numpy.libs", "PIL", "pillow.libs")


def detector(name):
    """A detector that detects something in noise, by thresholds of its own."""
    torch.manual_seed(0)
    made = trained(networks.build(name, len(NAMES), CONTRACT, OPTIONS[name]).eval(), CONTRACT)
    if name == "tiny_faster_rcnn":
        made.roi_heads.score_thresh = 1e-3
        return made
    made.whole.score_thresh = 1e-3
    bias = made.head.classification_head.cls_logits.bias
    bias.data.view(-1, 1 + len(NAMES))[:, 1:] += 2  # else the background is as probable as the classes
    return made


def write(stem, network, folder):
    card = Card(stem, {}, NAMES, CONTRACT, "detection", "detections")
    safetensors.write(network, card, folder / f"{stem}.safetensors")
    student_file.write(network, card, folder / f"{stem}.safetensors", folder / f"{stem}.py")
    return (folder / f"{stem}.py").read_text()


def test_detections_are_equal_in_a_process_with_torch_and_torchvision_alone(tmp_path):
    students = {name: (detector(name), CONTRACT) for name in OPTIONS}
    for name, (network, _) in students.items():
        assert "built and loaded with PyTorch and torchvision." in write(name, network, tmp_path)
    for name, found in outputs_alone(tmp_path, students, NEEDED_BY_TORCHVISION).items():
        assert torch.equal(found, expected(*students[name])), name
        assert (found[..., 5] >= 0).any() and found.shape[1:] == (students[name][0].most_detections, 6)


def test_factors_in_a_head_are_written_too(tmp_path):
    network = detector("tiny_faster_rcnn")
    whole = network.roi_heads.box_head.fc6
    parts = torch.nn.Linear(whole.in_features, 3, bias=False), torch.nn.Linear(3, whole.out_features)
    network.roi_heads.box_head.fc6 = torch.nn.Sequential(*parts)
    assert "'box_head.fc6': nn.Sequential(" in write("student", network, tmp_path)


def test_an_image_file_gets_names_and_boxes(tmp_path):
    from PIL import Image

    write("student", detector("tiny_fcos"), tmp_path)
    Image.new("RGB", (176, 144), (90, 20, 60)).save(tmp_path / "image.png")
    own = runpy.run_path(str(tmp_path / "student.py"))
    (name, score), *_ = own["predict"](tmp_path / "image.png", own["load"](tmp_path / "student.safetensors"))
    assert name.split(" at ")[0] in NAMES and 0 < score < 1


def test_detectors_with_another_backbone_say_what_to_do(tmp_path):
    network = detector("tiny_fcos")
    network.backbone = torch.nn.Identity()
    with pytest.raises(CannotBeWritten, match=r"make the network with `torchvision\.models\.get_model`"):
        write("student", network, tmp_path)
    assert not (tmp_path / "student.py").exists()


def test_none_is_left_out():
    assert set(DETECTORS) == set(OPTIONS)
