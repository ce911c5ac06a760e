"""Taps: they capture what the network computed, and leave no hooks behind."""

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.worker.distillation.trial import contract_of
from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped, pair_stages, parameters_through, penultimate, resolve_pairs


def tapped_of(name, channels=3, size=32, classes=5, **options):
    torch.manual_seed(0)
    network = networks.build(name, classes, contract_of(channels, size), options)
    return Tapped(network, torch.zeros(2, channels, size, size))


class Overwriting(nn.Module):
    """Overwrites its modules' outputs in place: with an activation module, a function, and a sum."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        first = self.act(self.bn1(self.conv1(x)))
        second = self.bn2(self.conv2(first))
        second += first
        F.relu(second, inplace=True)
        return self.fc(self.act(second - 0.1).mean((2, 3)))


def slow(network, x):
    """The same network's values, computed without in-place operations."""
    bn1 = F.batch_norm(network.conv1(x), None, None, network.bn1.weight, network.bn1.bias, True)
    first = bn1.relu()
    bn2 = F.batch_norm(network.conv2(first), None, None, network.bn2.weight, network.bn2.bias, True)
    return {
        "bn1": bn1,
        "bn2": bn2,
        "act:pre": (bn2 + first).relu() - 0.1,
        "conv2:in": first,
        "act": ((bn2 + first).relu() - 0.1).relu(),
    }


@pytest.fixture
def overwriting():
    torch.manual_seed(1)
    return Tapped(Overwriting(), torch.zeros(2, 1, 6, 6))


def test_a_module_that_returns_what_it_reads_is_no_stage():
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    network = nn.Sequential(body, nn.Identity(), nn.Conv2d(4, 4, 3, 2), nn.Identity(), nn.Flatten(), nn.Linear(36, 5))
    assert Tapped(network, torch.zeros(2, 3, 8, 8)).map.stages == ("0", "2")


def test_taps_capture_values_before_they_are_overwritten(overwriting):
    x = torch.randn(4, 1, 6, 6)
    expected = slow(overwriting.network, x)
    overwriting.request(expected)
    taps = overwriting.train()(x).taps
    assert taps.keys() == expected.keys()
    assert not overwriting.network.act.inplace
    for name, value in expected.items():
        torch.testing.assert_close(taps[name], value)


def test_a_plain_hook_would_capture_other_values():
    network = Overwriting()
    seen = {}
    network.bn2.register_forward_hook(lambda module, args, output: seen.update(bn2=output))
    x = torch.randn(4, 1, 6, 6)
    network(x)
    assert not torch.allclose(seen["bn2"], slow(network, x)["bn2"])


def test_gradients_flow_through_taps(overwriting):
    overwriting.request(["bn2", "act:pre"])
    outputs = overwriting.train()(torch.randn(4, 1, 6, 6))
    sum(tap.square().sum() for tap in outputs.taps.values()).backward()
    assert overwriting.network.conv1.weight.grad.abs().sum() > 0
    assert overwriting.network.fc.weight.grad is None


def test_wrapping_does_not_change_the_network():
    network = networks.build("torchvision/resnet18", 5, contract_of(3, 32), {})
    network.train()
    network.layer3.eval()
    modes = {name: module.training for name, module in network.named_modules()}
    state = copy.deepcopy(network.state_dict())
    generators = torch.get_rng_state(), random.getstate()
    tapped = Tapped(network, torch.zeros(2, 3, 32, 32))
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert random.getstate() == generators[1]
    tapped.request(["layer1", "layer2:pre", "fc:in"])
    tapped(torch.randn(2, 3, 32, 32))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_tracing_does_not_change_the_generator():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    network.register_forward_pre_hook(lambda module, args: torch.rand(1) and None)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Tapped(network, torch.zeros(2, 1, 2, 2))
    assert torch.equal(before, torch.get_rng_state())


def test_hooks_are_gone_after_a_failed_pass(overwriting):
    overwriting.request(["bn1"])
    with pytest.raises(RuntimeError):
        overwriting(torch.randn(4, 2, 6, 6))
    assert not any(module._forward_hooks for module in overwriting.modules())


def test_calls_are_independent_of_each_other(overwriting):
    overwriting.request(["bn1"])
    first, second = torch.randn(2, 4, 1, 6, 6).unbind()
    overwriting.eval()
    kept = overwriting(first).taps["bn1"].clone()
    overwriting(second)
    torch.testing.assert_close(overwriting(first).taps["bn1"], kept)


def test_copies_capture_independently(overwriting):
    overwriting.request(["bn1"])
    twin = copy.deepcopy(overwriting)
    with torch.no_grad():
        twin.network.bn1.bias.add_(1.0)
    x = torch.randn(4, 1, 6, 6)
    torch.testing.assert_close(twin.eval()(x).taps["bn1"], overwriting.eval()(x).taps["bn1"] + 1)
    assert twin.network.state_dict().keys() == overwriting.network.state_dict().keys()


def test_pre_is_the_input_of_the_last_activation_within():
    tapped = tapped_of("torchvision/resnet18")  # its blocks call one ReLU twice
    tapped.request(
        ["layer1.0", "layer1.0:pre", "layer1.0.relu:pre", "layer1:pre", "layer1", "layer1.1.bn2", "layer1.0.bn2"]
    )
    taps = tapped.eval()(torch.randn(2, 3, 32, 32)).taps
    assert torch.equal(taps["layer1.0:pre"].relu(), taps["layer1.0"])
    assert torch.equal(taps["layer1.0:pre"], taps["layer1.0.relu:pre"])
    assert torch.equal(taps["layer1:pre"].relu(), taps["layer1"])
    torch.testing.assert_close(taps["layer1:pre"], taps["layer1.1.bn2"] + taps["layer1.0"])
    assert taps["layer1:pre"].min() < 0


@pytest.mark.parametrize(
    ("name", "size", "stages"),
    [
        ("lenet5", 32, ("relu1", "maxpool1", "relu2", "maxpool2", "relu3")),
        ("resnet20_cifar", 32, ("layer1", "layer2", "layer3", "avgpool")),
        ("torchvision/resnet50", 64, ("relu", "layer1", "layer2", "layer3", "layer4", "avgpool")),
        ("torchvision/mobilenet_v2", 64, ("features.1", "features.3", "features.6", "features.13", "features")),
        ("timm/resnet18", 64, ("act1", "layer1", "layer2", "layer3", "layer4", "global_pool.pool")),
        ("mlp", 8, ()),
    ],
)
def test_stages_are_the_last_maps_at_each_resolution(name, size, stages):
    with torch.device("meta"):
        network = networks.build(name, 5, contract_of(3, size), {})
    tapped = Tapped(network, torch.zeros(2, 3, size, size, device="meta"))
    assert tapped.map.stages == stages
    areas = [shape[1] * shape[2] for shape in map(tapped.map.shapes.get, stages)]
    assert areas == sorted(set(areas), reverse=True)


def test_channels_last_maps_and_attention_weights_are_no_stages():
    with torch.device("meta"):
        network = networks.build("torchvision/swin_t", 5, contract_of(3, 64), {})
    stages = Tapped(network, torch.zeros(2, 3, 64, 64, device="meta")).map.stages
    assert "features.1" not in stages


@pytest.mark.parametrize(
    ("name", "size", "tap", "width"),
    [("lenet5", 32, "fc2:in", 84), ("resnet20_cifar", 32, "fc:in", 64), ("mlp", 8, "fc3:in", 1200),
     ("torchvision/squeezenet1_1", 64, "classifier.1:in", 512), ("timm/mobilenetv3_small_100", 64, "classifier:in", 1024)],
)  # fmt: skip
def test_penultimate_is_the_classifiers_input(name, size, tap, width):
    tapped = tapped_of(name, size=size)
    assert penultimate(tapped) == tap
    tapped.request([tap])
    outputs = tapped.eval()(torch.randn(2, 3, size, size))
    assert outputs.taps[tap].shape[1] == width
    head = tapped.network.get_submodule(tap.removesuffix(":in"))
    if isinstance(head, nn.Linear):
        torch.testing.assert_close(head(outputs.taps[tap]), outputs.logits)


def test_a_network_without_a_linear_head_has_no_penultimate():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(SpecError, match="linear classifier"):
        penultimate(Tapped(network, torch.zeros(2, 1, 4, 4)))


def test_parameters_through_a_tap():
    tapped = tapped_of("resnet8_cifar")
    first = ["conv1.weight", "bn1.weight", "bn1.bias"]
    assert parameters_through(tapped, "relu") == first
    assert parameters_through(tapped, "layer1.0.conv1:in") == first
    assert parameters_through(tapped, "layer1.0.relu1:pre") == [
        *first, "layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.0.bn1.bias",
    ]  # fmt: skip
    whole = [name for name, _ in tapped.network.named_parameters()]
    assert parameters_through(tapped, "fc") == whole
    assert parameters_through(tapped, "layer3") == [name for name in whole if not name.startswith("fc")]
    with pytest.raises(SpecError, match="most similar"):
        parameters_through(tapped, "layer9")


def test_parameters_of_modules_that_are_never_called_belong_to_the_module_that_uses_them():
    with torch.device("meta"):
        network = networks.build("torchvision/vit_b_16", 5, contract_of(3, 32), {})
    tapped = Tapped(network, torch.zeros(2, 3, 32, 32, device="meta"))
    through = parameters_through(tapped, "encoder.layers.encoder_layer_0")
    assert "encoder.layers.encoder_layer_0.self_attention.out_proj.weight" in through
    assert "class_token" in through
    assert not any("encoder_layer_1." in name or "heads" in name for name in through)


def test_unknown_taps_are_refused_with_suggestions(overwriting):
    with pytest.raises(SpecError) as caught:
        overwriting.request(["conv1", "bn3", "act:post"])
    assert [problem.pointer for problem in caught.value.problems] == ["/taps", "/taps"]
    assert "bn2" in str(caught.value)
    assert overwriting.requested == ()


def test_pairs_are_aligned_from_the_deepest():
    student, teacher = tapped_of("resnet8_cifar").map, tapped_of("torchvision/resnet18", size=64).map
    assert pair_stages(student, teacher) == (("layer1", "layer2"), ("layer2", "layer3"), ("layer3", "layer4"))
    assert pair_stages(teacher, student) == (("layer2", "layer1"), ("layer3", "layer2"), ("layer4", "layer3"))
    flat = tapped_of("mlp", size=8).map
    with pytest.raises(SpecError, match="the teacher has no feature maps"):
        pair_stages(student, flat)


def test_named_pairs_are_checked():
    map_ = tapped_of("resnet8_cifar").map
    assert resolve_pairs((("fc:in", "layer1:pre"),), map_, map_) == (("fc:in", "layer1:pre"),)
    with pytest.raises(SpecError) as caught:
        resolve_pairs((("layer1", "layer1"), ("layr2", "layer2"), ("layer3", "fd")), map_, map_)
    assert [problem.pointer for problem in caught.value.problems] == ["/taps/1/0", "/taps/2/1"]
    with pytest.raises(SpecError, match="repeats an earlier pair"):
        resolve_pairs((("layer1", "layer1"), ("layer1", "layer1")), map_, map_)


@pytest.mark.parametrize("network", [nn.Conv2d(1, 3, 3), nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), nn.Linear(4, 3)])
def test_networks_that_do_not_fit_are_refused(network):
    with pytest.raises(SpecError) as caught:
        Tapped(network, torch.zeros(2, 1, 4, 4))
    assert [problem.pointer for problem in caught.value.problems] == ["/network"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # the pairs of Heo et al., arXiv:1904.01866, for wide residual networks: the BatchNorm after each group
        ("wrn_cifar", ["block2.layer.0.relu1:pre", "block3.layer.0.relu1:pre", "relu:pre"]),
        ("resnet8_cifar", ["layer1:pre", "layer2:pre", "layer3:pre"]),
    ],
)
def test_stages_before_the_activation_are_outside_of_residual_branches(name, expected):
    network = networks.build(name, 10, InputContract(3, 32, 32, (0.0,) * 3, (1.0,) * 3), {}).eval()
    tapped = Tapped(network, torch.randn(2, 3, 32, 32))
    assert list(tapped.map.before_activation.values()) == expected
    tapped.request([*expected, *tapped.map.stages])
    with torch.no_grad():
        taps = tapped(tapped.example).taps
    for stage, before in tapped.map.before_activation.items():
        assert taps[stage].shape == taps[before].shape
