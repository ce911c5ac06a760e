"""Results by class, compared with counts made one by one."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from worker.distillation.reporting import class_results as results
from worker.distillation.task import Remembered, predict
from worker.distillation.tasks.classification import calibration_error


def test_results_by_class_are_those_counted_one_by_one() -> None:
    torch.manual_seed(0)
    samples, classes = 60, 4
    image, label = torch.randn(samples, 5), torch.randint(0, classes - 1, (samples,))
    student, teacher = nn.Linear(5, classes), nn.Linear(5, classes)
    images = SimpleNamespace(batches=image.split, label=label, normalise=lambda part: part)
    images.for_teacher = images
    with torch.no_grad():
        found = results.class_results(student, teacher, images, 16)  # type: ignore[arg-type]
        for who, network in (("student", student), ("teacher", teacher)):
            said = network(image).argmax(1)
            matrix = [[0] * classes for _ in range(classes)]
            for true, predicted in zip(label.tolist(), said.tolist(), strict=True):
                matrix[true][predicted] += 1
            assert found[who]["confusion"] == matrix
            for row in range(classes):
                total = sum(matrix[row])
                expected = pytest.approx(matrix[row][row] / total) if total else None
                assert found[who]["recall"][row] == expected
    assert found["images"] == [int((label == row).sum()) for row in range(classes)]
    assert found["student"]["recall"][classes - 1] is None


def test_the_bins_give_the_calibration_error_back() -> None:
    torch.manual_seed(1)
    logits, label = 3 * torch.randn(500, 6, dtype=torch.float64), torch.randint(0, 6, (500,))
    bins = results.calibration(logits, label)
    assert sum(bins["count"]) == 500
    gaps = [
        count * abs(right - sure)
        for count, right, sure in zip(bins["count"], bins["accuracy"], bins["confidence"], strict=True)
        if count
    ]
    assert sum(gaps) / 500 == pytest.approx(float(calibration_error(logits, label)), abs=1e-9)


def test_very_many_classes_have_no_matrix() -> None:
    images = SimpleNamespace(
        batches=torch.zeros(3, 1).split, label=torch.tensor([0, 1, 2]), normalise=lambda part: part
    )
    with torch.no_grad():
        found = results.class_results(nn.Linear(1, results.MOST_CONFUSED + 1), None, images, 2)  # type: ignore[arg-type]
    assert found["student"]["confusion"] is None and found["teacher"] is None


def test_a_remembered_network_runs_once_for_its_images() -> None:
    image, ran = torch.randn(7, 3), []

    def network(part: torch.Tensor) -> torch.Tensor:
        ran.append(len(part))
        return part

    images = SimpleNamespace(batches=image.split, normalise=lambda part: part)
    others = SimpleNamespace(batches=image[:2].split, normalise=lambda part: part)
    remembered = Remembered(network, images)  # type: ignore[arg-type]
    for _ in range(2):
        rows, _ = predict(remembered, images, 4)  # type: ignore[arg-type]
        assert torch.equal(rows, image.double())
    assert ran == [4, 3]
    assert len(predict(remembered, others, 4)[0]) == 2  # type: ignore[arg-type]
    assert torch.equal(remembered(image), image)
