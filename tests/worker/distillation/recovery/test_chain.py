"""Layers are read from a state dict in an order in which they can follow each other."""

import pytest
import torch

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
        ({"other.weight": torch.zeros(7, 5)}, "cannot follow each other"),
    ],
)
def test_what_is_no_chain_is_refused(change, words):
    with pytest.raises(UploadError, match=words):
        read_chain(STATE | change, 1)
