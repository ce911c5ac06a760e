"""The devices that a worker detects, with a program that prints the output of a real nvidia-smi."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.scheduling.resources import Gpu, Machine
from worker import devices

SAID = "0, GPU-aa11, NVIDIA H100 80GB HBM3, 81559\n1, GPU-bb22, Tesla T4, 15360\n2, GPU-cc33, [N/A], [N/A]\n"
H100, T4 = Gpu("NVIDIA H100 80GB HBM3", 85.5), Gpu("Tesla T4", 16.1)


@pytest.mark.parametrize(
    ("visible", "found"),
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
def test_the_gpus_that_are_visible(visible: str | None, found: tuple[Gpu, ...]) -> None:
    assert devices.read_gpus(SAID, visible) == found


def test_devices_that_one_job_may_use(
    configure: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_torch_can", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.machine() == Machine(1)
    configure(devices=3)
    assert devices.machine() == Machine(3)
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\nprint({SAID!r})\n")
    program.chmod(0o755)
    assert devices.machine() == Machine(2, (H100, T4))
    configure(devices=1)
    assert devices.machine() == Machine(1, (H100,))
    configure(device="cpu")
    assert devices.machine() == Machine(1)
    program.write_text("#!/bin/sh\nexit 9\n")
    configure(device="auto", devices=2)
    assert devices.machine() == Machine(2)
