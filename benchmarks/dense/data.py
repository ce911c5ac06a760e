"""The canonical datasets of the rows: training and validation images, and training and test images, from one archive."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.distillation.data.packed import Options
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.limits import UploadLimits


@dataclass(frozen=True)
class Data:
    """One task's data, networks and training. `options` are those of the upload; sides in pixels."""

    task: str
    archive: str
    options: dict[str, Any]
    network: str
    teacher: dict[str, Any]
    student: dict[str, Any]
    input: dict[str, Any]
    classes: int
    metric: str


CAMVID = Data(
    "segmentation", "camvid.zip", {"labels": "mask", "height": 64, "width": 96}, "fpn", {"width": 28}, {"width": 11},
    {"channels": 3, "height": 64, "width": 96, "mean": [0.41, 0.42, 0.43], "std": [0.30, 0.31, 0.30]}, 11, "mean_iou",
)  # fmt: skip
KITCHEN = Data(
    "depth", "kitchen_depth.zip", {"labels": "depth", "height": 60, "width": 80, "depth_scale": 1000.0}, "fpn_depth",
    {"width": 28}, {"width": 11},
    {"channels": 3, "height": 60, "width": 80, "mean": [0.45] * 3, "std": [0.25] * 3}, 1, "absolute_relative_error",
)  # fmt: skip
TASKS = {"segmentation": CAMVID, "depth": KITCHEN}


def canonical(data: Data, archives: Path, folder: Path, split: str) -> Path:
    """The dataset whose split `test` holds the images of `val` or of `test`, written once."""
    path = folder / f"{data.task}-{split}.safetensors"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part, other = folder / "part.zip", "test" if split == "val" else "val"
    with zipfile.ZipFile(archives / data.archive) as whole, zipfile.ZipFile(part, "w") as kept:
        for name in whole.namelist():
            if f"/{other}/" not in name:
                kept.writestr(name, whole.read(name))
    read_dataset(part, Options(**data.options), UploadLimits()).write(path)
    part.unlink()
    return path
