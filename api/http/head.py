"""HEAD for every GET route: the same response without its body."""

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """ASGI middleware: handles a HEAD request without a route of its own as a GET, and sends only the headers."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        not_allowed = False

        async def send_unless_405(message: Message) -> None:
            nonlocal not_allowed
            not_allowed = not_allowed or (message["type"] == "http.response.start" and message["status"] == 405)
            if not not_allowed:
                await send(message)

        await self.app(scope, receive, send_unless_405)
        if not_allowed:
            await self._serve_as_get(scope, receive, send)

    async def _serve_as_get(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = False

        async def send_headers_only(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                await send(message)
            elif not sent:
                sent = True
                await send({"type": "http.response.body", "body": b""})
            if sent and message.get("more_body"):
                raise ClientDisconnect  # stops a stream, which could last for hours

        as_get = {**scope, "method": "GET"}  # a copy: the server reads the method of its own scope while it sends
        try:
            await self.app(as_get, receive, send_headers_only)
        except ClientDisconnect:
            return
        finally:
            scope.update({**as_get, "method": "HEAD"})
