"""A whole service of real processes that can be killed: an API, a distill worker and an inspect worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from distillery_client import Client
from tests.servers import _free_ports
from worker.distillation import networks
from worker.distillation.contract import read_contract

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "api": ("-m", "api"),
    "distill": ("-m", "worker", "--kind", "distill"),
    "inspect": ("-m", "worker", "--kind", "inspect"),
}
QUICK = {
    "lease_seconds": "3",
    "beat_seconds": "0.5",
    "sweep_seconds": "0.3",
    "checkpoint_seconds": "0.2",
    "engine_threads": "1",
}
INPUT = {"channels": 1, "height": 16, "width": 16, "mean": [0.5], "std": [0.25]}
TEACHER = {"network": "lenet5", "classes": 4, "input": INPUT}
PATIENCE_SECONDS = 90.0


class Whole:
    """The processes of a service. All get `settings` as `DISTILL_…` variables."""

    def __init__(self, data: Path, **settings: str):
        (port,) = _free_ports(1)
        self.url, self.data, self.log = f"http://127.0.0.1:{port}", data, data / "service.log"
        chosen = {**QUICK, **settings, "data": str(data), "port": str(port)}
        self.environment = os.environ | {f"DISTILL_{name.upper()}": value for name, value in chosen.items()}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        data.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Whole":
        self.start("api")
        eventually(lambda: (self.data / "key").exists(), "the API has created its key")
        self.start("distill")
        self.start("inspect")
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str) -> None:
        """Start a process, also to replace one that was killed."""
        with self.log.open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *COMMANDS[name]],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        """kill -9."""
        self.processes[name].kill()
        self.processes[name].wait()

    def kill_engine(self) -> None:
        """kill -9 of a job's engine."""
        os.kill(eventually(self._engine, "an engine works on a job"), signal.SIGKILL)

    def _engine(self) -> int | None:
        return next((pid for pid, folder in engines(self.data).items() if "/work/job_" in folder), None)

    def client(self) -> Client:
        return Client(self.url, (self.data / "key").read_text().strip())


def engines(data: Path) -> dict[int, str]:
    """The engines of a service's workers, forked or not, and their working folders; only engines work there."""
    if sys.platform == "linux":
        places = {int(place.parent.name): _target(place) for place in Path("/proc").glob("[0-9]*/cwd")}
    else:
        said = subprocess.run(["lsof", "-d", "cwd", "-Fpn"], capture_output=True, text=True, check=False).stdout
        lines = said.splitlines()
        pids = [int(line[1:]) for line in lines if line.startswith("p")]
        places = dict(zip(pids, [line[1:] for line in lines if line.startswith("n")], strict=False))
    return {pid: folder for pid, folder in places.items() if folder.startswith(f"{data.resolve()}/work/")}


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # it has ended, or belongs to another user
        return ""


def eventually(true: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until `true()` is true; returns its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"timed out waiting until {what}")


def until_none_are_left(count: Callable[[], int], seconds: float) -> int:
    """Wait until `count()` is 0, as long as it falls at least every `seconds` seconds; returns what is left."""
    left, deadline = count(), time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        time.sleep(0.5)
        before, left = left, count()
        if left < before:
            deadline = time.monotonic() + seconds
    return left


def write_inputs(folder: Path) -> Path:
    """Write `images.npz` with four separable classes, and `teacher.safetensors`, trained on them."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(7)
    label = np.arange(256) % 4
    image = draw.integers(0, 120, (256, 16, 16), dtype=np.uint8)
    for row, name in zip(image, label, strict=True):
        row[4 * name : 4 * name + 4] += 120
    np.savez(folder / "images.npz", x_train=image[:192], y_train=label[:192], x_test=image[192:], y_test=label[192:])
    torch.manual_seed(11)
    teacher = networks.build("lenet5", 4, read_contract(INPUT), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    x = (torch.from_numpy(image[:192, None]).float() / 255 - 0.5) / 0.25
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(teacher(x), torch.from_numpy(label[:192])).backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "teacher.safetensors")
    return folder
