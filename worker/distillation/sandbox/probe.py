"""Tries the sandbox out: `python -P -m worker.distillation.sandbox.probe` locks itself in, and tries to get out.

Its input is a JSON object: `files` to read, a folder `outside` to write to, a `port` and a Unix `socket` on which somebody
listens, and a `process`. It says what is in force, and an attempt that succeeds shows that something is not.
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
    asked = json.loads(sys.stdin.readline())
    report = confine(Path.cwd(), gpu=asked["gpu"])
    for part, what, attempt in attempts(asked):
        if getattr(report, part) != OPEN[part] and _succeeds(attempt):
            report = replace(report, **{part: OPEN[part]}, why=(*report.why, f"the engine {what}"))
    if asked["gpu"] and (error := driver_error()):
        report = replace(report, why=(*report.why, f"CUDA's driver does not start in it: error {error}"))
    print(json.dumps(asdict(report)))


def driver_error() -> int:
    """What CUDA's driver answers to its first call where there is a GPU of Nvidia's; 0 if all is well, or nothing is there."""
    if not Path("/dev/nvidiactl").exists() or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return 0
    try:
        return int(ctypes.CDLL("libcuda.so.1").cuInit(0))
    except OSError:
        return 0


def attempts(asked: Mapping[str, Any]) -> list[tuple[str, str, Callable[[], object]]]:
    """What to try: the part of the report that it shows false, what it would mean, and how."""
    return [
        *[("filesystem", f"can read {file}", lambda file=file: _read(file)) for file in asked["files"]],
        ("filesystem", f"can write to {asked['outside']}", lambda: _write(Path(asked["outside"]))),
        ("network", "can connect to a port", lambda: _connect(socket.AF_INET, ("127.0.0.1", asked["port"]))),
        ("network", "can send a datagram", lambda: _send(("127.0.0.1", asked["port"]))),
        ("network", "can connect to a Unix socket", lambda: _connect(socket.AF_UNIX, asked["socket"])),
        ("memory", "can read the worker's environment", lambda: _read(f"/proc/{asked['process']}/environ")),
        ("signals", "can signal the worker", lambda: os.kill(asked["process"], 0)),
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
