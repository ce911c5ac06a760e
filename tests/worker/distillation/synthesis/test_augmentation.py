"""Random affine views against their invariants."""

import pytest
import torch

from worker.distillation.synthesis import augmentation
from worker.distillation.synthesis.augmentation import random_affine


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def disc(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    return torch.exp(-(x**2 + y**2) / 8)[None, None]


def still(monkeypatch, *names: str) -> None:
    for name in names:
        monkeypatch.setattr(augmentation, name, 0.0)


def test_no_movement_is_the_identity(monkeypatch):
    still(monkeypatch, "ROTATION", "SCALE", "SHEAR", "SHIFT")
    image = torch.randn(4, 3, 8, 12)
    torch.testing.assert_close(random_affine(image, seeded()), image, atol=1e-4, rtol=1e-4)


def test_rotation_leaves_a_disc_alone_on_a_wide_image(monkeypatch):
    still(monkeypatch, "SCALE", "SHEAR", "SHIFT")
    monkeypatch.setattr(augmentation, "ROTATION", 1.5)
    image = disc(16, 32).expand(8, -1, -1, -1)
    torch.testing.assert_close(random_affine(image, seeded()), image, atol=0.05, rtol=0)


def test_shift_moves_the_centre_by_at_most_a_tenth(monkeypatch):
    still(monkeypatch, "ROTATION", "SCALE", "SHEAR")
    view = random_affine(disc(20, 40).expand(200, -1, -1, -1), seeded())[:, 0]
    mass = view.sum(dim=(1, 2))
    x = (view.sum(dim=1) * torch.arange(40)).sum(dim=1) / mass - 19.5
    y = (view.sum(dim=2) * torch.arange(20)).sum(dim=1) / mass - 9.5
    assert 3.4 < x.abs().max() < 4.2
    assert 1.7 < y.abs().max() < 2.1


def test_every_image_is_transformed_separately_and_a_constant_one_does_not_change():
    image = disc(8, 8).expand(2, -1, -1, -1)
    view = random_affine(image, seeded())
    assert not torch.allclose(view[0], view[1])
    assert torch.equal(view, random_affine(image, seeded()))
    flat = torch.full((5, 2, 8, 8), 0.7)
    torch.testing.assert_close(random_affine(flat, seeded()), flat)


@pytest.mark.parametrize("name", ["ROTATION", "SCALE", "SHEAR", "SHIFT"])
def test_each_movement_moves(monkeypatch, name):
    still(monkeypatch, *({"ROTATION", "SCALE", "SHEAR", "SHIFT"} - {name}))
    image = torch.randn(4, 1, 8, 8)
    assert (random_affine(image, seeded()) - image).abs().mean() > 0.05
