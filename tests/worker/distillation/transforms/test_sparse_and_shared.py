"""Pruning, clusters, trained points and factors against their formulas."""

import pytest
import torch
from torch import nn

from worker.distillation.compression.clusters import k_means, linear_centroids, quantile_centroids
from worker.distillation.compression.layers import weighted_layers
from worker.distillation.compression.low_rank import in_parts, set_factors, svd_factors, tucker_factors
from worker.distillation.compression.member_transforms import MemberTransforms, TransformContext
from worker.distillation.compression.parametrised import parts
from worker.distillation.compression.storage import encodings
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.parameters import parse
from worker.distillation.transforms.learned_points import Points
from worker.distillation.transforms.prune import Masked, Prune
from worker.distillation.transforms.share import Shared

CONTRACT = InputContract(1, 8, 8, (0.0,), (1.0,))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(72, 20), nn.ReLU(), nn.Linear(20, 4),
    )  # fmt: skip


def transformed(network: nn.Module, *specs: dict) -> MemberTransforms:
    example = torch.zeros(2, 1, 8, 8)
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    context = TransformContext(example=example, contract=CONTRACT, classes=4, images=lambda count: images[:count])
    return MemberTransforms(specs, network, context)


def train(network: nn.Module, transforms: MemberTransforms, steps: int, **more: float) -> None:
    draw = torch.Generator().manual_seed(1)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9)
    network.train()
    for step in range(steps):
        image = torch.randn(16, 1, 8, 8, generator=draw)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(image), (image.mean((1, 2, 3)) > 0).long()).backward()
        optimizer.step()
        transforms.after_step(network, (step + 1) / steps)


def test_the_share_of_zeros_rises_by_the_cubic_rule() -> None:
    prune = Prune(parse(Prune.Parameters, {"sparsity": 0.8, "begin": 0.2, "end": 0.7}))
    assert [prune.level_at(at) for at in (0, 0.2, 0.7, 1)] == [0, 0, 0.8, 0.8]
    assert prune.level_at(0.45) == pytest.approx(0.8 * (1 - 0.5**3))


@pytest.mark.parametrize("scope", ["network", "layer"])
def test_pruned_weights_are_zero_after_many_steps_with_momentum(scope: str) -> None:
    network = small()
    transforms = transformed(network, {"name": "prune", "sparsity": 0.75, "begin": 0.0, "end": 0.3, "scope": scope})
    train(network, transforms, 100)
    masks = {path: part.mask.clone() for path, _, part in parts(network, Masked)}
    zeros = sum(int((~mask).sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    assert zeros == pytest.approx(0.75, abs=0.01)
    if scope == "layer":
        assert all(float((~mask).float().mean()) == pytest.approx(0.75, abs=0.02) for mask in masks.values())
    transforms.finalize(network)
    for path, mask in masks.items():
        weight = network.get_submodule(path).weight
        assert bool((weight[~mask] == 0).all()) and bool((weight[mask] != 0).all())


def test_k_means_of_two_groups() -> None:
    values = torch.cat([torch.randn(50) * 0.01 - 1, torch.randn(70) * 0.01 + 2])
    found = k_means(values, linear_centroids(values, 2))
    torch.testing.assert_close(found, torch.stack([values[:50].mean(), values[50:].mean()]))


def test_the_first_centroids() -> None:
    values = torch.tensor([4.0, 0.0, 1.0, 2.0, 8.0])
    assert linear_centroids(values, 3).tolist() == [0, 4, 8]
    assert quantile_centroids(values, 3).tolist() == [0, 2, 8]


def test_the_gradient_of_a_shared_value_is_the_sum_of_its_members() -> None:
    weight = torch.randn(5, 9)
    weight[weight.abs() < 0.3] = 0
    shared, given = Shared(weight, 2), torch.randn(5, 9)
    assert torch.equal(shared(weight), weight)
    shared.begin(weight)
    (shared(weight) * given).sum().backward()
    expected = torch.stack([given[shared.codes == code].sum() for code in (1, 2, 3)])
    torch.testing.assert_close(shared.values.grad, expected)
    assert bool((shared(weight)[weight == 0] == 0).all())
    error = (shared(weight) - weight).abs()
    table = shared.table().detach()
    assert bool((error <= (weight[..., None] - table[1:]).abs().amin(-1) + 1e-6)[weight != 0].all())


def test_the_gradient_of_a_point_is_the_sum_of_the_weights_at_it() -> None:
    weight, given = torch.randn(5, 9), torch.randn(5, 9)
    points = Points(weight, 2)
    with torch.no_grad():
        points.points.copy_(torch.tensor([-1.0, -0.2, 0.3, 1.0]))
    (points(weight) * given).sum().backward()
    own = (weight[..., None] - points.points.detach()).abs().argmin(-1)
    torch.testing.assert_close(points.points.grad, torch.stack([given[own == number].sum() for number in range(4)]))


def test_learned_points_keep_the_weights_and_stay_sorted() -> None:
    network = small()
    before = network[6].weight.detach().clone()
    transforms = transformed(network, {"name": "learned_points", "bits": 2, "ends": "float"})
    train(network, transforms, 20)
    found = {path: (module.parametrizations.weight.original, part) for path, module, part in parts(network, Points)}
    assert set(found) == {"3", "6"} and torch.equal(found["6"][0], before)
    assert all(bool((part.points.diff() >= 0).all()) for _, part in found.values())
    transforms.finalize(network)
    assert len(network[6].weight.unique()) <= 4


@pytest.mark.parametrize("specs", [
    [{"name": "prune", "begin": 0.0, "end": 0.5}, {"name": "share", "begin": 0.6, "linear_bits": 3, "convolution_bits": 4}],
    [{"name": "prune", "begin": 0.0, "end": 1.0}, {"name": "share", "begin": 0.0, "linear_bits": 3, "convolution_bits": 4}],
    [{"name": "prune", "sparsity": 0.5}, {"name": "quantise", "bits": 3}],
    [{"name": "factorise"}, {"name": "share"}],
    [{"name": "learned_points", "bits": 3, "start": "quantiles"}],
])  # fmt: skip
def test_finalised_weights_decode_exactly(specs: list[dict]) -> None:
    network = small()
    transforms = transformed(network, *specs)
    train(network, transforms, 12)
    network.eval()
    image = torch.randn(5, 1, 8, 8)
    transforms.finalize(network)
    state = network.state_dict()
    found = encodings(network)
    assert found and all(torch.equal(encoding.decode(), state[name]) for name, encoding in found.items())
    assert bool(torch.isfinite(network(image)).all())


def test_the_error_of_an_svd_is_that_of_the_values_left_out() -> None:
    """Eckart and Young."""
    weight = torch.randn(12, 20)
    values = torch.linalg.svdvals(weight)
    for rank in (1, 5, 12):
        first, second = svd_factors(weight, rank)
        error = (second @ first - weight).square().sum()
        torch.testing.assert_close(error, values[rank:].square().sum(), atol=1e-3, rtol=1e-4)


def test_factors_of_full_rank_compute_the_same() -> None:
    torch.manual_seed(0)
    image = torch.randn(3, 6, 9, 9)
    conv = nn.Conv2d(6, 8, 3, stride=2, padding=1, dilation=1)
    for ranks in ([8], [6, 8]):
        pair = in_parts(conv, ranks)
        set_factors(pair, conv)
        torch.testing.assert_close(pair(image), conv(image), atol=1e-5, rtol=1e-4)
    linear = nn.Linear(7, 5)
    pair = in_parts(linear, [5])
    set_factors(pair, linear)
    x = torch.randn(3, 7)
    torch.testing.assert_close(pair(x), linear(x), atol=1e-5, rtol=1e-4)


def test_tucker_factors_of_a_weight_of_low_rank_are_exact() -> None:
    core, out_basis, in_basis = torch.randn(3, 2, 3, 3), torch.randn(8, 3), torch.randn(6, 2)
    weight = torch.einsum("rsxy,or,is->oixy", core, out_basis, in_basis)
    inner, middle, outer = tucker_factors(weight, 2, 3)
    again = torch.einsum("rsxy,or,si->oixy", middle, outer, inner)
    torch.testing.assert_close(again, weight, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("convolutions", ["svd", "tucker", "none"])
def test_a_factorised_network_has_the_wanted_size(convolutions: str) -> None:
    network = small()
    whole = sum(parameter.numel() for parameter in network.parameters())
    transformed(network, {"name": "factorise", "parameters": int(0.6 * whole), "convolutions": convolutions})
    left = sum(parameter.numel() for parameter in network.parameters())
    assert 0.5 * whole < left <= 0.6 * whole
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 4)
    assert len(weighted_layers(network.eval(), torch.zeros(2, 1, 8, 8))) > 4


def test_a_size_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(SpecError) as refused:
        transformed(small(), {"name": "factorise", "parameters": 10})
    (problem,) = refused.value.problems
    assert problem.pointer == "/transforms/0/parameters" and "with rank 1 everywhere" in problem.message


@pytest.mark.parametrize(("names", "message"), [
    (["quantise", "prune"], "prune must come before quantise"),
    (["prune", "prune"], "prune can be used once"),
    (["int8", "factorise"], "factorise must come before int8"),
])  # fmt: skip
def test_the_order_is_enforced(names: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        transformed(small(), *({"name": name} for name in names))
