"""Overhaul against analytic margins and the table of its loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.worker.distillation.trial import PAIRS, Trial, contract_of, objective_of
from worker.distillation import networks
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.objective import BuildContext
from worker.distillation.objectives.features.overhaul import margins, partial_squares


def norm_of(bias, weight):
    norm = nn.BatchNorm2d(len(bias))
    with torch.no_grad():
        norm.bias.copy_(torch.tensor(bias))
        norm.weight.copy_(torch.tensor(weight))
    return norm


def test_margin_of_a_centred_channel():
    weights = [0.5, 1.0, -2.0]
    expected = torch.tensor([-abs(g) * math.sqrt(2 / math.pi) for g in weights])
    torch.testing.assert_close(margins(norm_of([0.0] * 3, weights)), expected)


@pytest.mark.parametrize(("bias", "weight"), [(0.3, 0.8), (-1.0, 0.5), (1.5, -1.0)])
def test_margin_is_the_mean_of_the_negative_values(bias, weight):
    torch.manual_seed(0)
    values = bias + weight * torch.randn(400_000, dtype=torch.float64)
    expected = values[values < 0].mean().float()
    torch.testing.assert_close(margins(norm_of([bias], [weight])), expected[None], rtol=0.02, atol=0)


def test_margin_if_negative_values_are_rare():
    assert margins(norm_of([4.0], [1.0])).tolist() == [-3.0]
    (margin,) = margins(norm_of([3.0], [1.0])).tolist()  # 0.13 % are negative
    assert -1 < margin < 0


def test_margin_of_a_channel_without_weight():
    found = margins(norm_of([1.0, -1.0, 0.0], [0.0, 0.0, 0.0]))
    assert (found < 0).all()
    assert found.isfinite().all()
    assert found[1] == pytest.approx(-1)


def test_margins_of_a_layer_without_affine_parameters():
    torch.testing.assert_close(margins(nn.BatchNorm2d(2, affine=False)), torch.full((2,), -math.sqrt(2 / math.pi)))


def loss(student, teacher, margin):
    return partial_squares(student, teacher.clamp_min(margin))


def test_table():
    teacher, student = torch.tensor([-5.0, -0.5, -0.5, 2.0, 2.0]), torch.tensor([-4.0, -1.0, 0.0, -1.0, 3.0])
    torch.testing.assert_close(loss(student, teacher, -0.8), torch.tensor([0.0, 0.0, 0.25, 9.0, 1.0]))


def three_cases(student, teacher, margin):
    squares = (student > margin) * (teacher <= margin) * (student - margin).square()
    squares += (student > teacher) * (teacher > margin) * (teacher <= 0) * (student - teacher).square()
    return squares + (teacher > 0) * (student - teacher).square()


def test_equals_the_form_in_three_cases_for_negative_margins_only():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2000).unbind()
    for margin in (-0.1, -0.8, -3.0):
        torch.testing.assert_close(loss(student, teacher, margin), three_cases(student, teacher, margin))
    assert not torch.allclose(loss(student, teacher, 0.5), three_cases(student, teacher, 0.5))


def test_term_is_the_formula_with_the_teachers_own_margins():
    objective = objective_of("overhaul")
    trial = Trial.of("residual", objective)
    network = trial.teacher.network
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_()
                module.weight.uniform_(0.1, 2)
    trial.connect(torch.zeros(2, 3, 8, 8), 5)
    objective.eval()
    step = trial.step()
    terms = objective(step)
    for number, weight in ((1, 0.25), (2, 0.5), (3, 1.0)):
        tap = f"layer{number}:pre"
        margin = margins(network.get_submodule(f"layer{number}.0.bn2")).view(-1, 1, 1)
        connected = objective.connectors[number - 1](step.student.taps[tap])
        value = three_cases(connected, step.teacher.taps[tap], margin).sum() / 4 * weight / 1000
        torch.testing.assert_close(terms[f"{tap}~{tap}"], value)
        of_batch = (
            step.teacher.taps[tap].clamp_max(0).mean((0, 2, 3)).view(-1, 1, 1)
        )  # statistics of the data, as in some public code
        wrong = three_cases(connected, step.teacher.taps[tap], of_batch).sum() / 4 * weight / 1000
        assert not torch.allclose(value, wrong, rtol=1e-3)


def test_maps_are_averaged_down_before_the_margin():
    objective = objective_of("overhaul")
    student, teacher = torch.zeros(1, 1, 1, 1), torch.tensor([[[[-4.0, 2.0], [0.0, 0.0]]]])
    value = objective.compare(student, teacher, nn.Identity(), torch.tensor([-0.1]))
    assert float(value) == pytest.approx(0.001 * 0.1**2)
    assert (
        float(F.adaptive_avg_pool2d(teacher.clamp_min(-0.1), 1)) > 0
    )  # the other order would reward instead of penalise


def test_margins_are_part_of_the_state_and_not_trained():
    objective = objective_of("overhaul")
    Trial.of("residual", objective)
    assert {"margin0", "margin1", "margin2"} <= objective.state_dict().keys()
    assert not {"margin0", "margin1", "margin2"} & dict(objective.named_parameters()).keys()


def test_connectors_begin_as_in_the_authors_code():
    torch.manual_seed(0)
    objective = objective_of("overhaul")
    Trial.of("residual", objective)
    weight = objective.connectors[-1][0].weight
    assert weight.shape == (256, 64, 1, 1)
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / 256), rel=0.05)


def refusals(**values):
    """Problems with LeNet-5, which has no BatchNorm, as the teacher."""
    teacher, student, channels, size = PAIRS["plain"]
    example = torch.zeros(2, channels, size, size)
    networks_ = [Tapped(networks.build(name, 5, contract_of(channels, size)), example) for name in (student, teacher)]
    objective = objective_of("overhaul", **values)
    wanted = objective.taps(networks_[0].map, networks_[1].map)
    networks_[0].request(wanted.student)
    networks_[1].request(wanted.teacher)
    outputs = [network(example) for network in networks_]
    with pytest.raises(SpecError) as caught:
        objective.build(BuildContext(*outputs, *(network.network for network in networks_), 5))
    return {problem.pointer for problem in caught.value.problems}


def test_refuses_a_teacher_without_batch_normalisation():
    assert refusals() == {"/taps"}
    assert refusals(taps=[["relu1", "relu1:pre"], ["relu2", "relu2"]]) == {"/taps/0/1", "/taps/1/1"}
