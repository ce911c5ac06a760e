"""Generators: from Gaussian noise to images in the teacher's normalised input space.

Shapes: B batch, Z latent size, C channels, H height, W width.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.contract import InputContract

Resolution = Literal["full", "half"]
Output = Literal["contract", "sigmoid", "tanh", "affine"]
OUTPUT_WORDS = (
    "End of the generator. `contract` (ours): pixels within the contract's range, with about its mean and standard deviation. "
    "`sigmoid`: within the range. `tanh`: mean 0 and variance 1 over the batch, not bounded. `affine`: not bounded. If null: the "
    "preset's."
)
MOST_VARIANCE = 0.6
"""Largest variance of a channel that `brightness` aims at, relative to that of black and white pixels only: more would
saturate the sigmoid, which then has no gradient."""
UNKNOWN = 0.5, 0.25
"""Mean and standard deviation of a channel for which the contract has no real ones."""


class Generator(nn.Module):
    """The generator of DAFL (Chen et al., arXiv:1904.01186; the architecture is DCGAN's with nearest-neighbour
    upsampling).

    It starts at a quarter of the image's size and doubles the size twice. The second doubling is before the second
    convolution (`resolution="full"`, as published), or at the very end (`"half"`: all convolutions run on a quarter of
    the pixels, which is several times cheaper). Sizes that are not divisible by 4 are rounded up at the start and
    reached exactly at the end. The last normalisation gives every channel mean 0 and variance 1 over the batch, so
    images are already normalised, but not bounded. DAFL's authors use an inner `epsilon` of 0.8. With width 128, latent
    100 and one channel of 32 x 32 it has 1,049,985 parameters.

    `output` replaces the end. `affine`: no tanh, and a scale and shift of every channel is learnt (Micaelli, Storkey,
    arXiv:1905.09768). `sigmoid`: a sigmoid, then the contract's normalisation, and no biases in the inner convolutions, as in
    public code of CMI and its successors. `contract` (ours): the last normalisation, then a sigmoid with a fixed gain and
    offset, so that pixels stay within the contract's range and have about its mean and standard deviation.
    """

    def __init__(
        self,
        contract: InputContract,
        latent: int,
        width: int,
        resolution: Resolution,
        epsilon: float = 0.8,
        output: Output = "tanh",
    ):
        super().__init__()
        self.latent = latent
        self.width = width
        self.resolution = resolution
        self.start, self.middle, self.size = [
            (-(-contract.height // part), -(-contract.width // part)) for part in (4, 2, 1)
        ]
        narrow = max(1, width // 2)
        self.stem = nn.Linear(latent, width * self.start[0] * self.start[1])
        self.stem_norm = nn.BatchNorm2d(width)
        bias = output != "sigmoid"
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.norm1 = nn.BatchNorm2d(width, eps=epsilon)
        self.conv2 = nn.Conv2d(width, narrow, 3, padding=1, bias=bias)
        self.norm2 = nn.BatchNorm2d(narrow, eps=epsilon)
        self.to_image = nn.Conv2d(narrow, contract.channels, 3, padding=1)
        self.ending = Ending(contract, output)

    def forward(self, noise_BZ: Tensor) -> Tensor:
        """Images (B, C, H, W), float32."""
        hidden = self.stem(noise_BZ).unflatten(1, (self.width, *self.start))
        hidden = self.stem_norm(hidden.contiguous(memory_format=torch.channels_last))
        hidden = F.interpolate(hidden, size=self.middle, mode="nearest")
        hidden = F.leaky_relu(self.norm1(self.conv1(hidden)), 0.2)
        if self.resolution == "full":
            hidden = F.interpolate(hidden, size=self.size, mode="nearest")
        hidden = F.leaky_relu(self.norm2(self.conv2(hidden)), 0.2)
        image = self.to_image(hidden).float()
        if self.resolution == "half":
            image = F.interpolate(image, size=self.size, mode="bilinear", align_corners=False)
        return self.ending(image).contiguous()


class Ending(nn.Module):
    """What follows a generator's last convolution; see `Generator`."""

    gain: Tensor
    offset: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, contract: InputContract, output: Output):
        super().__init__()
        self.output = output
        normalises = output != "sigmoid"
        self.norm = nn.BatchNorm2d(contract.channels, affine=output == "affine") if normalises else nn.Identity()
        levels = [brightness(*pair) for pair in zip(contract.mean, contract.std, strict=True)]
        gain, offset = zip(*levels, strict=True) if output == "contract" else (1.0, 0.0)
        values = {"gain": gain, "offset": offset, "mean": contract.mean, "std": contract.std}
        for name, value in values.items():  # constants, which no checkpoint needs
            self.register_buffer(name, torch.as_tensor(value).reshape(-1, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        image_BCHW = self.norm(image_BCHW.tanh() if self.output == "tanh" else image_BCHW)
        if self.output in ("tanh", "affine"):
            return image_BCHW
        return ((self.gain * image_BCHW + self.offset).sigmoid() - self.mean) / self.std


def brightness(mean: float, std: float) -> tuple[float, float]:
    """The gain g and offset o for which `sigmoid(g z + o)` of a normal z has about this mean and standard deviation.

    Approximate moments: Daunizeau, arXiv:1703.00091. A mean and standard deviation that no pixels from 0 to 1 can have, such
    as 0 and 1 of inputs that are not normalised, say nothing; neither do 0.5 and 0.5.
    """
    if not 0 < mean < 1 or std**2 >= mean * (1 - mean):
        mean, std = UNKNOWN
    shrinkage = 1 - min(std**2 / (mean * (1 - mean)), MOST_VARIANCE)
    gain = math.sqrt((shrinkage**-2 - 1) / 0.368)
    return gain, math.log(mean / (1 - mean)) / shrinkage


def seeded(
    contract: InputContract,
    *,
    latent: int,
    width: int,
    resolution: Resolution,
    seed: int,
    device: torch.device,
    epsilon: float = 0.8,
    output: Output = "tanh",
) -> Generator:
    """A new generator on `device` whose weights depend on `seed` alone; the global random generators keep their
    state."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        generator = Generator(contract, latent, width, resolution, epsilon, output)
    return generator.to(device)
