"""Statistics of activations, collected by the client."""

import numpy as np
import pytest
import torch
from torch import nn

from distillery_client.statistics import collect

CLASSES = 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 5), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(5, CLASSES))


def batches(count: int = 90) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    image, label = torch.randn(count, 1, 4, 4, generator=draw), torch.arange(count) % CLASSES
    return list(zip(image.split(16), label.split(16), strict=True))


def rows(net: nn.Sequential, last: int, number: int) -> np.ndarray:
    image, label = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    with torch.no_grad():
        return net[: last + 1].eval()(image[label == number].clone()).flatten(1).numpy()


def test_the_default_is_mean_and_covariance_of_the_penultimate_features() -> None:
    net = network().train()
    found = collect(net, batches(), CLASSES)
    assert set(found) == {"6:in/mean", "6:in/factor", "6:in/minimum"} and net.training
    for number in range(CLASSES):
        real, factor = rows(net, 5, number), found["6:in/factor"][number].numpy()
        np.testing.assert_allclose(found["6:in/mean"][number], real.mean(0), atol=1e-5)
        np.testing.assert_allclose(factor.T @ factor, np.cov(real.T), atol=1e-5)
    assert found["6:in/minimum"] == 0


def test_several_taps_share_directions_that_give_their_cross_covariance() -> None:
    net = network()
    found = collect(net, batches(), CLASSES, taps=["0", "4"], rank=20)
    first, second = found["0/factor"], found["4/factor"]
    assert first.shape == (3, 13, 8) and second.shape == (3, 13, 5)  # no more directions than dimensions
    for number in range(CLASSES):
        # the convolution's output, copied before the in-place ReLU
        both = np.concatenate([rows(net, 0, number), rows(net, 4, number)], axis=1)
        np.testing.assert_allclose(first[number].T @ second[number], np.cov(both.T)[:8, 8:], atol=1e-5)
    assert found["0/minimum"] < 0


def test_a_lower_rank_keeps_the_directions_of_largest_variance() -> None:
    net = network()
    whole, low = (collect(net, batches(), CLASSES, ["4"], rank)["4/factor"][0] for rank in (5, 2))
    torch.testing.assert_close(low, whole[:2])
    variance = whole.square().sum(1)
    assert torch.equal(variance, variance.sort(descending=True).values)


def test_the_images_per_class_are_limited() -> None:
    net = network()
    few = collect(net, batches(), CLASSES, most_a_class=4)
    np.testing.assert_allclose(few["6:in/mean"][1], rows(net, 5, 1)[:4].mean(0), atol=1e-5)
    assert few["6:in/factor"].shape == (3, 3, 5)


def test_unknown_taps_and_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="no activation 'layer9'"):
        collect(network(), batches(), CLASSES, ["layer9"])
    with pytest.raises(ValueError, match=r"classes \[3\] have fewer than 2"):
        collect(network(), batches(), 4)
    with pytest.raises(ValueError, match="no linear layer"):
        collect(nn.Sequential(nn.Flatten()), batches(), CLASSES)
