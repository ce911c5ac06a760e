"""Middleware that ends requests whose bodies arrive too slowly."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.errors import TooSlow
from models.settings import settings


class SlowBodies:
    """ASGI middleware: while a body is read, its bytes must arrive at a least rate, measured over `client_seconds`.

    Only the time that the service waits for the client counts. The exception is raised where the body is read, so that the
    route removes what it has stored.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            body = _Body(receive, send)
            receive, send = body.receive, body.send
        await self.app(scope, receive, send)


class _Body:
    def __init__(self, receive: Receive, send: Send):
        self._receive, self._send = receive, send
        self._window = settings().client_seconds
        self._least = settings().body_bytes_a_second * self._window
        self._waited = 0.0
        self._bytes = 0
        self._complete = self._responding = False

    async def receive(self) -> Message:
        if self._complete or self._responding:
            return await self._receive()  # waits for the end of the connection, which may take as long as it likes
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._window - self._waited):
                message = await self._receive()
        except TimeoutError:
            self._require_rate()
            return {"type": "http.request", "body": b"", "more_body": True}
        self._waited += time.monotonic() - began
        self._bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._waited >= self._window and not self._complete:
            self._require_rate()
        return message

    def _require_rate(self) -> None:
        """Begin a new measurement.

        Raises:
            TooSlow: fewer bytes than required arrived in the last one.
        """
        if self._bytes < self._least:
            raise TooSlow(
                f"The body arrives too slowly: {self._bytes} bytes in {self._window:g} seconds. Send at least"
                f" {settings().body_bytes_a_second} bytes a second."
            )
        self._waited, self._bytes = 0.0, 0

    async def send(self, message: Message) -> None:
        self._responding = True
        await self._send(message)
