"""Datasets of boxes as people send them, made in memory."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from tests.worker.distillation.data.made_files import encoded, shade

WIDTH, HEIGHT = 40, 30


def photo(number: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """A PNG of so many pixels: width and height."""
    return encoded(shade(number, size=size))


def turned_photo(orientation: int = 6) -> bytes:
    """A JPEG of 40 x 30 pixels that EXIF turns to 30 x 40."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(shade(0, size=(WIDTH, HEIGHT)), "JPEG", exif=exif.tobytes())


def coco(
    boxes: Sequence[Mapping[str, Any]],
    names: Sequence[str] = ("1.png",),
    categories: Mapping[int, str] | None = None,
    size: tuple[int, int] | None = (WIDTH, HEIGHT),
) -> bytes:
    """A COCO file; `boxes` are annotations with `bbox`, by default of image 0 and category 1."""
    said = {} if size is None else {"width": size[0], "height": size[1]}
    categories = {1: "cell", 2: "nucleus"} if categories is None else categories
    whole = {
        "images": [{"id": number, "file_name": name, **said} for number, name in enumerate(names)],
        "annotations": [{"id": number, "image_id": 0, "category_id": 1, **box} for number, box in enumerate(boxes)],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }
    return json.dumps(whole).encode()


def voc(
    objects: Sequence[tuple[str, tuple[Any, ...]]], size: tuple[int, int] = (WIDTH, HEIGHT), more: str = ""
) -> bytes:
    """A Pascal VOC file with objects: name, and xmin, ymin, xmax, ymax."""
    inner = "".join(
        f"<object><name>{name}</name>{more}<bndbox>"
        + "".join(
            f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox></object>"
        for name, box in objects
    )
    said = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>any.jpg</filename>{said}{inner}</annotation>".encode()
