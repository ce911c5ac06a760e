"""`student.py` of transformed students of the libraries: factors and narrower layers in their networks, plain and packed weights."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worker.distillation import networks, student_file
from worker.distillation.compression.member_transforms import MemberTransforms, TransformContext
from worker.distillation.compression.plain import plain
from worker.distillation.contract import InputContract
from worker.distillation.export import packed, safetensors
from worker.distillation.export.card import Card
from worker.distillation.export.portable import portable, random_images

CONTRACT = InputContract(3, 64, 64, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
FACTORS = {"name": "factorise", "keep": 0.6}
TUCKER = {"name": "factorise", "keep": 0.5, "convolutions": "tucker"}
CHANNELS = {"name": "prune_channels"}
CASES = {
    "factors": ("timm/test_resnet", [FACTORS]),
    "three factors of a convolution": ("timm/test_resnet", [TUCKER]),
    "fewer channels": ("timm/test_resnet", [CHANNELS]),
    "fewer channels with squeeze and excitation": ("timm/test_efficientnet", [CHANNELS]),
    "factors of a transformer": ("timm/test_vit", [FACTORS]),
    "few bits of factors": ("timm/test_resnet", [FACTORS, {"name": "quantise", "bits": 4}]),
    "zeros that share values": ("timm/test_resnet", [{"name": "prune"}, {"name": "share"}]),
    "integers": ("timm/test_resnet", [CHANNELS, {"name": "int8", "images": 16}]),
    "a network of this project": ("mobilenetv2_cifar", [FACTORS, {"name": "quantise", "bits": 3}]),
}


def finished(name: str, transforms: list[dict[str, Any]]) -> nn.Module:
    contract = CONTRACT if "/" in name else InputContract(3, 32, 32, CONTRACT.mean, CONTRACT.std)
    torch.manual_seed(0)
    network = networks.build(name, 5, contract)
    context = TransformContext(
        example=contract.blank(torch.device("cpu")),
        contract=contract,
        classes=5,
        images=lambda count: random_images(contract, count),
    )
    own = MemberTransforms(transforms, network, context)
    network.eval()
    own.finalize(network)
    return network


@pytest.mark.parametrize("case", CASES)
def test_it_loads_plain_and_packed_weights(case: str, tmp_path: Path) -> None:
    name, transforms = CASES[case]
    network = finished(name, transforms)
    contract = CONTRACT if "/" in name else InputContract(3, 32, 32, CONTRACT.mean, CONTRACT.std)
    card = Card(name, {}, tuple("abcde"), contract, "classification", "logits")
    files = [tmp_path / "student.safetensors"]
    safetensors.write(network, card, files[0])
    if any(each["name"] not in ("factorise", "prune_channels") for each in transforms):
        files.append(tmp_path / "student.packed.safetensors")
        packed.write(network, card, files[1])
    student_file.write(network, card, files[0], tmp_path / "student.py", files[1] if len(files) > 1 else None)
    own = runpy.run_path(str(tmp_path / "student.py"))
    images = random_images(contract, 3)
    with torch.no_grad():
        expected: Tensor = portable(plain(network))(images)
        for file in files:
            given = own["load"](file)(images)
            torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)
    assert sum(each.numel() for each in own["load"](files[0]).parameters()) == sum(
        each.numel() for each in plain(network).parameters()
    )
