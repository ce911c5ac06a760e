"""timm's import, and what its networks keep between two passes."""

import copy
import subprocess
import sys

import pytest
import torch

from worker.distillation import networks
from worker.distillation.contract import InputContract

PROGRAM = """
import pytest
import torch
from worker.distillation import networks
from worker.distillation.source import InputContract

with torch.device("meta"):
    network = networks.build("timm/resnet18", 4, InputContract(3, 32, 32, (0.0,) * 3, (1.0,) * 3), {})
print({parameter.device.type for parameter in network.parameters()})
"""


@pytest.mark.slow
def test_the_first_network_of_a_process_may_be_on_the_meta_device():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'meta'}"


def test_no_pass_in_eval_mode_keeps_results_of_the_weights():
    """timm's attentions keep their biases then; with gradients, such a network goes backwards once and has no copies."""
    contract = InputContract(3, 64, 64, (0.0,) * 3, (1.0,) * 3)
    network = networks.build("timm/efficientformerv2_s0", 4, contract, {}).eval()
    image = torch.ones(1, 3, 64, 64, requires_grad=True)
    for _ in range(2):
        network(image).sum().backward()
    copied = copy.deepcopy(network)
    with torch.no_grad():
        state = {name: tensor + (torch.randn_like(tensor) if "attention_biases" in name else 0)
                 for name, tensor in network.state_dict().items()}  # fmt: skip
        copied.load_state_dict(state)
        before = network(image)
        network.load_state_dict(copied.state_dict())
        assert torch.equal(network(image), copied(image)) and not torch.equal(network(image), before)
