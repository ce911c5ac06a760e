"""Hints against the formula written slowly."""

import pytest
import torch
from torch import nn

from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.errors import SpecError
from worker.distillation.objectives.features.hint import regressor


def test_paper_form_sums_squares_over_channels_and_halves_them():
    torch.manual_seed(0)
    regressed, teacher = torch.randn(2, 3, 5, 2, 2, dtype=torch.float64).unbind()
    squares = [
        sum(float(regressed[b, c, y, x] - teacher[b, c, y, x]) ** 2 for c in range(5))
        for b in range(3) for y in range(2) for x in range(2)
    ]  # fmt: skip
    slow = 0.5 * sum(squares) / len(squares)
    paper = objective_of("hint", form="paper").compare(regressed, teacher)
    assert float(paper) == pytest.approx(slow)
    one_stage = objective_of("hint", form="one_stage").compare(regressed, teacher)
    assert float(one_stage) == pytest.approx(
        slow * 2 / 5
    )  # the mean of squares: a weight for one form does not suit the other


def test_identity_regressor_gives_zero():
    objective = objective_of("hint", form="paper", taps=[["relu2", "relu2"]])
    trial = Trial.of("plain", objective)
    step = trial.step()
    step.teacher.taps["relu2"] = torch.cat([step.student.taps["relu2"].detach()] * 2, dim=1)  # twice the channels
    convolution = objective.regressors[0][0]
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(8).repeat(2, 1)[:, :, None, None])
        convolution.bias.zero_()
    assert sum(objective(step).values()) == 0


@pytest.mark.parametrize(
    ("form", "student", "teacher", "layer", "kernel"),
    [
        ("paper", (4, 8, 8), (6, 5, 5), nn.Conv2d, (4, 4)),  # N_s - N_t + 1
        ("paper", (4, 8, 8), (6, 4, 4), nn.Conv2d, (5, 5)),
        ("paper", (4, 8, 6), (6, 8, 5), nn.Conv2d, (1, 2)),
        ("paper", (4, 4, 4), (6, 8, 8), nn.Conv2d, (1, 1)),
        ("one_stage", (4, 8, 8), (6, 4, 4), nn.Conv2d, (3, 3)),
        ("one_stage", (4, 4, 4), (6, 8, 8), nn.ConvTranspose2d, (4, 4)),
        ("one_stage", (4, 8, 8), (6, 5, 5), nn.Conv2d, (4, 4)),
    ],
)
def test_regressors_reach_the_teachers_channels_and_size(form, student, teacher, layer, kernel):
    layers = regressor(student, teacher, form, relu=True)
    assert isinstance(layers[0], layer)
    assert layers[0].kernel_size == kernel
    regressed = layers(torch.randn(2, *student))
    assert regressed.shape[1] == teacher[0]
    assert all(mine <= theirs for mine, theirs in zip(regressed.shape[2:], teacher[1:], strict=True))
    if student[1] >= teacher[1] or form == "one_stage":
        assert tuple(regressed.shape[1:]) == teacher
    assert (regressed >= 0).all()


@pytest.mark.parametrize("form", ["paper", "one_stage"])
def test_vectors_have_a_linear_regressor(form):
    objective = objective_of("hint", form=form, taps=[["fc1", "fc1"]], activation="none")
    trial = Trial.of("plain", objective)
    assert isinstance(objective.regressors[0][0], nn.Linear)
    assert sum(objective(trial.step()).values()) > 0


def test_values_before_an_activation_get_no_activation():
    objective = objective_of("hint", taps=[["relu1", "relu1:pre"], ["relu2", "relu2"]])
    Trial.of("plain", objective)
    assert [isinstance(layers[-1], nn.ReLU) for layers in objective.regressors] == [False, True]


def test_default_is_the_middle_pair():
    objective = objective_of("hint")
    Trial.of("residual", objective)
    assert objective.pairs == (("layer2", "layer2"),)


def test_layers_after_the_hint_get_no_gradient():
    objective = objective_of("hint", form="paper", taps=[["layer1", "layer1"]])
    trial = Trial.of("residual", objective)
    sum(objective(trial.step()).values()).backward()
    for name, parameter in trial.student.network.named_parameters():
        assert (parameter.grad is None) == name.startswith(("layer2", "layer3", "fc")), name
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_refuses_a_map_against_a_vector():
    with pytest.raises(SpecError) as caught:
        Trial.of("plain", objective_of("hint", taps=[["relu1", "relu2"], ["relu1", "fc1"]]))
    assert [problem.pointer for problem in caught.value.problems] == ["/taps/1"]
