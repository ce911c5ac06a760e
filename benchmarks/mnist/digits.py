"""MNIST for the benchmarks: its canonical form, and a LeNet-5 teacher trained on it.

`mnist.npz` holds `x_train`, `y_train`, `x_test` and `y_test`, as distributed by Keras. The engine resizes the images from
28 pixels to the 32 that LeNet-5 reads.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.data.images import Images
from worker.distillation.tasks import classification

RESULTS = Path(__file__).parents[2] / "results"
INPUT: dict[str, Any] = {"channels": 1, "height": 32, "width": 32, "mean": [0.1307], "std": [0.3081]}
CLASSES = 10
# The training of DAFL's authors for their teacher (huawei-noah/Efficient-Computing, `teacher-train.py`).
EPOCHS = 9
LEARNING_RATE = 1e-3
BATCH = 256
Optimizers = Literal["adam", "sgd"]


def canonical(npz: Path, folder: Path) -> Path:
    """Write `mnist.safetensors` into the folder, unless it exists; returns its path."""
    path = folder / "mnist.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with np.load(npz, allow_pickle=False) as arrays:
            tensors = {}
            for split in ("train", "test"):
                tensors[f"{split}.image"] = torch.from_numpy(arrays[f"x_{split}"]).unsqueeze(1).contiguous()
                tensors[f"{split}.label"] = torch.from_numpy(arrays[f"y_{split}"].astype(np.int64))
        save_file(tensors, path, {"class_names": json.dumps([str(digit) for digit in range(CLASSES)])})
    return path


def teacher(
    dataset: Path, folder: Path, seed: int = 0, network_name: str = "lenet5", optimizer: Optimizers = "adam"
) -> tuple[Path, float]:
    """Train a network on the training split and save it in the folder; returns its path and its accuracy on the test split.

    With Adam as DAFL's authors do, or with SGD with Nesterov momentum, weight decay and a cosine schedule.
    """
    path = folder / (f"{network_name}_seed{seed}" + ("" if optimizer == "adam" else f"_{optimizer}") + ".safetensors")
    torch.manual_seed(seed)
    network = networks.build(network_name, CLASSES, read_contract(INPUT), {})
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        _train(network, Images.load(dataset, "train", read_contract(INPUT), "cpu"), optimizer)
        save_file(network.state_dict(), path)
    test = Images.load(dataset, "test", read_contract(INPUT), "cpu")
    return path, classification.evaluate(network.eval(), test, BATCH)["accuracy"]


def _train(network: nn.Module, images: Images, kind: Optimizers) -> None:
    optimizer: torch.optim.Optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    rate = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    if kind == "sgd":
        optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(network(images.normalise(images.image[chosen])), images.label[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rate.step()
