"""The environment of a run: the device and the versions of libraries."""

import platform
from importlib import metadata
from typing import Any

import torch

LIBRARIES = (
    "torch", "torchvision", "timm", "safetensors", "numpy", "pillow", "simplejpeg", "onnx", "onnxscript", "onnxruntime",
)  # fmt: skip


def environment(device: torch.device) -> dict[str, Any]:
    """The device, its threads, and the versions of Python and torch, as plain data."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    processor = platform.processor() or platform.machine()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor
    return {"versions": versions, "device": str(device), "device_name": name, "threads": torch.get_num_threads()}


def library_versions() -> dict[str, str]:
    """Versions of the libraries on which a student or its images may depend."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
