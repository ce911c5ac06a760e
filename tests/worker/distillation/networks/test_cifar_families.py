"""Networks with the keys of public code have its numbers of parameters, and compute what their papers say."""

import pytest
import torch

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.networks.residual import PaddedShortcut

RGB = InputContract(3, 32, 32, (0.0,) * 3, (1.0,) * 3)
PUBLISHED = {
    "vgg_features": 14_728_266, "resnet50_cifar": 23_520_842, "resnet101_cifar": 42_512_970,
    "preact_resnet18_cifar": 11_171_146, "mobilenet_cifar": 3_217_226, "mobilenetv2_cifar": 2_296_922,
}  # fmt: skip
"""Parameters for ten classes of the networks in kuangliu/pytorch-cifar."""
KEYS = {
    "vgg_features": ("features.0.weight", "features.41.running_var", "classifier.bias"),
    "resnet50_cifar": ("layer1.0.conv3.weight", "layer4.0.shortcut.1.running_mean", "linear.weight"),
    "preact_resnet18_cifar": ("layer1.0.bn1.weight", "layer2.0.shortcut.0.weight", "linear.bias"),
    "mobilenet_cifar": ("layers.12.conv2.weight", "linear.bias"),
    "mobilenetv2_cifar": ("layers.0.shortcut.1.weight", "layers.16.bn3.bias", "conv2.weight"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        network = networks.build(name, 10, RGB)
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED[name]
    assert set(KEYS.get(name, ())) <= network.state_dict().keys()


def test_the_padded_shortcut_takes_every_second_pixel_and_adds_zeros_on_both_sides():
    x = torch.randn(2, 4, 5, 6)
    y = PaddedShortcut(4, 8, 2)(x)
    assert y.shape == (2, 8, 3, 3)
    torch.testing.assert_close(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any() and not y[:, 6:].any()


def test_resnet20_with_padded_shortcuts_has_the_papers_parameters():
    network = networks.build("resnet_cifar", 10, RGB, {"shortcut": "padded"})
    assert sum(parameter.numel() for parameter in network.parameters()) == 269_722  # 0.27 M in table 6
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_stem_for_small_images_keeps_their_size():
    with torch.device("meta"):
        network = networks.build("torchvision/resnet18", 10, RGB, {"stem": "cifar"})
        first = network.maxpool(network.relu(network.bn1(network.conv1(torch.zeros(2, 3, 32, 32)))))
    assert first.shape == (2, 64, 32, 32)


def test_a_third_linear_layer_of_lenet_computes_what_the_convolution_does():
    widths = {"first": 6, "second": 16, "third": 120, "hidden": 84, "padding": 2}
    contract = InputContract(1, 28, 28, (0.0,), (1.0,))
    convolution = networks.build("lenet", 10, contract, widths)
    linear = networks.build("lenet", 10, contract, widths | {"third_linear": True})
    values = convolution.state_dict().values()
    shapes = {name: tensor.shape for name, tensor in linear.state_dict().items()}
    linear.load_state_dict({name: value.reshape(shapes[name]) for name, value in zip(shapes, values, strict=True)})
    x = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(linear(x), convolution(x))
