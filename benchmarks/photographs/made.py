"""Photographs made by code: textures with the spectrum of natural images, so that their JPEG files have realistic sizes."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = 10
FIELDS = 24
"""Random fields from which images are mixed; a Fourier transform for each image would take most of the time."""
SIDE = 1024


def fields(seed: int = 0) -> NDArray[np.float32]:
    """Random fields (FIELDS, SIDE, SIDE) whose amplitude falls with the frequency, as that of natural images does (Field,
    J. Opt. Soc. Am. A 4, 1987), from -1 to 1."""
    draw = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    amplitude = 1 / np.maximum(np.hypot(y, x), 2 / SIDE) ** 1.1
    made = []
    for _ in range(FIELDS):
        phase = draw.uniform(0, 2 * np.pi, amplitude.shape)
        field = np.fft.irfft2(amplitude * np.exp(1j * phase), (SIDE, SIDE))
        made.append(np.clip(field / (3 * field.std()), -1, 1).astype(np.float32))
    return np.stack(made)


def photograph(known: NDArray[np.float32], number: int, height: int, width: int) -> NDArray[np.uint8]:
    """Image `number` (height, width, 3); its class, `number % CLASSES`, tints it."""
    draw = np.random.default_rng(number)
    shade, tint = known[draw.integers(FIELDS, size=2)]
    top, left = draw.integers(SIDE - min(height, SIDE) + 1), draw.integers(SIDE - min(width, SIDE) + 1)
    part = shade[top : top + height, left : left + width]
    other = tint[left : left + height, top : top + width] if left + height <= SIDE and top + width <= SIDE else part
    angle = 2 * np.pi * (number % CLASSES) / CLASSES
    colours = [part + 0.35 * np.cos(angle + 2.1 * channel) * (1 + other) for channel in range(3)]
    return (127.5 + 127.5 * np.clip(np.stack(colours, axis=-1), -1, 1)).astype(np.uint8)


def files(count: int, height: int, width: int) -> Iterator[tuple[str, bytes]]:
    """Names in class folders, and JPEG files of quality 90; every other one is upright."""
    known = fields()
    for number in range(count):
        size = (height, width) if number % 2 else (width, height)
        stream = io.BytesIO()
        smaller = -(-max(size) // 500)  # a large photograph is a scaled one: fields have 1024 pixels
        image = Image.fromarray(photograph(known, number, size[0] // smaller, size[1] // smaller))
        image.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        yield f"class{number % CLASSES}/{number:06d}.jpg", stream.getvalue()


def write_zip(path: Path, count: int, height: int = 375, width: int = 500) -> Path:
    """A zip of photographs; one that exists is kept."""
    if not path.exists():
        partial = path.with_suffix(".part")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for name, data in files(count, height, width):
                archive.writestr(name, data)
        partial.replace(path)
    return path
