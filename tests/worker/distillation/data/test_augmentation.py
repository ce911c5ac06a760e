"""Augmentation and samplers, compared with loops."""

import pytest
import torch
import torch.nn.functional as F

from worker.distillation.data import augmentation, samplers
from worker.distillation.data.augmentation import Views, crop_and_flip

CPU = torch.device("cpu")


@pytest.mark.parametrize("least_sliced", [0, 10**9])
def test_crop_and_flip_equals_a_loop(least_sliced, monkeypatch):
    monkeypatch.setattr(augmentation, "LEAST_SLICED", least_sliced)
    image = torch.randint(256, (16, 3, 8, 10), dtype=torch.uint8)
    shift, flip = torch.randint(9, (16, 2)), torch.rand(16) < 0.5
    moved = crop_and_flip(image, shift, flip, 4)
    assert moved.is_contiguous(memory_format=torch.channels_last)
    padded = F.pad(image, (4, 4, 4, 4))
    for number in range(16):
        top, left = shift[number].tolist()
        expected = padded[number, :, top : top + 8, left : left + 10]
        assert torch.equal(moved[number], expected.flip(2) if flip[number] else expected)


def test_centre_shift_without_flip_is_the_identity():
    image = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    centre = torch.full((4, 2), 3)
    assert torch.equal(crop_and_flip(image, centre, torch.zeros(4, dtype=torch.bool), 3), image)


def test_views_cover_all_shifts_and_flip_about_half():
    views = Views.draw(4000, 2, True, samplers.generator(0, "x"), CPU)
    assert {tuple(pair) for pair in views.shift.tolist()} == {(row, column) for row in range(5) for column in range(5)}
    assert 0.45 < views.flip.float().mean() < 0.55
    assert not Views.draw(4000, 2, False, samplers.generator(0, "x"), CPU).flip.any()


def test_streams_differ_by_seed_and_by_part():
    streams = [
        torch.rand(4, generator=samplers.generator(*key)).tolist()
        for key in ((0, 1), (1, 0), (0, 2), (2**40, 1), (0, "order", 1))
    ]
    assert len({tuple(stream) for stream in streams}) == 5
    assert torch.equal(
        torch.rand(4, generator=samplers.generator(5, 6)), torch.rand(4, generator=samplers.generator(5, 6))
    )


def test_shuffled_is_a_permutation_that_changes_with_the_epoch():
    orders = [samplers.shuffled(100, 0, epoch) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(100)) for order in orders)
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], samplers.shuffled(100, 0, 0))


def test_steps_of_an_epoch():
    assert [samplers.steps(size, 4, True) for size in (1, 3, 4, 5, 8, 11)] == [1, 1, 1, 1, 2, 2]
    assert [samplers.steps(size, 4, False) for size in (1, 3, 4, 5, 8, 11)] == [1, 1, 1, 2, 2, 3]
