"""The geometries of a chain are those under which its layers fit each other: each is tried by running it."""

import time
from itertools import islice, pairwise

import pytest
import torch
from torch import nn

from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.recovery.chain import read_chain
from worker.distillation.recovery.geometry import Placement, geometries, pairs
from worker.distillation.recovery.reading import Reading
from worker.distillation.recovery.search import candidates


def chain_of(*layers):
    return read_chain(nn.Sequential(*layers).state_dict(), 1)


@pytest.mark.parametrize(
    ("layers", "size", "right"),
    [
        (
            (nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Linear(256, 10)),
            (28, 28),
            (Placement(1, 0, (2, 2)), Placement(1, 0, (2, 2))),
        ),
        (
            (nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Linear(400, 10)),
            (28, 28),
            (Placement(1, 2, (2, 2)), Placement(1, 0, (2, 2))),
        ),
        ((nn.Conv2d(1, 4, 3), nn.Linear(4 * 6 * 9, 10)), (12, 18), (Placement(1, 1, (2, 2)),)),
    ],
)
def test_the_right_one_is_among_them_and_all_fit(layers, size, right):
    chain = chain_of(*layers)
    found = list(geometries(chain, size))
    assert right in [geometry.placements for geometry in found]
    assert len(set(found)) == len(found)
    image = torch.zeros(2, 1, *size, dtype=torch.uint8)
    for geometry in found:
        reading = Reading(geometry, "relu", "max", Normalisation("x", (0.0,), (1.0,)))
        assert reading.logits(chain, image).shape == (2, 10)


@pytest.mark.parametrize("last", [pytest.param(64, marks=pytest.mark.slow), 64 * 997])
def test_a_long_chain_on_large_images_takes_bounded_steps(last):
    """Thirty convolutions of any stride, padding and pooling on images that are not square."""
    widths = [3, *[8] * 10, *[16] * 10, *[64] * 10]
    convolutions = [nn.Conv2d(before, after, 3) for before, after in pairwise(widths)]
    with torch.device("meta"):
        chain = read_chain(nn.Sequential(*convolutions, nn.Linear(last, 10)).state_dict(), 3)
    began = time.process_time()
    found = list(islice(geometries(chain, (240, 320)), 400))
    assert time.process_time() - began < 60
    assert len(set(found)) == len(found) and bool(found) == (last == 64)


def test_poolings_where_channels_grow_come_first():
    widths = [1, 8, 8, 16, 16, 32, 32]
    layers = [nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths)]
    found = islice(geometries(chain_of(*layers, nn.Linear(32 * 16, 10)), (32, 32)), 20)
    right = tuple(Placement(1, 1, pool) for pool in (None, (2, 2)) * 3)
    assert right in [geometry.placements for geometry in found]


def test_strides_come_first_where_convolutions_have_no_bias():
    layers = []
    for before, after in pairwise([1, 8, 8, 16, 32]):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
    found = islice(geometries(chain_of(*layers, nn.Linear(32, 10)), (28, 28)), 10)
    right = tuple(Placement(stride, 1, None) for stride in (1, 1, 2, 2))
    assert (right, "average") in [(geometry.placements, geometry.ending) for geometry in found]


def test_every_two_convolutions_that_keep_the_channels_are_a_pair_and_keep_the_size():
    widths = [1, 8, 8, 8, 16, 16, 16, 16]
    chain = chain_of(*[nn.Conv2d(before, after, 3) for before, after in pairwise(widths)], nn.Linear(16, 10))
    assert pairs(chain) == (1, 4)
    found = list(islice(geometries(chain, (16, 16), pairs(chain)), 50))
    assert all(geometry.skips == (1, 4) for geometry in found)
    assert all(geometry.placements[place] == Placement(1, 1, None) for geometry in found for place in (1, 2, 4, 5))


def test_sizes_that_no_geometry_meets():
    assert not list(geometries(chain_of(nn.Conv2d(1, 4, 3), nn.Linear(4 * 997, 10)), (16, 16)))


def test_other_sizes_are_tried_where_a_network_fits_the_images_in_unusual_ways_only():
    """Three halvings lead from 128 pixels to 16, and from the images' 224 only unusual steps do."""
    layers = [nn.Conv2d(before, after, 3) for before, after in pairwise([1, 8, 16, 32])]
    with torch.device("meta"):
        chain = chain_of(*layers, nn.Linear(32 * 16 * 16, 10))
    found = candidates(chain, (224, 224), most=40)
    assert found[0].size == (128, 128) and found[0].placements == (Placement(1, 1, (2, 2)),) * 3
    assert {(128, 128), (224, 224)} <= {geometry.size for geometry in found}
    assert {geometry.size for geometry in candidates(chain, (128, 128), most=40)} == {(128, 128)}


def test_the_first_convolution_of_alexnet_has_a_stride_of_4():
    chain = chain_of(nn.Conv2d(1, 4, 11), nn.Conv2d(4, 4, 5), nn.Linear(4 * 4 * 4, 10))
    found = islice(geometries(chain, (64, 64)), 20)
    assert (Placement(4, 5, (2, 2)), Placement(1, 2, (2, 2))) in [geometry.placements for geometry in found]
