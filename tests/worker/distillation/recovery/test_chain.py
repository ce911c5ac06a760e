"""Layers are read from a state dict in an order in which they can follow each other."""

import pytest
import torch
from torch import nn

from worker.distillation.errors import UploadError
from worker.distillation.recovery.chain import read_chain

STATE = {
    "conv1.weight": torch.zeros(6, 1, 5, 5),
    "conv1.bias": torch.zeros(6),
    "bn.weight": torch.zeros(6),
    "bn.bias": torch.zeros(6),
    "bn.running_mean": torch.zeros(6),
    "bn.running_var": torch.ones(6),
    "fc1.weight": torch.zeros(20, 6 * 12 * 12),
    "fc2.weight": torch.zeros(10, 20),
}


def names(state, channels=1):
    return [(layer.name, layer.kind) for layer in read_chain(state, channels)]


def test_the_order_of_the_file():
    expected = [("conv1", "conv"), ("bn", "batch_norm"), ("fc1", "linear"), ("fc2", "linear")]
    assert names(STATE) == expected
    assert names(dict(reversed(STATE.items()))) == expected


def test_transposed_linear_layers_and_linear_layers_that_are_convolutions():
    turned = STATE | {"fc1.weight": torch.zeros(6 * 12 * 12, 20), "fc2.weight": torch.zeros(20, 10)}
    assert [tuple(layer.weight.shape) for layer in read_chain(turned, 1)][2:] == [(20, 864), (10, 20)]
    pointwise = STATE | {"fc2.weight": torch.zeros(10, 20, 1, 1)}
    assert names(pointwise)[-1] == ("fc2", "linear")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extra": torch.zeros(3)}, "extra belongs to no convolution"),
        ({"lstm.weight": torch.zeros(3, 3, 3)}, "lstm with a weight of shape"),
        ({"other.weight": torch.zeros(7, 5, 3, 3)}, "cannot follow each other"),
    ],
)
def test_what_is_no_chain_is_refused(change, words):
    with pytest.raises(UploadError, match=words):
        read_chain(STATE | change, 1)


def listed(*named):
    """The state dict of layers by name, of which every BatchNorm has counted a batch."""
    state = {f"{name}.{key}": tensor for name, layer in named for key, tensor in layer.state_dict().items()}
    return {name: tensor + 1 if name.endswith("num_batches_tracked") else tensor for name, tensor in state.items()}


CONVOLUTIONS = [(f"conv{number}", nn.Conv2d(1 if number == 1 else 8, 8, 3)) for number in (1, 2, 3)]
NORMS = [(f"bn{number}", nn.BatchNorm2d(8)) for number in (1, 2, 3)]
LAST = [("fc", nn.Linear(8, 10))]


@pytest.mark.parametrize(
    "named", [CONVOLUTIONS + NORMS + LAST, NORMS + CONVOLUTIONS + LAST, LAST + NORMS[::-1] + CONVOLUTIONS]
)
def test_norms_that_are_listed_apart_follow_the_layers_of_their_numbers(named):
    """All layers have the same width, so that norms could follow any of them, or each other."""
    assert [name for name, _ in names(listed(*named))] == ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "fc"]


def test_norms_of_fewer_layers_than_there_are():
    state = listed(
        *CONVOLUTIONS, ("conv3_bn", nn.BatchNorm2d(8)), ("norm", nn.BatchNorm1d(10)), *LAST, ("out", nn.Linear(10, 4))
    )
    assert [name for name, _ in names(state)] == ["conv1", "conv2", "conv3", "conv3_bn", "fc", "norm", "out"]


def test_single_numbers_are_prelus_that_follow_the_layers_of_their_numbers():
    state = listed(
        ("conv1_1", nn.Conv2d(1, 4, 3)), ("prelu1_1", nn.PReLU()), ("conv1_2", nn.Conv2d(4, 4, 3)), ("prelu1_2", nn.PReLU()),
        ("preluip1", nn.PReLU()), ("ip1", nn.Linear(4, 2)), ("ip2", nn.Linear(2, 10, bias=False)),
    )  # fmt: skip
    found = [("conv1_1", "conv"), ("prelu1_1", "prelu"), ("conv1_2", "conv"), ("prelu1_2", "prelu")]
    assert names(state) == [*found, ("ip1", "linear"), ("preluip1", "prelu"), ("ip2", "linear")]


def test_norms_that_never_saw_a_batch_are_left_out():
    state = listed(*CONVOLUTIONS[:1], *LAST) | {
        f"bn.{key}": tensor for key, tensor in nn.BatchNorm2d(5).state_dict().items()
    }
    assert [name for name, _ in names(state)] == ["conv1", "fc"]


def test_names_that_are_sorted_as_text_are_read_by_their_numbers():
    """As safetensors sorts them: first whole numbers, then floats, each by names."""
    layers = [nn.Conv2d(1, 8, 3)]
    for _ in range(5):
        layers += [nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)]
    state = listed(("features", nn.Sequential(*layers)), ("out", nn.Linear(8, 10)))
    as_text = dict(sorted(state.items(), key=lambda pair: (pair[1].is_floating_point(), pair[0])))
    assert [name for name, _ in names(as_text)] == [*(f"features.{number}" for number in range(11)), "out"]


def test_a_linear_layer_without_a_place_is_left_out():
    assert names(STATE | {"other.weight": torch.zeros(7, 5)}) == names(STATE)
