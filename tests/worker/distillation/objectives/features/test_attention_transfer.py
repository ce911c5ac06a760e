"""Attention transfer against its invariants."""

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.trial import objective_of
from worker.distillation.objectives.features.attention_transfer import attention, distance

B, C, H, W = 3, 5, 4, 6
MAPS = ("sum", "sum_power", "max_power")


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(B, C, H, W, dtype=torch.float64)


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize("power", [1.0, 2.0, 3.0, 4.0])
def test_map_is_the_slow_formula(features, map_, power):
    for sample, row in zip(features, attention(features, map_, power), strict=True):
        values = []
        for y in range(H):
            for x in range(W):
                channel = [abs(float(sample[c, y, x])) ** (1.0 if map_ == "sum" else power) for c in range(C)]
                values.append(max(channel) if map_ == "max_power" else sum(channel))
        norm = sum(value**2 for value in values) ** 0.5
        torch.testing.assert_close(row, torch.tensor([value / norm for value in values], dtype=torch.float64))


@pytest.mark.parametrize("map_", MAPS)
def test_ignores_the_scale_of_each_sample(features, map_):
    scale = torch.tensor([0.1, 3.0, 50.0], dtype=torch.float64).view(B, 1, 1, 1)
    torch.testing.assert_close(attention(scale * features, map_, 2.0), attention(features, map_, 2.0))


def test_mean_over_channels_gives_the_same_map(features):
    mean = F.normalize(features.square().mean(1).flatten(1), dim=1)
    torch.testing.assert_close(attention(features, "sum_power", 2.0), mean)


def ignores_signs(of_features, features):
    return torch.allclose(of_features(features), of_features(-features))


def test_ignores_signs_also_for_odd_powers(features):
    assert ignores_signs(lambda x: attention(x, "sum_power", 3.0), features)
    assert not ignores_signs(
        lambda x: F.normalize(x.pow(3).sum(1).flatten(1), dim=1), features
    )  # without abs, as in some public code


def test_scales_of_both_reductions(features):
    student, teacher = attention(features, "sum_power", 2.0), attention(features.flip(0), "sum_power", 2.0)
    norms = [distance(s[None], t[None], "paper") for s, t in zip(student, teacher, strict=True)]
    torch.testing.assert_close(distance(student, teacher, "repo"), sum(norm**2 for norm in norms) / (H * W) / B)
    torch.testing.assert_close(distance(student, teacher, "paper"), sum(norms) / B)


@pytest.mark.parametrize("reduction", ["repo", "paper"])
def test_equal_maps_have_no_distance_and_a_finite_gradient(features, reduction):
    features.requires_grad_(True)
    objective = objective_of("attention_transfer", reduction=reduction)
    value = objective.compare(features, 2 * features.detach())
    value.backward()
    assert value.abs() < 1e-12
    assert features.grad.isfinite().all()


def test_maximum_lies_below_the_sum(features):
    assert (features.abs().square().amax(1) <= features.abs().square().sum(1)).all()
    largest = features.square().amax((1, 2, 3))
    unit = F.one_hot(torch.tensor(2), C).double().view(1, C, 1, 1) * features  # a single channel: maximum is sum
    torch.testing.assert_close(attention(unit, "max_power", 2.0), attention(unit, "sum_power", 2.0))
    assert largest.shape == (B,)


def test_larger_map_is_averaged_down(features):
    objective = objective_of("attention_transfer")
    large = F.interpolate(features, scale_factor=2, mode="nearest")
    assert objective.compare(large, features) < 1e-12
    assert objective.compare(features, large) < 1e-12
