"""DAFL as a source: its batches, and that a resumed run continues bit-equal."""

import copy

import pytest
import torch
from torch import nn

from worker.distillation.catalogue.schema import schema
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.parameters import parse
from worker.distillation.source import Position, SourceContext
from worker.distillation.sources.dafl import Dafl
from worker.distillation.trainer.checkpoint import snapshot

SMALL = {"latent": 6, "generator_width": 4, "generator_batch": 16, "pool_images": 40, "generator_learning_rate": 0.01}


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    body = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(4 * 6 * 10, 3))


def made(teacher_taps: bool = False, seed: int = 5, **parameters) -> Dafl:
    teacher = Tapped(network(0).eval().requires_grad_(False), torch.zeros(2, 2, 8, 12))
    contract = InputContract(2, 8, 12, (0.5, 0.5), (0.2, 0.2))
    source = Dafl(parse(Dafl.Parameters, SMALL | parameters))
    source.build(
        SourceContext(
            teacher, contract, 3, None, 8, 100, None, (), seed, torch.device("cpu"), "classification", teacher_taps
        )
    )
    return source


def run(source: Dafl, students, numbers: range) -> list:
    """Batches of these steps, while the students train on them."""
    optimizers = [torch.optim.SGD(student.parameters(), 0.01) for student in students.values()]
    batches = []
    for number in numbers:
        batch = source.batch(Position(0, number, number, number / 100), students)
        batches.append(batch)
        for student, optimizer in zip(students.values(), optimizers, strict=True):
            optimizer.zero_grad()
            (student(batch.image) ** 2).mean().backward()
            optimizer.step()
    return batches


def test_fresh_batches_alternate_with_draws_from_the_pool():
    source = made(student_steps_per_generator_step=4, augmentation_probability=0)
    students = {"student": network(1)}
    assert source.generator_steps(0) == 20
    for number in range(3):
        source.generator_step(number, students)
    assert source.training.steps == 3
    batches = run(source, students, range(9))
    assert [len(batch.image) for batch in batches] == [16, 8, 8, 8, 16, 8, 8, 8, 16]
    assert source.training.steps == 6
    assert len(source.pool) == 40
    for batch in batches:
        assert batch.image.shape[1:] == (2, 8, 12)
        assert not batch.image.requires_grad
        torch.testing.assert_close(batch.teacher.logits, source.context.teacher(batch.image).logits)


def test_augmented_batches_leave_the_labelling_to_the_engine():
    source = made(augmentation_probability=1)
    assert all(batch.teacher is None for batch in run(source, {"student": network(1)}, range(3)))
    source = made(augmentation_probability=0, teacher_taps=True)
    assert all(batch.teacher is None for batch in run(source, {"student": network(1)}, range(3)))
    source = made(augmentation_probability=0.5, student_steps_per_generator_step=8)
    labelled = [batch.teacher is not None for batch in run(source, {"student": network(1)}, range(40))]
    assert 10 < sum(labelled) < 30


def test_paper_preset_trains_on_every_fresh_batch_once():
    source = made(preset="paper", generator_width=None, pool_images=None)
    assert source.generator_steps(0) == 0
    batches = run(source, {"student": network(1)}, range(3))
    assert [len(batch.image) for batch in batches] == [16] * 3
    assert source.training.steps == 3
    assert source.pool.capacity == 16
    assert source.training.generator.width == 128
    assert source.training.generator.resolution == "full"
    assert "adversarial" not in source.training.terms


@pytest.mark.parametrize("parameters", [{}, {"preset": "paper"}, {"precision": "bf16"}, {"precision": "fp32"}])
def test_resumes_bit_for_bit(parameters):
    source, students = made(**parameters), {"a": network(1), "b": network(2)}
    for number in range(2):
        source.generator_step(number, students)
    run(source, students, range(11))
    saved, students_then, random = snapshot(source.state_dict()), copy.deepcopy(students), torch.get_rng_state()
    expected = run(source, students, range(11, 27))
    torch.manual_seed(99)
    resumed = made(**parameters)
    torch.set_rng_state(random)
    resumed.load_state_dict(saved)
    batches = run(resumed, students_then, range(11, 27))
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.image, other.image)
        assert (batch.teacher is None) == (other.teacher is None)
        assert batch.teacher is None or torch.equal(batch.teacher.logits, other.teacher.logits)
    for name, tensor in source.training.generator.state_dict().items():
        assert torch.equal(tensor, resumed.training.generator.state_dict()[name]), name
    assert {name: float(value) for name, value in source.metrics().items()} == {
        name: float(value) for name, value in resumed.metrics().items()
    }


def test_seed_decides_everything_and_the_global_generator_nothing():
    one = run(made(), {"student": network(1)}, range(3))
    torch.manual_seed(123)
    same, other = (run(made(seed=seed), {"student": network(1)}, range(3)) for seed in (5, 6))
    assert all(torch.equal(batch.image, twin.image) for batch, twin in zip(one, same, strict=True))
    assert not torch.equal(one[0].image, other[0].image)


def test_default_batch_grows_with_the_classes():
    for classes, expected in ((3, 256), (60, 600), (1000, 1024)):
        source = Dafl(parse(Dafl.Parameters, {"generator_batch": None}))
        assert source.generator_batch_for(classes) == expected


def test_metrics_and_previews():
    source = made()
    run(source, {"student": network(1)}, range(1))
    assert set(source.metrics()) == {
        f"generator/{name}"
        for name in (
            "one_hot",
            "information_entropy",
            "activation",
            "adversarial",
            "class_balance",
            "confidence",
            "diversity",
            "spread",
            "agreement",
            "disagreement",
            "restarts",
            "bf16",
            "pool_images",
        )
    }
    assert source.previews()["samples"].shape == (16, 2, 8, 12)


def test_samples_are_fresh_and_leave_no_trace():
    source = made()
    run(source, {"student": network(1)}, range(3))
    before = snapshot(source.state_dict())
    samples = source.samples(50)
    assert samples.shape == (50, 2, 8, 12)
    assert torch.equal(samples, source.samples(50))
    seen = source.pool.newest(40)[0]
    assert (samples[:, None] - seen[None]).abs().amax(dim=(2, 3, 4)).min() > 1e-3
    after = source.state_dict()
    assert all(torch.equal(tensor, after["generator"][name]) for name, tensor in before["generator"].items())
    assert torch.equal(before["random"], after["random"])


def test_too_little_memory_is_refused_with_the_amount_needed():
    assert 6 * 2**20 < 8192 * (2 * 8 * 12 * 4 + 3 * 4) < 7 * 2**20
    with pytest.raises(SpecError, match="pool_megabytes: must be at least 7"):
        made(generator_batch=8192, pool_megabytes=1, precision="fp32")


def test_presets_set_parameters_without_a_default():
    null = {name for name, field in Dafl.Parameters.__dataclass_fields__.items() if field.default is None}
    assert all(set(preset) == null for preset in Dafl.presets.values())
    assert set(schema(Dafl.Parameters)["properties"]["preset"]["enum"]) == set(Dafl.presets)


def test_presets_of_the_paper_are_its_authors_settings():
    """Weights of the one-hot, entropy and activation loss, the generator's learning rate, the noise's dimension, and
    the batch."""
    names = (
        "one_hot_weight",
        "entropy_weight",
        "activation_weight",
        "generator_learning_rate",
        "latent",
        "generator_batch",
    )
    published = {"paper": (1, 5, 0.1, 0.2, 100, 512), "paper_cifar10": (0.05, 5, 0.01, 0.02, 1000, 1024),
                 "paper_cifar100": (0.5, 20, 0.1, 0.02, 1000, 1024), "paper_celeba": (2, 5, 0.1, 0.002, 100, 512)}  # fmt: skip
    for preset, values in published.items():
        source = Dafl(parse(Dafl.Parameters, {"preset": preset}))
        assert tuple(source.chosen(name) for name in names) == values
        weights = source.weights()
        assert (weights.one_hot, weights.information_entropy, weights.activation) == values[:3]
        assert weights.adversarial == 0


def test_calibration_images_are_those_of_the_pool_and_leave_no_trace():
    source = made()
    assert torch.equal(source.calibration(7), source.samples(7))  # the pool is empty
    run(source, {"student": network(3)}, range(24))
    before = snapshot(source.state_dict())
    images = source.calibration(9)
    pool = source.pool.read(torch.arange(len(source.pool)))[0]
    assert torch.equal(images, pool[torch.linspace(0, len(pool) - 1, 9).round().long()])
    assert len(source.calibration(10_000)) == len(pool)
    after = snapshot(source.state_dict())
    assert after["random"].equal(before["random"]) and after["pool.written"] == before["pool.written"]
