"""DAFL on MNIST as its authors run it, transcribed plainly: the baseline for the cost of the engine's DAFL.

Chen et al., "Data-Free Learning of Student Networks", ICCV 2019, arXiv:1904.01186. Settings and the order of an iteration
follow the authors' program (huawei-noah/Efficient-Computing, `DAFL-train.py`), in our own words. Nothing is optimised:
everything is float32, the generator is as wide as published, every image is used once, and gradients of the teacher's
weights are computed although nothing reads them.

Shapes: B batch, Z latent size, K classes, D features, H and W of 32 pixels.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH = 512
LATENT = 100
WIDTH = 128
SIZE = 32
ITERATIONS = 200 * 120
"""Epochs times iterations per epoch."""
# Weights of the generator's losses.
ONE_HOT = 1.0
ENTROPY = 5.0
ACTIVATION = 0.1
GENERATOR_RATE, STUDENT_RATE = 0.2, 2e-3
"""Learning rates of Adam; both are constant."""


def generator(width: int = WIDTH, latent: int = LATENT) -> nn.Sequential:
    """Noise (B, Z) -> images (B, 1, H, W) in the teacher's normalised space; 1,049,985 parameters."""
    start = SIZE // 4
    return nn.Sequential(
        nn.Linear(latent, width * start**2), nn.Unflatten(1, (width, start, start)), nn.BatchNorm2d(width),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width, eps=0.8), nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(width, width // 2, 3, padding=1), nn.BatchNorm2d(width // 2, eps=0.8), nn.LeakyReLU(0.2),
        nn.Conv2d(width // 2, 1, 3, padding=1), nn.Tanh(), nn.BatchNorm2d(1, affine=False),
    )  # fmt: skip


def generator_loss(teacher_BK: Tensor, features_BD: Tensor) -> Tensor:
    """Weighted sum of the teacher's confidence, the balance of its classes (decimal logarithm) and the magnitude of its features."""
    one_hot = F.cross_entropy(teacher_BK, teacher_BK.argmax(dim=1))
    mean_K = teacher_BK.softmax(dim=1).mean(dim=0)
    return ONE_HOT * one_hot + ENTROPY * (mean_K * mean_K.log10()).sum() - ACTIVATION * features_BD.abs().mean()


def distillation_loss(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """KL(teacher || student) in nats, mean over the batch, at temperature 1."""
    target_BK = teacher_BK.detach().softmax(dim=1)
    return F.kl_div(student_BK.log_softmax(dim=1), target_BK, reduction="sum") / len(student_BK)


def iterations(teacher: nn.Module, student: nn.Module, batch: int = BATCH, width: int = WIDTH) -> Iterator[float]:
    """Train a student with a teacher, both LeNets, without end; yields the total loss after each iteration.

    The teacher's features are those of its third convolution, after the ReLU.
    """
    images_from, features = generator(width), []
    optimizers = (
        torch.optim.Adam(images_from.parameters(), GENERATOR_RATE),
        torch.optim.Adam(student.parameters(), STUDENT_RATE),
    )
    teacher.eval().get_submodule("relu3").register_forward_hook(lambda *given: features.append(given[2].flatten(1)))
    while True:
        student.train()
        image_B1HW = images_from(torch.randn(batch, LATENT))
        teacher_BK = teacher(image_B1HW)
        student_BK = student(image_B1HW.detach())
        loss = generator_loss(teacher_BK, features.pop()) + distillation_loss(student_BK, teacher_BK)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        yield loss.item()
