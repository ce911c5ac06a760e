"""Small set-ups for synthesising sources: a teacher that has learnt something, and runs of a source on it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation import registry
from worker.distillation.contract import InputContract
from worker.distillation.introspection.taps import Tapped
from worker.distillation.parameters import parse
from worker.distillation.source import Position, Source, SourceContext

CPU = torch.device("cpu")
PARAMETERS: dict[str, dict[str, Any]] = {
    "dafl": {"initial_generator_steps": 2},
    "dfad": {},
    "zskt": {},
    "dfq": {"initial_generator_steps": 2},
    "deep_inversion": {"iterations": 4, "initial_rounds": 2, "student_steps_per_round": 3},
    "fast_meta": {"iterations": 3, "initial_rounds": 2, "student_steps_per_round": 3},
    "cmi": {"iterations": 4, "initial_rounds": 2, "student_steps_per_round": 3, "memory": 40, "negatives": 8, "embedding": 8},
    "cpnet": {"iterations": 3, "initial_rounds": 2, "student_steps_per_round": 3, "generator_life": 3},
    "procedural": {"first_batches": 2, "student_steps_per_batch": 3, "family_images": 16},
    "nayer": {"iterations": 3, "initial_rounds": 2, "student_steps_per_round": 3, "generator_life": 3},
}  # fmt: skip
"""Parameters that make each source of the family small."""
ROUNDS = tuple(name for name, values in PARAMETERS.items() if "iterations" in values)
NARROW = {"generator_width": 4, "latent": 6}
SMALL = {"generator_batch": 16, "pool_images": 40}


def network(seed: int, shape_CHW: tuple[int, int, int] = (2, 8, 12), classes: int = 3) -> nn.Sequential:
    """A convolution, BatchNorm and a linear classifier."""
    channels, height, width = shape_CHW
    torch.manual_seed(seed)
    body = [nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(6 * (height // 2) * (width // 2), classes))


def made(
    name: str,
    teacher: nn.Module | None = None,
    shape_CHW: tuple[int, int, int] = (2, 8, 12),
    classes: int = 3,
    seed: int = 5,
    batch_size: int = 8,
    **parameters: Any,
) -> Source:
    """A source of the family, built for a teacher."""
    channels, height, width = shape_CHW
    contract = InputContract(channels, height, width, (0.5,) * channels, (0.2,) * channels)
    network_ = teacher if teacher is not None else network(0, shape_CHW, classes)
    tapped = Tapped(network_.eval().requires_grad_(False), torch.zeros(2, *shape_CHW))
    method = registry.find("sources", name)
    small = {name: value for name, value in NARROW.items() if hasattr(method.Parameters, name)}
    source = method(parse(method.Parameters, SMALL | small | PARAMETERS[name] | parameters))
    source.build(SourceContext(tapped, contract, classes, None, batch_size, 100, None, (), seed, CPU, "classification"))
    return source


class Game:
    """Students that learn from a source step by step as in the engine, with the source's generator steps between."""

    def __init__(self, source: Source, students: dict[str, nn.Module], learning_rate: float = 0.01):
        self.source, self.students, self.number, self.own = source, students, 0, 0
        self.optimizers = {name: torch.optim.Adam(each.parameters(), learning_rate) for name, each in students.items()}

    def step(self) -> Tensor | None:
        """One generator step, which returns None, or one step of the students, which returns their images."""
        if self.own < self.source.generator_steps(self.number):
            self.source.generator_step(self.own, self.students)
            self.own += 1
            return None
        batch = self.source.batch(Position(0, self.number, self.number, self.number / 100), self.students)
        with torch.no_grad():
            teacher = batch.teacher or self.source.context.teacher(batch.image)
        for name, student in self.students.items():
            self.optimizers[name].zero_grad()
            log_q, p = student(batch.image).log_softmax(1), teacher.logits.softmax(1)
            F.kl_div(log_q, p, reduction="batchmean").backward()
            self.optimizers[name].step()
        self.number += 1
        return batch.image
