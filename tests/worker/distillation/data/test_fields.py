"""Fields that move with their image: masks, depth and boxes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.distillation.data.fields import (
    IGNORED,
    KINDS,
    covered,
    flipped,
    letterbox,
    letterboxed,
    resized,
    windowed,
)

SIDES = st.integers(1, 12)
NOT_FLIPPED = torch.zeros(1, dtype=torch.bool)


def mask_of(height, width, samples=2):
    draw = torch.Generator().manual_seed(height * 100 + width)
    return torch.randint(0, 5, (samples, height, width), generator=draw, dtype=torch.uint8)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_resized_masks_have_no_new_class_and_the_nearest_pixel(height, width, tall, wide):
    mask = mask_of(height, width)
    moved = resized({"mask": mask}, (height, width), (tall, wide))["mask"]
    assert moved.shape == (2, tall, wide) and moved.dtype == torch.uint8
    for row in range(tall):
        for column in range(wide):
            at = (2 * row + 1) * height // (2 * tall), (2 * column + 1) * width // (2 * wide)
            assert torch.equal(moved[:, row, column], mask[:, at[0], at[1]])


def test_a_window_of_the_whole_image_changes_nothing_and_flips_where_asked():
    mask, depth = mask_of(4, 6), torch.rand(2, 4, 6)
    boxes = torch.tensor([[[1.0, 0.0, 3.0, 4.0]]]).expand(2, 1, 4)
    window = torch.tensor([[0.0, 0.0, 4.0, 6.0]]).expand(2, 4)
    fields = {"mask": mask, "depth": depth, "boxes": boxes, "label": torch.arange(2)}
    moved = windowed(fields, window, torch.tensor([False, True]), (4, 6))
    mirrored = flipped(fields, 6)
    for name in fields:
        assert torch.equal(moved[name][0], fields[name][0])
    for name in KINDS:
        assert torch.equal(moved[name][1], mirrored[name][1])
    assert torch.equal(mirrored["boxes"][0, 0], torch.tensor([3.0, 0.0, 5.0, 4.0]))
    assert torch.equal(mirrored["mask"], mask.flip(2))


def test_outside_the_image_masks_are_ignored_and_depth_is_unknown():
    window = torch.tensor([[-2.0, -3.0, 4.0, 6.0]])
    moved = windowed({"mask": mask_of(4, 6, 1), "depth": torch.ones(1, 4, 6)}, window, NOT_FLIPPED, (4, 6))
    assert (moved["mask"][:, :2] == IGNORED).all() and (moved["mask"][:, :, :3] == IGNORED).all()
    assert (moved["mask"][:, 2:, 3:] == mask_of(4, 6, 1)[:, :2, :3]).all()
    assert (moved["depth"][:, :2] == 0).all() and (moved["depth"][:, 2:, 3:] == 1).all()


def test_boxes_are_scaled_clipped_and_dropped_with_their_labels():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [9, 9, 13, 13], [18, 18, 20, 20], [4, 4, 4.5, 5], [0, 0, 0, 0]]])
    fields = {
        "boxes": boxes,
        "box_label": torch.tensor([[0, 1, 2, 3, -1]]),
        "crowd": torch.tensor([[0, 1, 0, 0, 0]], dtype=torch.uint8),
        "box_area": torch.tensor([[100.0, 16, 4, 0.5, 0]]),
    }
    moved = windowed(fields, torch.tensor([[0.0, 0.0, 10.0, 10.0]]), NOT_FLIPPED, (20, 20))
    # the centre of the second and third is outside; the fourth is one pixel wide and two high, twice as large
    assert moved["boxes"][0].tolist() == [[0, 0, 20, 20], [0] * 4, [0] * 4, [8, 8, 9, 10], [0] * 4]
    assert moved["box_label"].tolist() == [[0, -1, -1, 3, -1]]
    assert moved["crowd"].tolist() == [[0, 0, 0, 0, 0]]
    assert moved["box_area"].tolist() == [[400, 0, 0, 2, 0]]
    smaller = resized(fields, (20, 20), (10, 10))
    assert smaller["box_label"].tolist() == [[0, 1, 2, -1, -1]]  # half a pixel is dropped
    assert smaller["boxes"][0, 0].tolist() == [0, 0, 5, 5]


def test_a_letterbox_keeps_the_aspect_ratio_and_pads():
    assert letterbox((60, 120), (64, 64)) == (16, 0, 32, 64)
    fields = {"mask": torch.ones(1, 2, 4, dtype=torch.uint8), "boxes": torch.tensor([[[0.0, 0, 4, 2], [0, 0, 0, 0]]])}
    moved = letterboxed(fields, (2, 4), (8, 8))
    assert (moved["mask"][:, :2] == IGNORED).all() and (moved["mask"][:, 6:] == IGNORED).all()
    assert (moved["mask"][:, 2:6] == 1).all()
    assert moved["boxes"].tolist() == [[[0, 2, 8, 6], [0, 0, 0, 0]]]


def test_covering_crops_as_images_are_cropped():
    from worker.distillation.data.resizing import fill

    mask = torch.arange(24, dtype=torch.uint8).view(1, 4, 6)
    assert torch.equal(covered({"mask": mask}, (4, 6), (4, 4))["mask"], fill(mask[:, None], 4, 4)[:, 0])
