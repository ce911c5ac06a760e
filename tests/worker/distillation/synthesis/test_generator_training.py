"""The generator's training, its collapse detection, and what it does not change."""

import math

import pytest
import torch
from torch import nn

from worker.distillation import precision
from worker.distillation.contract import InputContract
from worker.distillation.introspection.taps import Tapped
from worker.distillation.synthesis import generator
from worker.distillation.synthesis.generator_losses import adversarial, information_entropy
from worker.distillation.synthesis.generator_training import GeneratorTraining
from worker.distillation.synthesis.image_loss import ImageLoss, Weights
from worker.distillation.synthesis.live import evaluating

CPU = torch.device("cpu")
CONTRACT = InputContract(1, 8, 8, (0.5,), (0.5,))


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    body = [nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(216, 5))


@pytest.fixture
def teacher() -> Tapped:
    """A teacher that prefers a class, so that the entropy can be increased."""
    biased = network(0)
    biased[-1].bias.data[0] += 2
    return Tapped(biased.eval().requires_grad_(False), torch.zeros(2, 1, 8, 8))


def training(teacher: Tapped, weights: Weights, kind: torch.dtype = torch.float32) -> GeneratorTraining:
    made = generator.seeded(CONTRACT, latent=10, width=8, resolution="half", seed=1, device=CPU)
    return GeneratorTraining(made, ImageLoss(teacher, weights, kind, CPU), 0.02, (0.9, 0.999))


def noise(number: int) -> torch.Tensor:
    return torch.randn(32, 10, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("term", ["one_hot", "information_entropy", "activation", "adversarial"])
def test_each_term_falls_when_it_alone_is_trained(teacher, term):
    students = {"student": network(1)}
    run = training(teacher, Weights(**{term: 1.0}))
    values = []
    for number in range(60):
        run.step(noise(number), students)
        values.append(run.terms[term].item())
    assert set(run.terms) == {term}
    assert sum(values[-5:]) < sum(values[:5]) - 0.05


def test_terms_are_those_of_the_teacher_on_these_images(teacher):
    run = training(teacher, Weights(1, 1, 1, 1))
    student = network(1)
    image = run.step(noise(0), {"student": student})
    outputs = teacher(image)
    logits, feature = outputs.logits, outputs.taps["5:in"]
    assert run.terms["activation"].item() == pytest.approx(-feature.abs().mean().item(), rel=1e-4)
    assert run.terms["adversarial"].item() == pytest.approx(adversarial(student.eval()(image), logits).item(), rel=1e-4)
    assert run.watch.balance.item() == pytest.approx(-information_entropy(logits).item() / math.log10(5), rel=1e-4)


def test_the_disagreement_metric_is_the_watchs_for_any_loss(teacher):
    for term in ("adversarial", "disagreement"):
        run = training(teacher, Weights(**{term: 1.0}))
        student = network(1)
        image = run.step(noise(0), {"student": student})
        expected = -adversarial(student.eval()(image), teacher(image).logits).item()
        assert run.metrics()["generator/disagreement"].item() == pytest.approx(expected, rel=1e-4)


def test_teacher_and_students_are_left_as_they_were(teacher):
    student = network(1)
    student[1].eval()
    modes = [module.training for module in student.modules()]
    before = {name: tensor.clone() for name, tensor in (student.state_dict() | teacher.state_dict()).items()}
    random = torch.get_rng_state()
    training(teacher, Weights(1, 5, 0.1, 1)).step(noise(0), {"student": student})
    assert [module.training for module in student.modules()] == modes
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in (student.state_dict() | teacher.state_dict()).items()
    )
    assert all(parameter.grad is None for net in (student, teacher) for parameter in net.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_no_terms_leave_the_generator_untrained(teacher):
    run = training(teacher, Weights(adversarial=1.0))
    before = run.generator.stem.weight.clone()
    run.step(noise(0), {})
    assert torch.equal(run.generator.stem.weight, before)


def test_low_precision_gives_nearly_the_same_terms(teacher):
    exact, low = (training(teacher, Weights(1, 5, 0.1), kind) for kind in (torch.float32, torch.bfloat16))
    for run in (exact, low):
        run.step(noise(0), {})
    for name, value in exact.terms.items():
        assert low.terms[name].item() == pytest.approx(value.item(), rel=0.1, abs=0.02)
    assert exact.metrics()["generator/bf16"] == 0
    assert low.metrics()["generator/bf16"] == 1


def test_precision_is_the_requested_or_the_hardwares():
    assert precision.resolve("fp32", CPU) == torch.float32
    assert precision.resolve("bf16", CPU) == torch.bfloat16
    native = precision.has_fast_bf16(CPU)
    assert precision.resolve("auto", CPU) == (torch.bfloat16 if native else torch.float32)
    assert not precision.has_fast_bf16(torch.device("meta"))


def test_modes_come_back_after_an_error():
    student = network(1)
    with pytest.raises(ValueError, match="on purpose"), evaluating([student]):
        assert not any(module.training for module in student.modules())
        raise ValueError("on purpose")
    assert all(module.training for module in student.modules())
