"""`python -m api`: migrate or check the database, then serve."""

import asyncio
import gc
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn

import structlog
import uvicorn

from api import allocator
from api.access.auth import ensure_first_key
from api.http.connections import CHECK_TICKS, Connection
from api.main import app, end_waiting
from models import logs, startup
from models.cannot_start import CannotStart, explained
from models.secrecy import hide_memory
from models.settings import settings

SWITCH_SECONDS = 0.0005
"""Longest time that the event loop keeps the interpreter while a thread with an answer of the database waits for it, instead of
Python's 5 ms."""
GRACE_SECONDS = 10
"""Time that open requests have to finish after a signal."""


class Server(uvicorn.Server):
    """A server that ends silent connections, and on a signal all long polls and event streams, so that its shutdown does not
    wait for them."""

    async def on_tick(self, counter: int) -> bool:
        if counter % CHECK_TICKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        asyncio.get_running_loop().call_soon_threadsafe(end_waiting, app)
        super().handle_exit(sig, frame)


def exit_cleanly(number: int, frame: FrameType | None) -> NoReturn:
    """Exit with code 0. Uvicorn raises the signal again after a graceful shutdown."""
    sys.exit(0)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, exit_cleanly)
    hide_memory()
    allocator.return_large_blocks()
    startup.prepare()
    logs.configure()
    with explained():
        listener = _listen(settings().host, settings().port)
        ensure_first_key()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # a full collection of what is imported stops all requests for 90 ms
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,  # uvicorn logs to the root logger
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    structlog.get_logger("api").info("listening", host=settings().host, port=settings().port)
    Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise CannotStart(
            f"Port {port} on {host} cannot be used ({error.strerror}). Set DISTILL_PORT or DISTILL_HOST to another."
        ) from error


if __name__ == "__main__":
    main()
