"""Datasets of masks and depth as people send them, made in memory."""

import numpy as np
from PIL import Image

from tests.worker.distillation.data.made_files import encoded, picture, shade

INDEX = (np.arange(64).reshape(8, 8) // 16).astype(np.uint8)
"""Classes 0 to 3, two rows each."""
COLOURS = np.array([[128, 0, 0], [0, 128, 0], [0, 0, 128], [255, 255, 0]], dtype=np.uint8)


def png(array, palette=None, **saving):
    image = Image.fromarray(array)
    if palette:
        image.putpalette(palette)  # makes the mode P
    return encoded(image, **saving)


def palette_png(array):
    image = Image.fromarray(array, mode=None).convert("L")
    made = Image.new("P", image.size)
    made.putdata(list(array.flatten()))
    made.putpalette([each for number in range(256) for each in (number, 255 - number, number // 2)])
    return encoded(made)


def both(mask=None, splits=("train",), count=2, suffix=".png"):
    mask = png(INDEX) if mask is None else mask
    return {
        f"{split}/{kind}/{number}{'.png' if kind == 'images' else suffix}": picture(number)
        if kind == "images"
        else mask
        for split in splits
        for number in range(count)
        for kind in ("images", "masks")
    }


def turned_pair(mask_size):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = encoded(shade(0, size=(12, 8)), "JPEG", exif=exif.tobytes())  # 12 wide and 8 high before it is turned
    mask = np.zeros(mask_size, dtype=np.uint8)
    mask[0] = 1
    return {
        f"train/{kind}/0.{suffix}": data
        for kind, suffix, data in (("images", "jpg", image), ("masks", "png", png(mask)))
    }


def depth_files(values, kind="PNG"):
    return {
        "train/images/0.png": picture(),
        f"train/depth/0.{'png' if kind == 'PNG' else 'tif'}": encoded(Image.fromarray(values), kind),
    }
