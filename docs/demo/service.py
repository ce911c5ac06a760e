"""An embedded service for the length of a `with` block: what `make up` starts, on a free port, with its own data folder."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 30


@contextmanager
def service(data: Path, keep: bool = False, variables: Mapping[str, str] | None = None) -> Iterator[int]:
    """Start the service, wait until it serves, and stop it at the end unless `keep`; yields its process id.

    `variables` (`DISTILL_…`) override the embedded defaults.

    Raises:
        RuntimeError: it did not start; the message ends with its log.
    """
    process = _start(data, variables or {})
    try:
        _wait_until_up(process, data)
        yield process.pid
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            _stop(process)


def _start(data: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    data.mkdir(parents=True, exist_ok=True)
    embedded = dict.fromkeys(("DISTILL_DATABASE_URL", "DISTILL_STORAGE_URL", "DISTILL_BROKER_URL"), "")
    chosen = {"DISTILL_DATA": str(data), "DISTILL_HOST": "127.0.0.1", "DISTILL_PORT": str(_free_port())}
    with (data / "service.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "worker.supervisor"],
            env={"DISTILL_ENGINE_THREADS": "1"}
            | os.environ
            | embedded
            | chosen
            | dict(variables),  # more threads speed up small networks little
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_until_up(process: subprocess.Popen[bytes], data: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (data / "service.json").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            log = (data / "service.log").read_text(errors="replace")
            raise RuntimeError(f"the service did not start:\n{log[-2000:]}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
