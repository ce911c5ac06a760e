"""Generators: from Gaussian noise to images in the teacher's normalised input space.

Shapes: B batch, Z latent size, C channels, H height, W width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.contract import InputContract

Resolution = Literal["full", "half"]
Output = Literal["tanh", "affine"]


class Generator(nn.Module):
    """The generator of DAFL (Chen et al., arXiv:1904.01186; the architecture is DCGAN's with nearest-neighbour
    upsampling).

    It starts at a quarter of the image's size and doubles the size twice. The second doubling is before the second
    convolution (`resolution="full"`, as published), or at the very end (`"half"`: all convolutions run on a quarter of
    the pixels, which is several times cheaper). Sizes that are not divisible by 4 are rounded up at the start and
    reached exactly at the end. The last normalisation gives every channel mean 0 and variance 1 over the batch, so
    images are already normalised. DAFL's authors use an inner `epsilon` of 0.8. With `output="affine"` there is no
    tanh, and a scale and shift of every channel is learnt (Micaelli, Storkey, arXiv:1905.09768). With width 128, latent
    100 and one channel of 32 x 32 it has 1,049,985 parameters.
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
        self.bounded = output == "tanh"
        self.latent = latent
        self.width = width
        self.resolution = resolution
        self.start, self.middle, self.size = [
            (-(-contract.height // part), -(-contract.width // part)) for part in (4, 2, 1)
        ]
        narrow = max(1, width // 2)
        self.stem = nn.Linear(latent, width * self.start[0] * self.start[1])
        self.stem_norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width, eps=epsilon)
        self.conv2 = nn.Conv2d(width, narrow, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(narrow, eps=epsilon)
        self.to_image = nn.Conv2d(narrow, contract.channels, 3, padding=1)
        self.image_norm = nn.BatchNorm2d(contract.channels, affine=not self.bounded)

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
        return self.image_norm(image.tanh() if self.bounded else image).contiguous()


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
