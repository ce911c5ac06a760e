"""The embedded service as one command: `python -m worker.supervisor` starts the API and a worker of each kind.

A child that exits is restarted, after a longer pause each time; if it keeps exiting, the service stops. SIGINT and SIGTERM
stop the service gracefully: a running job saves a checkpoint.
"""

import argparse
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import structlog

from models import startup
from models.cannot_start import explained
from models.secrecy import hide_memory
from models.settings import Settings, settings
from models.sign_in_link import make_link
from worker.app import configure_logging

CHECKOUT = Path(__file__).resolve().parent.parent
CHILDREN = {
    "api": ("-m", "api"),
    "distill": ("-m", "worker", "--kind", "distill"),
    "inspect": ("-m", "worker", "--kind", "inspect"),
}
LOOK_SECONDS = 0.2
FIRST_PAUSE_SECONDS = 0.5
"""Pause before the first restart of a child; doubled for each further restart."""
LONGEST_PAUSE_SECONDS = 30.0
"""Longest pause before a restart."""
STEADY_SECONDS = 30.0
"""Running time after which a child's exit counts as its first again."""
MOST_DEATHS = 6
"""Number of exits in a row after which the service stops."""
EXIT_SECONDS = 15.0
"""Time for children to exit, in addition to the grace period of a drain, before they are killed."""
READY_SECONDS = 60.0
"""Time for the service to become ready, before it stops."""

log = structlog.get_logger(__name__)


class Child:
    """One process of the service, and the time of its next restart."""

    def __init__(self, name: str, environment: dict[str, str]):
        self.name = name
        self._environment = environment
        self.deaths = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._due = 0.0

    def start(self) -> None:
        """Start the process; it ends with this process."""
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker.tether", str(os.getpid()), sys.executable, *CHILDREN[self.name]],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches only the supervisor, which stops its children gracefully
        )

    def restart_if_due(self) -> bool:
        """Restart the process if it has exited and the pause is over; false if it has exited too often."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._due:
                self.start()
            return True
        code = self.process.poll()
        if code is None:
            return True
        self.process = None
        self.deaths = 1 if now - self._started >= STEADY_SECONDS else self.deaths + 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (self.deaths - 1))
        self._due = now + pause
        log.warning("child_exited", child=self.name, code=code, restart_in_seconds=pause, exits=self.deaths)
        return self.deaths < MOST_DEATHS

    def terminate(self) -> None:
        """Send SIGTERM, if the process is running."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def end(self, deadline: float) -> None:
        """Wait for the process to exit, and kill it at the deadline."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("child_killed", child=self.name)
            self.process.kill()
            self.process.wait()


class Supervisor:
    """The processes of one data folder. `run` returns an exit code when all of them have ended."""

    def __init__(self, config: Settings, port: int):
        self.url = f"http://{_reachable(config.host)}:{port}"
        self._config = config
        environment = os.environ | {
            "DISTILL_PORT": str(port),
            "DISTILL_DATA": str(config.data.absolute()),
            "PYTHONPATH": str(CHECKOUT),
        }
        self.children = [Child(name, environment) for name in CHILDREN]
        self._stopping = threading.Event()

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Stop the service; also used as a signal handler."""
        self._stopping.set()

    def run(self) -> int:
        """Start the children, and keep them running until `stop` is called."""
        for child in self.children:
            child.start()
        announced = False
        started = time.monotonic()
        try:
            while not self._stopping.wait(LOOK_SECONDS):
                kept = [child.restart_if_due() for child in self.children]
                if not all(kept):
                    log.error("child_keeps_exiting")
                    return 1
                if not announced and (warnings := self._readiness()) is not None:
                    announced = True
                    self._announce(warnings)
                if not announced and time.monotonic() - started > READY_SECONDS:
                    log.error("service_not_ready", url=self.url, seconds=READY_SECONDS)
                    return 1
            return 0
        finally:
            self._file.unlink(missing_ok=True)
            self._end_all()

    @property
    def _file(self) -> Path:
        return self._config.data / "service.json"

    def _readiness(self) -> list[str] | None:
        """The service's warnings; None while it is not ready."""
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=2) as response:
                health = json.load(response)
        except (urllib.error.URLError, OSError, ValueError):
            return None
        running = {worker["kind"] for worker in health["workers"]}
        return health["warnings"] if set(CHILDREN) - {"api"} <= running else None

    def _announce(self, warnings: Sequence[str]) -> None:
        """Print the service's address, and write it to `service.json` for the client."""
        content = {"url": self.url, "key_file": self._config.key_file.name, "process": os.getpid()}
        partial = self._file.with_suffix(".part")
        partial.write_text(json.dumps(content))
        partial.replace(self._file)
        lines = [f"Distillery is running at {self.url}", f"The API key is in {self._config.key_file}"]
        if self._config.key_file.exists():
            lines.append(f"The dashboard, a link that works once: {make_link(self._config, self.url)}")
        print(*lines, *(f"WARNING: {warning}" for warning in warnings), sep="\n", flush=True)

    def _end_all(self) -> None:
        for child in self.children:
            child.terminate()
        deadline = time.monotonic() + self._config.drain_grace_seconds + EXIT_SECONDS
        for child in self.children:
            child.end(deadline)


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def choose_port(host: str, port: int) -> int:
    """The port itself, or a free one for 0.

    Raises:
        SystemExit: the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            sys.exit(
                f"Port {port} on {host} cannot be used ({error.strerror}). Choose another with --port, or 0 for any."
            )
        return int(listener.getsockname()[1])


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """A context that locks a data folder for this supervisor.

    Raises:
        SystemExit: another supervisor holds the lock.
    """
    with (data / "supervisor.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"A service is already running on {data}. Stop it first, or set DISTILL_DATA to another folder.")
        yield


def main() -> int:
    """Run the service until a signal arrives; returns the exit code."""
    with explained():
        config = settings()
        config.data.mkdir(parents=True, exist_ok=True)
    parser = argparse.ArgumentParser(prog="python -m worker.supervisor", description="Start the embedded service.")
    parser.add_argument("--port", type=int, default=config.port, help="port of the API, or 0 for a free port")
    arguments = parser.parse_args()
    hide_memory()
    configure_logging()
    with locked(config.data):
        startup.prepare()
        supervisor = Supervisor(config, choose_port(config.host, arguments.port))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, supervisor.stop)
        return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
