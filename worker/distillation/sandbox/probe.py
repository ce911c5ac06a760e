"""Tests the sandbox: `python -P -m worker.distillation.sandbox.probe` confines itself, then tries to escape.

Its input is a JSON object: `files` to read, a folder `outside` to write to, a `port` and a Unix `socket` with listeners,
and a `process`. It prints the report of what is in force, without the parts that an attempt has escaped.
"""

import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from worker.distillation.sandbox import confine

OPEN = {"filesystem": "open", "network": "shared", "memory": "open", "signals": "open"}
SECONDS = 2.0


def main() -> None:
    """Confine this process to its working folder, try everything, and print the report."""
    targets = json.loads(sys.stdin.readline())
    report = confine(Path.cwd(), gpu=targets["gpu"])
    for part, what, attempt in attempts(targets):
        if getattr(report, part) != OPEN[part] and _succeeds(attempt):
            report = replace(report, **{part: OPEN[part]}, why=(*report.why, f"the engine {what}"))
    if targets["gpu"] and (error := driver_error()):
        report = replace(report, why=(*report.why, f"CUDA's driver does not start in the sandbox: error {error}"))
    print(json.dumps(asdict(report)))


def driver_error() -> int:
    """The error code of CUDA's driver at initialisation; 0 if it succeeds, or if there is no Nvidia GPU or driver."""
    if not Path("/dev/nvidiactl").exists() or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return 0
    try:
        return int(ctypes.CDLL("libcuda.so.1").cuInit(0))
    except OSError:
        return 0


def attempts(targets: Mapping[str, Any]) -> list[tuple[str, str, Callable[[], object]]]:
    """Attempts to escape: the part of the report that a success disproves, a description, and a function."""
    return [
        *[("filesystem", f"can read {file}", lambda file=file: _read(file)) for file in targets["files"]],
        ("filesystem", f"can write to {targets['outside']}", lambda: _write(Path(targets["outside"]))),
        ("network", "can connect to a port", lambda: _connect(socket.AF_INET, ("127.0.0.1", targets["port"]))),
        ("network", "can send a datagram", lambda: _send(("127.0.0.1", targets["port"]))),
        ("network", "can connect to a Unix socket", lambda: _connect(socket.AF_UNIX, targets["socket"])),
        ("memory", "can read the worker's environment", lambda: _read(f"/proc/{targets['process']}/environ")),
        ("signals", "can signal the worker", lambda: os.kill(targets["process"], 0)),
    ]


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _read(file: str) -> None:
    with Path(file).open("rb") as opened:
        opened.read(1)


def _write(folder: Path) -> None:
    (folder / f"written-by-probe-{os.getpid()}").touch(exist_ok=False)


def _connect(family: int, address: Any) -> None:
    with closing(socket.socket(family)) as client:
        client.settimeout(SECONDS)
        client.connect(address)


def _send(address: tuple[str, int]) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        client.sendto(b"x", address)


if __name__ == "__main__":
    main()
