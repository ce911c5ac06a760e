"""The protocols of the comparison: networks, images, training and seeds, and the files that they need."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.mnist import digits
from worker.distillation.contract import read_contract
from worker.distillation.data.images import fit
from worker.distillation.randomness import seed_for


@dataclass(frozen=True)
class Protocol:
    """One setting. For each seed, `images` training images are drawn again, equally many of each class; None uses all."""

    name: str
    title: str
    teacher: str
    student: str
    input: dict[str, Any]
    images: int | None
    training: dict[str, Any]
    teacher_training: dict[str, Any]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    device: str = "cpu"
    augmentation: str = "none"
    classes: int = 10
    teachers: int = 1


MNIST = Protocol(
    name="mnist",
    title="MNIST, LeNet-5 to LeNet-5-half",
    teacher="lenet5",
    student="lenet5_half",
    input=digits.INPUT,
    images=1000,
    training={"steps": 600, "batch_size": 64, "optimizer": "adam", "learning_rate": 4e-3, "weight_decay": 0.0},
    teacher_training={"epochs": 9, "batch_size": 256, "optimizer": "adam", "learning_rate": 1e-3, "weight_decay": 0.0},
    teachers=3,
)
"""A LeNet-5 trained on all 60,000 images teaches LeNet-5-half on 1,000 of them."""

RESIDUAL = Protocol(
    name="residual",
    title="MNIST at 16 pixels, ResNet-14 to ResNet-8",
    teacher="resnet14_cifar",
    student="resnet8_cifar",
    input={"channels": 1, "height": 16, "width": 16, "mean": [0.1307], "std": [0.3081]},
    images=1000,
    training={"steps": 300, "batch_size": 64, "optimizer": "adam", "learning_rate": 4e-3, "weight_decay": 0.0},
    teacher_training={"epochs": 2, "batch_size": 128, "optimizer": "adam", "learning_rate": 2e-3, "weight_decay": 0.0},
    seeds=(0, 1, 2),
)
"""For methods that refuse LeNets: both networks have equal channels, and BatchNorm before every ReLU."""

CIFAR10 = Protocol(
    name="cifar10",
    title="CIFAR-10 (JPEG), ResNet-56 to ResNet-20",
    teacher="resnet56_cifar",
    student="resnet20_cifar",
    input={
        "channels": 3, "height": 32, "width": 32,
        "mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616],
    },
    images=None,
    training={
        "epochs": 60, "batch_size": 128, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4,
        "schedule": "multistep",
    },
    teacher_training={
        "epochs": 60, "batch_size": 128, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4,
        "schedule": "multistep",
    },
    seeds=(0, 1, 2),
    device="cuda",
    augmentation="standard",
)  # fmt: skip
"""Needs a GPU."""

PROTOCOLS = {protocol.name: protocol for protocol in (MNIST, RESIDUAL, CIFAR10)}


@dataclass(frozen=True)
class Files:
    """A protocol's files and their digests: a row is measured again if one of them changes."""

    train: dict[int, Path]
    whole: Path
    test: Path
    teachers: tuple[Path, ...] = ()
    digests: dict[Path, str] = field(default_factory=dict)

    def digest(self, path: Path) -> str:
        if path not in self.digests:
            with path.open("rb") as opened:
                self.digests[path] = hashlib.file_digest(opened, "sha256").hexdigest()
        return self.digests[path]


def images(protocol: Protocol, npz: Path | None, folder: Path) -> Files:
    """The protocol's images in the engine's canonical form, resized to the networks' input; written once, from `npz`."""
    folder.mkdir(parents=True, exist_ok=True)
    test, whole = folder / "test.safetensors", folder / "train.safetensors"
    train = {seed: folder / f"train_seed{seed}.safetensors" if protocol.images else whole for seed in protocol.seeds}
    if npz is not None and not all(path.exists() for path in (test, whole, *train.values())):
        with np.load(npz, allow_pickle=False) as arrays:
            splits = {split: _split(protocol, arrays, split) for split in ("train", "test")}
        _write(test, "test", *splits["test"])
        image, label = splits["train"]
        _write(whole, "train", image, label)
        for seed, path in train.items():
            if protocol.images:
                chosen = drawn(label, protocol.images, seed)
                _write(path, "train", image[chosen], label[chosen])
    return Files(train, whole, test)


def drawn(label: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Indices of `count` samples drawn with a seed, equally many of each class, sorted."""
    draw = torch.Generator().manual_seed(seed_for("comparison", seed))
    classes = label.unique()
    each = count // len(classes)
    members = ((label == name).nonzero()[:, 0] for name in classes)
    return torch.cat([own[torch.randperm(len(own), generator=draw)[:each]] for own in members]).sort().values


def _split(protocol: Protocol, arrays: Any, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(arrays[f"x_{split}"])
    image = image.unsqueeze(1) if image.dim() == 3 else image.permute(0, 3, 1, 2)
    label = torch.from_numpy(arrays[f"y_{split}"].astype(np.int64))
    return fit(image.contiguous(), read_contract(protocol.input)), label


def _write(path: Path, split: str, image: torch.Tensor, label: torch.Tensor) -> None:
    names = json.dumps([str(number) for number in range(int(label.max()) + 1)])
    partial = path.with_suffix(".partial")
    save_file({f"{split}.image": image.contiguous(), f"{split}.label": label}, partial, {"class_names": names})
    partial.replace(path)
