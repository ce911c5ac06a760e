"""Neuron selectivity transfer against its closed forms; mistakes of public code must fail them."""

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.trial import objective_of
from worker.distillation.objectives.features.attention_transfer import attention
from worker.distillation.objectives.features.nst import gaussian_discrepancy, polynomial_discrepancy

B, S, T, N = 3, 4, 6, 9
KERNELS = ("linear", "polynomial", "gaussian")


def rows(channels, seed):
    torch.manual_seed(seed)
    return F.normalize(torch.randn(B, channels, N, dtype=torch.float64), dim=2)


@pytest.fixture
def sets():
    return rows(S, 0), rows(T, 1)


def discrepancy(kernel, s, t):
    if kernel == "gaussian":
        return gaussian_discrepancy(s, t)
    return polynomial_discrepancy(s, t, 1 if kernel == "linear" else 2, 0.0)


def slow(kernel, s, t):
    """Mean over the batch of mean k(t, t') + mean k(s, s') - 2 mean k(t, s), one product at a time."""
    total = 0.0
    for student, teacher in zip(s, t, strict=True):
        variance = sum(float((x - y).square().sum()) for x in teacher for y in student) / (T * S)

        def kernel_of(x, y, variance=variance):
            product = float((x * y).sum())
            gaussian = torch.exp(-(x - y).square().sum() / (2 * variance))
            return {"linear": product, "polynomial": product**2, "gaussian": float(gaussian)}[kernel]

        def mean(xs, ys, kernel_of=kernel_of):
            return sum(kernel_of(x, y) for x in xs for y in ys) / (len(xs) * len(ys))

        total += mean(teacher, teacher) + mean(student, student) - 2 * mean(teacher, student)
    return torch.tensor(total / len(s), dtype=torch.float64)


@pytest.mark.parametrize("kernel", KERNELS)
def test_is_the_slow_formula(sets, kernel):
    torch.testing.assert_close(discrepancy(kernel, *sets), slow(kernel, *sets))


def test_linear_is_the_distance_of_the_mean_channels(sets):
    s, t = sets
    closed = (t.mean(1) - s.mean(1)).square().sum(1).mean()
    torch.testing.assert_close(discrepancy("linear", s, t), closed)


def gram_distance(s, t, of_student, of_teacher):
    return (t.mT @ t * of_teacher - s.mT @ s * of_student).square().sum((1, 2)).mean()


def test_polynomial_is_the_distance_of_gram_matrices_by_channels(sets):
    torch.testing.assert_close(discrepancy("polynomial", *sets), gram_distance(*sets, 1 / S, 1 / T))
    assert not torch.allclose(
        discrepancy("polynomial", *sets), gram_distance(*sets, 1, 1)
    )  # without 1/C, as in some public code


def test_polynomial_is_the_broadcast_form_with_less_memory(sets):
    s, t = sets

    def broadcast(x, y):
        return (x[:, :, None] * y[:, None]).sum(3).pow(2).mean()

    torch.testing.assert_close(discrepancy("polynomial", s, t), broadcast(t, t) + broadcast(s, s) - 2 * broadcast(s, t))


@pytest.mark.parametrize("kernel", KERNELS)
def test_never_negative_and_zero_for_equal_sets(kernel):
    s = rows(S, 0)
    shuffled = s[:, torch.randperm(S)]
    assert discrepancy(kernel, s, shuffled).abs() < 1e-12
    for seed in range(20):
        assert discrepancy(kernel, s, rows(T, seed)) >= -1e-12


def test_without_the_teachers_own_term_equal_sets_are_below_zero():
    s = rows(S, 0)
    dropped = discrepancy("polynomial", s, s) - (s @ s.mT).square().mean()
    assert dropped < 0  # as the authors' code logs it


@pytest.mark.parametrize("kernel", KERNELS)
def test_ignores_the_order_of_channels(sets, kernel):
    s, t = sets
    torch.testing.assert_close(discrepancy(kernel, s[:, torch.randperm(S)], t), discrepancy(kernel, s, t))


def test_one_channel_with_a_linear_kernel_is_attention_transfer():
    torch.manual_seed(4)
    s, t = torch.rand(2, B, 1, 3, 3, dtype=torch.float64).unbind()
    maps = (attention(t, "sum", 1.0) - attention(s, "sum", 1.0)).square().sum(1).mean()
    torch.testing.assert_close(objective_of("nst", kernel="linear").compare(s, t), maps)


def test_mean_channel_is_parallel_to_attention_for_equal_norms():
    torch.manual_seed(5)
    features = F.normalize(torch.rand(B, S, N, dtype=torch.float64), dim=2)
    mean = F.normalize(features.mean(1), dim=1)
    torch.testing.assert_close(mean, attention(features.view(B, S, 3, 3), "sum", 1.0))


@pytest.mark.parametrize("kernel", KERNELS)
def test_dead_channels_are_finite(kernel):
    torch.manual_seed(6)
    student = F.relu(torch.randn(B, S, 3, 3))
    student[:, 0] = 0
    student.requires_grad_(True)
    value = objective_of("nst", kernel=kernel).compare(student, torch.zeros(B, T, 3, 3))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_gaussian_width_is_a_constant_for_the_gradient(sets):
    s, t = (x.clone().requires_grad_(True) for x in sets)
    ours = torch.autograd.grad(gaussian_discrepancy(s, t), s)[0]
    width = torch.cdist(t, s).square().mean((1, 2), keepdim=True).detach()

    def kernel(x, y):
        return torch.exp(-(x[:, :, None] - y[:, None]).square().sum(3) / (2 * width)).mean()

    fixed = torch.autograd.grad(kernel(t, t) + kernel(s, s) - 2 * kernel(t, s), s)[0]
    torch.testing.assert_close(ours, fixed)
