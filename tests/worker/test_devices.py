"""The GPUs that a worker detects: those of the driver, of which only some may be visible, or none."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.scheduling.resources import Gpu, Machine
from worker import devices

ROOT = Path(__file__).parents[2]
H100, T4 = Gpu("NVIDIA H100 80GB HBM3", 85.5), Gpu("Tesla T4", 16.1)
FOUND = [("GPU-aa11", H100), ("GPU-bb22", T4)]


@pytest.mark.parametrize(
    ("visible", "left"),
    [
        (None, (H100, T4)),
        ("0,1", (H100, T4)),
        ("1", (T4,)),
        ("1,0", (T4, H100)),
        ("GPU-bb", (T4,)),
        ("", ()),
        ("-1", ()),
        ("0,7,1", (H100,)),
    ],
)
def test_the_gpus_that_are_visible(visible: str | None, left: tuple[Gpu, ...]) -> None:
    assert devices.visible_gpus(FOUND, visible) == left


def test_the_driver_says_what_nvidia_smi_says() -> None:
    program = shutil.which("nvidia-smi")
    expected: list[list[str]] = []
    if program is not None:
        command = [program, "--query-gpu=uuid,name", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        expected = [line.split(", ") for line in said.splitlines()]
    found = devices.gpus_of_driver()
    assert [[uuid, gpu.name] for uuid, gpu in found] == expected
    assert all(0.5 < gpu.memory_gb < 5000 for _, gpu in found)


PROBE = """
import sys, time
{before}
from worker import devices
began = time.perf_counter()
found = devices.gpus_of_driver()
print(len(found), time.perf_counter() - began < 1.0, 'torch' in sys.modules)
"""
BLOCKED = "sys.modules['pynvml'] = None  # an import of it now fails, as where it is not installed"
NO_DRIVER = "import ctypes, pynvml\ndef refuse(name): raise OSError(name)\npynvml.CDLL = refuse"


@pytest.mark.parametrize(("before", "warns"), [(BLOCKED, True), (NO_DRIVER, False)], ids=["no library", "no driver"])
def test_without_library_or_driver_there_is_no_gpu_at_once(before: str, warns: bool) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "0 True False", answer.stderr
    assert ("gpus_unknown" in answer.stdout + answer.stderr) == warns


def test_what_one_job_may_use_here(configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, Gpu]] = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_torch_can", lambda: True)
    monkeypatch.setattr(devices, "gpus_of_driver", lambda: found)
    assert devices.machine() == Machine(1)
    configure(devices=3)
    assert devices.machine() == Machine(3)
    found += FOUND
    assert devices.machine() == Machine(2, (H100, T4))
    configure(devices=1)
    assert devices.machine() == Machine(1, (H100,))
    configure(device="cpu")
    assert devices.machine() == Machine(1)
