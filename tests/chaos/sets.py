"""The two sets of parts that the service runs on, each with the outages that its parts can have."""

import ctypes
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import redis
from sqlalchemy import make_url

from models.queue.wake_up import KINDS
from tests import servers
from tests.chaos.disks import can_mount
from tests.chaos.fleet import Member
from tests.chaos.own_servers import Postgres, Redis
from tests.chaos.parts import Parts
from tests.chaos.proxy import Mode, Proxy


class Embedded(Parts):
    """SQLite, a folder, and a queue of files; all processes share them."""

    name = "embedded"
    needed_to_start = ("database", "storage")
    kinds = (
        "triple_messages", "delete_messages", *(["storage_refuses"] if sys.platform == "linux" else []),
        *(["disk_full"] if can_mount() else []),
    )  # fmt: skip

    def __enter__(self) -> "Embedded":
        self.data("api").mkdir(parents=True, exist_ok=True)
        self.add_disk(self.data("api"))
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove_disks()

    def data(self, member: str) -> Path:
        return self.folder / "data"

    @property
    def _messages(self) -> Path:
        return self.folder / "data" / "queue" / "messages"

    def triple_messages(self) -> int:
        waiting = list(self._messages.glob("*.msg"))
        for message in waiting:
            for _ in range(2):
                copy = message.with_name(f"{time.time_ns():020}_{uuid.uuid4()}.{message.name.partition('.')[2]}")
                partial = copy.with_name(f".{uuid.uuid4()}.part")
                try:
                    shutil.copyfile(message, partial)
                except FileNotFoundError:
                    continue  # a worker was faster
                partial.rename(copy)
        return len(waiting)

    def delete_messages(self) -> int:
        waiting = list(self._messages.glob("*.msg"))
        for message in waiting:
            message.unlink(missing_ok=True)
        return len(waiting)

    def set_mode(self, part: str, mode: Mode) -> None:
        """Exchange the folder of blobs with a file, so that every read or write in it fails."""
        blobs, hidden = self.folder / "data" / "blobs", self.folder / "data" / "no-blobs"
        if not hidden.exists():
            hidden.write_bytes(b"")
        if blobs.is_dir() == (mode != "open"):
            exchange(blobs, hidden)


class Production(Parts):
    """Postgres, Redis and S3 servers of this campaign; S3 is behind a proxy. Each process has its own data folder,
    as on separate machines."""

    name = "production"
    kinds = (
        "database_stops", "broker_dies", "triple_messages", "delete_messages",
        "storage_refuses", "storage_is_silent", "storage_is_slow", "storage_is_torn",
        "database_is_slow", "database_is_torn", "database_is_silent", "broker_is_slow", "broker_is_torn", "broker_is_silent",
        *(["disk_full"] if can_mount() else []),
    )  # fmt: skip
    latencies = {"storage": 0.2, "database": 0.03, "broker": 0.2}
    """Seconds that each chunk takes longer while a part is slow."""

    def __enter__(self) -> "Production":
        self._stack = ExitStack()
        try:
            self._postgres = self._stack.enter_context(Postgres(self.folder / "postgres"))
            self._redis = self._stack.enter_context(Redis(self.folder / "redis"))
            s3 = self._stack.enter_context(servers.s3_server())
            where = urlsplit(s3.endpoint)
            assert where.hostname and where.port
            targets = {
                "storage": (where.hostname, where.port),
                "database": ("127.0.0.1", self._postgres.port),
                "broker": ("127.0.0.1", self._redis.port),
            }
            self._proxies = {
                part: self._stack.enter_context(Proxy(host, port, self.latencies[part], self.seed))
                for part, (host, port) in targets.items()
            }
            self._stack.callback(self.remove_disks)
        except BaseException:
            self._stack.close()
            raise
        self.settings |= {
            "database_url": self._through("database", self._postgres.url),
            "broker_url": self._through("broker", self._redis.url),
            "storage_url": f"s3://{s3.bucket}/{uuid.uuid4().hex}",
            "storage_endpoint": self._through("storage", s3.endpoint),
            "storage_access_key": s3.access_key,
            "storage_secret_key": s3.secret_key,
        }
        self._endpoint = s3.endpoint
        return self

    def _through(self, part: str, url: str) -> str:
        """The URL of a part by its proxy."""
        return make_url(url).set(port=self._proxies[part].port).render_as_string(hide_password=False)

    def direct_settings(self) -> dict[str, object]:
        return self.settings | {"database_url": self._postgres.url, "storage_endpoint": self._endpoint}

    def member(self, name: str, port: int) -> Member:
        self.add_disk(self.data(name))
        return super().member(name, port)

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def data(self, member: str) -> Path:
        return self.folder / "data" / member

    @property
    def pids(self) -> list[int]:
        return [*self._postgres.pids, *self._redis.pids]

    def stop_database(self) -> None:
        self.impair()
        self._postgres.stop()

    def start_database(self) -> None:
        self._postgres.start()
        self.repair()

    def stop_broker(self) -> None:
        self._redis.kill()

    def start_broker(self) -> None:
        self._redis.start()

    def set_mode(self, part: str, mode: Mode) -> None:
        self._proxies[part].set(mode)

    def triple_messages(self) -> int:
        waiting = 0
        with self._broker() as client:
            for kind in KINDS:
                messages = client.lrange(kind, 0, -1)
                waiting += len(messages)
                if messages:
                    client.rpush(kind, *messages, *messages)
        return waiting

    def delete_messages(self) -> int:
        waiting = 0
        with self._broker() as client:
            waiting = sum(client.llen(kind) for kind in KINDS)
            client.delete(*KINDS)
        return waiting

    @contextmanager
    def _broker(self) -> Iterator[redis.Redis]:
        try:
            with redis.Redis.from_url(self._redis.url) as client:
                yield client
        except redis.ConnectionError:
            return  # it has just been killed and has no messages


def exchange(one: Path, other: Path) -> None:
    """Exchange two names atomically."""
    here, rename_exchange = -100, 2
    done = ctypes.CDLL(None, use_errno=True).renameat2(here, bytes(one), here, bytes(other), rename_exchange)
    if done != 0:
        raise OSError(ctypes.get_errno(), f"{one} and {other} cannot be exchanged")


SETS = {parts.name: parts for parts in (Production, Embedded)}
