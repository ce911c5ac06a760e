"""Networks as fastai makes them: a body and a head in a sequence, so that all modules have numbers for names."""

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.distillation import networks, student_file
from worker.distillation.contract import InputContract
from worker.distillation.export import onnx, safetensors
from worker.distillation.export.card import Card
from worker.distillation.introspection.taps import Tapped
from worker.distillation.uploads.inspect_upload import inspect

SIZE = 64
CONTRACT = InputContract(3, SIZE, SIZE, (0.5,) * 3, (0.5,) * 3)
SAID = {"channels": 3, "height": SIZE, "width": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3}
NORM = {"norm": "batch"}
HEAD = [
    {"pool": "concat"}, NORM, {"linear": 9, "bias": False}, {"activation": "relu"}, NORM, {"linear": None, "bias": False},
]  # fmt: skip


class AdaptiveConcatPool2d(nn.Module):
    """fastai's pooling, written down from its documentation."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax((2, 3), keepdim=True), x.mean((2, 3), keepdim=True)], 1)


def fastai(bias: bool = False) -> nn.Module:
    """`create_cnn_model(resnet18, 7)` with 9 instead of 512 units, and statistics and weights as after training."""
    torch.manual_seed(0)
    body = nn.Sequential(*list(torchvision.models.resnet18(weights=None).children())[:-2])
    head = nn.Sequential(
        AdaptiveConcatPool2d(), nn.Flatten(), nn.BatchNorm1d(1024), nn.Dropout(0.25), nn.Linear(1024, 9, bias=bias),
        nn.ReLU(), nn.BatchNorm1d(9), nn.Dropout(0.5), nn.Linear(9, 7, bias=bias),
    )  # fmt: skip
    network = nn.Sequential(body, head)
    with torch.no_grad():
        network(torch.randn(8, 3, SIZE, SIZE))
    return network.eval()


def found_in(folder, network):
    torch.save(network.state_dict(), folder / "upload")
    findings = inspect({"kind": "teacher", "upload": "upload", "teacher": {"input": SAID}}, folder)["findings"]
    again = networks.build(findings["network"], findings["classes"], CONTRACT, findings["options"])
    again.load_state_dict(load_file(folder / "output" / "canonical.safetensors"))
    return findings, again.eval()


def test_the_bare_state_dict_is_recognised_and_computes_the_same(tmp_path):
    network = fastai()
    assert {"0.0.weight", "0.4.0.conv1.weight", "1.2.weight", "1.4.weight", "1.8.weight"} <= network.state_dict().keys()
    findings, again = found_in(tmp_path, network)
    assert (findings["network"], findings["classes"]) == ("torchvision/resnet18", 7)
    assert findings["options"] == {"head": HEAD, "head_at": "fc"}
    assert any("`pool in head` = `concat`" in words for words in findings["warnings"])
    image = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(again(image), network(image))
    tapped = Tapped(again, CONTRACT.blank(torch.device("cpu")))
    assert tapped.map.classifier == "fc.4:in"


@pytest.mark.slow
def test_a_student_with_both_poolings_is_exported(tmp_path):
    card = Card("student", {}, tuple("abcdefg"), CONTRACT, "classification", "logits")
    _, again = found_in(tmp_path, fastai(bias=True))
    weights = tmp_path / "student.safetensors"
    safetensors.write(again, card, weights)
    student_file.write(again, card, weights, tmp_path / "student.py")
    assert "ConcatPool" in (tmp_path / "student.py").read_text()
    onnx.write_graph(again, card, tmp_path / "student.onnx")
