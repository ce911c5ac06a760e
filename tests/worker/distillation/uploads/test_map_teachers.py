"""Teachers for segmentation and depth: what an inspection finds of their weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import UploadError
from worker.distillation.uploads.inspect_upload import inspect

CONTRACT = InputContract(3, 32, 48, (0.5,) * 3, (0.25,) * 3)
INPUT = {"channels": 3, "height": 32, "width": 48, "mean": [0.5] * 3, "std": [0.25] * 3}


def inspected(folder: Path, network: str = "fpn", classes: int = 5, **said: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    save_file(networks.build(network, classes, CONTRACT, {"width": 6, "blocks": 2}).state_dict(), folder / "sent")
    options = {"width": 6, "blocks": 2}
    teacher = {"network": network, "options": options, "classes": None, "class_names": [], "input": INPUT}
    return inspect({"kind": "teacher", "upload": "sent", "teacher": teacher | said}, folder)


@pytest.mark.parametrize(("network", "classes"), [("fpn", 5), ("fpn_depth", 1)])
def test_the_classes_are_those_of_the_last_layer(network: str, classes: int, tmp_path: Path):
    answer = inspected(tmp_path, network, classes)
    found = answer["findings"]
    assert (found["network"], found["classes"], found["differentiable"]) == (network, classes, True)
    assert found["stages"] == ["fpn.output.0", "fpn.output.1", "fpn.output.2"]
    assert load_file(tmp_path / answer["path"])["head.weight"].shape[0] == classes


def test_a_network_is_found_by_its_weights(tmp_path: Path):
    """`fpn` and `fpn_depth` have the same weights, and the number of outputs does not tell which it is."""
    inspected(tmp_path)
    teacher = {"network": None, "options": {}, "classes": None, "class_names": [], "input": INPUT}
    with pytest.raises(UploadError, match=r"`fpn`.*`fpn_depth`"):
        inspect({"kind": "teacher", "upload": "sent", "teacher": teacher}, tmp_path)
