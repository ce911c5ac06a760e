"""Multi-label metrics against the formulas written slowly, and against torchmetrics."""

import math

import pytest
import torch

from tests.worker.distillation.tasks.test_classification import images_of
from worker.distillation.errors import SpecError
from worker.distillation.tasks.multi_label import MultiLabel, average_precision, f1

DRAW = torch.Generator().manual_seed(0)
LOGITS = torch.randint(-4, 5, (40, 5), generator=DRAW).double() / 2 + 0.1  # with ties
LABEL = (torch.rand(40, 5, generator=DRAW) < 0.4).long()
TEACHER = torch.randn(40, 5, generator=DRAW, dtype=torch.float64)


def table(values):
    """A network that returns each image's row."""
    return lambda image: values[(image[:, 0, 0, 0] * 255).round().long()]


def slow_average_precision(scores, wanted):
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        kept = [want for score, want in zip(scores, wanted, strict=True) if score >= threshold]
        new = sum(kept) / sum(wanted)
        area, recall = area + (new - recall) * sum(kept) / len(kept), new
    return area


def slow_f1(predicted, wanted):
    true = sum(a and b for a, b in zip(predicted, wanted, strict=True))
    precision, recall = true / max(1, sum(predicted)), true / max(1, sum(wanted))
    return 2 * precision * recall / (precision + recall) if true else 0.0


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("batch_size", [7, 40])
def test_metrics_equal_the_slow_formulas(batch_size):
    metrics = MultiLabel().evaluate(table(LOGITS), images_of(LABEL, 5), batch_size, table(TEACHER))
    scores, wanted = LOGITS.T.tolist(), LABEL.T.tolist()
    predicted = [[score > 0 for score in row] for row in scores]
    cells = [
        (s, w, t)
        for s, w, t in zip(LOGITS.flatten().tolist(), LABEL.flatten().tolist(), TEACHER.flatten().tolist(), strict=True)
    ]
    kl = [
        p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        for p, q in ((sigmoid(t), sigmoid(s)) for s, _, t in cells)
    ]
    assert metrics == pytest.approx(
        {
            "mean_average_precision": sum(map(slow_average_precision, scores, wanted)) / 5,
            "f1_micro": slow_f1([s > 0 for s, _, _ in cells], [w for _, w, _ in cells]),
            "f1_macro": sum(map(slow_f1, predicted, wanted)) / 5,
            "exact_match": sum((row > 0).tolist() == truth.bool().tolist() for row, truth in zip(LOGITS, LABEL, strict=True)) / 40,
            "binary_cross_entropy": -sum(math.log(sigmoid(s if w else -s)) for s, w, _ in cells) / len(cells),
            "agreement": sum((s > 0) == (t > 0) for s, _, t in cells) / len(cells),
            "teacher_kl": sum(kl) / len(kl),
        }
    )  # fmt: skip


def test_average_precision_is_that_of_torchmetrics():
    from torchmetrics.functional.classification import multilabel_average_precision

    theirs = multilabel_average_precision(LOGITS.sigmoid(), LABEL, num_labels=5, average="none")
    torch.testing.assert_close(average_precision(LOGITS, LABEL.bool()), theirs, check_dtype=False)


def test_labels_without_samples_are_left_out_of_means():
    label = torch.tensor([[1, 0], [0, 0]])
    logits = torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
    assert average_precision(logits, label.bool()).isnan().tolist() == [False, True]
    assert f1(logits > 0, label.bool()).isnan().tolist() == [False, True]
    metrics = MultiLabel().evaluate(table(logits), images_of(label, 2), 2)
    assert metrics["mean_average_precision"] == metrics["f1_macro"] == metrics["exact_match"] == 1.0


def test_knowledge_is_separated_from_chance():
    images = images_of(LABEL, 5)
    assert MultiLabel().assess_teacher(table(TEACHER), images, 40).chance
    assert MultiLabel().assess_teacher(table(torch.zeros(40, 5)), images, 40).chance
    assert not MultiLabel().assess_teacher(table(TEACHER + 2.0 * LABEL), images, 40).chance


@pytest.mark.parametrize("label", [torch.arange(4), torch.ones(4, 3).long()])
def test_other_labels_are_refused(label):
    with pytest.raises(SpecError) as caught:
        MultiLabel().check_labels(images_of(label, 5), 5, "/dataset")
    assert [problem.pointer for problem in caught.value.problems] == ["/dataset"]
