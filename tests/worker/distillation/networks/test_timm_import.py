"""timm is imported at its first use, also if the default device is meta then."""

import subprocess
import sys

PROGRAM = """
import torch
from worker.distillation import networks
from worker.distillation.source import InputContract

with torch.device("meta"):
    network = networks.build("timm/resnet18", 4, InputContract(3, 32, 32, (0.0,) * 3, (1.0,) * 3), {})
print({parameter.device.type for parameter in network.parameters()})
"""


def test_the_first_network_of_a_process_may_be_on_the_meta_device():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'meta'}"
