"""Loops written by hand: a bare one over tensors, the usual one over torchvision's transforms, and one like torchdistill's box.

The box follows torchdistill's public documentation: forward hooks put outputs of both networks into dictionaries, a weighted sum of
losses reads them, a data loader applies torchvision's transforms to one image at a time, and the loss is logged at every step.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.loop.setting import (
    INPUT,
    LEARNING_RATE,
    MOMENTUM,
    PADDING,
    SHARE_OF_KD,
    TEMPERATURE,
    WEIGHT_DECAY,
    Setting,
    kd_loss,
)

Step = Callable[[], None]


def _optimizer(student: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(student.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def bare(given: Setting, augmentation: str) -> Step:
    """Images in memory, normalised once, and indexed; the crop, if any, is a loop over slices of padded images."""
    teacher, student = given.networks()
    optimizer, whole = _optimizer(student), given.normalised()
    padded = F.pad(whole, (PADDING,) * 4) if augmentation == "standard" else whole
    rows = _endless(len(whole), given.batch_size)

    def step() -> None:
        chosen = next(rows)
        x = _cropped(padded, chosen) if augmentation == "standard" else whole[chosen]
        with torch.no_grad():
            target = teacher(x)
        student.train()
        loss = kd_loss(student(x), target, given.label[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _endless(size: int, batch_size: int) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(size)
        for start in range(0, size - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def _cropped(padded: Tensor, chosen: Tensor) -> Tensor:
    height, width = (side - 2 * PADDING for side in padded.shape[2:])
    rows, columns = torch.randint(2 * PADDING + 1, (2, len(chosen))).tolist()
    flips = torch.randint(2, (len(chosen),)).tolist()
    parts = []
    for number, row, column, flip in zip(chosen.tolist(), rows, columns, flips, strict=True):
        part = padded[number, :, row : row + height, column : column + width]
        parts.append(part.flip(-1) if flip else part)
    return torch.stack(parts)


class _Pictures(Dataset[tuple[Tensor, int]]):
    """Images of PIL with torchvision's transforms, as in torchvision's own dataset of CIFAR."""

    def __init__(self, given: Setting, augmentation: str):
        self.arrays, self.label = given.image.permute(0, 2, 3, 1).numpy(), given.label.tolist()
        random = [transforms.RandomCrop(32, padding=PADDING), transforms.RandomHorizontalFlip()]
        plain = [transforms.ToTensor(), transforms.Normalize(INPUT["mean"], INPUT["std"])]
        self.transform = transforms.Compose([*(random if augmentation == "standard" else []), *plain])

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[number])), self.label[number]


def _loaded(given: Setting, augmentation: str) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(_Pictures(given, augmentation), given.batch_size, shuffle=True, drop_last=True)
    while True:
        yield from loader


def usual(given: Setting, augmentation: str) -> Step:
    """The loop of most scripts: a data loader in the same process, and the loss logged at every step."""
    teacher, student = given.networks()
    optimizer, batches, logged = _optimizer(student), _loaded(given, augmentation), []

    def step() -> None:
        x, label = next(batches)
        with torch.no_grad():
            target = teacher(x)
        student.train()
        loss = kd_loss(student(x), target, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        logged.append(loss.item())

    return step


class Box(nn.Module):
    """Teacher and student with hooks, and a weighted sum of losses that read what the hooks have stored."""

    def __init__(self, given: Setting):
        super().__init__()
        self.teacher, self.student = given.networks()
        self.stored: dict[str, dict[str, Tensor]] = {"teacher": {}, "student": {}}
        for side in ("teacher", "student"):
            getattr(self, side).register_forward_hook(self._store(side))
        self.losses = {"kd": (SHARE_OF_KD, self._kd), "cross_entropy": (1 - SHARE_OF_KD, self._cross_entropy)}

    def _store(self, side: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _given: object, output: Tensor) -> None:
            self.stored[side]["logits"] = output

        return hook

    def _kd(self, outputs: dict[str, dict[str, Tensor]], _label: Tensor) -> Tensor:
        log_p = F.log_softmax(outputs["student"]["logits"] / TEMPERATURE, dim=1)
        q = F.softmax(outputs["teacher"]["logits"] / TEMPERATURE, dim=1)
        return F.kl_div(log_p, q, reduction="batchmean") * TEMPERATURE**2

    def _cross_entropy(self, outputs: dict[str, dict[str, Tensor]], label: Tensor) -> Tensor:
        return F.cross_entropy(outputs["student"]["logits"], label)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        with torch.no_grad():
            self.teacher(x)
        self.student(x)
        outputs = {side: dict(kept) for side, kept in self.stored.items()}
        terms = {name: (weight, loss(outputs, label)) for name, (weight, loss) in self.losses.items()}
        return sum(weight * term for weight, term in terms.values())


def box(given: Setting, augmentation: str) -> Step:
    """A loop like torchdistill's."""
    made = Box(given)
    optimizer, batches, logged = _optimizer(made.student), _loaded(given, augmentation), []

    def step() -> None:
        x, label = next(batches)
        made.student.train()
        loss = made(x, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        logged.append((loss.item(), optimizer.param_groups[0]["lr"]))

    return step
