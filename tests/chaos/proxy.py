"""A TCP proxy that can refuse connections, hang, be slow, or tear connections."""

import asyncio
import random
import threading
from collections.abc import Coroutine
from typing import Any, Literal

Mode = Literal["open", "refusing", "silent", "slow", "torn"]
LATENCY_SECONDS = 0.2
CHUNK_BYTES = 1 << 16
TORN_BYTES = 1 << 15
"""Bytes after which a torn connection ends, on average."""


class Proxy:
    """Forwards bytes between its own `port` and a server. `set` changes the mode for old and new connections. `latency` is
    the delay of each chunk while it is slow, in seconds; `seed` decides where connections are torn."""

    def __init__(self, host: str, port: int, latency: float = LATENCY_SECONDS, seed: int = 0):
        self._target, self._mode, self._latency = (host, port), "open", latency
        self._dice = random.Random(f"proxy {seed}")
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.port = 0

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self.set("open")
        return self

    def __exit__(self, *exception: object) -> None:
        self.set("refusing")
        self._do(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set(self, mode: Mode) -> None:
        """Switch to this mode; returns when it is in effect."""
        self._do(self._change(mode))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _change(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "silent":
            self._open.clear()
        else:
            self._open.set()
        if mode == "refusing":
            if self._server is not None:
                self._server.close()
                self._server = None
            for writer in list(self._writers):
                writer.transport.abort()
            await asyncio.sleep(0)
        elif self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _leave(self) -> None:
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._open.wait()
            there, back = await asyncio.open_connection(*self._target)
            self._writers.add(back)
            both = [self._pump(reader, back), self._pump(there, writer)]
            await asyncio.gather(*(self._until_torn(pump, writer, back) for pump in both), return_exceptions=True)
            self._writers.discard(back)
            back.close()
        except OSError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _until_torn(
        self, pump: Coroutine[Any, Any, None], writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        """Run one direction; if it is torn, end both."""
        try:
            await pump
        except ConnectionError:
            back.close()  # what was written is still sent
            writer.close()
            raise

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK_BYTES):
            await self._open.wait()
            if self._mode == "slow":
                await asyncio.sleep(self._latency)
            if self._mode == "torn" and self._dice.random() < len(data) / TORN_BYTES:
                sink.write(data[: self._dice.randrange(len(data))])
                raise ConnectionResetError
            sink.write(data)
            await sink.drain()
        sink.write_eof()
