"""Weights rounded with compensation: GPTQ written slowly, its error, and moments of layers' inputs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from worker.distillation.compression.compensated import DAMPING, columns_of, compensated, second_moments


def slowly(weight, scale, largest, moments):
    """The optimal brain surgeon's update, column by column, with the inverse of what is left each time."""
    whole = moments + DAMPING * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
    rows = []
    for row, own in zip(weight.double(), scale.double(), strict=True):
        left, done = row.clone(), torch.zeros_like(row)
        for column in range(len(row)):
            inverse = torch.linalg.inv(whole[column:, column:])
            done[column] = (left[column] / own).round().clamp(-largest, largest) * own
            left[column:] -= (left[column] - done[column]) / inverse[0, 0] * inverse[:, 0]
        rows.append(done)
    return torch.stack(rows)


def correlated(count, size):
    torch.manual_seed(1)
    return torch.randn(count, size) @ torch.randn(size, size)


def test_it_is_the_optimal_brain_surgeon():
    x, weight = correlated(300, 9).double(), torch.randn(4, 9)
    scale = weight.abs().amax(1) / 7
    moments = x.T @ x
    given = compensated(weight, scale, 7, moments[None])
    torch.testing.assert_close(given.double(), slowly(weight, scale, 7, moments), rtol=1e-5, atol=1e-6)


def test_outputs_are_closer_than_with_the_nearest_values():
    x, weight = correlated(500, 32), torch.randn(16, 32)
    scale = weight.abs().amax(1) / 7
    nearest = (weight / scale[:, None]).round() * scale[:, None]
    own = compensated(weight, scale, 7, (x.T @ x).double()[None])
    errors = [float(((weight - each) @ x.T).square().sum()) for each in (own, nearest)]
    assert errors[0] < 0.7 * errors[1]
    codes = own / scale[:, None]
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)


def test_inputs_that_do_not_depend_on_each_other_need_no_compensation():
    weight = torch.randn(3, 5)
    scale = weight.abs().amax(1) / 127
    given = compensated(weight, scale, 127, torch.eye(5, dtype=torch.float64)[None])
    assert torch.equal(given, (weight / scale[:, None]).round() * scale[:, None])


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, 3, groups=2, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2),
    ],
)
def test_moments_are_those_of_what_the_weights_read(conv):
    """`w^T M w` is the sum of the squared outputs."""
    network = nn.Sequential(conv)
    x = torch.randn(5, 4, 8, 8)
    moments = second_moments(network, ["0"], x)["0"]
    outputs = F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    weight = conv.weight.detach().double().flatten(1).reshape(conv.groups, -1, moments.shape[1])
    given = torch.einsum("gok,gkl,gol->go", weight, moments, weight).flatten()
    torch.testing.assert_close(given.float(), outputs.square().sum((0, 2, 3)).detach(), rtol=1e-4, atol=1e-3)


def test_layers_that_are_too_large_are_left_out():
    assert columns_of(nn.Linear(9216, 10)) is None and columns_of(nn.Linear(64, 10)) == 64
    assert columns_of(nn.Conv2d(3, 4, 3, padding_mode="circular", padding=1)) is None
    assert columns_of(nn.Conv1d(3, 4, 3)) is None
