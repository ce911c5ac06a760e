"""Depth files: metres for each pixel from 16-bit PNG or float TIFF, 0 where it is unknown."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from worker.distillation.data.packed import Options
from worker.distillation.data.reading.decoding import DEEP, BrokenImageError
from worker.distillation.errors import UploadError

LARGEST = 65535
COMMON = 0.001
SCALES = "1000 for millimetres, 256 as in KITTI, 1 for metres"


@dataclass
class DepthReader:
    """Turns depth files into metres. `kinds` counts the files by kind."""

    options: Options
    kinds: dict[str, int] = field(default_factory=dict)
    _largest: int = 0
    _pixels: int = 0

    def check(self) -> None:
        """Refuse a dataset whose scale is not said.

        Raises:
            UploadError: the option depth_scale is missing.
        """
        if self.options.depth_scale is None:
            words = "the scale of the depth is not given: which number in the files is one metre?"
            raise UploadError(words, f"Set the option depth_scale: {SCALES}.")

    @property
    def notes(self) -> list[str]:
        """A warning if the largest number of 16 bits is common, which often stands for unknown depth."""
        if self._largest <= COMMON * self._pixels:
            return []
        share = self._largest / self._pixels
        return [
            f"{share:.1%} of the pixels are {LARGEST}, the largest number of 16 bits: if it stands for unknown depth, write 0 instead"
        ]

    def metres(self, image: Any, path: PurePosixPath) -> Any:
        """Metres (H, W) float32 of one opened file; 0 where the depth is unknown, negative, NaN or infinite.

        Raises:
            BrokenImageError: the file holds no depth.
        """
        import numpy as np

        shown = repr(str(path)[:120])
        if image.mode not in DEEP:
            words = f"{shown} has the pixel mode {image.mode}, 8 bits for each value, which is too coarse for depth"
            raise BrokenImageError(
                words, "Save depth as 16-bit PNG, or as TIFF of floats; a picture in colours is no depth."
            )
        kind = "floats" if image.mode == "F" else "16-bit"
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        written = np.array(image)
        self._largest += int((written == LARGEST).sum()) if kind == "16-bit" else 0
        self._pixels += written.size
        value = written.astype(np.float32) / np.float32(self.options.depth_scale)
        return np.where(np.isfinite(value) & (value > 0), value, np.float32(0))
