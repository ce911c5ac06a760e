"""`python -m api`: bring the database up, and serve."""

import asyncio
import signal
import sys
from types import FrameType
from typing import NoReturn

import structlog
import uvicorn

from api.main import app
from models import logs, migrate
from models.secrecy import hide_memory
from models.settings import settings

GRACE_SECONDS = 10
"""Requests that are being served have so long to end."""


class Server(uvicorn.Server):
    """A server that, asked to end, sends home those who wait for news, so that it need not wait for them."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        asyncio.get_running_loop().call_soon_threadsafe(app.state.watch.close)
        super().handle_exit(sig, frame)


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """End with success: the server raises its signal once more when it has ended in good order."""
    sys.exit(0)


def main() -> None:
    """Serve until a signal."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    hide_memory()
    logs.configure()
    migrate.prepare()
    config = uvicorn.Config(
        app,
        host=settings().host,
        port=settings().port,
        log_config=None,  # what it says goes to the root logger
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    structlog.get_logger("api").info("listening", host=settings().host, port=settings().port)
    Server(config).run()


if __name__ == "__main__":
    main()
