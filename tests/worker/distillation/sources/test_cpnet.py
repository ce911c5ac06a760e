"""CPNet: the shapes of its maps, its two losses against their formulas, and what it refuses."""

import math

import pytest
import torch
from torch import nn

from tests.worker.distillation.sources.family import Game, made, network
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.synthesis.coupled_generator import (
    CoupledGenerator,
    CoupledStatistics,
    InverseClassifier,
    coupling,
    map_numbers,
)


def deep(seed: int = 0) -> nn.Sequential:
    """Three normalised maps at two resolutions."""
    torch.manual_seed(seed)
    first = [
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.BatchNorm2d(5),
    ]
    last = [
        nn.Conv2d(5, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 4 * 6, 3),
    ]
    return nn.Sequential(*first, nn.ReLU(), *last).eval().requires_grad_(False)


def test_maps_are_the_last_normalised_ones_at_each_resolution():
    example = torch.zeros(2, 2, 8, 12)
    assert map_numbers(Tapped(deep(), example), example) == {1: (5, 8, 12), 2: (6, 4, 6)}


def test_the_generators_maps_have_the_teachers_shapes_deepest_first():
    contract = InputContract(2, 8, 12, (0.5, 0.5), (0.2, 0.2))
    generator = CoupledGenerator(contract, 7, [(6, 4, 6), (5, 8, 12)], "contract")
    image, maps = generator.with_maps(torch.randn(9, 7))
    assert [each.shape[1:] for each in maps] == [(6, 4, 6), (5, 8, 12)] and image.shape == (9, 2, 8, 12)
    assert image.abs().max() <= 2.5 + 1e-5  # (1 - 0.5) / 0.2


def test_targets_are_the_teachers_maps_with_its_running_statistics():
    teacher, image = deep(), torch.randn(16, 2, 8, 12)
    teacher[1].running_mean[:], teacher[4].running_mean[:], teacher[4].running_var[:] = 1.0, 2.0, 9.0
    statistics = CoupledStatistics((1, 2), momentum=0.0)
    with statistics.reading():
        teacher(image)
    distance = statistics.distance()
    first, second = statistics.take()
    assert distance > 0 and statistics.take() == []
    plain = teacher[:4](image)
    spread = plain.var(dim=(0, 2, 3), correction=0, keepdim=True).sqrt()
    torch.testing.assert_close(
        first, 3 * (plain - plain.mean(dim=(0, 2, 3), keepdim=True)) / spread + 2, atol=1e-2, rtol=1e-2
    )
    assert second.shape == (16, 6, 4, 6)
    maps = [second + 2, first - 3]
    assert coupling(maps, [first, second]).item() == pytest.approx(4 + 9, rel=1e-5)


def test_the_inverse_classifier_gives_features_of_the_smoothed_targets():
    torch.manual_seed(0)
    layer, target = nn.Linear(8, 4), torch.arange(4)
    inverse = InverseClassifier(layer.weight, layer.bias)
    logit = math.log(0.9 * 3 / 0.1)
    wanted = (logit * torch.eye(4) - layer.bias) @ inverse.inverse_KD
    torch.testing.assert_close(layer(wanted), logit * torch.eye(4), atol=1e-4, rtol=1e-4)
    alike = inverse.inverse_KD.sum(dim=0)
    torch.testing.assert_close(layer(alike) - layer.bias, torch.ones(4), atol=1e-4, rtol=1e-4)
    assert inverse.alignment(wanted + 0.5 * alike, target).item() == pytest.approx(1, abs=1e-4)
    away = torch.randn(4, 8)
    away -= (away @ alike)[:, None] * alike / alike.square().sum()
    assert inverse.alignment(wanted + away, target).item() == pytest.approx(0, abs=1e-4)


def test_the_coupling_falls_and_students_add_the_alignment():
    source = made("cpnet", teacher=deep(), iterations=40, generator_batch=32, generator_learning_rate=0.02)
    values = []
    for number in range(40):
        source.generator_step(number, {})
        values.append(source.terms["coupling"].item())
    assert values[-1] < 0.7 * values[0] and "alignment" not in source.terms
    played = Game(made("cpnet", teacher=deep()), {"student": network(1)})
    while "alignment" not in played.source.terms:
        played.step()
    assert 0 <= played.source.terms["alignment"].item() <= 1.33


def test_a_teacher_without_normalised_maps_is_refused():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    with pytest.raises(SpecError, match="/teacher: has no BatchNorm layers of feature maps"):
        made("cpnet", teacher=plain)
