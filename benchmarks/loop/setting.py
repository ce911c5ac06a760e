"""What all loops share: two networks, random images of CIFAR's shape, and the loss."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation import networks
from worker.distillation.contract import InputContract, read_contract

TEMPERATURE = 4.0
SHARE_OF_KD = 0.9
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 5e-4
PADDING = 4
INPUT = {
    "channels": 3, "height": 32, "width": 32, "mean": [0.5071, 0.4867, 0.4408], "std": [0.2675, 0.2565, 0.2761],
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A pair of networks of the catalogue, and images (N, 3, side, side) uint8 with labels (N,)."""

    teacher: str
    student: str
    image: Tensor
    label: Tensor
    batch_size: int
    classes: int = 100
    side: int = 32

    @property
    def input(self) -> dict[str, Any]:
        """The input contract as JSON."""
        return {**INPUT, "height": self.side, "width": self.side}

    @property
    def contract(self) -> InputContract:
        return read_contract(self.input)

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """Teacher and student with random weights, the same for every loop; BatchNorm of the teacher has seen some images."""
        torch.manual_seed(0)
        teacher, student = (
            networks.build(name, self.classes, self.contract, {}) for name in (self.teacher, self.student)
        )
        with torch.no_grad():
            teacher(self.normalised(256))
        return teacher.eval().requires_grad_(False), student

    def normalised(self, most: int | None = None) -> Tensor:
        """All images, or the first ones, as float32, normalised."""
        mean, std = (torch.tensor(INPUT[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
        return (self.image[:most].float() / 255 - mean) / std


def setting(teacher: str, student: str, images: int, batch_size: int, classes: int = 100) -> Setting:
    """A setting with random images."""
    draw = torch.Generator().manual_seed(1)
    image = torch.randint(256, (images, 3, 32, 32), generator=draw, dtype=torch.uint8)
    return Setting(teacher, student, image, torch.randint(classes, (images,), generator=draw), batch_size, classes)


def kd_loss(student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """0.1 cross-entropy and 0.9 of Hinton's loss at temperature 4."""
    log_p, q = F.log_softmax(student / TEMPERATURE, dim=1), F.softmax(teacher / TEMPERATURE, dim=1)
    kd = F.kl_div(log_p, q, reduction="batchmean") * TEMPERATURE**2
    return (1 - SHARE_OF_KD) * F.cross_entropy(student, label) + SHARE_OF_KD * kd
