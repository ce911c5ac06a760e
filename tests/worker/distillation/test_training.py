import pytest
import torch
from torch import nn

from worker.distillation.errors import SpecError
from worker.distillation.training import Training


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
