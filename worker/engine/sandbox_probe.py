"""The sandbox that engines have on this machine: tested when a worker starts, and enforced if the settings require it."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from models.queue.wake_up import Kind
from models.settings import settings
from worker.engine.confinement import environment
from worker.engine.folder import Folder

PROBE = (sys.executable, "-P", "-m", "worker.distillation.sandbox.probe")
PROBE_SECONDS = 60.0
SECRET_FILES = (".env", ".secrets/distillery.env", "/run/secrets/settings")
NOTHING = {"filesystem": "open", "network": "shared", "memory": "open", "signals": "open"}

log = structlog.get_logger(__name__)


class NoSandbox(Exception):
    """The settings require a sandbox, and this machine does not provide it."""


def establish(kind: Kind) -> dict[str, Any]:
    """Test the sandbox of this worker's engines, for the worker's row; log a warning if it is insufficient.

    Raises:
        NoSandbox: it is insufficient, and the settings require it.
    """
    wanted = settings().sandboxing
    found = NOTHING | {"why": ["DISTILL_SANDBOX is off"]} if wanted == "off" else _probe(kind)
    if holds(found):
        if found["why"]:
            log.warning("sandbox", message="engines are confined, but with problems", **found)
        else:
            log.info("sandbox", **found)
        return found
    if wanted == "required":
        raise NoSandbox(
            f"This worker cannot start: the sandbox for engines is not available ({'; '.join(found['why'])}). Provide what"
            " docs/operations.md lists, or set DISTILL_SANDBOX=preferred to read untrusted files without a sandbox."
        )
    log.warning("NO_SANDBOX", message="engines read untrusted files without a sandbox", **found)
    return found


def holds(found: Mapping[str, Any]) -> bool:
    """Whether both files and network of engines are restricted."""
    return bool(found["filesystem"] != "open" and found["network"] != "shared")


def _probe(kind: Kind) -> dict[str, Any]:
    """The report of a process that has confined itself, as an engine does, and has tried to escape."""
    name = f"probe-{kind}-{os.getpid()}"
    with Folder(name, 1) as folder, Folder(name, 2) as another, _targets(another.path) as targets:
        targets |= {"gpu": kind == "distill", "outside": str(another.path), "process": os.getpid()}
        try:
            done = subprocess.run(
                PROBE,
                cwd=folder.path,
                env=environment(folder.path, 1, gpu=kind == "distill"),
                input=json.dumps(targets) + "\n",
                capture_output=True,
                text=True,
                timeout=PROBE_SECONDS,
                check=True,
            )
            return dict(json.loads(done.stdout))
        except (subprocess.SubprocessError, ValueError) as error:
            last = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
            return NOTHING | {"why": [f"the test of the sandbox failed: {' '.join(last)}"]}


@contextmanager
def _targets(another: Path) -> Iterator[dict[str, Any]]:
    """Targets that an unconfined process can access and an engine must not: files, a port, a Unix socket.

    Args:
        another: the folder of another attempt.
    """
    config = settings()
    with (
        tempfile.TemporaryDirectory(prefix="probe-") as temporary,
        socket.create_server(("127.0.0.1", 0)) as port,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        files = [another / "inputs" / "upload", Path(temporary, "file")]
        for file in files:
            file.touch()
        secret = [config.key_file, config.data / "distillery.db", *(Path(name).absolute() for name in SECRET_FILES)]
        files += [file.absolute() for file in secret if file.is_file()]
        address = str(Path(temporary, "socket"))
        unix.bind(address)
        unix.listen()
        yield {"files": [*map(str, files)], "port": port.getsockname()[1], "socket": address}
