"""Means of metrics between two reports."""

import pytest
import torch

from worker.distillation.distributed.ranks import ALONE
from worker.distillation.trainer.checkpoint import snapshot
from worker.distillation.trainer.metric_means import MOST_KEPT, MetricMeans

CPU = torch.device("cpu")


def test_means_are_those_of_all_values_however_many_are_kept():
    means, draw = MetricMeans(), torch.Generator().manual_seed(0)
    values = torch.rand(2 * MOST_KEPT + 5, generator=draw)
    for number, value in enumerate(values):
        means.add({"loss": value, "rate": 0.5} | ({"rare": value * 2} if number % 10 == 0 else {}))
    found = means.read()
    assert found["loss"] == pytest.approx(float(values.double().mean()), abs=1e-12)
    assert found["rate"] == 0.5
    assert found["rare"] == pytest.approx(float(2 * values[::10].double().mean()), abs=1e-12)
    means.add({"loss": torch.tensor(2.0)})
    assert means.read() == {"loss": 2.0}


def test_a_restored_mean_goes_on():
    means = MetricMeans()
    means.add({"loss": torch.tensor(1.0)})
    means.combine(ALONE)
    state = snapshot(means.state_dict())
    restored = MetricMeans()
    restored.load_state_dict(state, device=CPU, leads=True)
    restored.add({"loss": torch.tensor(4.0)})
    assert restored.read() == {"loss": 2.5}


def test_values_of_several_dtypes_are_added():
    means = MetricMeans()
    means.add({"loss": torch.tensor(1.0, dtype=torch.bfloat16)})
    means.add({"loss": torch.tensor(2.0)})
    means.add({"loss": 3.0})
    assert means.read() == {"loss": 2.0}
