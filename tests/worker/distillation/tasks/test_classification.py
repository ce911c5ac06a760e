"""Classification metrics against counting by hand, and against torchmetrics."""

import math

import pytest
import torch

from tests.worker.distillation.trial import contract_of
from worker.distillation.data.images import Images
from worker.distillation.step import Outputs
from worker.distillation.tasks import classification

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.5, 0.0]])
LABEL = torch.tensor([0, 1, 0, 1])
TEACHER = torch.tensor([[5.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0], [4.0, 0.0, 0.0]])


def images_of(label, classes):
    """Images that encode their index: a pixel of value 0, 1, 2, ..."""
    image = torch.arange(len(label), dtype=torch.uint8).view(-1, 1, 1, 1)
    names = tuple(map(str, range(classes)))
    return Images.of(image, label, names, contract_of(1, 1))


def looking_up(table):
    """A network that returns each image's row of logits."""
    return lambda image: Outputs(table[(image[:, 0, 0, 0] * 255).round().long()])


def softmax(row):
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_metrics_equal_those_counted_by_hand(batch_size):
    metrics = classification.evaluate(looking_up(LOGITS), images_of(LABEL, 3), batch_size, looking_up(TEACHER))
    network, teacher = ([softmax(row) for row in table.tolist()] for table in (LOGITS, TEACHER))
    kl = [sum(p * math.log(p / q) for p, q in zip(t, s, strict=True)) for t, s in zip(teacher, network, strict=True)]
    assert metrics == pytest.approx(
        {
            "accuracy": 2 / 4,
            "agreement": 3 / 4,
            "cross_entropy": -sum(math.log(row[label]) for row, label in zip(network, LABEL.tolist(), strict=True)) / 4,
            "calibration_error": (  # each confidence has a bin of its own
                (1 - max(network[0])) + (1 - max(network[1])) + max(network[2]) + max(network[3])
            ) / 4,
            "teacher_kl": sum(kl) / 4,
        }
    )  # fmt: skip


def test_plain_logits_will_do_and_a_teacher_is_optional():
    lookup = looking_up(LOGITS)
    metrics = classification.evaluate(lambda image: lookup(image).logits, images_of(LABEL, 3), 2)
    assert metrics.keys() == {"accuracy", "cross_entropy", "calibration_error"}


def test_top_five_with_more_than_five_classes():
    logits = torch.arange(7.0).flip(0).repeat(4, 1)
    metrics = classification.evaluate(looking_up(logits), images_of(torch.tensor([0, 4, 5, 6]), 7), 4)
    assert metrics["accuracy"] == 1 / 4
    assert metrics["top5_accuracy"] == 2 / 4


def test_calibration_error_is_that_of_torchmetrics():
    from torchmetrics.functional.classification import multiclass_calibration_error

    torch.manual_seed(0)
    logits, label = torch.randn(500, 10) * 2, torch.randint(0, 10, (500,))
    theirs = multiclass_calibration_error(logits.softmax(1), label, num_classes=10, n_bins=15, norm="l1")
    torch.testing.assert_close(classification.calibration_error(logits, label), theirs)


def test_a_sure_and_right_network_is_calibrated():
    logits = 100.0 * torch.eye(4)
    assert classification.calibration_error(logits, torch.arange(4)) < 1e-6
    assert classification.calibration_error(logits, torch.arange(4).flip(0)) > 1 - 1e-6


def test_evaluation_needs_no_gradient():
    table = LOGITS.clone().requires_grad_(True)
    logits, _ = classification.predict(looking_up(table), images_of(LABEL, 3), 2)
    assert not logits.requires_grad
