"""Random views: boxes, mixing, colours and policies, against their formulas."""

import math

import pytest
import torch
from torchvision.transforms import v2

from worker.distillation.data.mixing import Mixing, beta
from worker.distillation.data.pixels import crop_each
from worker.distillation.data.random_boxes import BoxDraws, resized_crops
from worker.distillation.data.random_views import RandomViews, ViewParameters
from worker.distillation.data.samplers import generator
from worker.distillation.data.strong_views import OPERATIONS, StrongViews, rotate, translate_x

MEAN = (0.5, 0.4, 0.3)


def images(count: int = 8, size: int = 24) -> torch.Tensor:
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8)


def test_resized_crops_have_the_areas_and_ratios_of_torchvision() -> None:
    count, size = 4000, (240, 320)
    boxes = resized_crops(BoxDraws.draw(count, generator(0)), torch.tensor([size]), 0.08)
    theirs = torch.tensor(
        [
            v2.RandomResizedCrop.make_params(v2.RandomResizedCrop(10), [torch.empty(3, *size)])["height"]
            for _ in range(count)
        ]
    )
    assert bool((boxes[:, :2] >= 0).all()) and bool((boxes[:, :2] + boxes[:, 2:] <= torch.tensor(size)).all())
    area, ratio = boxes[:, 2] * boxes[:, 3] / math.prod(size), boxes[:, 3] / boxes[:, 2]
    assert float(area.min()) >= 0.078 and float(ratio.min()) > 0.70 and float(ratio.max()) < 1.42
    assert float(boxes[:, 2].mean()) == pytest.approx(float(theirs.double().mean()), rel=0.05)
    assert float(boxes[:, 2].std()) == pytest.approx(float(theirs.double().std()), rel=0.1)


def test_an_image_that_no_try_fits_shows_its_centre() -> None:
    boxes = resized_crops(BoxDraws.draw(3, generator(0)), torch.tensor([[100, 1000]]), 1.0)
    assert boxes.tolist() == [[0.0, 433.0, 100.0, 133.0]] * 3


def test_crops_of_images_in_memory() -> None:
    image = images(2)
    parts = torch.tensor([[0.0, 0.0, 24.0, 24.0], [3.0, 5.0, 12.0, 6.0]])
    shown = crop_each(image, parts)
    assert torch.equal(shown[0], image[0])
    right = torch.nn.functional.interpolate(
        image[1:, :, 3:15, 5:11].float(), (24, 24), mode="bilinear", antialias=True
    ).round()
    assert float((shown[1].float() - right[0]).abs().max()) <= 1


def test_mixup_adds_up_two_images() -> None:
    image = torch.randn(4, 3, 5, 5)
    mixing = Mixing.draw(4, 0.4, 0.0, generator(0))
    assert mixing is not None
    mixed = mixing.apply(image)
    for number in range(4):
        share = float(mixing.share[number])
        torch.testing.assert_close(mixed[number], share * image[number] + (1 - share) * image[number - 1])
    assert Mixing.draw(4, 0.0, 0.0, generator(0)) is None


def test_cutmix_replaces_a_box_of_the_share() -> None:
    size = 200
    image = torch.arange(1.0, 5).view(-1, 1, 1, 1).expand(-1, 1, size, size)
    mixing = Mixing("cutmix", torch.tensor([0.75, 0.75, 1.0, 0.19]).double(), torch.tensor([[0.5, 0.5]] * 4).double())
    mixed = mixing.apply(image)
    for number, share in enumerate((0.75, 0.75, 1.0, 0.19)):
        own = mixed[number] == number + 1
        assert float(own.double().mean()) == pytest.approx(share, abs=0.01)
        assert bool((mixed[number][~own] == (number or 4)).all())
    kinds = {Mixing.draw(2, 1.0, 1.0, generator(seed)).kind for seed in range(20)}  # type: ignore[union-attr]
    assert kinds == {"mixup", "cutmix"}


@pytest.mark.parametrize("concentration", [1.0, 0.4, 0.1])
def test_shares_have_the_moments_of_a_beta_distribution(concentration: float) -> None:
    share = beta(concentration, 20_000, generator(0))
    assert bool(((share >= 0) & (share <= 1)).all())
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(1 / (4 * (2 * concentration + 1)), rel=0.04)


def test_erased_boxes_have_the_mean() -> None:
    image = torch.full((200, 3, 40, 40), 7, dtype=torch.uint8)
    views = RandomViews.draw(ViewParameters(erasing=0.5), False, 200, generator(0))
    erased = views.apply(image, MEAN)
    fill = torch.tensor([128, 102, 76]).view(3, 1, 1)
    changed = (erased != 7).any(1)
    assert 70 < int(changed.flatten(1).any(1).sum()) < 130
    assert all(bool((each[:, mask] == fill[:, 0]).all()) for each, mask in zip(erased, changed, strict=True))
    assert 0.01 < float(changed[changed.flatten(1).any(1)].double().mean()) < 0.34


def test_flips_and_colours_keep_the_shape_and_the_original() -> None:
    image = images(16)
    before = image.clone()
    views = RandomViews.draw(ViewParameters(colour_jitter=0.4), True, 16, generator(1))
    assert views.flip is not None and 0 < int(views.flip.sum()) < 16
    changed = views.apply(image, MEAN)
    assert changed.shape == image.shape and changed.dtype == torch.uint8 and torch.equal(image, before)
    assert not torch.equal(changed, image)
    part = views.at(slice(4, 8)).apply(image[4:8], MEAN)
    assert torch.equal(part, changed[4:8])


def test_trivial_augment_draws_one_operation_of_a_wide_magnitude() -> None:
    views = StrongViews.draw_trivial(10_000, generator(0))
    assert views.operation.shape == (10_000, 1) and int(views.operation.max()) == len(OPERATIONS) - 1
    assert len(views.magnitude.abs().mul(30).round().unique()) == 31
    bar = torch.zeros(1, 1, 65, 65)
    bar[..., 32] = 255
    turn = StrongViews(torch.tensor([[OPERATIONS.index(rotate)]]), torch.tensor([[2 / 3]]), wide=True)  # 90 degrees
    turned = turn.apply(bar.to(torch.uint8), torch.tensor([0]))
    assert bool((turned[0, 0, 32] > 200).all())
    move = StrongViews(torch.tensor([[OPERATIONS.index(translate_x)]]), torch.tensor([[-0.5]]), wide=True)  # 16 pixels
    assert int(move.apply(bar.to(torch.uint8), torch.tensor([0]))[0, 0, 0].argmax()) == 48


def test_nothing_is_drawn_without_parameters() -> None:
    image = images()
    assert torch.equal(RandomViews.draw(ViewParameters(), False, 8, generator(0)).apply(image, MEAN), image)
