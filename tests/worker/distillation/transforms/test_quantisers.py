"""Quantisers against their formulas, written slowly."""

import pytest
import torch
from torch import nn

from worker.distillation.compression.quantisers import SCHEMES, Bucketed, LearnedStep, MinMax, Ternary, WideReduced


def weight_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_there_are_few_values_and_rounding_again_changes_nothing(scheme: str, bits: int) -> None:
    weight = weight_of(6, 50)
    quantiser = SCHEMES[scheme]((6, 50), bits)
    quantiser.start(weight)
    rounded = quantiser.quantised(weight)
    groups = rounded.reshape(1, -1) if scheme in ("wrpn", "ttq") else rounded
    if scheme == "bucket":
        flat = rounded.reshape(-1)
        groups = [flat[:256], flat[256:]]
    assert all(len(group.unique()) <= 2**quantiser.bits for group in groups)
    if scheme != "ttq":  # whose border depends on the weights
        torch.testing.assert_close(quantiser.quantised(rounded), rounded)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_min_max_errs_by_half_a_step(bits: int) -> None:
    weight = weight_of(6, 50)
    quantiser = MinMax((6, 50), bits)
    step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    error = (quantiser.quantised(weight) - weight).abs()
    assert bool((error <= step / 2 * (1 + 1e-5)).all()) and float((error / step).max()) > 0.4


def test_buckets_err_by_half_a_step_of_their_own() -> None:
    weight, bits = weight_of(40, 20), 3
    rounded = Bucketed((40, 20), bits).quantised(weight)
    for begin in range(0, 800, 256):
        own, given = weight.reshape(-1)[begin : begin + 256], rounded.reshape(-1)[begin : begin + 256]
        alpha = own.max() - own.min()
        assert float((own - given).abs().max()) <= float(alpha) / (2 * (2**bits - 1)) * (1 + 1e-4)


def test_the_gradient_of_min_max_and_buckets_goes_straight_through() -> None:
    for kind in (MinMax, Bucketed):
        weight = weight_of(6, 50).requires_grad_()
        given = weight_of(6, 50, seed=1)
        (kind((6, 50), 3)(weight) * given).sum().backward()
        assert torch.equal(weight.grad, given)


def test_the_gradient_of_a_learned_step() -> None:
    """Esser et al.: d(value)/ds = round(w/s) - w/s within the range, else the least or largest code; times 1/sqrt(n Qp)."""
    bits, weight, given = 3, weight_of(4, 30).requires_grad_(), weight_of(4, 30, seed=1)
    quantiser = LearnedStep((4, 30), bits)
    quantiser.start(weight.detach())
    torch.testing.assert_close(quantiser.scale.detach(), 2 * weight.detach().abs().mean(1) / 3**0.5)
    (quantiser(weight) * given).sum().backward()
    expected = torch.zeros(4)
    within = torch.zeros(4, 30)
    for row in range(4):
        for column in range(30):
            ratio = float((weight[row, column] / quantiser.scale[row]).detach())
            slope = -4.0 if ratio <= -4 else 3.0 if ratio >= 3 else round(ratio) - ratio
            expected[row] += given[row, column] * slope
            within[row, column] = float(-4 <= ratio <= 3)
    torch.testing.assert_close(quantiser.scale.grad, expected / (30 * 3) ** 0.5, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(weight.grad, given * within)
    torch.testing.assert_close(quantiser(weight).detach(), quantiser.quantised(weight), atol=1e-6, rtol=1e-5)


def test_ternary_values_and_gradients() -> None:
    """Zhu et al.: three values; dWp and dWn are sums over the sets; the weight's gradient is scaled by Wp, 1 or Wn."""
    weight, given = weight_of(8, 40).requires_grad_(), weight_of(8, 40, seed=1)
    quantiser = Ternary((8, 40))
    quantiser.start(weight.detach())
    with torch.no_grad():
        quantiser.positive.fill_(0.7)
        quantiser.negative.fill_(0.3)
    value = quantiser(weight)
    assert value.unique().tolist() == pytest.approx([-0.3, 0.0, 0.7])
    (value * given).sum().backward()
    border = 0.05 * float(weight.detach().abs().max())
    above, below = weight.detach() > border, weight.detach() < -border
    torch.testing.assert_close(quantiser.positive.grad, given[above].sum()[None])
    torch.testing.assert_close(quantiser.negative.grad, -given[below].sum()[None])
    factor = torch.ones(8, 40)
    factor[above], factor[below] = 0.7, 0.3
    torch.testing.assert_close(weight.grad, given * factor)
    assert torch.equal(quantiser.quantised(weight), value.detach())


def test_wide_reduced_precision_clips_and_rounds() -> None:
    weight = torch.tensor([[-2.0, -0.4, 0.1, 0.5, 3.0]])
    value = WideReduced((1, 5), 3).quantised(weight)
    torch.testing.assert_close(value, torch.tensor([[-1.0, -1 / 3, 0.0, 2 / 3, 1.0]]))


def test_scales_have_no_weight_decay() -> None:
    """AdamW leaves out parameters of one dimension."""
    for kind in SCHEMES.values():
        quantiser = kind((3, 4), 2)
        assert all(parameter.ndim == 1 for parameter in quantiser.parameters())
        assert not isinstance(quantiser, nn.Linear)
