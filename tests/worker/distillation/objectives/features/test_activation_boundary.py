"""Activation boundaries against the table of the loss's four cases."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.objectives.features.activation_boundary import boundary_loss

STUDENT = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("teacher", "expected"), [(-0.5, [0, 0, 1, 4, 9]), (0.0, [0, 0, 1, 4, 9]), (0.5, [9, 4, 1, 0, 0])]
)
def test_table(teacher, expected):
    assert boundary_loss(STUDENT, torch.full((5,), teacher), 1.0).tolist() == expected


def test_slow_formula():
    torch.manual_seed(0)
    student, teacher, m = torch.randn(50), torch.randn(50), 0.7
    slow = [
        (s + m) ** 2 if s > -m and t <= 0 else (s - m) ** 2 if s <= m and t > 0 else 0.0
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    torch.testing.assert_close(boundary_loss(student, teacher, m), torch.tensor(slow))


def test_no_gradient_beyond_the_margin_on_the_teachers_side():
    student = torch.tensor([-1.5, 1.5, -0.5, 0.5], requires_grad=True)
    boundary_loss(student, torch.tensor([-3.0, 3.0, -3.0, 3.0]), 1.0).sum().backward()
    assert student.grad.tolist() == [0, 0, 1, -1]


def test_only_the_teachers_signs_count():
    teacher = torch.tensor([-3.0, 0.1, 2.0, -0.1, 5.0])
    torch.testing.assert_close(boundary_loss(STUDENT, teacher, 1.0), boundary_loss(STUDENT, teacher.sign(), 1.0))

    def after_activation(student, teacher):
        return (student.relu() - teacher.relu()).square()

    assert not torch.equal(after_activation(STUDENT, teacher), after_activation(STUDENT, teacher.sign()))


def test_the_deepest_layer_weighs_most_and_neurons_are_summed():
    trial = Trial.of("residual", objective_of("activation_boundary", scale=0.003, margin=2.0))
    trial.objective.eval()
    step = trial.step()
    terms = trial.objective(step)
    assert list(terms) == [f"layer{number}:pre~layer{number}:pre" for number in (1, 2, 3)]
    for weight, connect, (name, value) in zip((0.25, 0.5, 1), trial.objective.connectors, terms.items(), strict=True):
        tap = name.split("~")[0]
        neurons = boundary_loss(connect(step.student.taps[tap]), step.teacher.taps[tap], 2.0)
        torch.testing.assert_close(value, 0.003 * weight * neurons.sum() / 4)


def test_connectors_exist_only_if_channels_differ():
    taps = [["layer2:pre", "relu:pre"], ["layer2:pre", "layer2:pre"]]
    objective = objective_of("activation_boundary", taps=taps)
    Trial.of("residual", objective)
    assert [type(connector) for connector in objective.connectors] == [nn.Identity, nn.Sequential]
    assert objective.connectors[1][0].weight.shape == (128, 32, 1, 1)


def test_default_taps_lie_before_the_activations():
    trial = Trial.of("plain", objective_of("activation_boundary"))
    assert trial.objective.pairs == (("relu1:pre", "relu1:pre"), ("relu2:pre", "relu2:pre"))
    step = trial.step()
    torch.testing.assert_close(step.student.taps["relu1:pre"], trial.student.network.conv1(step.batch.image))
    assert F.relu(step.teacher.taps["relu2:pre"]).ne(step.teacher.taps["relu2:pre"]).any()
