"""The two sets of parts that the service runs on, each with the outages that its parts can have."""

import ctypes
import os
import shutil
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import redis

from models.queue.wake_up import KINDS
from tests import servers
from tests.chaos.fleet import Member
from tests.chaos.own_servers import Postgres, Redis
from tests.chaos.proxy import Mode, Proxy

QUICK = {
    "lease_seconds": 4,
    "beat_seconds": 0.8,
    "sweep_seconds": 1,
    "checkpoint_seconds": 0.3,
    "engine_threads": 1,
    "device": "cpu",
    "most_lost_attempts": 30,
    "keep_orphans_hours": 20 / 3600,
    "requests_a_minute": 100_000,
    "queued_jobs": 100_000,
}
"""Lease and heartbeat of seconds; and no job may be given up, so that a single failure is a violation."""
AFTERMATH_SECONDS = 8.0


class Parts(ABC):
    """Database, broker and storage of one campaign, in `folder`."""

    name: str
    kinds: Sequence[str]
    """Its outages, in addition to those of processes."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings: dict[str, object] = dict(QUICK)
        self._database_down_at = self._database_up_at = -1e9

    @abstractmethod
    def __enter__(self) -> "Parts": ...

    @abstractmethod
    def __exit__(self, *exception: object) -> None: ...

    @abstractmethod
    def data(self, member: str) -> Path:
        """A process's data folder."""

    @property
    def pids(self) -> list[int]:
        """The servers' processes."""
        return []

    def member(self, name: str, port: int) -> Member:
        """Start a process of the service on these parts."""
        kind = name.partition("-")[0]
        arguments = ("-m", "api") if kind == "api" else ("-m", "worker", "--kind", kind)
        return Member(name, arguments, self.environment(name, port), self.folder / f"{name}.log")

    def environment(self, member: str, port: int) -> dict[str, str]:
        """Environment variables of a process of the service."""
        chosen = self.settings | {"data": self.data(member), "port": port}
        others = {key: value for key, value in os.environ.items() if not key.startswith("DISTILL_")}
        return others | {f"DISTILL_{key.upper()}": str(value) for key, value in chosen.items()}

    def database_was_unavailable_since(self, started_at: float) -> bool:
        """Whether a process that started at that time may have found the database unavailable."""
        return self._database_up_at < self._database_down_at or self._database_up_at > started_at - AFTERMATH_SECONDS

    def stop_database(self) -> None:
        raise NotImplementedError

    def start_database(self) -> None:
        raise NotImplementedError

    def stop_broker(self) -> None:
        raise NotImplementedError

    def start_broker(self) -> None:
        raise NotImplementedError

    def set_storage(self, mode: Mode) -> None:
        raise NotImplementedError

    @abstractmethod
    def triple_messages(self) -> int:
        """Send every waiting message two more times; returns how many waited."""

    @abstractmethod
    def delete_messages(self) -> int:
        """Delete every waiting message; returns how many."""


class Embedded(Parts):
    """SQLite, a folder, and a queue of files; all processes share them."""

    name = "embedded"
    kinds = ("triple_messages", "delete_messages", *(["storage_refuses"] if sys.platform == "linux" else []))

    def __enter__(self) -> "Embedded":
        self.data("api").mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *exception: object) -> None:
        return None

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

    def set_storage(self, mode: Mode) -> None:
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
        "storage_refuses", "storage_is_silent", "storage_is_slow",
    )  # fmt: skip

    def __enter__(self) -> "Production":
        self._stack = ExitStack()
        try:
            self._postgres = self._stack.enter_context(Postgres(self.folder / "postgres"))
            self._redis = self._stack.enter_context(Redis(self.folder / "redis"))
            s3 = self._stack.enter_context(servers.s3_server())
            where = urlsplit(s3.endpoint)
            assert where.hostname and where.port
            self._proxy = self._stack.enter_context(Proxy(where.hostname, where.port))
        except BaseException:
            self._stack.close()
            raise
        self.settings |= {
            "database_url": self._postgres.url,
            "broker_url": self._redis.url,
            "storage_url": f"s3://{s3.bucket}/{uuid.uuid4().hex}",
            "storage_endpoint": f"http://127.0.0.1:{self._proxy.port}",
            "storage_access_key": s3.access_key,
            "storage_secret_key": s3.secret_key,
        }
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def data(self, member: str) -> Path:
        return self.folder / "data" / member

    @property
    def pids(self) -> list[int]:
        return [*self._postgres.pids, *self._redis.pids]

    def stop_database(self) -> None:
        self._database_down_at = time.monotonic()
        self._postgres.stop()

    def start_database(self) -> None:
        self._postgres.start()
        self._database_up_at = time.monotonic()

    def stop_broker(self) -> None:
        self._redis.kill()

    def start_broker(self) -> None:
        self._redis.start()

    def set_storage(self, mode: Mode) -> None:
        self._proxy.set(mode)

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
