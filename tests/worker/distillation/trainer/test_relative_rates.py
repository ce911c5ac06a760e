"""Relative rates: 1 for torch's initial weights, in proportion to larger ones, and how far a step of Adam then moves."""

import pytest
import torch
from torch import nn

from worker.distillation.trainer.relative_rates import LARGEST, factors, factors_for
from worker.distillation.training import Training


def network(scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64, 50))
    with torch.no_grad():
        made[0].weight *= scale
    return made


def test_factors_follow_the_scale_of_the_weights_within_bounds():
    for scale, factor in ((1.0, 1.0), (4.0, 4.0), (100.0, LARGEST), (0.1, 1.0)):
        made = network(scale)
        found = factors(made)
        assert found[made[0].weight] == found[made[0].bias] == pytest.approx(factor, rel=0.05)
        assert found[made[3].weight] == pytest.approx(1, rel=0.05) and made[1].weight not in found


def test_auto_is_on_for_large_weights_alone():
    large = network(40.0)
    with torch.no_grad():
        large[3].weight *= 4.0
    assert factors_for(large, "auto") == factors_for(large, "on") == factors(large)
    assert factors_for(network(), "auto") is factors_for(large, "off") is None and factors_for(network(), "on")
    nn.init.kaiming_normal_(large[0].weight)
    nn.init.kaiming_normal_(large[3].weight)
    assert factors_for(large, "auto") is None and factors_for(nn.Sequential(), "auto") is None


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_groups_hold_all_parameters_once_with_their_factors(optimizer):
    made = network(4.0)
    training = Training.from_spec({"optimizer": optimizer, "weight_decay": 0.1})
    groups = training.make_optimizer(made.parameters(), factors(made)).param_groups
    listed = [parameter for group in groups for parameter in group["params"]]
    assert len(listed) == len(set(listed)) == len(list(made.parameters()))
    factor = {parameter: group["factor"] for group in groups for parameter in group["params"]}
    assert factor[made[0].bias] == pytest.approx(4, rel=0.05) and factor[made[1].weight] == 1
    decay = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decay[made[0].weight] == 0.1 and (decay[made[0].bias] == 0) == (optimizer == "adamw")
