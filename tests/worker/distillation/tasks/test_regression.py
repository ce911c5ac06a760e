"""Regression metrics against the formulas written slowly."""

import pytest
import torch

from tests.worker.distillation.trial import contract_of
from worker.distillation.data.images import Images
from worker.distillation.errors import SpecError
from worker.distillation.tasks.regression import Regression, determination

DRAW = torch.Generator().manual_seed(0)
TARGET = torch.randn(30, 3, generator=DRAW) * torch.tensor([1.0, 10.0, 0.0])
GIVEN = (TARGET + torch.randn(30, 3, generator=DRAW)).double()
TEACHER = (TARGET + 0.1).double()


def images_of(target):
    """Images that encode their index."""
    image = torch.arange(len(target), dtype=torch.uint8).view(-1, 1, 1, 1)
    names = tuple("abcdefgh"[: target.shape[1]])
    return Images.of(image, {"target": target}, names, contract_of(1, 1))


def table(values):
    """A network that returns each image's row."""
    return lambda image: values[(image[:, 0, 0, 0] * 255).round().long()]


def columns(values):
    return [column.tolist() for column in values.double().unbind(1)]


def slow_r2(given, wanted):
    mean = sum(wanted) / len(wanted)
    rest = sum((y - f) ** 2 for f, y in zip(given, wanted, strict=True))
    return 1 - rest / sum((y - mean) ** 2 for y in wanted)


@pytest.mark.parametrize("batch_size", [7, 30])
def test_metrics_equal_the_slow_formulas(batch_size):
    metrics = Regression().evaluate(table(GIVEN), images_of(TARGET), batch_size, table(TEACHER))
    pairs = list(zip(columns(GIVEN), columns(TARGET), strict=True))
    means = [sum(abs(f - y) for f, y in zip(f_, y_, strict=True)) / 30 for f_, y_ in pairs]
    squares = [(f - y) ** 2 for f_, y_ in pairs for f, y in zip(f_, y_, strict=True)]
    apart = [(f - t) ** 2 for f, t in zip(GIVEN.flatten().tolist(), TEACHER.flatten().tolist(), strict=True)]
    assert metrics == pytest.approx(
        {
            "mean_absolute_error": sum(means) / 3,
            "root_mean_squared_error": (sum(squares) / 90) ** 0.5,
            "r2": (slow_r2(*pairs[0]) + slow_r2(*pairs[1])) / 2,  # the third target never changes
            **{f"mean_absolute_error/{name}": mean for name, mean in zip("abc", means, strict=True)},
            "teacher_distance": (sum(apart) / 90) ** 0.5,
        }
    )


def test_determination_is_one_for_the_truth_and_nought_for_its_mean():
    target = TARGET[:, :2].double()
    assert determination(target, target).tolist() == [1.0, 1.0]
    torch.testing.assert_close(determination(target.mean(0).expand(30, 2), target), torch.zeros(2).double())
    assert len(determination(target, torch.ones(30, 2).double())) == 0


def test_knowledge_is_separated_from_chance():
    images = images_of(TARGET)
    assert Regression().assess_teacher(table(TARGET.mean(0).expand(30, 3)), images, 30).chance
    assert Regression().assess_teacher(table(torch.randn(30, 3, generator=DRAW) * 20), images, 30).chance
    assert not Regression().assess_teacher(table(GIVEN), images, 30).chance


def test_fewer_errors_are_better():
    assert Regression().better(0.1, 0.2) and Regression().better(9.0, None) and not Regression().better(0.3, 0.2)


def test_targets_of_another_number_are_refused():
    with pytest.raises(SpecError) as caught:
        Regression().check_labels(images_of(TARGET), 2, "/evaluation/dataset")
    assert [problem.pointer for problem in caught.value.problems] == ["/evaluation/dataset"]
