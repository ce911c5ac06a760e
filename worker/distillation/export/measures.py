"""The cost of a network: parameters, multiply-adds and latency."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from worker.distillation.compression.plain import plain
from worker.distillation.contract import InputContract
from worker.distillation.export.portable import portable, random_images

WARM_UP_RUNS = 3
RUNS_AT_MOST = 100
SECONDS_AT_MOST = 2.0


def cost(network: nn.Module, contract: InputContract) -> dict[str, Any]:
    """Number of parameters, their bytes, multiply-adds and latency of a network; the network is not changed."""
    copied = portable(plain(network))
    return {
        "parameters": sum(parameter.numel() for parameter in copied.parameters()),
        "parameter_bytes": sum(parameter.nbytes for parameter in network.parameters()),
        "multiply_adds": multiply_adds(copied, contract),
        "latency": latency(copied, contract),
    }


def multiply_adds(network: nn.Module, contract: InputContract) -> int:
    """Multiply-adds for one image in convolutions, matrix products and attention: half of the operations that torch counts."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(random_images(contract, 1))
    return counter.get_total_flops() // 2


def latency(network: nn.Module, contract: InputContract, threads: int | None = None) -> dict[str, Any]:
    """Median latency in milliseconds for one image, on the parameters' device, over at most 100 runs or 2 seconds.

    `threads`: number of CPU threads; by default torch's current number.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    image = random_images(contract, 1).to(device)
    with _threads(threads), torch.no_grad():
        used = torch.get_num_threads()
        for _ in range(WARM_UP_RUNS):
            network(image)
        seconds: list[float] = []
        end = time.perf_counter() + SECONDS_AT_MOST
        while len(seconds) < RUNS_AT_MOST and (not seconds or time.perf_counter() < end):
            _wait(device)
            began = time.perf_counter()
            network(image)
            _wait(device)
            seconds.append(time.perf_counter() - began)
    return {
        "milliseconds": statistics.median(seconds) * 1000,
        "runs": len(seconds),
        "batch_size": 1,
        "device": device.type,
        "precision": "float32",
        "threads": used,
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)
