"""Networks: their parameter counts by arithmetic, their shapes, and that building them downloads nothing."""

import socket

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from tests.worker.distillation.trial import contract_of
from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.networks import residual, resnet_cifar

GREY = contract_of(1, 32)


def size_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(channels_in, channels_out, area, bias=True):
    return channels_in * channels_out * area + bias * channels_out


@pytest.mark.parametrize(("name", "size"), [("lenet5", 61_706), ("lenet5_half", 15_738)])
def test_lenets_have_the_published_sizes(name, size):
    assert size_of(networks.build(name, 10, GREY)) == size


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["lenet5", "lenet5_half"]), st.integers(1, 4), st.integers(16, 70), st.integers(16, 70))
def test_lenets_third_convolution_outputs_one_pixel(name, channels, height, width):
    contract = InputContract(channels, height, width, (0.0,) * channels, (1.0,) * channels)
    with torch.device("meta"):
        network = networks.build(name, 7, contract)
        x = torch.zeros(2, channels, height, width)
        for layer in ("conv1", "relu1", "maxpool1", "conv2", "relu2", "maxpool2", "conv3"):
            x = network.get_submodule(layer)(x)
        assert x.shape[2:] == (1, 1)
        assert network(torch.zeros(2, channels, height, width)).shape == (2, 7)


@pytest.mark.parametrize(("height", "width"), [(15, 32), (32, 15), (8, 8)])
def test_lenets_refuse_smaller_images(height, width):
    with pytest.raises(SpecError) as caught:
        networks.build("lenet5", 10, InputContract(1, height, width, (0.0,), (1.0,)))
    assert [problem.pointer for problem in caught.value.problems] == ["/network"]


def test_a_lenet_with_tanh_and_average_pooling_equals_the_formula():
    whole = {"first": 6, "second": 16, "third": 120, "hidden": 84}
    network = networks.build("lenet", 10, contract_of(1, 20), {**whole, "activation": "tanh", "pooling": "average"})
    x = torch.randn(3, 1, 20, 20)
    y = network.conv1(x).tanh().unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    y = network.conv2(y).tanh().unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    y = network.fc1(network.conv3(y).tanh().flatten(1)).tanh()
    torch.testing.assert_close(network(x), network.fc2(y))
    assert network.state_dict().keys() == networks.build("lenet5", 10, contract_of(1, 20)).state_dict().keys()


def test_a_lenet_with_batch_norm_normalises_the_output_of_its_convolutions():
    network = networks.build("lenet", 10, GREY, {"batch_norm": True}).train()
    assert size_of(network) == 15_738 + 2 * (3 + 8 + 60)
    seen = {}
    for number in (1, 2, 3):
        layer = network.get_submodule(f"relu{number}")
        layer.register_forward_pre_hook(lambda _, given, number=number: seen.__setitem__(number, given[0]))
    network(torch.randn(16, 1, 32, 32))
    for found in seen.values():
        torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(found.shape[1]), atol=1e-5, rtol=0)


def test_mlp_is_hintons_by_default_and_linear_without_hidden_layers():
    contract = contract_of(1, 28)
    assert size_of(networks.build("mlp", 10, contract)) == (784 * 1200 + 1200) + (1200 * 1200 + 1200) + (1200 * 10 + 10)
    linear = networks.build("mlp", 10, contract, {"hidden": []})
    assert size_of(linear) == 784 * 10 + 10
    x = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(linear(x), x.flatten(1) @ linear.fc1.weight.T + linear.fc1.bias)


def test_mlp_without_activations_is_a_product_of_matrices():
    options = {"hidden": [5, 3], "activation": "none", "bias": False}
    deep = networks.build("mlp", 10, contract_of(1, 4), options)
    assert size_of(deep) == 16 * 5 + 5 * 3 + 3 * 10
    x = torch.randn(2, 1, 4, 4)
    product = deep.fc3.weight @ deep.fc2.weight @ deep.fc1.weight
    torch.testing.assert_close(deep(x), x.flatten(1) @ product.T)


@pytest.mark.parametrize("hidden", [[0], [3, -1], [1.5], "8", [8] * 17])
def test_mlp_refuses_invalid_sizes(hidden):
    with pytest.raises(SpecError) as caught:
        networks.build("mlp", 10, GREY, {"hidden": hidden})
    assert [problem.pointer for problem in caught.value.problems] == ["/options/hidden"]


def residual_size(depth, widths, classes):
    """He et al., section 4.2, with convolutions as shortcuts."""
    stem, *groups = widths
    total = convolution(3, stem, 9, bias=False) + 2 * stem
    width = stem
    for number, group in enumerate(groups):
        for block in range((depth - 2) // 6):
            total += convolution(width, group, 9, bias=False) + convolution(group, group, 9, bias=False) + 4 * group
            if block == 0 and (number > 0 or width != group):
                total += convolution(width, group, 1, bias=False) + 2 * group
            width = group
    return total + convolution(width, classes, 1)


@pytest.mark.parametrize(
    "name",
    [f"resnet{depth}_cifar" for depth in resnet_cifar.DEPTHS]
    + [f"resnet{depth}x4_cifar" for depth in resnet_cifar.WIDE_DEPTHS],
)
def test_parameters_of_residual_networks_follow_from_depth_and_widths(name):
    depth, _, wide = name.removeprefix("resnet").removesuffix("_cifar").partition("x")
    widths = (32, 64, 128, 256) if wide else (16, 16, 32, 64)
    with torch.device("meta"):
        network = networks.build(name, 100, contract_of(3, 32))
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert size_of(network) == residual_size(int(depth), widths, 100)
    assert sum(module.kernel_size == (3, 3) for module in convolutions) + 1 == int(depth)


def test_residual_networks_have_their_groups_at_falling_resolutions():
    network = networks.build("resnet8_cifar", 10, contract_of(3, 32))
    x = network.relu(network.bn1(network.conv1(torch.randn(2, 3, 32, 32))))
    for layer, shape in (("layer1", (16, 32)), ("layer2", (32, 16)), ("layer3", (64, 8))):
        x = network.get_submodule(layer)(x)
        assert tuple(x.shape[1:]) == (shape[0], shape[1], shape[1])
    assert {"layer2.0.downsample.0.weight", "layer1.0.bn2.running_var", "fc.bias"} <= network.state_dict().keys()
    assert "layer1.0.downsample.0.weight" not in network.state_dict()


@pytest.mark.parametrize(("depth", "parameters", "multiply_adds"), [(34, 21e6, 1.16e9), (18, 11e6, 557e6)])
def test_residual_networks_of_four_groups_cost_what_is_published(depth, parameters, multiply_adds):
    """DAFL, arXiv:1904.01186, table 3."""
    with torch.device("meta"):
        network = networks.build(f"resnet{depth}_cifar", 10, contract_of(3, 32))
        with FlopCounterMode(display=False) as counter:
            assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert size_of(network) == pytest.approx(parameters, rel=0.02)
    assert counter.get_total_flops() / 2 == pytest.approx(multiply_adds, rel=0.01)
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert sum(module.kernel_size == (3, 3) for module in convolutions) + 1 == depth
    keys = network.state_dict().keys()
    assert {"layer4.1.bn2.running_var", "layer2.0.shortcut.0.weight", "linear.bias"} <= keys
    assert not [key for key in keys if key.startswith(("layer1.0.shortcut", "layer2.1.shortcut"))]


def test_a_block_with_a_shortcut_equals_the_formula():
    network = networks.build("resnet18_cifar", 10, contract_of(3, 8), {"width": 4}).eval()
    block = network.layer2[0]
    x = torch.randn(2, 4, 8, 8)
    straight = F.batch_norm(
        F.conv2d(x, block.shortcut.get_parameter("0.weight"), stride=2), torch.zeros(8), torch.ones(8)
    )
    inner = F.conv2d(x, block.conv1.weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5
    inner = F.conv2d(inner.relu(), block.conv2.weight, padding=1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x), (inner + straight).relu())


@pytest.mark.parametrize(
    "name", ["resnet8_cifar", "resnet18_cifar", "resnet50_cifar", "preact_resnet18_cifar", "preact_resnet50_cifar100"]
)
def test_convolutions_of_one_pixel_and_few_channels_have_no_stride(name, monkeypatch):
    """The same weights under the same names give the same logits as with strides."""
    name, options = ("resnet_cifar", {"depth": 8, "width": 3}) if name == "resnet8_cifar" else (name, {"width": 3})
    torch.manual_seed(0)
    network = networks.build(name, 5, contract_of(3, 16), options).eval()
    monkeypatch.setattr(residual, "FEW_CHANNELS", 0)
    strided = networks.build(name, 5, contract_of(3, 16), options).eval()
    strides = [
        {
            module.stride
            for module in each.modules()
            if getattr(module, "kernel_size", 0) == (1, 1) and min(module.weight.shape[:2]) < 16
        }
        for each in (network, strided)
    ]
    assert strides[0] == {(1, 1)} and (2, 2) in strides[1]
    strided.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(network(x), strided(x))


@pytest.mark.parametrize(
    ("depth", "factor", "millions"),
    [
        (40, 1, 0.6),
        (40, 2, 2.2),
        (40, 4, 8.9),
        (40, 8, 35.7),
        (28, 10, 36.5),
        (22, 8, 17.2),
        (16, 8, 11.0),
        (16, 10, 17.1),
    ],
)
def test_wide_residual_networks_have_the_published_sizes(depth, factor, millions):
    """Zagoruyko, Komodakis, tables 4 and 5."""
    with torch.device("meta"):
        network = networks.build("wrn_cifar", 10, contract_of(3, 32), {"depth": depth, "factor": factor})
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert round(size_of(network) / 1e6, 1) == millions
    assert sum(module.kernel_size == (3, 3) for module in convolutions) + 3 == depth  # it counts the shortcuts' layers


def test_wide_residual_networks_have_no_relu_after_the_addition():
    network = networks.build("wrn_cifar", 4, contract_of(1, 8), {"depth": 16, "factor": 1}).eval()
    x = torch.randn(2, 1, 8, 8)
    stem = network.conv1(x)
    first, second = network.block1.layer
    y = stem + first.conv2(first.bn2(first.conv1(first.bn1(stem).relu())).relu())
    y = y + second.conv2(second.bn2(second.conv1(second.bn1(y).relu())).relu())
    first, second = network.block2.layer
    active = first.bn1(y).relu()
    y = first.convShortcut(active) + first.conv2(first.bn2(first.conv1(active)).relu())
    y = y + second.conv2(second.bn2(second.conv1(second.bn1(y).relu())).relu())
    torch.testing.assert_close(network.block2(network.block1(stem)), y)
    assert y.shape == (2, 32, 4, 4) and network(x).shape == (2, 4)


CONVOLUTIONS_OF_VGG = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("depth", CONVOLUTIONS_OF_VGG)
def test_parameters_of_vggs_follow_from_their_groups(depth, batch_norm):
    size, channels = 0, 3
    for count, group in zip(CONVOLUTIONS_OF_VGG[depth], (16, 32, 64, 128, 128), strict=True):
        for _ in range(count):
            size += convolution(channels, group, 9) + 2 * group * batch_norm
            channels = group
    options = {"depth": depth, "width": 16, "batch_norm": batch_norm}
    with torch.device("meta"):
        network = networks.build("vgg_cifar", 10, contract_of(3, 32), options)
    assert size_of(network) == size + convolution(128, 10, 1)


@pytest.mark.parametrize(("pixels", "left"), [(8, 1), (32, 4), (63, 7), (64, 4), (96, 6)])
def test_vggs_pool_large_images_once_more(pixels, left):
    found = []
    with torch.device("meta"):
        network = networks.build("vgg_cifar", 10, contract_of(3, pixels), {"depth": 8, "width": 2})
        network.avgpool.register_forward_pre_hook(lambda _, given: found.append(tuple(given[0].shape[1:])))
        network(torch.zeros(2, 3, pixels, pixels))
    assert found == [(16, left, left)]


def test_a_vgg_equals_the_formula_and_refuses_tiny_images():
    network = networks.build("vgg_cifar", 10, contract_of(3, 8), {"depth": 8, "width": 2, "batch_norm": False})
    x = y = torch.randn(4, 3, 8, 8)
    for number in range(5):
        y = network.get_submodule(f"block{number}")(y).relu()
        y = y.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)) if number < 3 else y
    torch.testing.assert_close(network(x), network.classifier(y.mean((2, 3))))
    with pytest.raises(SpecError) as caught:
        networks.build("vgg_cifar", 10, contract_of(3, 7))
    assert [problem.pointer for problem in caught.value.problems] == ["/network"]


def test_alexnet_equals_torchvisions_and_refuses_small_images():
    with torch.device("meta"):
        published = networks.build("torchvision/alexnet", 1000, contract_of(3, 224))
        own, half = (networks.build("alexnet", 1000, contract_of(3, 224), {"width": width}) for width in (64, 32))
    shapes = [{name: tensor.shape for name, tensor in network.state_dict().items()} for network in (published, own)]
    assert shapes[0] == shapes[1] and size_of(own) == 61_100_840
    assert half.classifier[1].weight.shape == (2048, 128 * 36)
    narrow = networks.build("alexnet", 2, contract_of(1, 63), {"width": 2}).eval()
    like = networks.build("torchvision/alexnet", 2, contract_of(3, 63)).eval()
    like.features, like.classifier = narrow.features, narrow.classifier
    x = torch.randn(2, 1, 63, 63)
    torch.testing.assert_close(narrow(x), like(x))
    with pytest.raises(SpecError) as caught:
        networks.build("alexnet", 2, contract_of(3, 62))
    assert [problem.pointer for problem in caught.value.problems] == ["/network"]


@pytest.mark.parametrize("name", networks.names())
def test_every_network_works_on_the_meta_device(name):
    expected = (2, 6, 64, 64) if name.startswith("fpn") else (2, 100, 6) if name.startswith("tiny_") else (2, 6)
    with torch.device("meta"):
        assert networks.build(name, 6, contract_of(3, 64))(torch.zeros(2, 3, 64, 64)).shape == expected


LIBRARY = [
    ("torchvision/resnet18", 1, 32), ("torchvision/vit_b_16", 3, 64), ("torchvision/googlenet", 1, 64),
    ("torchvision/regnet_x_400mf", 3, 32), ("torchvision/maxvit_t", 3, 224), ("torchvision/densenet121", 4, 32),
    ("timm/resnet18", 1, 32), ("timm/mobilenetv3_small_100", 3, 64), ("timm/vit_tiny_patch16_224", 1, 64),
    ("timm/swin_tiny_patch4_window7_224", 3, 56),
]  # fmt: skip


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("building a network must not fetch anything")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(("name", "channels", "size"), LIBRARY)
def test_networks_of_libraries_are_built_for_the_contract_and_download_nothing(name, channels, size, no_network):
    with torch.device("meta"):
        network = networks.build(name, 6, contract_of(channels, size))
        assert network.eval()(torch.zeros(2, channels, size, size)).shape == (2, 6)
    assert all(parameter.is_meta for parameter in network.parameters())


def test_first_convolution_for_other_channels_keeps_its_other_attributes(no_network):
    usual, grey = (networks.build("torchvision/resnet18", 6, contract_of(channels, 32)) for channels in (3, 1))
    assert grey.conv1.weight.shape == (64, 1, 7, 7)
    assert (grey.conv1.stride, grey.conv1.padding, grey.conv1.bias) == (usual.conv1.stride, usual.conv1.padding, None)


def test_same_seed_same_weights():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(networks.build("resnet8_cifar", 10, contract_of(3, 32)).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("name", "options", "pointer"),
    [
        ("lenet4", {}, "/network"), ("torchvision/resnet19", {}, "/network"), ("torchvision/fcn_resnet50", {}, "/network"),
        ("torchvision/", {}, "/network"), ("torchvision/ResNet18", {}, "/network"), ("timm/nothing", {}, "/network"),
        ("timm/hf-hub:some/thing", {}, "/network"), ("timm/../resnet18", {}, "/network"), ("", {}, "/network"),
        ("lenet5", {"width": 2}, "/options/width"), ("torchvision/resnet18", {"weights": "DEFAULT"}, "/options/weights"),
        ("timm/resnet18", {"pretrained": True}, "/options/pretrained"),
    ],
)  # fmt: skip
def test_unknown_networks_and_options_are_refused(name, options, pointer, no_network):
    with pytest.raises(SpecError) as caught:
        networks.build(name, 10, contract_of(3, 32), options)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_the_error_suggests_the_nearest_names():
    with pytest.raises(SpecError, match="lenet5_half"):
        networks.build("lenet5half", 10, GREY)


@pytest.mark.parametrize("name", ["torchvision/vit_b_16", "torchvision/maxvit_t"])
def test_images_that_a_library_cannot_read_are_refused(name):
    with pytest.raises(SpecError) as caught, torch.device("meta"):
        network = networks.build(name, 6, contract_of(3, 50))
        Tapped(network, torch.zeros(2, 3, 50, 50))
    assert [problem.pointer for problem in caught.value.problems] == ["/network"]


def test_configurable_networks_include_the_named_ones():
    half = networks.build("lenet", 10, GREY)
    assert size_of(half) == size_of(networks.build("lenet5_half", 10, GREY))
    whole = networks.build("lenet", 10, GREY, {"first": 6, "second": 16, "third": 120, "hidden": 84})
    assert size_of(whole) == size_of(networks.build("lenet5", 10, GREY))
    colour = contract_of(3, 32)
    for depth in (8, 20, 56):
        family = networks.build("resnet_cifar", 10, colour, {"depth": depth})
        assert family.state_dict().keys() == networks.build(f"resnet{depth}_cifar", 10, colour).state_dict().keys()
    wide = networks.build("resnet_cifar", 10, colour, {"depth": 14, "width": 24})
    assert size_of(wide) == residual_size(14, (24, 24, 48, 96), 10)


@pytest.mark.parametrize("depth", [9, 21])
def test_residual_networks_refuse_invalid_depths(depth):
    with pytest.raises(SpecError, match=f"such as {depth - 1}") as caught:
        networks.build("resnet_cifar", 10, GREY, {"depth": depth})
    assert [problem.pointer for problem in caught.value.problems] == ["/options/depth"]


@pytest.mark.parametrize("depth", [11, 21])
def test_wide_residual_networks_refuse_invalid_depths(depth):
    with pytest.raises(SpecError, match="such as") as caught:
        networks.build("wrn_cifar", 10, GREY, {"depth": depth})
    assert [problem.pointer for problem in caught.value.problems] == ["/options/depth"]
