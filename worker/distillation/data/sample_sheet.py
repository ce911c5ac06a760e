"""A PNG with some images of a dataset, so that its user sees what was read.

Shapes: N samples, C channels, H height, W width.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.data.packed import Packed
from worker.distillation.data.pixels import Photographs

COLUMNS, MOST_ROWS = 8, 16
SIDE = 64
"""Longest side of a shown image in pixels; larger ones are scaled down."""
GAP = 2


def images_of(packed: Packed, folder: Path) -> Tensor | Photographs:
    """The training images of a dataset; `folder` holds the shards of its photographs, which are shown as squares of 64 pixels."""
    image, _ = packed.splits["train"]
    if packed.photographs is None:
        return image
    channels = packed.photographs.channels
    contract = InputContract(channels, SIDE, SIDE, mean=(0.0,) * channels, std=(1.0,) * channels)
    return Photographs.of(image, folder, packed.photographs.shards, contract, "cpu")


def write_samples(image: Tensor | Photographs, label: Tensor, kind: str, path: Path) -> dict[str, Any]:
    """Write a sheet of images (N, C, H, W) uint8 to `path`.

    With classes (`kind` is `class`, labels (N,)) each row holds the first images of one class; otherwise the first images stand
    one after the other. Images with other than three channels show their first one in grey.

    Returns:
        `rows`: the class of each row, None without classes; `columns`.
    """
    classes = torch.unique(label)[:MOST_ROWS].tolist() if kind == "class" else None
    if classes is None:
        rows = list(torch.arange(min(len(image), COLUMNS * MOST_ROWS)).split(COLUMNS))
    else:
        rows = [(label == each).nonzero()[:COLUMNS, 0] for each in classes]
    _save([[_picture(each) for each in image[row]] for row in rows], path)
    return {"rows": classes, "columns": COLUMNS}


def _picture(image_CHW: Tensor) -> Any:
    from PIL import Image

    shown = image_CHW if len(image_CHW) == 3 else image_CHW[:1].expand(3, -1, -1)
    picture = Image.fromarray(shown.permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((SIDE, SIDE))
    return picture


def _save(rows: list[list[Any]], path: Path) -> None:
    from PIL import Image

    width, height = (size + GAP for size in rows[0][0].size)
    sheet = Image.new("RGB", (COLUMNS * width - GAP, len(rows) * height - GAP), "white")
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            sheet.paste(picture, (across * width, down * height))
    sheet.save(path, format="PNG", optimize=True)
