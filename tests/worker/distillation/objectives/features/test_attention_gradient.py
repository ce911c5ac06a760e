"""Gradient-based attention transfer against a linear network and finite differences."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.objectives.features.attention_gradient import input_gradient
from worker.distillation.step import Batch, Outputs, Step

B, C, H, W, K = 3, 2, 4, 4, 5


class Smooth(nn.Module):
    """A network with second derivatives."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(C, 3, 3, padding=1), nn.Linear(3 * H * W, K)

    def forward(self, x):
        return self.fc(torch.tanh(self.conv(x)).flatten(1))


@pytest.fixture
def image():
    torch.manual_seed(0)
    return torch.randn(B, C, H, W, dtype=torch.float64, requires_grad=True)


def step_of(student, teacher, image, mirrored=False):
    label = torch.arange(B) % K
    flipped = Outputs(student(image.flip(3))) if mirrored else None
    given = Outputs(teacher(image)) if teacher else None
    return Step(Batch(image, {"label": label}), Outputs(student(image)), given, mirrored=flipped)


def test_gradient_of_a_linear_network(image):
    linear = nn.Linear(C * H * W, K).double()
    step = step_of(lambda x: linear(x.flatten(1)), None, image)
    error = step.student.logits.softmax(1) - F.one_hot(step.label, K)
    expected = (error @ linear.weight).view_as(image)
    found = input_gradient(step.student, step, create_graph=True)
    torch.testing.assert_close(found, expected)
    (of_logit,) = torch.autograd.grad(step.student.logits.gather(1, step.label[:, None]).sum(), image)
    assert not torch.allclose(found, of_logit)  # differentiating the label's logit is another method


def test_term_is_the_mean_norm_of_the_difference(image):
    student, teacher = Smooth().double(), Smooth().double()
    step = step_of(student, teacher, image)
    total = 0.0
    for row in range(B):
        gradients = []
        for network in (student, teacher):
            x = image[row : row + 1].detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(x), step.label[row : row + 1]), x)
            gradients.append(gradient)
        total += float((gradients[0] - gradients[1]).norm())
    assert float(objective_of("attention_gradient")(step)["teacher"].detach()) == pytest.approx(total / B)


@pytest.mark.parametrize("against", ["teacher", "symmetry"])
def test_outer_gradient_equals_finite_differences(image, against):
    student, teacher = Smooth().double(), Smooth().double()
    objective = objective_of("attention_gradient", against=against)

    def value():
        return objective(step_of(student, teacher, image, mirrored=True))[against]

    value().backward()
    for weight in (student.conv.weight, student.fc.weight):
        index, epsilon = (0,) * weight.ndim, 1e-5
        with torch.no_grad():
            weight[index] += epsilon
        above = float(value().detach())
        with torch.no_grad():
            weight[index] -= 2 * epsilon
        below = float(value().detach())
        with torch.no_grad():
            weight[index] += epsilon
        assert float(weight.grad[index]) == pytest.approx((above - below) / (2 * epsilon), rel=1e-6, abs=1e-9)


def test_without_a_graph_of_the_gradient_nothing_reaches_the_weights(image):
    step = step_of(Smooth().double(), None, image)
    assert input_gradient(step.student, step, create_graph=True).requires_grad
    assert not input_gradient(
        step.student, step, create_graph=False
    ).requires_grad  # the loss of an implementation without the gradient's gradient


def test_a_teacher_without_a_graph_is_an_error(image):
    student, teacher = Smooth().double(), Smooth().double()
    with torch.no_grad():
        given = Outputs(teacher(image))
    step = step_of(student, teacher, image)
    step.teacher = given
    with pytest.raises(RuntimeError):
        objective_of("attention_gradient")(step)


def test_gradients_are_mirrored_back(image):
    network = Smooth().double()
    step = step_of(network, None, image, mirrored=True)
    flipped = image.detach().flip(3).requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(flipped), step.label, reduction="sum"), flipped)
    torch.testing.assert_close(input_gradient(step.mirrored, step, create_graph=False), gradient.flip(3))


def test_a_symmetric_network_has_symmetric_gradients(image):
    network = Smooth().double()
    objective = objective_of("attention_gradient", against="symmetry")
    assert objective(step_of(network, None, image, mirrored=True))["symmetry"] > 0.01

    def symmetric(x):
        return network(x) + network(x.flip(3))

    assert objective(step_of(symmetric, None, image, mirrored=True))["symmetry"] < 1e-12


def test_symmetry_needs_no_teacher():
    assert objective_of("attention_gradient").active_needs.teacher
    assert not objective_of("attention_gradient", against="symmetry").active_needs.teacher


def test_batch_normalisation_sees_images_and_mirror_images_once():
    objective = objective_of("attention_gradient", against="symmetry")
    trial = Trial.of("residual", objective)
    trial.step()
    assert int(trial.student.network.bn1.num_batches_tracked) == 1
