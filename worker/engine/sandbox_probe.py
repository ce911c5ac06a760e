"""Which sandbox engines have on this machine: tried out when a worker starts, and demanded where it must be had."""

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
    """Engines must be confined, and cannot be."""


def establish(kind: Kind) -> dict[str, Any]:
    """Find out what engines of this worker are confined by, for its row; say it loudly if that is too little.

    Raises:
        NoSandbox: it is too little, and the settings demand more.
    """
    wanted = settings().sandboxing
    found = NOTHING | {"why": ["DISTILL_SANDBOX is off"]} if wanted == "off" else _try_out(kind)
    if holds(found):
        if found["why"]:
            log.warning("sandbox", message="engines are confined, but not all is well", **found)
        else:
            log.info("sandbox", **found)
        return found
    if wanted == "required":
        raise NoSandbox(
            f"This worker does not start, since engines cannot be confined here: {'; '.join(found['why'])}. Strangers' files"
            " would be read without a sandbox: see docs/operations.md for what it needs, or allow it with"
            " DISTILL_SANDBOX=preferred."
        )
    log.warning("NO_SANDBOX", message="strangers' files are read by engines that nothing confines", **found)
    return found


def holds(found: Mapping[str, Any]) -> bool:
    """Whether engines reach neither the files of others nor any network."""
    return bool(found["filesystem"] != "open" and found["network"] != "shared")


def _try_out(kind: Kind) -> dict[str, Any]:
    """What is in force in a process that has confined itself, as an engine does, and has tried to get out."""
    name = f"probe-{kind}-{os.getpid()}"
    with Folder(name, 1) as folder, Folder(name, 2) as another, _temptations(another.path) as asked:
        asked |= {"gpu": kind == "distill", "outside": str(another.path), "process": os.getpid()}
        try:
            done = subprocess.run(
                PROBE,
                cwd=folder.path,
                env=environment(folder.path, 1, gpu=kind == "distill"),
                input=json.dumps(asked) + "\n",
                capture_output=True,
                text=True,
                timeout=PROBE_SECONDS,
                check=True,
            )
            return dict(json.loads(done.stdout))
        except (subprocess.SubprocessError, ValueError) as error:
            last = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
            return NOTHING | {"why": [f"the trial of the sandbox failed: {' '.join(last)}"]}


@contextmanager
def _temptations(another: Path) -> Iterator[dict[str, Any]]:
    """What a process that is not confined can reach: files that are none of its business, a port, a Unix socket.

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
