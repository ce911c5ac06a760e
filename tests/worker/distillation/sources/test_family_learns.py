"""With each source of the family, a student learns what its teacher knows of real images that neither has seen."""

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.sources.family import PARAMETERS, Game, made, network

SHAPE, CLASSES = (1, 12, 12), 4
STEPS = {"zskt": 160, "dfad": 160}
LARGER = {
    "dafl": {"generator_learning_rate": 0.02},
    "deep_inversion": {"iterations": 20, "initial_rounds": 4, "student_steps_per_round": 40},
    "cmi": {"iterations": 20, "initial_rounds": 4, "student_steps_per_round": 40, "generator_learning_rate": 1e-2},
    "fast_meta": {"iterations": 4, "initial_rounds": 15, "student_steps_per_round": 10},
    "nayer": {"iterations": 10, "initial_rounds": 6, "student_steps_per_round": 20, "generator_life": 50},
    "cpnet": {"iterations": 10, "initial_rounds": 6, "student_steps_per_round": 20, "generator_life": 50, "latent": 16},
}


def real(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with a bright bar whose position is the class."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.arange(256) % CLASSES
    image = torch.randn(256, *SHAPE, generator=draw) * 0.6
    for number in range(CLASSES):
        image[label == number, :, 3 * number : 3 * number + 3] += 1.5
    return image, label


@pytest.fixture(scope="module")
def teacher():
    image, label = real(1)
    trained = network(3, SHAPE, CLASSES)
    optimizer = torch.optim.Adam(trained.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(trained(image), label).backward()
        optimizer.step()
    assert (trained.eval()(image).argmax(1) == label).float().mean() > 0.97
    return trained


@pytest.mark.parametrize("name", PARAMETERS)
def test_agreement_on_real_images_rises_far_above_chance(name, teacher):
    parameters = {"generator_batch": 64, "pool_images": 2048} | LARGER.get(name, {})
    if name not in ("deep_inversion", "procedural", "cpnet"):
        parameters |= {"generator_width": 8, "latent": 16}
    source = made(name, teacher=teacher, shape_CHW=SHAPE, classes=CLASSES, batch_size=64, **parameters)
    student = network(7, SHAPE, CLASSES)
    game = Game(source, {"student": student})
    while game.number < STEPS.get(name, 80):
        game.step()
    image, _ = real(2)
    with torch.no_grad():
        agreement = (student.eval()(image).argmax(1) == teacher(image).argmax(1)).float().mean().item()
    assert agreement > 0.75
