"""Strong views: each operation does what its name says, to each sample independently."""

import pytest
import torch

from worker.distillation.data import strong_views
from worker.distillation.data.samplers import generator
from worker.distillation.data.strong_views import OPERATIONS, StrongViews


def images(count=6, channels=3, size=9):
    return torch.randint(256, (count, channels, size, size), generator=torch.Generator().manual_seed(0)).float()


def magnitude(*values):
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.mark.parametrize("change", [each for each in OPERATIONS if each], ids=lambda change: change.__name__)
def test_a_magnitude_of_zero_is_the_identity_for_operations_that_use_it(change):
    x = images()
    same = torch.allclose(change(x, magnitude(*[0.0] * 6)), x, atol=1e-3)
    assert same != (change in (strong_views.autocontrast, strong_views.equalise))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("number", range(len(OPERATIONS)))
def test_each_sample_is_transformed_independently_for_any_channels(number, channels):
    x = images(channels=channels).to(torch.uint8)
    views = StrongViews(torch.tensor([[number, 0]] * 6), torch.tensor([[-1.0, 1.0], [0.4, 1.0]] * 3))
    together = views.apply(x, torch.arange(6))
    alone = [views.apply(x[i : i + 1], torch.tensor([i])) for i in range(6)]
    assert torch.equal(together, torch.cat(alone))
    assert together.dtype == torch.uint8 and together.shape == x.shape


def test_autocontrast_stretches_each_channel():
    x = images() / 4 + 50
    changed = strong_views.autocontrast(x, magnitude(*[1.0] * 6))
    assert torch.allclose(changed.amin((2, 3)), torch.zeros(6, 3), atol=1e-3)
    assert torch.allclose(changed.amax((2, 3)), torch.full((6, 3), 255.0), atol=1e-3)


def test_equalise_flattens_a_dark_histogram_and_keeps_its_order():
    x = torch.arange(1024).view(1, 1, 32, 32) // 16  # values from 0 to 63, 16 of each
    changed = strong_views.equalise(x.float(), magnitude(1.0)).flatten()
    assert changed.tolist() == pytest.approx([255 * (place // 16) / 63 for place in range(1024)])


def test_a_translation_moves_pixels_and_leaves_black():
    x = torch.zeros(1, 1, 1, 20)
    x[..., 10] = 255
    moved = strong_views.translate_x(x, magnitude(1 / 9))  # 0.45 / 9 of 20 pixels: one, read from the right
    assert moved.argmax().item() == 9 and moved.max() > 254


def test_a_rotation_by_thirty_degrees_keeps_the_centre_and_turns_the_rest():
    _, x = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    bar = ((x - 16).abs() < 1.5).float()[None, None] * 255
    turned = strong_views.rotate(bar, magnitude(1.0))[0, 0] / 255
    column = (turned * x).sum(1) / turned.sum(1)
    slope = (column[26] - column[6]) / 20
    assert float(slope.abs()) == pytest.approx(torch.tensor(torch.pi / 6).tan().item(), abs=0.02)
    assert turned[16, 16] > 0.99


def test_all_operations_and_both_signs_are_drawn_from_the_generator_only():
    first, again = (StrongViews.draw(4000, 15, generator(0, "strong", 0)) for _ in range(2))
    assert torch.equal(first.operation, again.operation) and torch.equal(first.magnitude, again.magnitude)
    assert first.operation.unique(return_counts=True)[1].min() > 8000 / 14 * 0.8
    assert first.magnitude.unique().tolist() == [-0.5, 0.5]
