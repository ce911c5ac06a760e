import pytest
import torch
from torch import nn

from worker.distillation.errors import SpecError
from worker.distillation.trainer.checkpoint import snapshot
from worker.distillation.training import Training, can_be_fused


def rates(total=100, **values):
    training = Training.from_spec({"learning_rate": 1.0, **values})
    return [training.learning_rate_at(number, total) for number in range(total)]


def test_constant():
    assert rates(schedule="constant") == [1.0] * 100


def test_cosine_goes_from_the_rate_to_its_fraction():
    values = rates(schedule="cosine", final_learning_rate_fraction=0.1)
    assert values[0] == 1.0
    assert values[50] == pytest.approx(0.55)
    assert values[-1] == pytest.approx(0.1, abs=1e-3)
    assert values == sorted(values, reverse=True)


def test_multistep_divides_by_ten_at_its_milestones():
    values = rates(schedule="multistep", milestones=[0.5, 0.75])
    assert [values[index] for index in (0, 49, 50, 74, 75, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_multistep_multiplies_by_its_factor_at_each_milestone():
    values = rates(schedule="multistep", milestones=[0.25, 0.5, 0.75], milestone_factor=0.2)
    assert [values[index] for index in (24, 25, 50, 75)] == pytest.approx([1, 0.2, 0.04, 0.008])


def test_warm_up_is_linear_and_precedes_the_schedule():
    values = rates(schedule="cosine", warm_up_steps=10)
    assert values[:10] == pytest.approx([0.1 * number for number in range(1, 11)])
    assert values[10] == 1.0


def test_adamw_applies_no_weight_decay_to_vectors():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = Training.from_spec({"optimizer": "adamw", "weight_decay": 0.1}).make_optimizer(network.parameters())
    decays = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert decays[id(network[0].weight)] == 0.1
    assert {decays[id(parameter)] for parameter in (network[0].bias, network[1].weight, network[1].bias)} == {0.0}


def test_sgd_without_momentum_does_not_use_nesterov():
    optimizer = Training.from_spec({"optimizer": "sgd", "momentum": 0.0}).make_optimizer([nn.Parameter(torch.zeros(1))])
    assert optimizer.param_groups[0]["nesterov"] is False


def test_precision_is_float32_on_a_cpu_unless_requested():
    for precision, low in (("auto", False), ("fp32", False), ("bf16", True)):
        with Training.from_spec({"precision": precision}).autocast(torch.device("cpu")):
            assert torch.is_autocast_enabled("cpu") is low


def test_invalid_values_have_pointers():
    with pytest.raises(SpecError) as caught:
        Training.from_spec({"learning_rate": 0.0, "optimizer": "lion", "epoch": 3})
    assert {problem.pointer for problem in caught.value.problems} == {
        "/training/learning_rate", "/training/optimizer", "/training/epoch",
    }  # fmt: skip


def slow_sgd(weight, gradients, *, rate, momentum, decay, nesterov):
    """v = m v + g, w = w - r (g + m v) or w - r v, with g = gradient + decay w; None: no step."""
    weight, velocity = weight.double(), torch.zeros_like(weight).double()
    for gradient in gradients:
        if gradient is None:
            continue
        g = gradient.double() + decay * weight
        velocity = momentum * velocity + g
        weight = weight - rate * (g + momentum * velocity if nesterov else velocity)
    return weight


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_is_fused_and_follows_its_formula_even_if_a_gradient_begins_late(nesterov):
    draw = torch.Generator().manual_seed(0)
    early, late = (nn.Parameter(torch.randn(5, 3, generator=draw)) for _ in range(2))
    begun = early.detach().clone(), late.detach().clone()
    values = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": nesterov}
    optimizer = Training.from_spec(values).make_optimizer([early, late])
    assert all(group["fused"] for group in optimizer.param_groups)
    gradients = [[torch.randn(5, 3, generator=draw) for _ in range(4)] for _ in range(2)]
    gradients[1][:2] = [None, None]
    for one, other in zip(*gradients, strict=True):
        early.grad, late.grad = one, other
        optimizer.step()
    rest = {"rate": 0.1, "momentum": 0.9, "decay": 0.01, "nesterov": nesterov}
    for parameter, start, given in zip((early, late), begun, gradients, strict=True):
        torch.testing.assert_close(parameter.detach().double(), slow_sgd(start, given, **rest), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_restored_optimiser_goes_on_bit_equal_also_with_gradients_in_another_format(name):
    def trained(steps, state=None, begin=0):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
        optimizer = Training.from_spec({"optimizer": name}).make_optimizer(network.parameters())
        if state is not None:
            network.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
        draw = torch.Generator().manual_seed(1)
        for number in range(steps):
            image = torch.randn(4, 3, 8, 8, generator=draw).contiguous(memory_format=torch.channels_last)
            if number >= begin:
                optimizer.zero_grad()
                network(image).square().mean().backward()
                optimizer.step()
        return snapshot([network.state_dict(), optimizer.state_dict()])

    half, whole = trained(3), trained(6)
    resumed = trained(6, half, begin=3)
    assert all(torch.equal(resumed[0][key], value) for key, value in whole[0].items())


def test_parameters_in_another_layout_are_not_fused():
    assert can_be_fused([torch.zeros(2, 3)]) and not can_be_fused([torch.zeros(2, 3).t()])
    assert not can_be_fused([torch.zeros(2, dtype=torch.int64)])


def test_the_teachers_precision_is_the_trainings_unless_it_has_its_own():
    for own, precision, low in (("training", "bf16", True), ("fp32", "bf16", False), ("bf16", "fp32", True)):
        given = Training.from_spec({"precision": precision, "teacher_precision": own})
        with given.teacher_autocast(torch.device("cpu")):
            assert torch.is_autocast_enabled("cpu") is low
