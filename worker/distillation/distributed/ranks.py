"""Ranks: the processes of one job on several devices, each with a part of every batch.

All ranks have the same networks, optimisers and memory banks, take the same steps, and record the same history. Only
rank 0 sends events, evaluates and saves. Ranks communicate on this machine only: they find each other by a rendezvous
file in the job's folder, then use the loopback interface (gloo), and NCCL between GPUs.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from worker.distillation.errors import EngineError

TIMEOUT = timedelta(hours=1)
"""Timeout of collective operations; much longer than rank 0 takes to evaluate. A rank that dies or is stopped is detected
by rank_processes.py, not by this timeout."""
BUCKET_NUMBERS = 1 << 23
"""Largest number of elements in one all-reduce of several tensors."""
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


class TooFewDevices(EngineError):
    """The worker has fewer GPUs than the job has ranks."""

    fault, code = "service", "too_few_devices"


class Ranks:
    """This process is number `rank` of `size`. With `size` 1, every method returns its argument."""

    def __init__(self, rank: int = 0, size: int = 1, control: Any = None):
        """`control` is the process group for values on the CPU, which must not wait for GPUs."""
        self.rank = rank
        self.size = size
        self._control = control

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which sends events, evaluates and saves."""
        return self.rank == 0

    def agree(self, number: int) -> int:
        """Rank 0's number, on every rank."""
        if self.size == 1:
            return number
        agreed = torch.tensor(int(number))
        dist.broadcast(agreed, 0, group=self._control)
        return int(agreed)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's plain data, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0, group=self._control)
        return values[0]

    def collect(self, value: Any) -> list[Any]:
        """Every rank's plain data in the order of the ranks, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor, in place, by its sum over the ranks; all ranks must pass the same shapes in the same order."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            whole = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(whole)
            for tensor, part in zip(bucket, whole.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks; gradients of any order flow back to every rank's `tensor`."""
        return tensor if self.size == 1 else _Sum.apply(tensor)


ALONE = Ranks()


def join(rank: int, size: int, rendezvous: Path, device: torch.device) -> Ranks:
    """Connect to the other ranks; returns when all have joined. `rendezvous` is a file that does not exist yet, the same for all.

    Raises:
        TooFewDevices: there is no GPU for this rank.
    """
    device = device_of(rank, size, device)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, LOOPBACK)
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = dist.FileStore(str(rendezvous), size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    control = dist.group.WORLD if backend == "gloo" else dist.new_group(backend="gloo", timeout=TIMEOUT)
    return Ranks(rank, size, control)


class _Sum(torch.autograd.Function):
    """The gradient of all ranks' losses with respect to one rank's summand is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


def _buckets(tensors: Iterable[Tensor]) -> Iterable[Sequence[Tensor]]:
    """Consecutive tensors of one dtype, with at most `BUCKET_NUMBERS` elements together unless it is a single tensor."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(each.numel() for each in bucket) + tensor.numel() > BUCKET_NUMBERS
        if bucket and (full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def device_of(rank: int, size: int, device: torch.device) -> torch.device:
    """The device of a rank: the CPU, or the GPU with the rank's number.

    Raises:
        TooFewDevices: the worker has fewer GPUs than ranks.
    """
    if size == 1 or device.type != "cuda":
        return device
    if torch.cuda.device_count() < size:
        message = f"the job needs {size} GPUs, and the worker has {torch.cuda.device_count()}"
        raise TooFewDevices(message, "Set DISTILL_DEVICES to the number of GPUs that the worker can use.")
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)
