"""Photographs of an archive, written to shards one by one, so that memory does not grow with their number.

Images with a short side above `short_side` pixels are scaled down to it; the aspect ratio is kept. JPEG files that are small enough
and need no other change are stored as they are; all others are encoded as JPEG of quality 95.

Shapes: N samples.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.distillation.data import jpeg
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.decoding import BrokenImageError, ImageFile, opened, prepared, quietly
from worker.distillation.data.reading.repeated import digest
from worker.distillation.data.shards import ShardWriter
from worker.distillation.data.written_photographs import QUALITY, WrittenPhotographs
from worker.distillation.limits import UploadLimits
from worker.distillation.process.heartbeat import pulse

LEAST_SHORT_SIDE = 256
LARGER = 8 / 7
"""How much larger than the network's input the short side is stored, since inputs are crops."""
SMALL_SIDE = 64
"""Images with a shorter side are always stored as pixels."""
MEASURED = 1000
"""Images of which mean and standard deviation are measured."""
MOST_THREADS = 8
WAITING = 4
"""Images by thread that are read from the archive before they are encoded."""


@dataclass(frozen=True)
class Encoded:
    """One image as it is stored, and the histogram of its pixels (C, 256), if it is measured."""

    data: bytes | memoryview
    height: int
    width: int
    unchanged: bool
    histogram: Any = None


def are_photographs(count: int, shape: tuple[int, int, int], options: Options, limits: UploadLimits) -> bool:
    """Whether `count` images of a shape (C, H, W) are stored as encoded photographs."""
    if limits.output is None or options.form == "pixels":
        return False
    large = count * shape[0] * shape[1] * shape[2] > limits.pixel_bytes and min(shape[1:]) > SMALL_SIDE
    return large or options.form == "jpeg"


def short_side_of(options: Options) -> int:
    """The short side of stored images: 8/7 of the input that the options ask for, at least 256."""
    wanted = [side for side in (options.height, options.width) if side]
    return max(LEAST_SHORT_SIDE, -(-8 * max(wanted, default=0) // 7))


class Encoder:
    """Encodes the images of several splits into one sequence of shards in `folder`."""

    def __init__(self, archive: Archive, channels: int, options: Options, folder: Path, count: int):
        self.archive = archive
        self.options = options
        self.written = WrittenPhotographs(channels, short_side_of(options))
        self._writer = ShardWriter(folder)
        self._every = max(1, count // MEASURED)

    def split(
        self, images: Sequence[ImageFile], broken: Callable[[BrokenImageError], None]
    ) -> tuple[Tensor, list[ImageFile]]:
        """The table (N, 5) of the images that can be decoded, and these images; the others go to `broken`."""
        rows: list[tuple[int, ...]] = []
        kept: list[ImageFile] = []
        for image, result in self._encoded(images):
            pulse()
            try:
                encoded = result()
            except BrokenImageError as error:
                broken(error)
                continue
            row = self._writer.add(encoded.data, encoded.height, encoded.width)
            rows.append(row)
            self.written.add(row[0], row[1], digest(encoded.data))
            kept.append(image)
            self._count(encoded)
        return torch.tensor(rows, dtype=torch.int64).view(-1, 5), kept

    def close(self, limits: UploadLimits) -> WrittenPhotographs:
        """Complete the last shard.

        Raises:
            UploadError: the shards are too large.
        """
        self._writer.close()
        self.written.shards = self._writer.shards
        limits.check_canonical(self.written.size)
        return self.written

    def _count(self, encoded: Encoded) -> None:
        self.written.images += 1
        self.written.unchanged += encoded.unchanged
        self.written.largest = max(self.written.largest, (encoded.height, encoded.width))
        if encoded.histogram is not None:
            found = torch.tensor(encoded.histogram, dtype=torch.int64).view(-1, 256)
            self.written.histogram = found if self.written.histogram is None else self.written.histogram + found

    def _encoded(self, images: Sequence[ImageFile]) -> Iterator[tuple[ImageFile, Callable[[], Encoded]]]:
        """Each image with a function that waits for it. The archive is read here, and threads encode."""
        count = max(1, min(MOST_THREADS, os.cpu_count() or 1))
        waiting: deque[tuple[ImageFile, Future[Encoded]]] = deque()
        with quietly(), ThreadPoolExecutor(count, thread_name_prefix="encode") as threads:
            for number, image in enumerate(images):
                data = self.archive.read(image.path)
                measured = number % self._every == 0
                waiting.append((image, threads.submit(self._encode, image, data, measured)))
                if len(waiting) > WAITING * count:
                    first, future = waiting.popleft()
                    yield first, future.result
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result

    def _encode(self, image: ImageFile, data: bytearray, measured: bool) -> Encoded:
        import numpy as np

        channels, side = self.written.channels, self.written.short_side
        with opened(data, image.path) as file:
            if self._is_small_jpeg(file, image, side):
                if not measured:  # decoding at an eighth of the size reads the whole file too
                    file.draft(None, (file.width // 8, file.height // 8))
                file.load()
                shown = file.convert(self._mode) if measured else None
                return Encoded(bytes(data), *image.size, True, shown and shown.histogram())
            if file.format == "JPEG" and "exif_rotated" not in image.altered and file.mode == self._mode:
                pixels = jpeg.decode_scaled(memoryview(data), image.size, min(1.0, side / min(image.size)), channels)
            else:
                converted = prepared(file, image, channels, self.options)
                pixels = torch.from_numpy(np.array(converted)).view(converted.height, converted.width, channels)
        height, width = _at_most(image.size, side)
        pixels = jpeg.resized(pixels, height, width)
        return Encoded(jpeg.encode(pixels, QUALITY), height, width, False, _histogram(pixels) if measured else None)

    @property
    def _mode(self) -> str:
        return "L" if self.written.channels == 1 else "RGB"

    def _is_small_jpeg(self, file: Any, image: ImageFile, side: int) -> bool:
        plain = file.format == "JPEG" and file.mode in ("L", "RGB") and "exif_rotated" not in image.altered
        return plain and min(image.size) <= side


def _at_most(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width of an image that is scaled to a short side of at most `side` pixels."""
    short = min(size)
    if short <= side:
        return size
    return max(side, round(size[0] * side / short)), max(side, round(size[1] * side / short))


def _histogram(pixels: Tensor) -> list[int]:
    """The histogram of each channel of pixels (H, W, C), one after the other."""
    return [
        count for channel in pixels.unbind(2) for count in torch.bincount(channel.flatten(), minlength=256).tolist()
    ]
