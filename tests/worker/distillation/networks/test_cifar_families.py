"""Networks with the keys of public code have its numbers of parameters, and compute what their papers say."""

import pytest
import torch

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.networks.cifar.shufflenetv2 import shuffled
from worker.distillation.networks.residual import PaddedShortcut

RGB = InputContract(3, 32, 32, (0.0,) * 3, (1.0,) * 3)
KUANGLIU = [
    ("vgg_features", {}, 14_728_266), ("resnet18_cifar", {}, 11_173_962), ("resnet50_cifar", {}, 23_520_842),
    ("resnet101_cifar", {}, 42_512_970), ("preact_resnet18_cifar", {}, 11_171_146), ("mobilenet_cifar", {}, 3_217_226),
    ("mobilenetv2_cifar", {}, 2_296_922), ("shufflenetv2_cifar", {}, 1_263_854),
    ("shufflenetv2_cifar", {"widths": [48, 96, 192]}, 352_042), ("googlenet_cifar", {}, 6_166_250),
    ("densenet_cifar", {}, 1_000_618), ("densenet_cifar", {"growth": 32}, 6_956_298),
    ("densenet_cifar", {"growth": 32, "blocks": [6, 12, 48, 32]}, 18_104_330),
    ("densenet_cifar", {"growth": 48, "blocks": [6, 12, 36, 24]}, 26_482_378),
]  # fmt: skip
"""Published numbers of parameters for ten classes of the networks in kuangliu/pytorch-cifar."""
A1, A2 = [64, 64, 128, 256, 1280], [64, 96, 192, 384, 1408]
ROUNDED = [
    ("repvgg_cifar", {}, 10, 7.84), ("repvgg_cifar", {"widths": A1}, 10, 12.82), ("repvgg_cifar", {"widths": A2}, 100, 26.94),
    ("torchvision/mobilenet_v2", {"width": 0.5}, 10, 0.70), ("torchvision/mobilenet_v2", {"width": 0.75}, 100, 1.48),
    ("torchvision/mobilenet_v2", {"stem": "cifar"}, 10, 2.24), ("torchvision/mobilenet_v2", {"width": 1.4}, 100, 4.50),
    ("torchvision/shufflenet_v2_x0_5", {"stem": "cifar"}, 10, 0.35), ("torchvision/shufflenet_v2_x2_0", {}, 100, 5.55),
    ("vgg_features", {"depth": 11, "hidden": 512}, 10, 9.76), ("vgg_features", {"depth": 19, "hidden": 512}, 100, 20.61),
]  # fmt: skip
"""Published millions of parameters of the networks in chenyaofo/pytorch-cifar-models."""
WEIAICUNZAI = [
    ("mobilenetv2_cifar100", {}, 2.36e6), ("shufflenetv2_cifar100", {}, 1.3e6), ("densenet_cifar100", {"growth": 32}, 7.0e6),
    ("densenet_cifar100", {"growth": 32, "blocks": [6, 12, 48, 32]}, 18e6), ("googlenet_cifar100", {}, 6.2e6),
    ("preact_resnet18_cifar100", {}, 11.3e6), ("preact_resnet152_cifar100", {}, 58.6e6),
]  # fmt: skip
"""Published numbers of parameters, roughly rounded, for 100 classes of the networks in weiaicunzai/pytorch-cifar100."""
KEYS = {
    "vgg_features": ("features.0.weight", "features.41.running_var", "classifier.bias"),
    "resnet18_cifar": ("layer1.0.bn2.weight", "layer2.0.shortcut.1.weight", "linear.weight"),
    "resnet50_cifar": ("layer1.0.conv3.weight", "layer4.0.shortcut.1.running_mean", "linear.weight"),
    "preact_resnet18_cifar": ("layer1.0.bn1.weight", "layer2.0.shortcut.0.weight", "linear.bias"),
    "mobilenet_cifar": ("layers.12.conv2.weight", "linear.bias"),
    "mobilenetv2_cifar": ("layers.0.shortcut.1.weight", "layers.16.bn3.bias", "conv2.weight"),
    "shufflenetv2_cifar": ("conv1.weight", "layer1.0.conv5.weight", "layer2.7.bn3.bias", "bn2.weight", "linear.bias"),
    "densenet_cifar": ("dense1.5.conv2.weight", "trans3.conv.weight", "dense4.15.bn1.bias", "bn.weight", "linear.bias"),
    "googlenet_cifar": ("pre_layers.0.bias", "a3.b3.6.weight", "e4.b4.2.running_var", "b5.b2.3.weight", "linear.bias"),
    "repvgg_cifar": ("stage0.rbr_dense.conv.weight", "stage1.0.rbr_identity.bias", "stage3.13.rbr_1x1.bn.weight"),
    "mobilenetv2_cifar100": ("pre.0.bias", "stage1.residual.7.weight", "stage3.2.residual.3.bias", "conv1.1.bias", "conv2.bias"),
    "shufflenetv2_cifar100": ("pre.1.weight", "stage2.0.shortcut.2.bias", "stage3.7.residual.6.weight", "conv5.0.bias"),
    "densenet_cifar100": (
        "features.dense_block_layer_0.bottle_neck_layer_5.bottle_neck.5.weight",
        "features.transition_layer_2.down_sample.1.weight", "features.dense_block3.bottle_neck_layer_0.bottle_neck.0.bias",
        "features.bn.weight", "linear.bias",
    ),
    "googlenet_cifar100": ("prelayer.0.bias", "a3.b3.6.weight", "b5.b4.2.bias"),
    "preact_resnet18_cifar100": ("pre.0.bias", "stage1.0.residual.5.bias", "stage2.0.shortcut.bias", "linear.bias"),
    "torchvision/mobilenet_v2": ("features.0.0.weight", "features.2.conv.1.0.weight", "classifier.1.weight"),
}  # fmt: skip


def on_meta(name, classes, options=None):
    with torch.device("meta"):
        return networks.build(name, classes, RGB, options)


def size_of(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "options", "size"), KUANGLIU)
def test_has_the_published_number_of_parameters(name, options, size):
    assert size_of(on_meta(name, 10, options)) == size


@pytest.mark.parametrize(("name", "options", "classes", "millions"), ROUNDED)
def test_has_the_published_millions_of_parameters(name, options, classes, millions):
    assert size_of(on_meta(name, classes, options)) / 1e6 == pytest.approx(millions, abs=0.0051)


@pytest.mark.parametrize(("name", "options", "about"), WEIAICUNZAI)
def test_has_about_the_published_number_of_parameters(name, options, about):
    assert size_of(on_meta(name, 100, options)) == pytest.approx(about, rel=0.05)


@pytest.mark.parametrize("name", KEYS)
def test_has_the_published_keys(name):
    assert set(KEYS[name]) <= on_meta(name, 10).state_dict().keys()


@pytest.mark.parametrize(
    ("name", "last", "pixels"),
    [
        ("mobilenetv2_cifar", "layers", 4), ("torchvision/mobilenet_v2", "features", 4), ("shufflenetv2_cifar", "layer3", 4),
        ("torchvision/shufflenet_v2_x1_0", "stage4", 4), ("densenet_cifar", "dense4", 4), ("googlenet_cifar", "b5", 8),
        ("repvgg_cifar", "stage4", 4), ("mobilenetv2_cifar100", "stage7", 5), ("shufflenetv2_cifar100", "stage4", 4),
        ("densenet_cifar100", "features", 4), ("googlenet_cifar100", "b5", 8), ("preact_resnet18_cifar100", "stage4", 4),
        ("torchvision/densenet121", "features", 4), ("torchvision/resnet18", "layer4", 4),
    ],
)  # fmt: skip
def test_reduces_images_of_32_pixels_as_the_public_code_does(name, last, pixels):
    network = on_meta(name, 10, {"stem": "cifar"} if "/" in name else {}).eval()
    seen = []
    network.get_submodule(last).register_forward_hook(lambda _, given, output: seen.append(output.shape))
    network(torch.zeros(2, 3, 32, 32, device="meta"))
    assert tuple(seen[0][2:]) == (pixels, pixels)


def test_shuffling_takes_the_channels_of_both_halves_in_turn():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffled(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("name", ["shufflenetv2_cifar", "shufflenetv2_cifar100"])
def test_shufflenets_refuse_widths_without_two_halves(name):
    with pytest.raises(SpecError) as caught:
        on_meta(name, 10, {"widths": [48, 97, 192]})
    assert [problem.pointer for problem in caught.value.problems] == ["/options/widths"]


def test_a_deployed_block_of_repvgg_computes_the_sum_of_the_three_branches():
    options = {"blocks": [1, 2, 1, 1], "widths": [4, 4, 6, 8, 10]}
    network = networks.build("repvgg_cifar", 5, RGB, options).eval()
    deployed = networks.build("repvgg_cifar", 5, RGB, options | {"deployed": True}).eval()
    deployed.linear.load_state_dict(network.linear.state_dict())
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
    for path, block in network.named_modules():
        if hasattr(block, "rbr_dense"):
            convolution = deployed.get_submodule(path).rbr_reparam
            convolution.load_state_dict(dict(zip(("weight", "bias"), merged(block), strict=True)))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(deployed(x), network(x))


def merged(block):
    """Kernel and bias of the convolution that the branches make together (arXiv:2101.03697, section 3.3)."""
    dense = block.rbr_dense.conv.weight
    one = torch.nn.functional.pad(block.rbr_1x1.conv.weight, (1, 1, 1, 1))
    parts = [(dense, block.rbr_dense.bn), (one, block.rbr_1x1.bn)]
    if block.rbr_identity is not None:
        identity = torch.zeros_like(dense)
        identity[range(len(dense)), range(len(dense)), 1, 1] = 1
        parts.append((identity, block.rbr_identity))
    scales = [norm.weight / (norm.running_var + norm.eps).sqrt() for _, norm in parts]
    weight = sum(scale[:, None, None, None] * kernel for scale, (kernel, _) in zip(scales, parts, strict=True))
    bias = sum(norm.bias - scale * norm.running_mean for scale, (_, norm) in zip(scales, parts, strict=True))
    return weight.detach(), bias.detach()


def test_only_one_normalisation_a_module_has_a_large_epsilon_in_googlenet_for_cifar_100():
    ours, other = on_meta("googlenet_cifar100", 10), on_meta("googlenet_cifar", 10)
    epsilons = {path: module.eps for path, module in ours.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert {path: value for path, value in epsilons.items() if value != 1e-5} == {
        f"{name}.b3.4": float(ours.get_submodule(f"{name}.b3.4").num_features)
        for name in ("a3", "b3", "a4", "b4", "c4", "d4", "e4", "a5", "b5")
    }
    assert {module.eps for module in other.modules() if isinstance(module, torch.nn.BatchNorm2d)} == {1e-5}


def test_the_padded_shortcut_takes_every_second_pixel_and_adds_zeros_on_both_sides():
    x = torch.randn(2, 4, 5, 6)
    y = PaddedShortcut(4, 8, 2)(x)
    assert y.shape == (2, 8, 3, 3)
    torch.testing.assert_close(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any() and not y[:, 6:].any()


def test_resnet20_with_padded_shortcuts_has_the_papers_parameters():
    network = networks.build("resnet_cifar", 10, RGB, {"shortcut": "padded"})
    assert size_of(network) == 269_722  # 0.27 M in table 6
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


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
