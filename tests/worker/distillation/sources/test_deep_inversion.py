"""DeepInversion: bounded pixels, several resolutions, and procedural images as a start."""

import pytest
import torch
from torch import nn

from tests.worker.distillation.sources.family import Game, made, network
from worker.distillation.synthesis import mixed_pool
from worker.distillation.trainer.checkpoint import snapshot


def pooled(seed: int = 0) -> nn.Sequential:
    """A network that accepts images of any size."""
    torch.manual_seed(seed)
    body = [nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(6, 3))


def test_the_paper_does_not_bound_pixels():
    for preset, bounded in (("fast", True), ("paper", False)):
        source = made("deep_inversion", preset=preset, learning_rate=3.0)
        for number in range(4):
            source.generator_step(number, {})
        assert (source.pixels.abs().max() <= 2.5 + 1e-5) == bounded


@pytest.mark.parametrize("accepts", [True, False])
def test_rounds_have_their_resolutions_in_turn_and_the_pool_one(accepts):
    teacher = pooled() if accepts else network(0)
    played = Game(made("deep_inversion", teacher=teacher, resolutions=[0.5, 1.0]), {"student": pooled(1)})
    seen = []
    original = teacher.forward
    teacher.forward = lambda x: seen.append(tuple(x.shape)) or original(x)
    for _ in range(20):
        played.step()
    assert ((16, 2, 4, 6) in seen) == accepts and (16, 2, 8, 12) in seen
    assert played.source.pool.newest(16)[0].shape == (16, 2, 8, 12)
    assert [played.source.size_of(number) for number in range(3)] == [(4, 6), (8, 12), (4, 6)]


def test_rounds_may_start_with_procedural_images(monkeypatch):
    monkeypatch.setattr(mixed_pool, "FAMILY_IMAGES", 16)
    noise, drawn = (made("deep_inversion", start=start) for start in ("noise", "procedural"))
    for source in (noise, drawn):
        source.begin(0)
    assert noise.pixels.abs().max() <= 2.5 + 1e-5 and not torch.equal(noise.pixels, drawn.pixels)
    neighbours = [(source.pixels[..., 1:] - source.pixels[..., :-1]).square().mean() for source in (noise, drawn)]
    assert neighbours[1] < 0.8 * neighbours[0]


@pytest.mark.parametrize("at", [2, 6])
def test_restored_within_a_round_of_either_size(at, monkeypatch):
    monkeypatch.setattr(mixed_pool, "FAMILY_IMAGES", 16)
    more = {"resolutions": [0.5, 1.0], "start": "procedural", "procedural_share": 0.3, "precision": "fp32"}
    whole, restored = (made("deep_inversion", **more) for _ in range(2))
    for number in range(at):
        whole.generator_step(number, {})
    restored.load_state_dict(snapshot(whole.state_dict()))
    for number in range(at, at + 9):
        for source in (whole, restored):
            source.generator_step(number, {})
    assert torch.equal(whole.pixels, restored.pixels) and torch.equal(whole.held, restored.held)
    assert torch.equal(whole.pool.newest(16)[0], restored.pool.newest(16)[0])
