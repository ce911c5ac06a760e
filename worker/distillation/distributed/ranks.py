"""Ranks: the processes of one job on several devices, each with a part of every batch.

All ranks hold the same networks, optimisers and banks, take the same steps, and write down the same history; only rank 0
speaks, evaluates and saves. What they say to each other stays on this machine: a file in the job's folder to find each
other by, then the loopback interface (gloo), and between GPUs NCCL.
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

PATIENCE = timedelta(hours=1)
"""How long a rank waits for another. Far longer than rank 0 evaluates alone: a rank that dies, or is stopped, is noticed
by its process (rank_processes.py), not by this."""
BUCKET_NUMBERS = 1 << 23
"""So many numbers are added up at once."""
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


class TooFewDevices(EngineError):
    """The worker has fewer GPUs than the job's ranks."""

    fault, code = "service", "too_few_devices"


class Ranks:
    """One process of `size`, of which this is number `rank`; alone, everything below gives back what it is given."""

    def __init__(self, rank: int = 0, size: int = 1, control: Any = None):
        """`control` is the process group for what the processors agree on, which must not wait for GPUs."""
        self.rank = rank
        self.size = size
        self._control = control

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which speaks, evaluates and saves."""
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
        """Put in place of each tensor its sum over the ranks; all ranks give the same shapes in the same order."""
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            whole = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(whole)
            for tensor, part in zip(bucket, whole.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, through which gradients flow to every rank's `tensor`, any number of times."""
        return tensor if self.size == 1 else _Sum.apply(tensor)


ALONE = Ranks()


def join(rank: int, size: int, meeting: Path, device: torch.device) -> Ranks:
    """Find the other ranks; returns when all are there. `meeting` is a file that does not exist yet, the same for all.

    Raises:
        TooFewDevices: there is no GPU for this rank.
    """
    device = device_of(rank, size, device)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, LOOPBACK)
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = dist.FileStore(str(meeting), size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    control = dist.group.WORLD if backend == "gloo" else dist.new_group(backend="gloo", timeout=PATIENCE)
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
    """Runs of tensors of one kind, none of more than a bucket's numbers unless it is a single tensor."""
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
    """Where a rank computes: the CPU, or the GPU of its number.

    Raises:
        TooFewDevices: there is none of that number.
    """
    if size == 1 or device.type != "cuda":
        return device
    if torch.cuda.device_count() < size:
        words = f"the job runs on {size} GPUs and the worker has {torch.cuda.device_count()}"
        raise TooFewDevices(words, "Set DISTILL_DEVICES to the number of GPUs that the worker sees.")
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)
