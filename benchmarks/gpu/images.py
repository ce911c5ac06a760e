"""Images of the runs: CIFAR-10 as JPEG from the carried pack, and synthetic photographs."""

import io
import json
import lzma
import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

PACK = "cifar10_jpeg.pack.xz"
"""A xz file: a 4-byte big-endian length, an index of that many bytes (a line an image: path, tab, bytes), the JPEG files end to end.
The last two folders of a path are the split and the class."""


def packed(pack: Path) -> Iterator[tuple[str, bytes]]:
    """The path and the bytes of every image of a pack."""
    with lzma.open(pack, "rb") as file:
        (length,) = struct.unpack(">I", file.read(4))
        for line in file.read(length).decode().splitlines():
            path, size = line.split("\t")
            yield path, file.read(int(size))


def write_cifar(pack: Path, folder: Path, most: int | None = None) -> tuple[Path, Path]:
    """The canonical forms of the training and the test split, written once; at most `most` images of each."""
    train, test = folder / "train.safetensors", folder / "test.safetensors"
    if train.exists() and test.exists():
        return train, test
    files: dict[str, list[bytes]] = {"train": [], "test": []}
    names: dict[str, list[str]] = {"train": [], "test": []}
    for path, content in packed(pack):
        split, name = path.split("/")[-3:-1]
        files[split].append(content)
        names[split].append(name)
    classes = sorted(set(names["train"]))
    for split, path in (("train", train), ("test", test)):
        label = torch.tensor([classes.index(name) for name in names[split]])
        chosen = torch.arange(len(label))
        if most is not None:
            chosen = torch.linspace(0, len(label) - 1, min(most, len(label))).long()
        image = torch.stack([decoded(files[split][number]) for number in chosen.tolist()])
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {f"{split}.image": image, f"{split}.label": label[chosen].contiguous()},
            path,
            {"class_names": json.dumps(classes)},
        )
    return train, test


def decoded(content: bytes) -> Tensor:
    """The image (3, H, W) uint8 of a JPEG file."""
    return pil_to_tensor(Image.open(io.BytesIO(content)).convert("RGB"))


def photographs(count: int, height: int, width: int) -> list[bytes]:
    """JPEG files of smooth random images at quality 95."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        coarse = torch.rand(1, 3, height // 16, width // 16, generator=draw)
        fine = torch.rand(1, 3, height // 2, width // 2, generator=draw)
        image = sum(
            share * torch.nn.functional.interpolate(part, (height, width), mode="bilinear")
            for share, part in ((0.8, coarse), (0.2, fine))
        )
        file = io.BytesIO()
        to_pil_image((255 * image[0]).to(torch.uint8)).save(file, "JPEG", quality=95)
        made.append(file.getvalue())
    return made
