"""One student with random weights, written to a file and timed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from worker.distillation.budget.candidates import Candidate
from worker.distillation.budget.limits import Budget
from worker.distillation.compression.layers import WEIGHTED
from worker.distillation.compression.member_transforms import MemberTransforms, TransformContext
from worker.distillation.contract import InputContract
from worker.distillation.export import WRITERS, card_of, onnx
from worker.distillation.export.portable import random_images
from worker.distillation.job import Job
from worker.distillation.trainer.job_plan import make_procedure
from worker.distillation.trainer.lineage import build_network

SECONDS = 0.5
"""Time for which a file is run, at least 20 times."""
BYTES_PART, TIME_PART = 0.99, 0.9
"""The parts of the limits that a planned student may use, since the metadata of its file, and a second measurement, may differ."""
FLOAT, INTEGER, INTEGER_CHANNEL = 4, 1, 17
"""Bytes of a weight in float32 and in int8, and in an ONNX file in integers of an output channel: two scales, a bias, two zeros."""


class Layer(NamedTuple):
    """The size of a layer: its weights and its output channels."""

    weights: int
    channels: int


@dataclass(frozen=True)
class Trial:
    """A student that was tried: the bytes of its file, and the milliseconds for one batch, None if they were not measured."""

    candidate: Candidate
    bytes: int
    milliseconds: float | None = None

    def fits(self, budget: Budget) -> bool:
        """Whether it keeps both limits with room to spare."""
        return self.fits_bytes(budget) and self.fits_time(budget)

    def fits_bytes(self, budget: Budget) -> bool:
        return budget.bytes is None or self.bytes <= BYTES_PART * budget.bytes

    def fits_time(self, budget: Budget) -> bool:
        return budget.milliseconds is None or (
            self.milliseconds is not None and self.milliseconds <= TIME_PART * budget.milliseconds
        )

    def facts(self) -> dict[str, Any]:
        """The same as JSON."""
        return {**asdict(self.candidate), "bytes": self.bytes, "milliseconds": self.milliseconds}

    def words(self) -> str:
        """What was measured, for messages."""
        time = f" and takes {self.milliseconds:.3g} ms" if self.milliseconds is not None else ""
        return f"{self.candidate.words()}: its file has {self.bytes:,} bytes{time}"


def layers_of(candidate: Candidate, job: Job) -> tuple[Layer, ...]:
    """The layers of a candidate, which is built on the meta device.

    Raises:
        SpecError: there is no such student.
    """
    network = _untrained(candidate.job(job), torch.device("meta"))[0]
    weights = {id(module.weight): module.weight for module in network.modules() if isinstance(module, WEIGHTED)}
    return tuple(Layer(weight.numel(), len(weight)) for weight in weights.values())


def least_bytes(layers: Iterable[Layer], candidate: Candidate, budget: Budget) -> int:
    """A lower bound of the size of a candidate's file: the bytes of its layers' weights."""
    return 0 if budget.file == "packed" else _bytes(layers, candidate, budget, of_channel=0)


def expected_bytes(layers: Iterable[Layer], candidate: Candidate, budget: Budget) -> int:
    """The bytes of a candidate's layers, with scales and biases: the size of its file up to what the files of all candidates with the same
    layers have in common."""
    return _bytes(layers, candidate, budget, of_channel=INTEGER_CHANNEL if candidate.rounded else FLOAT)


def _bytes(layers: Iterable[Layer], candidate: Candidate, budget: Budget, of_channel: int) -> int:
    each = INTEGER if candidate.rounded and budget.file != "safetensors" else FLOAT
    return sum(each * layer.weights + of_channel * layer.channels for layer in layers)


def measure(candidate: Candidate, job: Job, budget: Budget, folder: Path) -> Trial:
    """Write a candidate's file with random weights, and time it if the budget limits its time.

    Raises:
        SpecError: there is no such student.
        ExportFailed: it cannot be written.
    """
    own = candidate.job(job)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network, transforms = _untrained(own, torch.device("cpu"))
        _make_different(network.eval())
        if transforms is not None:
            transforms.after_step(network, 1.0)  # as if it had been trained
            transforms.finalize(network)
    path = folder / f"student.{budget.file}"
    student = own.spec["student"]
    meta = {"network": student["network"], "options": student.get("options"), "task": own.task.name}
    card = card_of(own.contract, own.class_names, meta | {"output": own.task.output})
    if budget.file == "onnx":
        onnx.write_graph(network, card, path)
    else:
        WRITERS[budget.file](network, card, path)
    time = None
    if budget.milliseconds is not None:
        (time,) = onnx.latency_of([path], own.contract, batch=budget.batch, threads=budget.threads, seconds=SECONDS)
    size = path.stat().st_size
    path.unlink()
    return Trial(candidate, size, time)


def _untrained(job: Job, device: torch.device) -> tuple[nn.Module, MemberTransforms | None]:
    """The student with random weights, and its transforms."""
    member = make_procedure(job)[1].student
    contract = job.contract
    with device:
        network = build_network(member, job)
        if not member.transforms:
            return network, None
        context = TransformContext(
            example=contract.blank(device), contract=contract, classes=job.classes, images=_images(contract)
        )
        return network, MemberTransforms(member.transforms, network, context)


@torch.no_grad()
def _make_different(network: nn.Module) -> None:
    """Give biases and statistics random values: exporters write equal tensors, such as zeros, only once."""
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1 and name.endswith((".bias", ".running_mean")):
            tensor.normal_(std=0.1)
        elif tensor.ndim == 1 and name.endswith(".running_var"):
            tensor.uniform_(0.5, 1.5)


def _images(contract: InputContract) -> Any:
    def images(count: int) -> Tensor:
        return random_images(contract, min(count, MOST_IMAGES))

    return images


MOST_IMAGES = 8
"""The ranges of activations change neither the size of a file nor its time."""
