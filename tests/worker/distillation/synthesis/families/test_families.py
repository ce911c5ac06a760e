"""Families of procedural images: within black and white, reproducible, of any size; shapes against the formula at points."""

import pytest
import torch

from worker.distillation.synthesis.families import canvas, noise, shapes, strokes
from worker.distillation.synthesis.families.canvas import LARGEST, Canvas
from worker.distillation.synthesis.procedural_images import FAMILIES

SIZES = [(1, 28, 28), (3, 32, 20), (2, 5, 9)]


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FAMILIES)
def test_images_are_within_black_and_white_and_depend_on_the_seed_alone(name, size):
    canvas = Canvas(*size)
    image, again, other = (FAMILIES[name](6, canvas, random(seed)) for seed in (0, 0, 1))
    assert image.shape == (6, *size) and image.min() >= 0 and image.max() <= 1
    assert torch.equal(image, again) and not torch.equal(image, other)
    assert all(not torch.equal(image[0], each) for each in image[1:])


def test_a_large_canvas_is_scaled_down_and_keeps_its_shape():
    assert Canvas.within(3, 224, 448) == Canvas(3, LARGEST, 2 * LARGEST)
    assert Canvas.within(1, 28, 30) == Canvas(1, 28, 30)


def test_places_are_the_centres_of_pixels():
    x, y = Canvas(1, 2, 4).places()
    assert x[0].tolist() == [-0.75, -0.25, 0.25, 0.75] and y[:, 0].tolist() == [-0.25, 0.25]


def test_fields_have_mean_0_deviation_1_and_the_spectrum_asked_for():
    canvas, decay = Canvas(1, 64, 64), 2.0
    field = noise.fields(64, 1, canvas, torch.full((64,), decay), random())
    assert torch.allclose(field.mean(dim=(2, 3)), torch.zeros(64, 1), atol=1e-4)
    assert torch.allclose(field.std(dim=(2, 3)), torch.ones(64, 1), atol=1e-4)
    power = torch.fft.fft2(field).abs().square().mean(dim=(0, 1))
    assert (power[0, 2] / power[0, 8]).log2() / 2 == pytest.approx(2 * decay, abs=0.7)


def test_colours_vary_most_in_brightness_then_from_yellow_to_blue_then_from_red_to_green():
    colour = Canvas(3, 8, 8).colours(4000, random())[:, :, 0, 0]
    fields = noise.draw(64, Canvas(3, 16, 16), random()).movedim(1, -1).flatten(0, 2)
    for values in (colour, fields):
        along = values.var(dim=0, correction=0).sum() - (values @ canvas.AXES.T).var(dim=0).sum()
        yellow, red = (values @ canvas.AXES.T).var(dim=0)
        assert along > yellow > 2 * red > 0
    with_two = Canvas(2, 8, 8).colours(4000, random())[:, :, 0, 0]
    assert (with_two[:, 0] - with_two[:, 1]).std() > 0.1


def test_distances_from_segments_are_those_of_geometry():
    x, y = torch.meshgrid(torch.tensor([-1.0, 0.5, 3.0]), torch.tensor([0.0, 2.0]), indexing="xy")
    start, end = torch.tensor([[[0.0, 0.0], [0.0, -1.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    found = strokes.squared_distances(torch.stack([x, y]), start, end)
    assert found[0, 0].tolist() == [[1.0, 0.0, 4.0], [5.0, 4.0, 8.0]]
    assert found[0, 1].tolist() == [[1.0, 0.25, 9.0], [2.0, 1.25, 10.0]]


def test_a_mask_covers_its_centre_and_not_what_is_farther_than_its_half_axes():
    whole, centre = Canvas(1, 64, 64), torch.zeros(8, 2)
    covered = shapes.masks(8, whole, centre, (0.2, 0.2), random())[:, 0]
    radius = whole.places().square().sum(dim=0).sqrt()
    assert (covered[:, radius < 0.05] > 0.99).all() and (covered[:, radius > 0.33] < 0.01).all()
