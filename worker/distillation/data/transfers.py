"""Copies between CPU and GPU that do not wait for the GPU, except where a value is needed on the CPU."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on the device. From a CPU to a GPU it goes through pinned memory, and the copy does not wait for the GPU's work.

    A plain copy from pageable memory would wait for everything that the GPU has still to do.
    """
    target = torch.device(device)
    if target.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(target)
    return tensor.pin_memory().to(target, non_blocking=True)


def copied_to_cpu(state: Any) -> Any:
    """A copy of a nested state of dicts, lists, tuples and tensors on the CPU, contiguous, which later changes do not reach.

    All tensors of GPUs are copied into pinned memory first, and waited for once.
    """
    devices: set[torch.device] = set()
    copied = _mapped(state, lambda tensor: _copied(tensor, devices))
    for device in devices:
        torch.cuda.current_stream(device).synchronize()
    return copied


def _mapped(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, Mapping):
        return {key: _mapped(value, change) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(_mapped(value, change) for value in state)
    return state


def _copied(tensor: Tensor, devices: set[torch.device]) -> Tensor:
    given = tensor.detach()
    if given.device.type != "cuda":
        return given.to("cpu", copy=True).contiguous()
    devices.add(given.device)
    target = torch.empty(given.shape, dtype=given.dtype, pin_memory=True)
    return target.copy_(given, non_blocking=True)
