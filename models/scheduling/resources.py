"""What a job runs on, what a worker has, and whether the one fits the other."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ANY = "*"


def plain(name: str) -> str:
    """A device's name without case, blanks and dashes, so that `H100` and `rtx-4090` are found in what drivers say."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True)
class Gpu:
    """A GPU of a worker; memory in GB of 10^9 bytes."""

    name: str
    memory_gb: float


@dataclass(frozen=True)
class ResourceNeeds:
    """So many devices of whatever kind; GPUs where a part of their name or a least memory is asked for."""

    devices: int = 1
    gpu: str | None = None
    memory_gb: int = 0

    @classmethod
    def of(cls, resources: Mapping[str, Any]) -> "ResourceNeeds":
        """From a resolved spec's `resources`."""
        gpu = resources.get("gpu")
        return cls(resources.get("gpus") or 1, plain(gpu) if gpu else None, resources.get("gpu_memory_gb") or 0)

    @classmethod
    def read(cls, text: str) -> "ResourceNeeds":
        """From the text that `str` makes."""
        devices, gpu, memory = text.split(" ")
        return cls(int(devices), None if gpu == ANY else gpu, int(memory))

    def __str__(self) -> str:
        """As rows hold it, so that rows of equal needs lie together in an index."""
        return f"{self.devices} {self.gpu or ANY} {self.memory_gb}"

    @property
    def sentence(self) -> str:
        """`2 devices`, `1 GPU called 'h100' with at least 40 GB`."""
        kind = "GPU" if self.gpu or self.memory_gb else "device"
        called = f" called '{self.gpu}'" if self.gpu else ""
        memory = f" with at least {self.memory_gb} GB{' each' if self.devices > 1 else ''}" if self.memory_gb else ""
        return f"{self.devices} {kind}{'s' if self.devices > 1 else ''}{called}{memory}"


@dataclass(frozen=True)
class Machine:
    """What a worker has: how many devices one job may use, and its GPUs, in the order in which a job gets them."""

    devices: int = 1
    gpus: tuple[Gpu, ...] = ()

    @classmethod
    def of(cls, about: Mapping[str, Any] | None) -> "Machine":
        """From what a worker's row says about it."""
        gpus = (about or {}).get("gpus") or ()
        return cls((about or {}).get("devices") or 1, tuple(Gpu(gpu["name"], gpu["memory_gb"]) for gpu in gpus))

    def about(self) -> dict[str, Any]:
        """As a worker's row says it."""
        return {
            "devices": self.devices,
            "gpus": [{"name": gpu.name, "memory_gb": gpu.memory_gb} for gpu in self.gpus],
        }

    def fits(self, needs: ResourceNeeds) -> bool:
        """Whether a job with such needs may run here."""
        if needs.devices > self.devices:
            return False
        if needs.gpu is None and not needs.memory_gb:
            return True
        given = self.gpus[: needs.devices]
        return len(given) == needs.devices and all(
            (needs.gpu or "") in plain(gpu.name) and gpu.memory_gb >= needs.memory_gb for gpu in given
        )


def any_fits(machines: Iterable[Machine], needs: ResourceNeeds) -> bool:
    """Whether one of these could run it."""
    return any(machine.fits(needs) for machine in machines)
