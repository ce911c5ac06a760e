"""The BatchNorm before an activation, in different styles of networks."""

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from tests.worker.distillation.trial import contract_of
from worker.distillation import networks
from worker.distillation.introspection.batch_norm_before import normalisation_before
from worker.distillation.introspection.taps import Tapped


def found(network, tap, size=32, channels=3):
    tapped = Tapped(network.eval(), torch.zeros(2, channels, size, size))
    norm = normalisation_before(tapped.network, tap, tuple(tapped.map.shapes))
    return next((path for path, module in tapped.network.named_modules() if module is norm), None)


@pytest.mark.parametrize(
    ("name", "tap", "expected"),
    [
        ("resnet8_cifar", "layer2:pre", "layer2.0.bn2"),  # the only block has a shortcut with a BatchNorm of its own
        ("resnet8_cifar", "layer2.0.relu1:pre", "layer2.0.bn1"),
        ("resnet8_cifar", "relu:pre", "bn1"),
        ("resnet8_cifar", "layer2", None),
        ("resnet8_cifar", "layer9:pre", None),
        ("torchvision/resnet18", "layer4:pre", "layer4.1.bn2"),  # one ReLU module runs twice
        ("torchvision/resnet18", "layer2.0:pre", "layer2.0.bn2"),  # the shortcut runs after bn2
        ("torchvision/mobilenet_v3_small", "features:pre", "features.12.1"),
    ],
)
def test_named_networks(name, tap, expected):
    assert found(networks.build(name, 5, contract_of(3, 32)), tap) == expected


def lines(*modules):
    return nn.Sequential(*modules, nn.Flatten(), nn.LazyLinear(5))


def conv():
    return nn.Conv2d(3, 3, 3, padding=1)


def test_a_convolution_in_between_gives_none():
    assert found(lines(conv(), nn.BatchNorm2d(3), nn.ReLU()), "2:pre", 4) == "1"
    assert found(lines(conv(), nn.BatchNorm2d(3), conv(), nn.ReLU()), "3:pre", 4) is None


def test_a_layer_that_contains_its_activation():
    assert found(lines(conv(), BatchNormAct2d(3)), "1:pre", 4) == "1"
