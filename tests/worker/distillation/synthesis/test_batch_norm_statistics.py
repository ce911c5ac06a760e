"""The distance from BatchNorm's statistics: against the formula, at its fixed point, and through any kind of
program."""

import copy

import pytest
import torch
from torch import Tensor, nn

from worker.distillation.errors import SpecError
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics, StatisticsReader, check_kept


def network() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 5),
        nn.BatchNorm1d(5),
        nn.Linear(5, 3),
    )
    for module in made:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return made.eval()


def images(number: int = 1) -> Tensor:
    return torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(number))


def measured(statistics: BatchStatistics, network: nn.Module, image: Tensor) -> Tensor:
    with statistics.reading():
        network(image)
    return statistics.distance()


def slow(network: nn.Sequential, image: Tensor, first: float = 1.0, past=None, m: float = 0.0) -> Tensor:
    total, x, number = torch.zeros(()), image, 0
    for module in network:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            channels = [x[:, c].reshape(-1) for c in range(x.shape[1])]
            mean = torch.stack([sum(values) / len(values) for values in channels])
            variance = torch.stack([((values - values.mean()) ** 2).sum() / len(values) for values in channels])
            if past is not None:
                mean, variance = (1 - m) * mean + m * past[number][0], (1 - m) * variance + m * past[number][1]
            away = ((mean - module.running_mean) ** 2).sum().sqrt() + (
                (variance - module.running_var) ** 2
            ).sum().sqrt()
            total = total + (first if number == 0 else 1.0) * away
            number += 1
        x = module(x)
    return total


@pytest.mark.parametrize("first", [1.0, 10.0])
def test_value_and_gradient_equal_the_formula(first):
    teacher, image = network(), images().requires_grad_(True)
    fast, expected = measured(BatchStatistics(first), teacher, image), slow(teacher, image, first)
    torch.testing.assert_close(fast, expected)
    (gradient,), (its,) = (torch.autograd.grad(value, image) for value in (fast, expected))
    torch.testing.assert_close(gradient, its)


def test_is_zero_for_the_batchs_own_statistics():
    teacher, image = network(), images()
    for module in teacher:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            module.reset_running_stats()
    for part in range(2, len(teacher) + 1):  # the later layer's input depends on the earlier one's statistics
        if isinstance(teacher[part - 1], nn.modules.batchnorm._BatchNorm):
            x = teacher[: part - 1](image)
            rest = [d for d in range(x.ndim) if d != 1]
            teacher[part - 1].running_mean.copy_(x.mean(rest).detach())
            teacher[part - 1].running_var.copy_(x.var(rest, correction=0).detach())
    watched = image.clone().requires_grad_(True)
    value = measured(BatchStatistics(), teacher, watched)
    assert value.item() < 1e-5
    assert measured(BatchStatistics(), teacher, 1.5 * image).item() > 0.1


def test_gradient_is_finite_at_the_fixed_point():
    norm = nn.BatchNorm2d(1, affine=False).eval()
    image = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).requires_grad_(True)
    value = measured(BatchStatistics(), norm, image)
    assert value.item() == 0
    assert torch.autograd.grad(value, image)[0].abs().max() == 0


def test_past_batches_count_by_the_momentum():
    teacher, m = network(), 0.9
    statistics = BatchStatistics(momentum=m)
    first = measured(statistics, teacher, images(1))
    torch.testing.assert_close(first, slow(teacher, images(1)))  # there are no earlier batches yet
    past = [(mean, variance) for mean, variance in statistics._last]
    statistics.remember()
    torch.testing.assert_close(measured(statistics, teacher, images(2)), slow(teacher, images(2), past=past, m=m))
    moved = [
        (m * mean + (1 - m) * new_mean, m * variance + (1 - m) * new_variance)
        for (mean, variance), (new_mean, new_variance) in zip(past, statistics._last, strict=True)
    ]
    statistics.remember()
    restored = BatchStatistics(momentum=m)
    restored.load_state_dict(copy.deepcopy(statistics.state_dict()), torch.device("cpu"))
    value = measured(restored, teacher, images(3))
    torch.testing.assert_close(value, slow(teacher, images(3), past=moved, m=m))
    assert torch.equal(value, measured(statistics, teacher, images(3)))


def test_exported_programs_are_read_like_modules():
    teacher, image = network(), images()
    expected = measured(BatchStatistics(), teacher, image)
    program = torch.export.export(teacher, (image,))
    for each in (program.module(), program.run_decompositions().module()):
        torch.testing.assert_close(measured(BatchStatistics(), each, image), expected)


def test_nothing_is_read_outside_of_the_context_nor_of_a_batchs_own_statistics():
    teacher, reader = network(), StatisticsReader()
    teacher(images())
    with reader:
        teacher(images())
    assert len(reader.found) == 2
    teacher(images())
    assert len(reader.found) == 2


def test_networks_without_kept_statistics_are_refused():
    check_kept(network(), images())
    for plain in (nn.Conv2d(1, 2, 3), nn.BatchNorm2d(1, track_running_stats=False)):
        with pytest.raises(SpecError, match="/teacher: has no BatchNorm"):
            check_kept(plain.eval(), images())
