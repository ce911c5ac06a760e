"""Fields with a place in the image, which change with it: masks, depth and boxes.

Shapes: N samples, H and W the image's height and width, M boxes (padded). A size is (height, width). A window is a rectangle
(top, left, height, width) in pixels of the image, which may reach beyond it; it is stretched to a size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]
IGNORED = 255
"""The value of mask pixels that no loss and no metric reads."""
NO_BOX = -1
"""The value of `box_label` where there is no box."""
LEAST_AREA = 1.0
"""Boxes with a smaller area in pixels are dropped."""


class FieldKind(Protocol):
    """How a kind of field changes with its image. Functions are pure and batched: the first dimension is the sample."""

    @property
    def pad_value(self) -> float:
        """The value of what lies outside the image."""
        ...

    def resize(self, value: Tensor, from_size: Size, to_size: Size) -> Tensor:
        """The field of images that are resized from one size to another."""
        ...

    def flip(self, value: Tensor, width: int) -> Tensor:
        """The field of images that are mirrored left to right."""
        ...

    def window(self, value: Tensor, window_N4: Tensor, size: Size) -> Tensor:
        """The field of a window of each image, stretched to a size."""
        ...

    def pad(self, value: Tensor, top: int, left: int, inner: Size, size: Size) -> Tensor:
        """The field of images of the size `inner` that are put at (top, left) into a larger image of the size `size`."""
        ...


@dataclass(frozen=True)
class Plain:
    """A value that does not depend on where things are in the image, such as a class."""

    pad_value: float = 0.0

    def resize(self, value: Tensor, from_size: Size, to_size: Size) -> Tensor:
        return value

    def flip(self, value: Tensor, width: int) -> Tensor:
        return value

    def window(self, value: Tensor, window_N4: Tensor, size: Size) -> Tensor:
        return value

    def pad(self, value: Tensor, top: int, left: int, inner: Size, size: Size) -> Tensor:
        return value


@dataclass(frozen=True)
class Map:
    """A value for each pixel (N, H, W). The nearest pixel is taken: a mean of two classes is a third class, and a mean of two
    depths lies on neither surface."""

    pad_value: float

    def resize(self, value: Tensor, from_size: Size, to_size: Size) -> Tensor:
        if from_size == to_size:
            return value
        rows, columns = (
            ((torch.arange(to, device=value.device) + 0.5) * (of / to)).long().clamp_(0, of - 1)
            for of, to in zip(from_size, to_size, strict=True)
        )
        return value[:, rows[:, None], columns]

    def flip(self, value: Tensor, width: int) -> Tensor:
        return value.flip(-1)

    def window(self, value: Tensor, window_N4: Tensor, size: Size) -> Tensor:
        height, width = value.shape[1:]
        top, left, tall, wide = window_N4.to(value.device).unbind(1)
        rows = _centres(size[0], tall, top)
        columns = _centres(size[1], wide, left)
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        sample = torch.arange(len(value), device=value.device)[:, None, None]
        near = value[sample, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
        return torch.where(inside, near, torch.as_tensor(self.pad_value, dtype=value.dtype, device=value.device))

    def pad(self, value: Tensor, top: int, left: int, inner: Size, size: Size) -> Tensor:
        right, bottom = size[1] - inner[1] - left, size[0] - inner[0] - top
        return F.pad(value, (left, right, top, bottom), value=self.pad_value)


@dataclass(frozen=True)
class Boxes:
    """Boxes (N, M, 4): x1, y1, x2, y2 in pixels, padded with zeros. A box whose centre leaves the image, or whose area becomes
    less than a pixel, becomes padding."""

    pad_value: float = 0.0

    def resize(self, value: Tensor, from_size: Size, to_size: Size) -> Tensor:
        down, across = to_size[0] / from_size[0], to_size[1] / from_size[1]
        return _without_small(value * value.new_tensor([across, down, across, down]))

    def flip(self, value: Tensor, width: int) -> Tensor:
        x1, y1, x2, y2 = value.unbind(-1)
        return _where_box(value, torch.stack([width - x2, y1, width - x1, y2], dim=-1))

    def window(self, value: Tensor, window_N4: Tensor, size: Size) -> Tensor:
        top, left, tall, wide = window_N4.to(value).unbind(1)
        start = torch.stack([left, top, left, top], dim=1)[:, None]
        factor = torch.stack([size[1] / wide, size[0] / tall] * 2, dim=1)[:, None]
        return _inside((value - start) * factor, value, size)

    def pad(self, value: Tensor, top: int, left: int, inner: Size, size: Size) -> Tensor:
        return _where_box(value, value + value.new_tensor([left, top, left, top]))


KINDS: Mapping[str, FieldKind] = {"mask": Map(IGNORED), "depth": Map(0.0), "boxes": Boxes()}
"""The kinds of fields by name; every other field is plain."""
PLAIN: FieldKind = Plain()


def kind_of(name: str) -> FieldKind:
    """The kind of a field."""
    return KINDS.get(name, PLAIN)


def resized(fields: Mapping[str, Tensor], from_size: Size, to_size: Size) -> dict[str, Tensor]:
    """The fields of images that are resized from one size to another."""
    if from_size == to_size:
        return dict(fields)
    moved = {name: kind_of(name).resize(value, from_size, to_size) for name, value in fields.items()}
    if "box_area" in moved:
        moved["box_area"] = moved["box_area"] * (to_size[0] * to_size[1] / (from_size[0] * from_size[1]))
    return _together(moved)


def flipped(fields: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """The fields of images that are mirrored left to right."""
    return {name: kind_of(name).flip(value, width) for name, value in fields.items()}


def windowed(fields: Mapping[str, Tensor], window_N4: Tensor, flip_N: Tensor, size: Size) -> dict[str, Tensor]:
    """The fields of a window of each image, stretched to a size, and mirrored where `flip_N` is true."""
    moved = {}
    for name, value in fields.items():
        kind = kind_of(name)
        if name not in KINDS:
            moved[name] = value
            continue
        plain = kind.window(value, window_N4, size)
        mirrored = flip_N.to(plain.device).view(-1, *(1,) * (plain.ndim - 1))
        moved[name] = torch.where(mirrored, kind.flip(plain, size[1]), plain)
    if "box_area" in moved:
        window = window_N4.to(moved["box_area"])
        moved["box_area"] = moved["box_area"] * (size[0] * size[1] / (window[:, 2] * window[:, 3]))[:, None]
    return _together(moved)


def letterboxed(fields: Mapping[str, Tensor], from_size: Size, to_size: Size) -> dict[str, Tensor]:
    """The fields of images that are resized with their aspect ratio kept, and padded to a size."""
    top, left, *inner = letterbox(from_size, to_size)
    size = (inner[0], inner[1])
    moved = resized(fields, from_size, size)
    return {name: kind_of(name).pad(value, top, left, size, to_size) for name, value in moved.items()}


def covered(fields: Mapping[str, Tensor], from_size: Size, to_size: Size) -> dict[str, Tensor]:
    """The fields of images that are scaled until they cover a size, with their aspect ratio kept, and cropped at the centre, as
    `resizing.fill` does."""
    ratio = max(to / of for of, to in zip(from_size, to_size, strict=True))
    height, width = (max(to, round(of * ratio)) for of, to in zip(from_size, to_size, strict=True))
    moved = resized(fields, from_size, (height, width))
    window = torch.tensor([(height - to_size[0]) // 2, (width - to_size[1]) // 2, *to_size], dtype=torch.float32)
    count = len(next(iter(fields.values())))
    return windowed(moved, window.expand(count, 4), torch.zeros(count, dtype=torch.bool), to_size)


def letterbox(from_size: Size, to_size: Size) -> tuple[int, int, int, int]:
    """Where an image lies in a larger one of another aspect ratio: top, left, height, width."""
    ratio = min(to_size[0] / from_size[0], to_size[1] / from_size[1])
    height, width = (max(1, min(to, round(of * ratio))) for of, to in zip(from_size, to_size, strict=True))
    return (to_size[0] - height) // 2, (to_size[1] - width) // 2, height, width


def _centres(count: int, extent_N: Tensor, start_N: Tensor) -> Tensor:
    """The pixels (N, count) in which the centres of a window's `count` pixels lie."""
    step = (torch.arange(count, device=extent_N.device) + 0.5) / count
    return (start_N[:, None] + step * extent_N[:, None]).floor().long()


def _inside(moved: Tensor, before: Tensor, size: Size) -> Tensor:
    """Boxes clipped to the image; those whose centre is outside become padding."""
    height, width = size
    x, y = (moved[..., 0] + moved[..., 2]) / 2, (moved[..., 1] + moved[..., 3]) / 2
    kept = is_box(before) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    most = moved.new_tensor([width, height, width, height])
    clipped = torch.minimum(moved.clamp(min=0), most)
    return _without_small(torch.where(kept[..., None], clipped, torch.zeros_like(clipped)))


def is_box(boxes: Tensor) -> Tensor:
    """Which rows (N, M) of boxes (N, M, 4) are boxes, and not padding."""
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])


def _without_small(boxes: Tensor) -> Tensor:
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    kept = is_box(boxes) & (area >= LEAST_AREA)
    return torch.where(kept[..., None], boxes, torch.zeros_like(boxes))


def _where_box(before: Tensor, moved: Tensor) -> Tensor:
    return torch.where(is_box(before)[..., None], moved, torch.zeros_like(moved))


def _together(fields: dict[str, Tensor]) -> dict[str, Tensor]:
    """The fields, with the labels of boxes that have become padding removed."""
    if "boxes" not in fields:
        return fields
    kept = is_box(fields["boxes"])
    empty = {"box_label": NO_BOX, "crowd": 0, "box_area": 0}
    for name, value in empty.items():
        if name in fields:
            fields[name] = torch.where(kept, fields[name], torch.full_like(fields[name], value))
    return fields
