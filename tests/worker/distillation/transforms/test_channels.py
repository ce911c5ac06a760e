"""Fewer channels: the channels of largest norm stay, and every layer fits the others."""

import copy

import pytest
import torch
from torch import nn

from worker.distillation import networks
from worker.distillation.compression.channels import kept_values, narrower_shapes
from worker.distillation.compression.member_transforms import MemberTransforms, TransformContext
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.transformed_network import rebuild

CONTRACT = InputContract(3, 32, 32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def transformed(network: nn.Module, **settings) -> MemberTransforms:
    context = TransformContext(example=torch.zeros(2, 3, 32, 32), contract=CONTRACT, classes=10)
    return MemberTransforms([{"name": "prune_channels", **settings}], network, context)


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_strongest_channels_stay() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 900, 10)
    ).eval()
    with torch.no_grad():
        for channel, factor in enumerate((1, 30, 0.1, 20)):
            network[0].weight[channel] *= factor
        network[1].bias.normal_()
    state = kept_values(network, torch.zeros(2, 3, 32, 32), 0.5)
    assert torch.equal(state["0.weight"], network[0].weight[[1, 3]])
    assert torch.equal(state["1.bias"], network[1].bias[[1, 3]])
    assert torch.equal(state["4.weight"], network[4].weight.reshape(10, 4, 900)[:, [1, 3]].flatten(1))
    assert torch.equal(state["4.bias"], network[4].bias)


def test_channels_without_weight_can_go() -> None:
    """If the other channels are zero, the network computes the same without them."""
    torch.manual_seed(0)
    network = networks.build("resnet8_cifar", 10, CONTRACT).eval()
    example = torch.zeros(2, 3, 32, 32)
    shapes = narrower_shapes(network, example, 0.5)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name in shapes and tensor.ndim:
                tensor[shapes[name][0] :] = 0  # the last half of the channels
    image, whole = torch.randn(4, 3, 32, 32), copy.deepcopy(network)
    transformed(network, keep=0.5)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), whole(image), atol=1e-5, rtol=1e-4)
    assert size(network) < 0.3 * size(whole)


@pytest.mark.parametrize("name", ["resnet20_cifar", "lenet5", "wrn_cifar", "torchvision/mobilenet_v2"])
def test_families_stay_networks(name: str) -> None:
    torch.manual_seed(0)
    contract = CONTRACT if name != "lenet5" else InputContract(1, 32, 32, (0.0,), (1.0,))
    network = networks.build(name, 10, contract)
    before = size(network)
    context = TransformContext(example=contract.blank(torch.device("cpu")), contract=contract, classes=10)
    transforms = MemberTransforms([{"name": "prune_channels", "keep": 0.5}], network, context)
    assert size(network) < 0.5 * before
    image = torch.randn(2, contract.channels, 32, 32)
    network(image).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    entries = transforms.finalize(network.eval())
    again = networks.build(name, 10, contract)
    rebuild(again, entries)
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(image), network(image))


def test_a_network_of_unknown_functions_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    with pytest.raises(SpecError, match="no layer has channels that could be removed"):
        transformed(network, keep=0.5)
