"""Photographs made by code: smooth images of many sizes, each recognisable by its colours."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.data.packed import Options, Packed
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.limits import UploadLimits

CONTRACT = InputContract(3, 32, 32, (0.5,) * 3, (0.25,) * 3)


def scene(number: int, height: int, width: int) -> "np.ndarray[Any, Any]":
    """A smooth image (H, W, 3) uint8: waves whose frequency and colour tell its number."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin((3 + number % 5 + channel) * x + (2 + number % 3) * y + number + channel) for channel in range(3)]
    return np.stack([(127.5 + 120 * wave).astype(np.uint8) for wave in waves], axis=-1)


def encoded(pixels: "np.ndarray[Any, Any]", kind: str = "JPEG", **saving: Any) -> bytes:
    """A file of these pixels; a JPEG of high quality."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({"quality": 92} if kind == "JPEG" else {}) | saving)
    return stream.getvalue()


def photographs(
    count: int, sizes: tuple[tuple[int, int], ...] = ((375, 500), (500, 375), (256, 300)), classes: int = 2
) -> dict[str, bytes]:
    """JPEG files in class folders."""
    return {
        f"{'abcdefgh'[number % classes]}/{number:05d}.jpg": encoded(scene(number, *sizes[number % len(sizes)]))
        for number in range(count)
    }


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read(folder: Path, files: Mapping[str, bytes], limits: dict[str, Any] | None = None, **options: Any) -> Packed:
    """The dataset of these files, its shards written to `folder`."""
    path = zipped(folder / "upload.zip", files)
    chosen = Options(**{"form": "jpeg", **options})
    return read_dataset(path, chosen, UploadLimits(output=folder, **(limits or {})))


def canonical(folder: Path, files: Mapping[str, bytes], **options: Any) -> Path:
    """The canonical form of these files in `folder`."""
    path = folder / "dataset.safetensors"
    read(folder, files, **options).write(path)
    return path


def loaded(folder: Path, count: int = 12, contract: InputContract = CONTRACT) -> Images:
    """The training images of some photographs."""
    return Images.load(canonical(folder, photographs(count)), "train", contract, torch.device("cpu"))
