"""Random scales, crops and flips, of images and their fields alike."""

import torch

from worker.distillation.data.augmentation import Views
from worker.distillation.data.scaled_crops import ScaledCrops

SIZE = (12, 16)


def scene(samples):
    """An image whose red channel is its mask times 20, smooth enough that bilinear and nearest agree within a class."""
    mask = torch.zeros(samples, *SIZE, dtype=torch.uint8)
    mask[:, 3:9, 4:9] = 5
    image = (mask * 20)[:, None].repeat(1, 3, 1, 1)
    return image, mask


def drawn(samples, least=0.5, most=2.0, seed=3):
    return ScaledCrops.draw(samples, least, most, True, torch.Generator().manual_seed(seed))


def test_images_and_masks_move_alike():
    image, mask = scene(64)
    chosen = torch.arange(64)
    views = drawn(64)
    moved, fields = views.apply(image, chosen), views.apply_fields({"mask": mask}, chosen, SIZE)
    inside = (fields["mask"] == 5) == (moved[:, 0] > 50)
    assert inside.float().mean() > 0.98  # they may differ at edges, which bilinear sampling blurs
    assert (moved[:, 0] > 50).any((1, 2)).float().mean() > 0.8
    assert set(fields["mask"].unique().tolist()) <= {0, 5, 255}


def test_a_scale_of_one_changes_nothing_but_flips():
    image, mask = scene(4)
    image = torch.randint(0, 256, image.shape, dtype=torch.uint8)
    views = ScaledCrops(torch.ones(4), torch.rand(4, 2), torch.tensor([False, True, False, True]))
    moved = views.apply(image, torch.arange(4))
    fields = views.apply_fields({"mask": mask}, torch.arange(4), SIZE)["mask"]
    assert torch.equal(moved[::2], image[::2]) and torch.equal(moved[1::2], image[1::2].flip(3))
    assert torch.equal(fields[::2], mask[::2]) and torch.equal(fields[1::2], mask[1::2].flip(2))


def test_depth_is_divided_by_the_scale():
    views = ScaledCrops(torch.tensor([2.0, 0.5]), torch.zeros(2, 2), torch.zeros(2, dtype=torch.bool))
    depth = views.apply_fields({"depth": torch.full((2, *SIZE), 3.0)}, torch.arange(2), SIZE)["depth"]
    assert (depth[0] == 1.5).all()
    assert set(depth[1].unique().tolist()) == {0.0, 6.0}  # padded where the smaller image ends


def test_the_same_epoch_is_drawn_again():
    one, two = drawn(8), drawn(8)
    assert torch.equal(one.scale, two.scale) and torch.equal(one.place, two.place) and torch.equal(one.flip, two.flip)
    assert one.scale.min() >= 0.5 and one.scale.max() <= 2.0


def test_shifted_views_move_fields_as_images():
    image = torch.randint(0, 250, (8, 1, *SIZE), dtype=torch.uint8)
    views = Views.draw(8, 3, True, torch.Generator().manual_seed(0), torch.device("cpu"))
    moved = views.apply(image, torch.arange(8))
    fields = views.apply_fields({"mask": image[:, 0]}, torch.arange(8), SIZE)["mask"]
    inside = fields != 255
    assert torch.equal(moved[:, 0][inside], fields[inside])
    assert (moved[:, 0][~inside] == 0).all()
