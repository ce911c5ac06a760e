"""When one way of reading images counts as clearly better than another."""

from functools import partial

import pytest
import torch

from worker.distillation.contract_check.comparison import (
    Measured,
    beats_mean,
    by_truth,
    clearly_better,
    compare,
    guessed_share,
    in_another_order,
    names_class,
    names_label,
    sigma,
)
from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.process.stopwatch import Stopwatch

ZERO_TO_ONE = Normalisation("0 to 1", (0.0,), (1.0,))
HALF = Normalisation("half", (0.5,), (1.0,))


def flags(*runs):
    return torch.tensor([bool(value) for value, count in runs for _ in range(count)])


def test_sigma_is_mcnemars():
    one, other = flags((1, 10), (0, 25), (1, 50)), flags((0, 10), (1, 25), (1, 50))
    assert sigma(one, other) == pytest.approx((25 - 10) / 35**0.5)
    assert sigma(other, one) == pytest.approx(-(25 - 10) / 35**0.5)
    assert sigma(one, one) == 0


def test_sigma_of_scores_counts_the_images_with_a_higher_one():
    one, other = torch.tensor([0.1, 0.5, 0.5, float("nan"), 0.9]), torch.tensor([0.2, 0.6, 0.5, 0.3, 0.8])
    assert sigma(one, other) == pytest.approx((2 - 1) / 3**0.5)
    assert Measured("a", one).accuracy == pytest.approx(0.5)  # of the images of which something is true


@pytest.mark.parametrize(
    ("one", "other", "better"),
    [
        (flags((1, 350), (0, 150)), flags((1, 495), (0, 5)), True),
        (flags((1, 480), (0, 20)), flags((1, 500)), False),  # 4 points
        (flags((1, 30), (0, 20)), flags((1, 35), (0, 15)), False),  # 10 points, but 2.2 sigma
        (flags((0, 500)), flags((1, 60), (0, 440)), False),  # what the commonest class alone gives
        (flags((1, 495), (0, 5)), flags((1, 350), (0, 150)), False),
    ],
)
def test_clearly_better(one, other, better):
    judgement = by_truth(names_class, torch.arange(len(one)) % 10, "")
    assert clearly_better(Measured("a", one), Measured("b", other), judgement) is better


def test_a_network_is_measured_under_each_normalisation():
    image = torch.arange(0, 250, 10, dtype=torch.uint8).view(-1, 1, 1, 1)
    label = (image.flatten() > 127).long()

    def network(x):
        return torch.cat([-x.flatten(1), x.flatten(1)], 1)  # class 1 above 0

    rows = compare(network, image, by_truth(names_class, label, ""), ZERO_TO_ONE, [HALF], batch_size=7)
    assert [row.name for row in rows] == ["0 to 1", "half"]
    positive = (image.flatten() > 0).long()
    assert rows[0].accuracy == pytest.approx(float((positive == label).double().mean()))
    assert rows[1].accuracy == 1.0
    assert rows[1].row() == {"name": "half", "accuracy": 1.0, "images": 25, "mean": [0.5], "std": [1.0]}


@pytest.mark.parametrize(
    ("wall", "images"),
    [(1, 320), (9, 320), (20, 160), (1000, 64)],
    ids=["idle machine", "loaded", "more loaded than 10 times", "the fewest in any case"],
)
def test_a_loaded_machine_measures_as_many_images(wall, images):
    """An image takes 1/64 s of processor time and `wall` times as much by the clock; two ways may take 10 s."""
    used = 0.0

    def network(x):
        nonlocal used
        used += len(x) / 64
        return torch.zeros(len(x), 2)

    image, judgement = torch.zeros(500, 1, 1, 1, dtype=torch.uint8), by_truth(names_class, torch.zeros(500).long(), "")
    watch = partial(Stopwatch, lambda: used, lambda: wall * used)
    rows = compare(network, image, judgement, ZERO_TO_ONE, [HALF], seconds=10, stopwatch=watch)
    assert [len(row.right) for row in rows] == [images] * 2


def test_another_order_of_classes_is_told_by_the_other_half():
    label = torch.arange(60) % 3
    chosen = (label + 1) % 3
    chosen[:6] = 0  # two of three are wrong there
    right = in_another_order(chosen, label)
    assert right[6:].all() and right[:6].tolist() == [False, False, True] * 2
    assert not in_another_order(torch.zeros_like(label), label).any()
    assert not in_another_order(torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(0)), label).all()


def test_outputs_of_several_labels_and_of_targets_are_judged_for_each_image():
    label = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.uint8)
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert names_label(logits, label).tolist() == [True, False, False]
    assert guessed_share(label) == pytest.approx(1 / 3)
    target = torch.tensor([[0.0, 100.0], [2.0, 100.0], [4.0, 400.0]])  # means 2 and 200
    outputs = torch.tensor([[0.5, 120.0], [9.0, 100.0], [2.1, 210.0]])
    assert beats_mean(outputs, target, target).tolist() == [True, False, True]
    assert beats_mean(outputs[2:], target[2:], target).tolist() == [True]
    assert not beats_mean(target.mean(0).expand(3, 2), target, target).any()
    assert guessed_share(target) == 0
