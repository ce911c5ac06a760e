"""Resources that a job needs, resources that a worker has, and whether they match."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ANY = "*"


def plain(name: str) -> str:
    """A device name in lower case without spaces and dashes, so that `H100` and `rtx-4090` match the names of drivers."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True)
class Gpu:
    """A GPU of a worker; memory in GB of 10^9 bytes."""

    name: str
    memory_gb: float


@dataclass(frozen=True)
class ResourceNeeds:
    """A number of devices of any kind; GPUs if a part of their name or a minimum memory is given."""

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
        """From the text of `str`."""
        devices, gpu, memory = text.split(" ")
        return cls(int(devices), None if gpu == ANY else gpu, int(memory))

    def __str__(self) -> str:
        """The text stored in rows; rows with equal needs are adjacent in an index."""
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
    """The resources of a worker: the number of devices that one job may use, and its GPUs in the order of their use."""

    devices: int = 1
    gpus: tuple[Gpu, ...] = ()

    @classmethod
    def of(cls, about: Mapping[str, Any] | None) -> "Machine":
        """From the `about` column of a worker's row."""
        gpus = (about or {}).get("gpus") or ()
        return cls((about or {}).get("devices") or 1, tuple(Gpu(gpu["name"], gpu["memory_gb"]) for gpu in gpus))

    def about(self) -> dict[str, Any]:
        """For the `about` column of a worker's row."""
        return {
            "devices": self.devices,
            "gpus": [{"name": gpu.name, "memory_gb": gpu.memory_gb} for gpu in self.gpus],
        }

    def fits(self, needs: ResourceNeeds) -> bool:
        """Whether a job with these needs can run on this worker."""
        if needs.devices > self.devices:
            return False
        if needs.gpu is None and not needs.memory_gb:
            return True
        given = self.gpus[: needs.devices]
        return len(given) == needs.devices and all(
            (needs.gpu or "") in plain(gpu.name) and gpu.memory_gb >= needs.memory_gb for gpu in given
        )


def any_fits(machines: Iterable[Machine], needs: ResourceNeeds) -> bool:
    """Whether at least one machine fits the needs."""
    return any(machine.fits(needs) for machine in machines)
