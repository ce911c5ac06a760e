"""Networks that end with a softmax teach with the logits before it."""

import pytest
import torch
from torch import nn

from tests.worker.distillation.programs.samples import Residual, of, packed
from tests.worker.distillation.programs.test_onnx import exported, said_of
from worker.distillation.limits import UploadLimits
from worker.distillation.programs import load
from worker.distillation.programs.probabilities import are_probabilities
from worker.distillation.uploads.program_uploads import teacher


class Answering(nn.Module):
    """A network, and what is made of its logits."""

    def __init__(self, last):
        super().__init__()
        self.network, self.last = of(Residual), last

    def forward(self, x):
        return self.last(self.network(x))


def normalised(logits):
    """A softmax that is no single operation."""
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def inspected(path, tmp_path, size=16):
    said = said_of(size, 5)
    if path.suffix == ".safetensors":
        said["input"] |= {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    canonical = tmp_path / "canonical.safetensors"
    findings = teacher(said, path, canonical, UploadLimits())
    return findings, load(canonical)


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of itself
@pytest.mark.parametrize("form", ["onnx", "program"])
def test_a_softmax_at_the_end_is_left_out_with_a_warning(tmp_path, form):
    network = Answering(nn.Softmax(dim=1)).eval()
    if form == "onnx":
        path = exported(network, tmp_path / "net.onnx", 16, dynamo=False)
    else:
        path = packed(network, tmp_path / "net.safetensors")
    findings, again = inspected(path, tmp_path)
    image = torch.randn(3, 3, 16, 16)
    for training in (False, True) if form == "program" else (False,):
        with torch.no_grad():
            expected, given = network.train(training)(image), again.train(training)(image)
        assert not are_probabilities(given)
        torch.testing.assert_close(given.softmax(1), expected, atol=1e-5, rtol=1e-4)
    assert [words for words in findings["warnings"] if "softmax, which was left out" in words]


@pytest.mark.parametrize(
    ("last", "warned"),
    [
        (normalised, True),
        (nn.Identity(), False),
        (nn.LogSoftmax(1), False),
        (nn.Sequential(nn.Softmax(1), nn.Linear(5, 5)), False),
    ],
)
def test_other_outputs_stay_and_probabilities_are_warned_of(tmp_path, last, warned):
    network = Answering(last).eval()
    findings, again = inspected(packed(network, tmp_path / "net.safetensors"), tmp_path)
    image = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(image), network(image))
    assert any("outputs are probabilities" in words for words in findings["warnings"]) is warned
