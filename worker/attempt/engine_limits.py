"""What one engine may use: memory, time and space, by the size of an upload, its key and this machine."""

import os
from dataclasses import dataclass
from typing import Any

import structlog

from models.settings import settings
from models.spec.catalogue import limit
from worker.engine.cgroup import Unusable, require
from worker.engine.confinement import EngineLimits
from worker.engine.engine_start import sees_gpu
from worker.engine.machine import free_bytes, is_limited, memory_bytes

FLOOR_BYTES = 64 * 2**20
"""Size that the canonical form of even the smallest upload may have."""
TIMES_LARGER = {"dataset": 100}
"""How many times larger than the upload a canonical form may be: images are compressed."""
WEIGHTS_TIMES_LARGER = 16
"""The same for weights, which hardly can be compressed: half precision is stored as single, and zeros take no space in a zip."""
UNPACKED_TIMES_LARGER = 4
"""How many times larger than the canonical form the file of weights in an archive may be, with the state of an optimiser."""
INFLATED_BYTES = 16 * 2**30
"""Bytes that any archive may have uncompressed; a larger upload may have `UNPACKED_TIMES_LARGER` times its size."""
COPIES = 3
"""Copies of the upload and of the canonical form that reading may keep in memory."""
RECOGNITION_BYTES = 2 * 2**30
"""Memory for the labelled images by which a teacher is recognised, and for its activations."""
MACHINE_SHARE = 0.5
"""Share of the machine's memory that one inspection may use."""
GROUP_SHARE = 0.9
"""Share of the machine's memory that one job may use, if it has a control group."""
BYTES_A_SECOND = 10**6
CHECK_SECONDS = 120.0
"""Duration of the check of a spec, which builds networks without weights."""
CHOICE_SECONDS = 240.0
"""The same if it chooses a student for a budget."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class InspectionLimits:
    """The limits of one inspection. `canonical_bytes`: size of the canonical form; `memory_bytes`: private memory beyond that
    of an idle engine; `seconds`: duration; `busy_seconds`: the same on an idle machine, from which processor time is limited."""

    canonical_bytes: int
    memory_bytes: int
    seconds: float
    busy_seconds: float
    upload_bytes: int = 0

    @classmethod
    def of_upload(cls, kind: str, size: int, room: int, recognises: bool = False) -> "InspectionLimits":
        """The limits for an upload of `size` bytes, whose key has `room` bytes left for its canonical form. `recognises`: a
        teacher's network is found by labelled images."""
        times = TIMES_LARGER.get(kind, WEIGHTS_TIMES_LARGER)
        canonical = max(0, min(FLOOR_BYTES + times * size, room))
        seconds = busy = settings().inspection_seconds + size / BYTES_A_SECOND
        more = COPIES * (size + canonical)
        if recognises:
            busy += settings().recognition_seconds
            seconds += settings().recognition_seconds * limit("wall_seconds_of_processor_second")
            more += RECOGNITION_BYTES
        return cls(canonical, _memory(more), seconds, busy, size)

    @classmethod
    def of_check(cls, chooses: bool = False) -> "InspectionLimits":
        """The limits for the check of a spec; `chooses`: it chooses a student for a budget, which it writes into files."""
        seconds = CHOICE_SECONDS if chooses else CHECK_SECONDS
        return cls(FLOOR_BYTES, _memory(0), seconds, seconds)

    def of_file(self) -> dict[str, int]:
        """The limits that the reader of an upload gets (worker/distillation/limits.py)."""
        return {
            "parameters": settings().network_parameters,
            "canonical_bytes": self.canonical_bytes,
            "inflated_bytes": max(INFLATED_BYTES, UNPACKED_TIMES_LARGER * self.upload_bytes),
            "unpacked_bytes": UNPACKED_TIMES_LARGER * self.canonical_bytes,
        }

    def of_engine(self) -> EngineLimits:
        """The limits that the kernel enforces on the engine."""
        threads = settings().engine_threads or os.cpu_count() or 1
        file_bytes = max(FLOOR_BYTES, UNPACKED_TIMES_LARGER * self.canonical_bytes)
        return EngineLimits(int(self.busy_seconds * threads) + 1, file_bytes)

    def of_job_file(self) -> dict[str, Any]:
        """The limits that the engine imposes on itself before it reads anything."""
        return {"memory_bytes": self.memory_bytes}


def _memory(more: int) -> int:
    return int(min(settings().inspection_bytes + more, MACHINE_SHARE * memory_bytes()))


def memory_of_training(ranks: int) -> int | None:
    """Private memory of each rank of a job; None, no limit, with a GPU, since CUDA reserves more than it uses."""
    return None if trains_on_gpu() else memory_bytes() // ranks


def limits_of_training() -> EngineLimits:
    """The limits that the kernel enforces on a training engine: no file can be longer than the free space, and if there are
    control groups, the engine with all ranks of the job leaves some of the machine's memory to others."""
    return EngineLimits(file_bytes=free_bytes(), group_bytes=int(GROUP_SHARE * memory_bytes()))


def trains_on_gpu() -> bool:
    """Whether jobs of this worker may use GPUs."""
    return settings().device != "cpu" and sees_gpu()


def limit_of_jobs() -> str:
    """What limits the memory of jobs on this machine: `cgroup`, `process` (private memory), `container` (of the whole worker), or
    `none`. If the folder for control groups is set and cannot be used, an error is logged."""
    folder = settings().engine_cgroup
    if folder is not None:
        try:
            require(folder)
            return "cgroup"
        except Unusable as error:
            log.error("CGROUP_UNUSABLE", message=str(error))
    if not trains_on_gpu():
        return "process"
    return "container" if is_limited() else "none"
