"""FSP matrices against the formula written slowly."""

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.trial import PAIRS, Trial, contract_of, objective_of
from worker.distillation import networks
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.objectives.features.fsp import flow
from worker.distillation.step import Batch, Outputs, Step


@pytest.fixture
def maps():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 6, dtype=torch.float64), torch.randn(2, 5, 4, 6, dtype=torch.float64)


def slow_flow(first, second):
    (_, _, height, width) = first.shape
    matrix = torch.zeros(len(first), first.shape[1], second.shape[1], dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            matrix += first[:, :, None, y, x] * second[:, None, :, y, x] / (height * width)
    return matrix


def test_matrix_is_the_slow_formula(maps):
    torch.testing.assert_close(flow(*maps), slow_flow(*maps))


def test_constants_give_their_product():
    a, b = torch.full((1, 2, 4, 4), 3.0), torch.full((1, 3, 2, 2), -2.0)
    assert torch.equal(flow(a, b), torch.full((1, 2, 3), -6.0))


def test_positions_may_be_shuffled_together(maps):
    order = torch.randperm(24)
    shuffled = (x.flatten(2)[:, :, order].view_as(x) for x in maps)
    torch.testing.assert_close(flow(*shuffled), flow(*maps))


def test_the_larger_map_is_max_pooled(maps):
    first, second = F.interpolate(maps[0], scale_factor=2) + torch.rand(2, 3, 8, 12, dtype=torch.float64), maps[1]
    torch.testing.assert_close(flow(first, second), slow_flow(F.max_pool2d(first, 2), second))
    averaged = slow_flow(F.avg_pool2d(first, 2), second)  # as in some public code
    assert not torch.allclose(flow(first, second), averaged)


def loss_between(mine, theirs, **values):
    """The loss of one section whose first and last map are given."""
    objective = objective_of("fsp", **values)
    objective.sections = ((("first", "first"), ("last", "last")),)
    outputs = [Outputs(torch.zeros(2, 3), dict(zip(("first", "last"), each, strict=True))) for each in (mine, theirs)]
    return sum(objective(Step(Batch(torch.zeros(2, 1, 1, 1)), *outputs)).values())


def test_loss_is_the_squared_frobenius_norm(maps):
    other = tuple(x.flip(0) * 0.5 for x in maps)
    difference = slow_flow(*maps) - slow_flow(*other)
    squares = [float(torch.linalg.matrix_norm(matrix) ** 2) for matrix in difference]
    assert float(loss_between(maps, other)) == pytest.approx(sum(squares) / 2)
    assert float(loss_between(maps, other, reduction="mean")) == pytest.approx(sum(squares) / 2 / 15)
    columns = difference.norm(dim=1).sum(1).mean()  # as in some public code: norms of columns
    assert float(columns) != pytest.approx(sum(squares) / 2, rel=0.05)


def test_default_sections_are_those_of_residual_networks():
    objective = objective_of("fsp")
    Trial.of("residual", objective)
    ends = [("relu", "layer1"), ("layer2.0.relu1", "layer2"), ("layer3.0.relu1", "layer3")]
    assert [tuple(student for student, _ in section) for section in objective.sections] == ends
    assert [tuple(teacher for _, teacher in section) for section in objective.sections] == ends
    adjacent = objective_of("fsp", sections="adjacent")
    Trial.of("residual", adjacent)
    ends = [("layer1", "layer2"), ("layer2", "layer3")]
    assert [tuple(student for student, _ in section) for section in adjacent.sections] == ends


def test_the_same_network_has_no_loss():
    trial = Trial.of("plain", objective_of("fsp"))
    trial.student.network.load_state_dict(trial.teacher.network.state_dict())
    assert sum(trial.objective(trial.step()).values()) == 0


def refusals(teacher, student, **values):
    _, _, channels, size = PAIRS["plain"]
    example = torch.zeros(2, channels, size, size)
    maps = [Tapped(networks.build(name, 5, contract_of(channels, size)), example).map for name in (student, teacher)]
    with pytest.raises(SpecError) as caught:
        objective_of("fsp", **values).taps(*maps)
    return [problem.pointer for problem in caught.value.problems]


def test_refuses_other_channels():
    assert refusals("lenet5", "lenet5_half") == ["/taps"]
    taps = [["relu1", "relu1"], ["relu2", "relu1"], ["conv2", "relu2"], ["conv1", "conv1"]]
    assert refusals("lenet5", "lenet5", taps=taps) == ["/taps/1"]


@pytest.mark.parametrize(("sections", "count"), [("within", 1), ("within", 3), ("adjacent", 1)])
def test_refuses_sections_with_one_end(sections, count):
    taps = [["relu1", "relu1"], ["relu2", "relu2"], ["conv1", "conv1"]][:count]
    assert refusals("lenet5", "lenet5", sections=sections, taps=taps) == ["/taps"]
