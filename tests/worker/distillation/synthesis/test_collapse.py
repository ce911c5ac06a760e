"""The detection of a generator's collapse, and the weights of a restart."""

import math

import pytest
import torch
import torch.nn.functional as F

from worker.distillation.errors import Collapsed, Diverged
from worker.distillation.step import Outputs
from worker.distillation.synthesis.collapse import (
    LOOK_EVERY,
    NAMES,
    WINDOW,
    CollapseWatch,
    corrected,
    distance,
    measure,
    runs_away,
)
from worker.distillation.synthesis.image_loss import Seen, Weights
from worker.distillation.synthesis.round_watch import RoundWatch

CPU = torch.device("cpu")
DRAW = torch.Generator().manual_seed(0)
IMAGES = torch.randn(20, 1, 4, 4, generator=DRAW)
BALANCED = 5 * F.one_hot(torch.arange(20) % 5, 5).float() + 0.1 * torch.randn(20, 5, generator=DRAW)
ONE_CLASS = torch.tensor([0.0, 0, 30, 0, 0]) + 0.1 * torch.randn(20, 5, generator=DRAW)


def seen(image=IMAGES, logits=BALANCED, students=()) -> Seen:
    return Seen(image, Outputs(logits), logits, list(students))


def follow(watch: CollapseWatch, count: int, **what) -> None:
    for _ in range(count):
        watch.see(seen(**what))
        watch.check(watch.seen)


def test_batches_smaller_than_the_classes_are_balanced_if_each_image_shows_another():
    logits = 60 * F.one_hot(torch.arange(16) * 7, 1000).float()
    assert measure(seen(torch.randn(16, 1, 4, 4), logits))[0] == pytest.approx(1.0, abs=1e-4)
    assert measure(seen(torch.randn(16, 1, 4, 4), logits[:4].repeat(4, 1)))[0] == pytest.approx(0.5, abs=1e-4)
    assert measure(seen(torch.randn(16, 1, 4, 4), torch.randn(16, 1000)))[0] == 1
    watch = RoundWatch(iterations=2000, hint="")
    for number in range(6):
        watch.see(number, torch.randn(16, 1, 4, 4), logits, logits.argmax(1))


def test_metrics_are_those_of_the_definitions_written_slowly():
    draw = torch.Generator().manual_seed(3)
    image, logits, student = (torch.randn(6, *shape, generator=draw) for shape in ((1, 2, 2), (3,), (3,)))
    found = dict(zip(NAMES, measure(seen(image, logits, [student])).tolist(), strict=True))
    probabilities = logits.softmax(1)
    mean = probabilities.mean(0)
    assert found["balance"] == pytest.approx(-sum(p * math.log(p) for p in mean.tolist()) / math.log(3), rel=1e-5)
    assert found["confidence"] == pytest.approx(sum(max(row) for row in probabilities.tolist()) / 6, rel=1e-5)
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b]
    apart = sum(float((image[a] - image[b]).square().mean()) for a, b in pairs) / len(pairs)
    assert found["diversity"] == pytest.approx(apart**0.5, rel=1e-5)
    apart = sum(float((logits[a] - logits[b]).square().mean()) for a, b in pairs) / len(pairs)
    assert found["spread"] == pytest.approx(apart**0.5 / float(logits.square().mean()) ** 0.5, rel=1e-5)
    assert found["agreement"] == sum(float(a.argmax() == b.argmax()) for a, b in zip(logits, student, strict=True)) / 6
    centred = [x - x.mean(1, keepdim=True) for x in (logits, student)]
    assert found["disagreement"] == pytest.approx(
        float((centred[0] - centred[1]).abs().mean() / centred[0].abs().mean())
    )
    assert measure(seen(image, logits))[-2:].isnan().all()


def test_a_healthy_generator_is_left_alone():
    watch = CollapseWatch(CPU)
    follow(watch, 200, students=[BALANCED + 1])
    assert watch.low.tolist() == [0, 0, 0] and set(watch.metrics()) == {"class_balance", *NAMES[1:]}
    follow(quiet := CollapseWatch(CPU), 10)
    assert set(quiet.metrics()) == {"class_balance", "confidence", "diversity", "spread"}


def test_one_class_for_fifty_batches_in_a_row_is_a_collapse_that_a_restart_may_prevent():
    watch = CollapseWatch(CPU)
    follow(watch, 49, logits=ONE_CLASS)
    watch.see(seen())
    follow(watch, 49, logits=ONE_CLASS)
    assert watch.low.tolist() == [0, 49, 0]
    restored = CollapseWatch(CPU)
    restored.load_state_dict(watch.state_dict())
    with pytest.raises(Collapsed, match=r"for 5\d steps the teacher predicted few of the classes") as error:
        follow(restored, 11, logits=ONE_CLASS)
    assert (
        error.value.restart_may_help
        and "confidence 100%" in error.value.message
        and "entropy_weight" in error.value.hint
    )


def test_nearly_identical_images_are_a_collapse():
    watch = CollapseWatch(CPU)
    follow(watch, LOOK_EVERY)
    with pytest.raises(Collapsed, match="nearly identical") as error:
        follow(watch, 50, image=IMAGES[:1] + 0.01 * IMAGES)
    assert error.value.restart_may_help and "distance between images 1%" in error.value.message


def test_same_outputs_for_different_images_are_a_collapse_without_restart():
    constant = torch.tensor([1.0, 0, 0, 0, 0]).expand(20, 5)
    for students in ([], [BALANCED]):
        with pytest.raises(
            Collapsed, match="the teacher's outputs were the same for all images, although the images differ"
        ) as error:
            follow(CollapseWatch(CPU), 50, logits=constant, students=students)
        assert not error.value.restart_may_help
    with pytest.raises(Collapsed, match="the same for all images"):
        follow(CollapseWatch(CPU), 50, logits=torch.zeros(20, 5))
    with pytest.raises(Collapsed, match="nearly identical"):
        follow(CollapseWatch(CPU), 50, image=torch.zeros(20, 1, 4, 4), logits=constant)


def test_disagreement_that_rises_while_the_balance_falls_is_a_collapse():
    watch = CollapseWatch(CPU)
    with pytest.raises(Collapsed, match="disagreement rose while the balance of classes fell") as error:
        for number in range(400):
            logits = BALANCED + number / 25 * F.one_hot(torch.tensor(0), 5)
            follow(watch, 1, logits=logits, students=[logits * (1 - number / 400)])
    assert watch.seen <= 10 * WINDOW and "students agree with it on" in error.value.message


def in_turn(watch: CollapseWatch, *disagreements: float) -> CollapseWatch:
    """A watch that has seen two windows of students with each disagreement, while the classes stay in balance."""
    for share in disagreements:
        follow(watch, 2 * WINDOW, students=[BALANCED * (1 - share)])
    return watch


def test_disagreement_that_grows_large_while_classes_stay_balanced_is_a_warning_only():
    watch = in_turn(CollapseWatch(CPU), 0.9, 0.2, 0.4, 0.9)
    assert watch.warning == ""
    restored = CollapseWatch(CPU)
    restored.load_state_dict(watch.state_dict())
    in_turn(restored, 2.5)
    assert "rose from 0.20 to 2.50 of the size of its logits by generator step 230" in restored.warning
    warning = restored.warning
    assert "balance of classes was 100%" in warning and in_turn(restored, 5.0).warning == warning


@pytest.mark.parametrize("disagreements", [(1.1, 1.2, 1.1), (1.8, 0.9, 1.7), (0.1, 0.5, 0.9)])
def test_students_that_know_nothing_yet_or_are_right_in_the_main_are_no_warning(disagreements):
    assert in_turn(CollapseWatch(CPU), *disagreements).warning == ""


@pytest.mark.parametrize(
    ("means", "alarm"),
    [
        ([(0.2, 0.99), (0.25, 0.97), (0.3, 0.95), (0.35, 0.93), (0.4, 0.91)], True),
        ([(0.2, 0.99), (0.25, 0.97), (0.3, 0.95), (0.35, 0.93)], False),
        ([(0.2, 0.99), (0.25, 0.97), (0.3, 0.98), (0.35, 0.93), (0.4, 0.91)], False),
        ([(0.2, 0.99), (0.25, 0.97), (0.24, 0.95), (0.35, 0.93), (0.4, 0.91)], False),
        ([(0.2, 0.999), (0.25, 0.998), (0.3, 0.997), (0.35, 0.996), (0.4, 0.995)], False),
        ([(0.2, 0.99), (0.21, 0.97), (0.22, 0.95), (0.23, 0.93), (0.24, 0.91)], False),
    ],
)
def test_a_runaway_is_steady_long_and_large(means, alarm):
    assert runs_away(means) is alarm


def test_a_nan_has_diverged():
    watch = CollapseWatch(CPU)
    with pytest.raises(Diverged, match="NaN or infinite"):
        follow(watch, 10, logits=torch.full((4, 5), float("nan")), image=IMAGES[:4])


def test_distance_of_equal_samples_is_zero():
    assert distance(IMAGES[:1].expand(5, -1, -1, -1)) == 0


def test_each_restart_doubles_the_entropy_and_halves_terms_against_students():
    weights = Weights(one_hot=1, information_entropy=5, adversarial=2, disagreement=3, batch_statistics=7)
    assert corrected(weights, 0) == weights
    assert corrected(weights, 2) == Weights(
        one_hot=1, information_entropy=20, adversarial=0.5, disagreement=0.75, batch_statistics=7
    )
    assert corrected(Weights(one_hot=1), 1) == Weights(one_hot=1, information_entropy=2)


def test_with_target_classes_a_restart_doubles_their_weight():
    weights = Weights(one_hot=3, boundary=1, competition=2, batch_statistics=10)
    assert corrected(weights, 2, "one_hot") == Weights(one_hot=12, boundary=0.25, competition=0.5, batch_statistics=10)
    assert corrected(Weights(one_hot=0.4), 1, "one_hot").one_hot == 2
    assert corrected(weights, 0, "one_hot") == weights
