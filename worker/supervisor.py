"""The embedded service as one command: `python -m worker.supervisor` starts the API and a worker of each kind.

A child that dies is started again, later each time; one that keeps dying ends them all. SIGINT and SIGTERM end them in
good order: a running job leaves a checkpoint.
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

from models import migrate
from models.secrecy import hide_memory
from models.settings import Settings, settings
from worker.app import configure_logging

CHECKOUT = Path(__file__).resolve().parent.parent
CHILDREN = {
    "api": ("-m", "api"),
    "distill": ("-m", "worker", "--kind", "distill"),
    "inspect": ("-m", "worker", "--kind", "inspect"),
}
LOOK_SECONDS = 0.2
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
STEADY_SECONDS = 30.0
"""A child that has lived so long is steady: if it dies, it is started again at once."""
MOST_DEATHS = 6
"""A child that dies so often in a row is not started again."""
EXIT_SECONDS = 15.0
"""Beyond the grace of a drain, children have so long to end."""
READY_SECONDS = 60.0

log = structlog.get_logger(__name__)


class Child:
    """One process of the service, and when to start it again."""

    def __init__(self, name: str, environment: dict[str, str]):
        self.name, self._environment = name, environment
        self.deaths = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._begun = self._due = 0.0

    def start(self) -> None:
        """Start it, tied to this process."""
        self._begun = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker.tether", str(os.getpid()), sys.executable, *CHILDREN[self.name]],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the supervisor, which tells its children in good order
        )

    def tend(self) -> bool:
        """Start it again if it has died and its pause is over; false if it has died too often."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._due:
                self.start()
            return True
        code = self.process.poll()
        if code is None:
            return True
        self.process = None
        self.deaths = 1 if now - self._begun >= STEADY_SECONDS else self.deaths + 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (self.deaths - 1))
        self._due = now + pause
        log.warning("child_died", child=self.name, code=code, again_in_seconds=pause, deaths=self.deaths)
        return self.deaths < MOST_DEATHS

    def ask_to_end(self) -> None:
        """Send SIGTERM, if it lives."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def end(self, deadline: float) -> None:
        """Wait for its end, and kill it when time is up."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("child_killed", child=self.name)
            self.process.kill()
            self.process.wait()


class Supervisor:
    """The children of one data folder. `run` returns an exit code once they have all ended."""

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
        """End the service; also a signal's handler."""
        self._stopping.set()

    def run(self) -> int:
        """Start the children and keep them until told to stop."""
        for child in self.children:
            child.start()
        announced, begun = False, time.monotonic()
        try:
            while not self._stopping.wait(LOOK_SECONDS):
                tended = [child.tend() for child in self.children]
                if not all(tended):
                    log.error("child_keeps_dying")
                    return 1
                if not announced and (warnings := self._readiness()) is not None:
                    announced = True
                    self._announce(warnings)
                if not announced and time.monotonic() - begun > READY_SECONDS:
                    log.error("service_does_not_become_ready", url=self.url, seconds=READY_SECONDS)
                    return 1
            return 0
        finally:
            self._file.unlink(missing_ok=True)
            self._end_all()

    @property
    def _file(self) -> Path:
        return self._config.data / "service.json"

    def _readiness(self) -> list[str] | None:
        """What the service warns of; None while it is not ready."""
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=2) as answer:
                said = json.load(answer)
        except (urllib.error.URLError, OSError, ValueError):
            return None
        there = {worker["kind"] for worker in said["workers"]}
        return said["warnings"] if set(CHILDREN) - {"api"} <= there else None

    def _announce(self, warnings: Sequence[str]) -> None:
        """Say where the service is, to people and, by `service.json`, to the client."""
        content = {"url": self.url, "key_file": self._config.key_file.name, "process": os.getpid()}
        partial = self._file.with_suffix(".part")
        partial.write_text(json.dumps(content))
        partial.replace(self._file)
        said = [f"Distillery is at {self.url}", f"The key lies in {self._config.key_file}"]
        print(*said, *(f"WARNING: {warning}" for warning in warnings), sep="\n", flush=True)

    def _end_all(self) -> None:
        for child in self.children:
            child.ask_to_end()
        deadline = time.monotonic() + self._config.drain_grace_seconds + EXIT_SECONDS
        for child in self.children:
            child.end(deadline)


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def choose_port(host: str, port: int) -> int:
    """The port itself, or a free one for 0.

    Raises:
        SystemExit: it is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            sys.exit(f"Port {port} of {host} cannot be used ({error.strerror}): choose another with --port, 0 for any.")
        return int(listener.getsockname()[1])


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """Hold a data folder for this supervisor.

    Raises:
        SystemExit: another one has it.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data / "supervisor.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"A service is running on {data} already.")
        yield


def main() -> int:
    """Serve until a signal; returns the exit code."""
    config = settings()
    parser = argparse.ArgumentParser(prog="python -m worker.supervisor", description="Start the embedded service.")
    parser.add_argument("--port", type=int, default=config.port, help="port of the API; 0 for a free one")
    arguments = parser.parse_args()
    hide_memory()
    configure_logging()
    with alone(config.data):
        migrate.prepare()
        supervisor = Supervisor(config, choose_port(config.host, arguments.port))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, supervisor.stop)
        return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
