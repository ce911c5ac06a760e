"""Whether BatchNorm statistics that are estimated again, or corrected, make a finished student better.

    python -m benchmarks.transforms.norms --npz PATH/cifar10.npz --weights PATH/resnet20.th

A trained ResNet-20, as for `integers`, gets a transform. `at once` finishes it without training, as if the training had been stopped before the
transform began; `trained` trains it with the transform on its own logits, once with BatchNorm's usual momentum and once with 0.01, and
finishes both the last weights and their running average. Each finished student is measured with the statistics that it has, with those
of 2048 training images without augmentation, and, if it was finished at once, with its own corrected on 512 images as `int8` does it. Images of
the test split measure. Writes `results/transforms/norms.jsonl`; a kept row is not run again.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.bare_engine import keep_row, read_rows
from benchmarks.transforms.integers import CONTRACT, RESULTS, images_of, logits, network, real_images
from worker.distillation.compression.member_transforms import MemberTransforms, TransformContext
from worker.distillation.compression.statistics import correct, moments_of
from worker.distillation.data.augmentation import Views
from worker.distillation.data.images import Images
from worker.distillation.tasks.classification import accuracy
from worker.distillation.trainer.weight_average import RunningAverage
from worker.distillation.transformed_network import Entry, rebuild

ESTIMATED, CORRECTED = 2048, 512
"""Images."""
BATCH, PADDING, DECAY, TEMPERATURE = 128, 4, 0.99, 4.0
LEARNING_RATE = 0.01
AT_ONCE: dict[str, dict[str, Any] | None] = {
    "nothing": None,
    "4 bits": {"name": "quantise", "bits": 4, "scheme": "minmax"},
    "3 bits": {"name": "quantise", "bits": 3, "scheme": "minmax"},
    "half zeros": {"name": "prune", "sparsity": 0.5},
    "70 % zeros": {"name": "prune", "sparsity": 0.7},
    "8 values": {"name": "share", "convolution_bits": 3, "linear_bits": 3},
}
TRAINED: dict[str, dict[str, Any]] = {
    "4 bits": {"name": "quantise", "bits": 4},
    "2 bits": {"name": "quantise", "bits": 2},
    "90 % zeros": {"name": "prune", "sparsity": 0.9},
}


def main() -> int:
    arguments = _arguments()
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = RESULTS / "norms.jsonl"
    with np.load(arguments.npz, allow_pickle=False) as arrays:
        train, test = (images_of(arrays[f"x_{split}"], arrays[f"y_{split}"]) for split in ("train", "test"))
    test = evenly(test, arguments.test)
    teacher = network(arguments.weights)
    expected = logits(teacher, test)
    for name, spec in AT_ONCE.items():
        row = {"row": f"at once, {name}", "test": arguments.test}
        if row["row"] in arguments.rows and not _is_kept(kept, row):
            student, transforms = _with(spec, arguments.weights, train)
            finished = transforms.finalized(student.state_dict())
            keep_row(kept, row | measured(*finished, arguments.weights, train, test, expected, teacher))
    for name, spec in TRAINED.items():
        for momentum in (0.1, 0.01):
            row = {"row": f"trained, {name}", "momentum": momentum, "seed": arguments.seed, "test": arguments.test}
            row |= {"images": arguments.images, "epochs": arguments.epochs}
            if row["row"] not in arguments.rows or _is_kept(kept, row | {"weights": "average"}):
                continue
            student, transforms = _with(spec, arguments.weights, train)
            average = trained(
                student,
                transforms,
                teacher,
                evenly(train, arguments.images),
                momentum,
                arguments.epochs,
                arguments.seed,
            )
            for which, state in (("last", student.state_dict()), ("average", average)):
                finished = transforms.finalized(state)
                keep_row(kept, row | {"weights": which} | measured(*finished, arguments.weights, train, test, expected))
    return 0


def evenly(images: Images, count: int) -> Images:
    """So many images at even distances."""
    return images.at(torch.linspace(0, len(images) - 1, count).round().long())


def _is_kept(kept: Path, row: dict[str, Any]) -> bool:
    return any(row.items() <= each.items() for each in read_rows(kept))


def _with(spec: Mapping[str, Any] | None, weights: Path, train: Images) -> tuple[nn.Module, MemberTransforms]:
    student = network(weights)
    context = TransformContext(
        example=CONTRACT.blank(torch.device("cpu")),
        contract=CONTRACT,
        classes=10,
        images=lambda count: real_images(train, count),
    )
    return student, MemberTransforms([spec] if spec else [], student, context)


def trained(
    student: nn.Module,
    transforms: MemberTransforms,
    teacher: nn.Module,
    train: Images,
    momentum: float,
    epochs: int,
    seed: int,
) -> dict[str, Tensor]:
    """Train a student on its teacher's softened logits; gives the running average of its weights."""
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(student.parameters(), LEARNING_RATE, momentum=0.9)
    average = RunningAverage(student, DECAY)
    total = epochs * (len(train) // BATCH)
    for number, image in enumerate(_batches(train, epochs, draw), 1):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (1 + np.cos(np.pi * (number - 1) / total)) / 2
        with torch.no_grad():
            wanted = teacher(image) / TEMPERATURE
        student.train()
        loss = F.kl_div(
            (student(image) / TEMPERATURE).log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="batchmean"
        )
        optimiser.zero_grad()
        (TEMPERATURE**2 * loss).backward()
        optimiser.step()
        transforms.after_step(student, number / total)
        average.update(student)
    student.eval()
    return average.values


def _batches(train: Images, epochs: int, draw: torch.Generator) -> Iterator[Tensor]:
    for _ in range(epochs):
        views = Views.draw(len(train), PADDING, True, draw, torch.device("cpu"))
        for chosen in torch.randperm(len(train), generator=draw).split(BATCH):
            if len(chosen) == BATCH:
                yield train.normalise(views.apply(train.image[chosen], chosen))


def measured(
    finished: Mapping[str, Tensor],
    entries: Sequence[Entry],
    weights: Path,
    train: Images,
    test: Images,
    expected: Tensor,
    before: nn.Module | None = None,
) -> dict[str, Any]:
    """Accuracy, agreement with the float32 network and loss of a finished student with its statistics, with estimated ones and with those
    corrected by what lies between it and `before`."""
    found: dict[str, Any] = {}
    for name in ("as it is", "estimated", *(["corrected"] if before is not None else [])):
        student = network(weights)
        rebuild(student, entries)
        student.load_state_dict(finished)
        if name == "estimated":
            estimate(student, real_images(train, ESTIMATED))
        elif name == "corrected" and before is not None:
            images = real_images(train, CORRECTED)
            correct(student, moments_of(before, images), moments_of(student, images))
        given = logits(student, test)
        found[name] = {
            "accuracy": float(accuracy(given, test.label)),
            "agreement": float((given.argmax(1) == expected.argmax(1)).double().mean()),
            "loss": float(F.cross_entropy(given, test.label)),
        }
    return found


@torch.no_grad()
def estimate(student: nn.Module, images: Tensor) -> None:
    """Set each BatchNorm's statistics to those of what it reads on these images."""
    for path, (mean, variance) in moments_of(student, images).items():
        norm: Any = student.get_submodule(path)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transforms.norms", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--npz", type=Path, required=True, help="CIFAR-10 as arrays")
    parser.add_argument("--weights", type=Path, required=True, help="a trained ResNet-20")
    rows = [*(f"at once, {name}" for name in AT_ONCE), *(f"trained, {name}" for name in TRAINED)]
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows, help="only these")
    parser.add_argument("--images", type=int, default=10_000, help="training images")
    parser.add_argument("--test", type=int, default=10_000, help="test images")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
