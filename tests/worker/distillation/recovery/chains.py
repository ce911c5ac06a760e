"""Small networks of one chain, trained for seconds on the digits of scikit-learn, each saved as a bare state dict."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from worker.distillation.contract_check.normalisations import Normalisation

Way = tuple[float, float]
ZERO_ONE, HALF, OTHER = (0.0, 1.0), (0.5, 0.5), (0.1307, 0.3081)


def digits() -> tuple[Tensor, Tensor]:
    """1797 digits of 16 x 16 pixels (N, 1, 16, 16) uint8, enlarged from 8 x 8, and their classes (N,)."""
    found = load_digits()
    image = torch.tensor(found.images / 16 * 255).round().to(torch.uint8)[:, None]
    return image.repeat_interleave(2, 2).repeat_interleave(2, 3), torch.tensor(found.target).long()


def _convolutions(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


class Residual(nn.Sequential):
    """Layers whose input is added to their output."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


CHAINS = {
    "relu_max_valid": lambda: _convolutions(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10),
    ),
    "tanh_average": lambda: _convolutions(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 12, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(108, 10),
    ),
    "sigmoid_mlp": lambda: _convolutions(nn.Flatten(), nn.Linear(256, 40), nn.Sigmoid(), nn.Linear(40, 10)),
    "relu_mlp": lambda: _convolutions(
        nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    ),
    "batch_norm": lambda: _convolutions(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10),
    ),
    "strided": lambda: _convolutions(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 10),
    ),
    "global_average": lambda: _convolutions(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    ),
    "two_before_a_pool": lambda: _convolutions(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(576, 10)
    ),
    "convolutions_only": lambda: _convolutions(
        nn.Conv2d(1, 8, 4, stride=4), nn.ELU(), nn.Conv2d(8, 32, 4), nn.ELU(), nn.Conv2d(32, 10, 1), nn.Flatten()
    ),
    "no_activation": lambda: _convolutions(nn.Flatten(), nn.Linear(256, 10)),
    "grouped": lambda: _convolutions(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, groups=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(576, 10),
    ),
    "norm_after_activation": lambda: _convolutions(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 10)
    ),
    "three_by_two_pool": lambda: _convolutions(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(200, 10)
    ),
    "sum_behind_the_activation": lambda: _convolutions(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        Residual(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()),
        nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    ),
    "sum_before_the_activation": lambda: _convolutions(
        nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        Residual(
            nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12),
        ),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    ),
}  # fmt: skip


def trained(name: str, way: Normalisation, steps: int = 150) -> nn.Sequential:
    """One of the chains, trained on the digits under a normalisation, in evaluation mode."""
    image, label = digits()
    x = way.apply(image)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = CHAINS[name]()
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
        for _ in range(steps):
            batch = torch.randint(0, len(x), (128,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), label[batch]).backward()
            optimizer.step()
    return network.eval()
