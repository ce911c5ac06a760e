"""The devices of this worker: GPUs as reported by the driver, or CPUs. It does not import torch, which takes seconds."""

import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import structlog

from models.scheduling.resources import Gpu, Machine
from models.settings import settings

ASK = ("--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")
ASK_SECONDS = 20.0
GB_IN_A_MIB = 2**20 / 1e9

log = structlog.get_logger(__name__)


def machine() -> Machine:
    """The devices that one job may use here: `DISTILL_DEVICES` of them, by default all visible GPUs, or one CPU process."""
    wished, gpus = settings().devices, gpus_here()
    if gpus:
        kept = gpus[: wished or len(gpus)]
        return Machine(len(kept), kept)
    return Machine(wished or 1)


def gpus_here() -> tuple[Gpu, ...]:
    """The GPUs that an engine on this machine may use, in the order of their indices."""
    if settings().device == "cpu" or not _torch_can():
        return ()
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        done = subprocess.run([program, *ASK], capture_output=True, text=True, timeout=ASK_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("gpus_unknown", error=str(error))
        return ()
    return read_gpus(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def read_gpus(output: str, visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs in nvidia-smi's output that `CUDA_VISIBLE_DEVICES` (indices, or prefixes of UUIDs) selects, in its order."""
    found: dict[str, tuple[str, Gpu]] = {}
    for line in output.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and parts[3].isdecimal():
            found[parts[0]] = parts[1], Gpu(parts[2], round(int(parts[3]) * GB_IN_A_MIB, 1))
    if visible is None:
        return tuple(gpu for _, gpu in found.values())
    chosen: list[Gpu] = []
    for wanted in map(str.strip, visible.split(",")):
        named = [gpu for uuid, gpu in found.values() if wanted and uuid.startswith(wanted)]
        match = [found[wanted][1]] if wanted in found else named[:1]
        if not match:  # CUDA also ignores everything from the first invalid entry on
            break
        chosen += match
    return tuple(chosen)


def _torch_can() -> bool:
    """Whether the installed torch supports GPUs; the version of a CPU build ends in `+cpu`."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False
