"""The embedded queue: Celery's `filesystem://` transport with atomic writes.

In kombu's transport, a reader can read a message or a table of queues while it is being written. The empty text then
crashes the worker (about one message in a hundred, if two processes write as fast as they can). Here files are written
under a temporary name and then renamed.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem

Table = list[filesystem.exchange_queue_t]


class Channel(filesystem.Channel):
    """A channel whose messages and tables are written under a temporary name and renamed."""

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        name = f"{time.time_ns():020}_{uuid.uuid4()}.{queue}.msg"
        _write(Path(self.data_folder_out) / name, payload)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for name in sorted(os.listdir(self.data_folder_in)):  # noqa: PTH208 - only names are needed
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            taken = Path(self.processed_folder) / name
            try:
                (Path(self.data_folder_in) / name).rename(taken)
            except FileNotFoundError:  # another worker was faster
                continue
            text = taken.read_bytes()
            taken.unlink()
            return json.loads(text)
        raise Empty

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        entry = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self._change(exchange, lambda table: table if entry in table else [entry, *table])

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str, *args: Any, **kwargs: Any) -> None:
        self._purge(queue)  # type: ignore[no-untyped-call]
        entry = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self._change(exchange, lambda table: [other for other in table if other != entry])

    def _change(self, exchange: str, change: Callable[[Table], Table]) -> None:
        file: Path = self._exchange_file(exchange)  # type: ignore[no-untyped-call]
        with _locked(self.control_folder / "tables.lock"):
            before: Table = self.get_table(exchange)  # type: ignore[no-untyped-call]
            after = change(before)
            if after != before or not file.exists():
                _write(file, after)


class Transport(filesystem.Transport):
    """`filesystem://` with the channel above. Its options are kombu's; messages being read are in
    `processed_folder`."""

    Channel = Channel


def _write(path: Path, content: Any) -> None:
    partial = path.with_name(f".{uuid.uuid4()}.part")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        filesystem.lock(file, filesystem.LOCK_EX)  # type: ignore[no-untyped-call]
        yield  # closing the file unlocks it
