"""A network with one output and a sigmoid is read as one of two classes."""

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from worker.distillation.contract import read_contract
from worker.distillation.networks import build
from worker.distillation.uploads.inspect_upload import inspect


def test_one_output_for_two_classes_becomes_two(tmp_path):
    """Class 1 are the bright images, as a linear layer tells them by their sum."""
    (tmp_path / "output").mkdir()
    draw = torch.Generator().manual_seed(1)
    label = torch.arange(200) % 2
    image = (torch.randint(0, 60, (200, 1, 4, 4), generator=draw) + 120 * label.view(-1, 1, 1, 1)).to(torch.uint8)
    save_file({"train.image": image, "train.label": label}, tmp_path / "data")
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    network[1].weight.data.fill_(1.0)
    network[1].bias.data.fill_(-16 * 90 / 255)
    torch.save(network.state_dict(), tmp_path / "upload")
    job = {"kind": "teacher", "upload": "upload", "teacher": {}, "dataset": "data", "recognition_seconds": 20}
    findings = inspect(job, tmp_path)["findings"]
    assert findings["classes"] == 2 and findings["recognised"]["accuracy"] == 1
    assert any("one output for two classes" in words for words in findings["warnings"])
    contract = read_contract(findings["input"])
    read = build(findings["network"], 2, contract, findings["options"]).eval()
    read.load_state_dict(load_file(tmp_path / "output" / "canonical.safetensors"))
    with torch.no_grad():
        given = (image / 255 - contract.mean[0]) / contract.std[0]
        expected = torch.sigmoid(network(given))[:, 0]
        torch.testing.assert_close(read(given).softmax(1)[:, 1], expected)
