"""Noise whose power spectrum falls with the frequency, as that of photographs does, through a sigmoid.

The exponent of photographs' amplitudes is near 1: Torralba, Oliva, "Statistics of natural image categories", 2003.
Shapes: B images, C channels, H height, W width.
"""

import torch
from torch import Tensor

from worker.distillation.synthesis.families.canvas import AXES, CHROMA, Canvas, uniform

SLOWEST, STEEPEST = 0.5, 3.0
"""Exponents of the amplitude's decay."""
LEAST_GAIN, MOST_GAIN = 1.0, 4.0
OFFSET = 0.7
OWN = 0.5
"""Size of a channel's own field relative to the field that all channels share, if there are other than three."""
SATURATION = 2.0
"""Largest size of the fields of colour, relative to `CHROMA` times the field that all channels share."""


def draw(count: int, canvas: Canvas, random: torch.Generator) -> Tensor:
    """Images (B, C, H, W): `sigmoid(gain (field + offset))`."""
    decay = uniform(SLOWEST, STEEPEST, count, random=random)
    field = fields(count, 1, canvas, decay, random)
    if canvas.channels == len(AXES.T):
        chroma = fields(count, len(AXES), canvas, decay, random) * CHROMA[:, None, None]
        saturation = uniform(0, SATURATION, count, 1, 1, 1, random=random)
        field = field + saturation * torch.einsum("bahw,ac->bchw", chroma, AXES)
    elif canvas.channels > 1:
        field = field + OWN * fields(count, canvas.channels, canvas, decay, random)
    gain = uniform(LEAST_GAIN, MOST_GAIN, count, 1, 1, 1, random=random)
    offset = OFFSET * torch.randn(count, 1, 1, 1, generator=random)
    return (gain * (field + offset)).sigmoid().expand(-1, canvas.channels, -1, -1)


def fields(count: int, channels: int, canvas: Canvas, decay_B: Tensor, random: torch.Generator) -> Tensor:
    """Normal fields (B, channels, H, W) with the amplitude `f^-decay` at frequency f, of mean 0 and standard deviation 1."""
    white = torch.randn(count, channels, canvas.height, canvas.width, generator=random)
    vertical, horizontal = torch.fft.fftfreq(canvas.height), torch.fft.rfftfreq(canvas.width)
    frequency = (vertical[:, None].square() + horizontal.square()).sqrt()
    frequency[0, 0] = 1.0  # the mean, which is taken away
    amplitude = frequency ** -decay_B[:, None, None, None]
    amplitude[..., 0, 0] = 0.0
    field = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(canvas.height, canvas.width))
    return field / field.std(dim=(2, 3), keepdim=True).clamp_min(1e-6)
