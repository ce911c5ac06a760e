"""A data folder and an empty database for one measurement, in the environment of this process and of those that it starts."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import servers

NAMES = ("DISTILL_DATA", "DISTILL_DATABASE_URL", "DISTILL_BROKER_URL")


@contextmanager
def own_service(database: str) -> Iterator[Path]:
    """The settings of a service with SQLite and a queue of files, or with Postgres and Redis; yields its data folder.

    Its keys have no limits that a load could meet. `DISTILL_PORT` is a free port.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="measured-"))
        variables = {"DISTILL_DATA": folder, "DISTILL_PORT": str(free_port())}
        variables |= {"DISTILL_REQUESTS_A_MINUTE": "100000000", "DISTILL_QUEUED_JOBS": "1000000"}
        if database == "postgres":
            variables["DISTILL_BROKER_URL"] = stack.enter_context(servers.redis_server())
            server = stack.enter_context(servers.postgres())
            variables["DISTILL_DATABASE_URL"] = url = server.create()
            stack.callback(server.drop, url)
        os.environ |= variables
        stack.callback(_forget)
        subprocess.run([sys.executable, "-m", "models.migrate"], check=True)
        yield Path(folder)


def free_port() -> int:
    """A port of this machine that nothing uses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _forget() -> None:
    """Forget the settings, the database and the broker of a measurement."""
    from models.database import engine
    from models.queue import wake_up
    from models.settings import settings

    engine().dispose()
    for known in (engine, settings, wake_up.app):
        known.cache_clear()
    for name in NAMES:
        os.environ.pop(name, None)
