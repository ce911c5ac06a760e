"""Whole services to measure: embedded, or with Postgres, Redis and S3; and the inputs of a small job."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from distillery_client import Client
from docs.demo.service import service
from tests import servers
from worker.distillation import networks
from worker.distillation.contract import read_contract

SETS = ("embedded", "servers")
INPUT: dict[str, Any] = {"channels": 1, "height": 32, "width": 32, "mean": [0.5], "std": [0.25]}
TEACHER: dict[str, Any] = {"network": "lenet5", "classes": 10, "input": INPUT}
IMAGES = 2000


@contextmanager
def running(name: str, folder: Path, threads: int) -> Iterator[tuple[Client, int]]:
    """A service of this kind with its own data folder, until the block ends; yields its supervisor's process id."""
    data = Path(tempfile.mkdtemp(prefix=f"service-{name}-", dir=folder))
    with ExitStack() as stack:
        variables = _servers(stack) if name == "servers" else {}
        pid = stack.enter_context(service(data, variables={"DISTILL_ENGINE_THREADS": str(threads), **variables}))
        yield stack.enter_context(Client(data=data)), pid


def _servers(stack: ExitStack) -> dict[str, str]:
    postgres, s3 = stack.enter_context(servers.postgres()), stack.enter_context(servers.s3_server())
    database = postgres.create()
    stack.callback(postgres.drop, database)
    variables = {
        "DISTILL_DATABASE_URL": database,
        "DISTILL_BROKER_URL": stack.enter_context(servers.redis_server()),
        "DISTILL_STORAGE_URL": f"s3://{s3.bucket}/{os.getpid()}",
        "DISTILL_STORAGE_ENDPOINT": s3.endpoint,
        "DISTILL_STORAGE_ACCESS_KEY": s3.access_key,
        "DISTILL_STORAGE_SECRET_KEY": s3.secret_key,
    }
    subprocess.run([sys.executable, "-m", "models.migrate"], env=os.environ | variables, check=True)
    return variables


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """An upload with a dataset of ten separable classes, and a teacher trained on it."""
    draw = np.random.default_rng(7)
    label = np.arange(IMAGES) % 10
    image = draw.integers(0, 120, (IMAGES, 32, 32), dtype=np.uint8)
    for row, digit in zip(image, label, strict=True):
        row[3 * digit : 3 * digit + 3] += 120
    np.savez(folder / "images.npz", x_train=image, y_train=label)
    torch.manual_seed(11)
    teacher = networks.build("lenet5", 10, read_contract(INPUT), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for chosen in torch.randperm(IMAGES).split(100):
        optimizer.zero_grad()
        x = (torch.from_numpy(image[chosen.numpy(), None]).float() / 255 - 0.5) / 0.25
        torch.nn.functional.cross_entropy(teacher(x), torch.from_numpy(label[chosen.numpy()])).backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "teacher.safetensors")
    return folder / "images.npz", folder / "teacher.safetensors"


def processor_seconds(supervisor: int) -> float:
    """CPU seconds of the API and the workers so far, without engines and servers."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    ticks = 0
    for process in [supervisor, *children]:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
