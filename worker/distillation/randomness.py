"""Random generators: stable seeds, and saving and restoring their state."""

import hashlib
import random
from collections.abc import Mapping
from typing import Any

import torch


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed from a hash of `parts`; the same on every machine."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, torch and, if it is installed, numpy."""
    random.seed(seed)
    torch.manual_seed(seed)
    numpy = _numpy()
    if numpy is not None:
        numpy.random.seed(seed % 2**32)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of the global generators of Python, numpy, and torch on the CPU and on `device`, as plain data and tensors.

    Other GPUs are excluded: reading their generators would allocate memory there, and the next attempt may not have them.
    """
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    numpy = _numpy()
    if numpy is not None:
        name, keys, *rest = numpy.random.get_state()
        state["numpy"] = (str(name), [int(key) for key in keys], *(number for number in rest))
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore a state from `random_state`."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    numpy = _numpy()
    if numpy is not None and "numpy" in state:
        numpy.random.set_state(state["numpy"])


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy
