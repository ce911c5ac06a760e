"""The service as `docker-compose.yml` starts it, without containers.

The commands, the variables, the secrets and the files of each image are those of the compose file, the Dockerfile and
`docs/deploy/make_secrets.py`; addresses, ports and folders are this machine's. Any real Postgres replaces the Postgres
container, which needs its own image's entry point.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import make_url, text

from distillery_client import Client
from tests import servers
from tests.integration.whole import QUICK, ROOT, eventually

WORKERS = ("distill", "inspect")
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
STOP_SECONDS = 30.0


def dockerfile() -> dict[str, dict[str, list[str]]]:
    """The instructions of each target, those of its base stages first: target → instruction → arguments."""
    lines = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()
    targets: dict[str, dict[str, list[str]]] = {}
    current: dict[str, list[str]] = {}
    for line in lines:
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            current = {key: list(values) for key, values in targets.get(base, {}).items()}
            targets[name] = current
        elif instruction.isupper():
            current.setdefault(instruction, []).append(rest)
    return targets


def variables(target: str) -> dict[str, str]:
    """The environment variables that an image sets."""
    pairs = [pair.split("=", 1) for line in dockerfile()[target]["ENV"] for pair in shlex.split(line)]
    return {name: value for name, value in pairs}  # noqa: C416 - a list of two strings is not a pair for mypy


class Composed:
    """The services of the compose file as processes, in their own folder."""

    def __init__(self, folder: Path, postgres: servers.Postgres, **settings: str):
        self.folder, self.postgres = folder, postgres
        self.settings = {f"DISTILL_{name.upper()}": value for name, value in (QUICK | settings).items()}
        self.port, self.redis_port, *self.weed_ports = servers._free_ports(10)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @contextmanager
    def running(self) -> Iterator["Composed"]:
        """Start everything in the order of `depends_on`, wait until it is healthy, and stop it at the end."""
        with ExitStack() as stack:
            subprocess.run([sys.executable, str(ROOT / "docs/deploy/make_secrets.py")], cwd=self.folder, check=True)
            self._address_secrets(stack)
            stack.enter_context(servers._running(self._redis(), self._made("redis"), self._redis_answers))
            stack.enter_context(servers._running(self._weed(), self._made("s3"), self._weed_answers))
            self._make_bucket()
            stack.callback(self.stop)
            self._run("migrate", "api").wait()
            assert self.processes.pop("migrate").returncode == 0, self.log()
            for name, image in (("api", "api"), *((kind, "worker") for kind in WORKERS)):
                self._run(name, image)
            for name in ("api", *WORKERS):
                eventually(lambda name=name: self.healthy(name), f"{name} is healthy")
            yield self

    def client(self) -> Client:
        key = (self.folder / "api" / "data" / "key").read_text().strip()
        return Client(f"http://127.0.0.1:{self.port}", key)

    def healthy(self, name: str) -> bool:
        """The result of the health check of a service's container."""
        assert name not in self.processes or self.processes[name].poll() is None, self.log()
        if name == "api":
            (check,) = dockerfile()["api"]["HEALTHCHECK"]
            command = json.loads(check.partition("CMD ")[2].replace(":8000", f":{self.port}"))
        else:
            command = shlex.split(COMPOSE["services"][name]["healthcheck"]["test"])
        image = "api" if name == "api" else "worker"
        place = self._place(name, image)
        done = subprocess.run(_python(command), cwd=place, env=self._environment(name, image), capture_output=True)
        return done.returncode == 0

    def stop(self) -> dict[str, int]:
        """Stop the processes as `docker compose stop` does; returns their exit codes."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        codes = {}
        for name, process in self.processes.items():
            try:
                codes[name] = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        self.processes.clear()
        return codes

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def _run(self, name: str, image: str) -> subprocess.Popen[bytes]:
        said = COMPOSE["services"][name].get("command")
        command = shlex.split(said) if said else json.loads(dockerfile()[image]["CMD"][-1])
        with (self.folder / "log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                _python(command),
                cwd=self._place(name, image),
                env=self._environment(name, image),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.processes[name]

    def _place(self, name: str, image: str) -> Path:
        """The working folder of a container: what its image copies from the checkout, and the settings."""
        place = self.folder / name / "srv"
        if not place.exists():
            place.mkdir(parents=True)
            for line in dockerfile()[image]["COPY"]:
                if line.startswith("--from="):
                    continue  # made by another stage: here it is in the checkout already
                *sources, _ = line.split()
                for source in map(ROOT.joinpath, sources):
                    copy = shutil.copytree if source.is_dir() else shutil.copyfile
                    copy(source, place / source.name)
            (place / ".env").symlink_to(self.folder / ".secrets" / "distillery.env")
        return place

    def _environment(self, name: str, image: str) -> dict[str, str]:
        inherited = {key: os.environ[key] for key in ("PATH", "OMP_NUM_THREADS") if key in os.environ}
        said = {key: str(value) for key, value in COMPOSE["services"][name].get("environment", {}).items()}
        data = self._made(name) / "data"
        here = {"DISTILL_DATA": str(data), "DISTILL_HOST": "127.0.0.1", "DISTILL_PORT": str(self.port)}
        return inherited | variables(image) | said | self.settings | here

    def _made(self, name: str) -> Path:
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name

    def _address_secrets(self, stack: ExitStack) -> None:
        """Replace the services' names by this machine's addresses, and create the role and its database."""
        path = self.folder / ".secrets" / "distillery.env"
        lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
        database = self.postgres.create()
        stack.callback(self.postgres.drop, database)
        wanted, role = make_url(lines["DISTILL_DATABASE_URL"]), make_url(database).database
        with self.postgres.administrator() as connection:
            connection.execute(text(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{wanted.password}'"))
            connection.execute(text(f'ALTER DATABASE "{role}" OWNER TO "{role}"'))
        stack.callback(self._drop_role, role)
        here = make_url(database).set(username=role, password=wanted.password)
        lines["DISTILL_DATABASE_URL"] = here.render_as_string(hide_password=False)
        lines["DISTILL_BROKER_URL"] = f"redis://127.0.0.1:{self.redis_port}/0"
        lines["DISTILL_STORAGE_ENDPOINT"] = f"http://127.0.0.1:{self.weed_ports[0]}"
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def _drop_role(self, role: str | None) -> None:
        with self.postgres.administrator() as connection:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{role}" WITH (FORCE)'))
            connection.execute(text(f'DROP ROLE "{role}"'))

    def _redis(self) -> list[str]:
        _, *options = shlex.split(COMPOSE["services"]["redis"]["command"])
        return [servers._redis_program(), *options, "--port", str(self.redis_port), "--bind", "127.0.0.1"]

    def _redis_answers(self) -> bool:
        return servers._pings(f"redis://127.0.0.1:{self.redis_port}/0")

    def _weed(self) -> list[str]:
        said = COMPOSE["services"]["s3"]["command"].replace("-dir=/data", f"-dir={self._made('s3')}")
        said = said.replace("-ip=s3", "-ip=127.0.0.1").replace("0.0.0.0", "127.0.0.1")
        said = said.replace("/run/secrets/s3", str(self.folder / ".secrets" / "s3.json"))
        ports = [f"-{name}={port}" for name, port in zip(servers.WEED_PORTS, self.weed_ports, strict=True)]
        spared = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", "-volume.max=0"]
        return [str(servers.weed_program()), *shlex.split(said), *ports, *spared, "-master.volumeSizeLimitMB=64"]

    def _weed_answers(self) -> bool:
        """The health check of the compose file."""
        check = str(COMPOSE["services"]["s3"]["healthcheck"]["test"]).split()[-1]
        try:
            with urllib.request.urlopen(check.replace(":8333", f":{self.weed_ports[0]}"), timeout=1):
                return True
        except OSError:
            return False

    def _make_bucket(self) -> None:
        ports = dict(zip(servers.WEED_PORTS, self.weed_ports, strict=True))
        *shell, script = COMPOSE["services"]["bucket"]["entrypoint"]
        script = script.replace("s3:9333", f"127.0.0.1:{ports['master.port']}.{ports['master.port.grpc']}")
        path = f"{servers.weed_program().parent}:{os.environ['PATH']}"
        for _ in range(2):  # a second `docker compose up` starts it again
            subprocess.run([*shell, script], env={"PATH": path}, check=True, capture_output=True, timeout=60)


def _python(command: list[str]) -> list[str]:
    return [sys.executable if word == "python" else word for word in command]
