"""A plain loop with automatic mixed precision, as written by hand for a GPU: channels last, bf16 autocast, a fused optimiser."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.gpu.images import decoded
from benchmarks.loop.setting import LEARNING_RATE, MOMENTUM, PADDING, WEIGHT_DECAY, Setting, kd_loss

Batches = Iterator[tuple[Tensor, Tensor]]


def amp_step(teacher: nn.Module, student: nn.Module, batches: Batches, device: str) -> Callable[[], None]:
    """One step of KD."""
    teacher, student = (each.to(device, memory_format=torch.channels_last) for each in (teacher, student))
    student.train()
    optimizer = torch.optim.SGD(
        student.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
    )

    def step() -> None:
        x, label = next(batches)
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                target = teacher(x)
            logits = student(x)
        loss = kd_loss(logits.float(), target.float(), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def resident(given: Setting, device: str) -> Batches:
    """Images that lie on the device, cropped and mirrored there in one gather."""
    mean, std = (each.to(device) for each in _normalisation(given))
    image, label = given.image.to(device), given.label.to(device)
    padded = nn.functional.pad(image, (PADDING,) * 4)
    side = torch.arange(image.shape[-1], device=device)
    while True:
        order = torch.randperm(len(image), device=device)
        for chosen in order.split(given.batch_size)[: len(image) // given.batch_size]:
            down, right = torch.randint(2 * PADDING + 1, (2, len(chosen), 1), device=device)
            flip = torch.randint(2, (len(chosen), 1), device=device).bool()
            columns = right + torch.where(flip, side.flip(0), side)
            rows = (down + side)[:, :, None]
            part = padded.permute(0, 2, 3, 1)[chosen[:, None, None], rows, columns[:, None, :]].permute(0, 3, 1, 2)
            yield (part.float() / 255 - mean) / std, label[chosen]


def _normalisation(given: Setting) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (given.contract.mean, given.contract.std))
    return mean, std


class _Photographs(Dataset[tuple[Tensor, int]]):
    def __init__(self, files: list[bytes], classes: int):
        self.files, self.classes = files, classes
        self.transform = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return 64 * len(self.files)  # so that workers are not started again all the time

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        image = decoded(self.files[number % len(self.files)])
        return self.transform(image), number % self.classes


def loaded(given: Setting, files: list[bytes], device: str, workers: int) -> Batches:
    """JPEG files decoded and cropped by the processes of a data loader."""
    loader = DataLoader(
        _Photographs(files, given.classes), given.batch_size, shuffle=True, drop_last=True, num_workers=workers,
        pin_memory=device == "cuda",
    )  # fmt: skip
    mean, std = (each.to(device) for each in _normalisation(given))
    while True:
        for image, label in loader:
            x = image.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
            yield (x.float() / 255 - mean) / std, label.to(device, non_blocking=True)
