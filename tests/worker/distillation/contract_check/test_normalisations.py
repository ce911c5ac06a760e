"""The list of normalisations: each does what it says, and no two of the list are the same."""

import itertools

import pytest
import torch

from worker.distillation.contract import InputContract
from worker.distillation.contract_check.normalisations import Normalisation, altered, declared, usual
from worker.distillation.data.images import Images

DRAW = torch.Generator().manual_seed(3)
COLOUR = torch.randint(0, 256, (7, 3, 4, 5), generator=DRAW, dtype=torch.uint8)


def test_a_declared_normalisation_is_what_the_engine_does_with_images():
    contract = InputContract(3, 4, 5, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    images = Images.of(COLOUR, torch.zeros(7, dtype=torch.int64), ("a",), contract)
    torch.testing.assert_close(declared(contract).apply(COLOUR), images.normalise(COLOUR))


def test_inverted_and_reversed_images():
    way = Normalisation("x", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), inverted=True, reversed=True)
    torch.testing.assert_close(way.apply(COLOUR), 255.0 - COLOUR.float()[:, [2, 1, 0]])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_list_has_each_once_and_gives_the_own_images_mean_0_and_std_1(channels):
    image = torch.randint(0, 200, (30, channels, 8, 8), generator=DRAW, dtype=torch.uint8)
    found = usual(image)
    assert not [pair for pair in itertools.combinations(found, 2) if pair[0].same(pair[1])]
    own = next(each for each in found if each.name == "these images' own").apply(image).transpose(0, 1).flatten(1)
    torch.testing.assert_close(own.mean(1), torch.zeros(channels), atol=1e-3, rtol=0)
    torch.testing.assert_close(own.std(1), torch.ones(channels), atol=2e-3, rtol=0)
    reversals = [each for each in altered(found) if each.reversed]
    assert len(reversals) == (len(found) if channels == 3 else 0)


def test_images_of_one_value_have_a_normalisation_too():
    assert torch.isfinite(usual(torch.full((3, 1, 4, 4), 9, dtype=torch.uint8))[3].apply(COLOUR[:, :1])).all()
