"""ReviewKD against analytic distances and its fusion written slowly."""

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation.objectives.features.review import Fusion, hierarchical_distance


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 7), (32, 32), (3, 9)])
def test_constant_offset_gives_its_square(size):
    torch.manual_seed(0)
    teacher = torch.randn(2, 3, *size)
    torch.testing.assert_close(hierarchical_distance(teacher + 0.7, teacher), torch.tensor(0.49))


def test_distance_weighs_levels_by_halves():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 8, 8, dtype=torch.float64).unbind()
    difference = student - teacher
    levels = [(8, 1.0), (4, 0.5), (2, 0.25), (1, 0.125)]
    squares = [weight * F.avg_pool2d(difference, 8 // size).square().mean() for size, weight in levels]
    torch.testing.assert_close(hierarchical_distance(student, teacher), sum(squares) / 1.875)
    assert not torch.allclose(
        hierarchical_distance(student, teacher), sum(squares)
    )  # without dividing by the sum of weights


def test_levels_of_the_maps_own_size_are_left_out():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 4, 4).unbind()
    squares = [
        w * F.avg_pool2d(student - teacher, 4 // size).square().mean() for size, w in ((4, 1), (2, 0.5), (1, 0.25))
    ]
    torch.testing.assert_close(hierarchical_distance(student, teacher), sum(squares) / 1.75)


def test_fusion_is_a_convex_like_mix_by_the_gate():
    torch.manual_seed(0)
    fusion = Fusion(5, 4, 6, fuses=True).eval()
    student, deeper = torch.randn(2, 5, 4, 4), torch.randn(2, 4, 2, 2)
    made, passed = fusion(student, deeper, torch.Size((4, 4)))
    reduced, wide = fusion.reduce(student), deeper.repeat_interleave(2, 2).repeat_interleave(2, 3)
    gate = torch.sigmoid(fusion.gate(torch.cat([reduced, wide], 1)))
    slow = torch.stack([gate[:, 0] * reduced[:, c] + gate[:, 1] * wide[:, c] for c in range(4)], 1)
    torch.testing.assert_close(passed, slow)
    torch.testing.assert_close(made, fusion.predict(slow))
    assert made.shape == (2, 6, 4, 4)


def test_the_deepest_level_is_the_pooled_feature_after_the_activation():
    trial = Trial.of("residual", objective_of("review"))
    trial.objective.eval()
    step = trial.step()
    terms = trial.objective(step)
    assert list(terms) == ["pooled", "layer3~layer3:pre", "layer2~layer2:pre", "layer1~layer1:pre"]
    pooled = trial.objective.fusions[0].predict(
        trial.objective.fusions[0].reduce(step.student.taps["layer3"].mean((2, 3), keepdim=True))
    )
    classified = step.teacher.taps["layer3"].mean((2, 3), keepdim=True)  # the input of the teacher's classifier
    torch.testing.assert_close(trial.teacher.network.fc(classified.flatten(1)), step.teacher.logits)
    torch.testing.assert_close(terms["pooled"], F.mse_loss(pooled, classified))


def test_shallow_levels_of_the_teacher_reach_deep_layers_of_the_student():
    trial = Trial.of("residual", objective_of("review"))
    trial.objective(trial.step())["layer1~layer1:pre"].backward()
    named = trial.student.network.named_parameters()
    assert all(parameter.grad is not None for name, parameter in named if not name.startswith("fc"))


@pytest.mark.parametrize(("width", "expected"), [(512, 64), (24, 24)])
def test_width_is_that_of_the_students_deepest_map_but_bounded(width, expected):
    trial = Trial.of("residual", objective_of("review", width=width))
    assert [fusion.reduce[0].weight.shape[0] for fusion in trial.objective.fusions] == [expected] * 4
    assert [fusion.predict[0].weight.shape[0] for fusion in trial.objective.fusions] == [256, 256, 128, 64]
    assert [fusion.gate is None for fusion in trial.objective.fusions] == [True, False, False, False]
