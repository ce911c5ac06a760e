"""The devices of this worker: GPUs as reported by the driver, or CPUs. It does not import torch, which takes seconds."""

import os
from importlib.metadata import PackageNotFoundError, version

import structlog

from models.scheduling.resources import Gpu, Machine
from models.settings import settings

GB = 1e9
NO_DRIVER = ("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded")
"""What NVML says on a machine without a GPU, which is not a mistake."""

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
    return visible_gpus(gpus_of_driver(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def gpus_of_driver() -> list[tuple[str, Gpu]]:
    """The UUID and the properties of every GPU that NVIDIA's driver knows, in its order (that of the PCI bus)."""
    try:
        import pynvml
    except ImportError as error:
        log.warning("gpus_unknown", error=f"nvidia-ml-py is not installed: {error}")
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if type(error).__name__ not in NO_DRIVER:
            log.warning("gpus_unknown", error=str(error))
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [(str(pynvml.nvmlDeviceGetUUID(handle)), _gpu(handle)) for handle in handles]
    except pynvml.NVMLError as error:
        log.warning("gpus_unknown", error=str(error))
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: object) -> Gpu:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
    return Gpu(str(pynvml.nvmlDeviceGetName(handle)), round(memory / GB, 1))


def visible_gpus(found: list[tuple[str, Gpu]], visible: str | None) -> tuple[Gpu, ...]:
    """The driver's GPUs that `CUDA_VISIBLE_DEVICES` (indices, or prefixes of UUIDs) selects, in its order."""
    if visible is None:
        return tuple(gpu for _, gpu in found)
    numbered = {str(number): gpu for number, (_, gpu) in enumerate(found)}
    chosen: list[Gpu] = []
    for wanted in map(str.strip, visible.split(",")):
        named = [gpu for uuid, gpu in found if wanted and uuid.startswith(wanted)]
        match = [numbered[wanted]] if wanted in numbered else named[:1]
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
