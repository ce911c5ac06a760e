"""HEAD wherever GET is: the same answer without its body."""

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """ASGI middleware: a HEAD that no route knows is served as a GET, of which only the head is sent."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        refused = False

        async def unless_refused(message: Message) -> None:
            nonlocal refused
            refused = refused or (message["type"] == "http.response.start" and message["status"] == 405)
            if not refused:
                await send(message)

        await self.app(scope, receive, unless_refused)
        if refused:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = False

        async def head_alone(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                await send(message)
            elif not sent:
                sent = True
                await send({"type": "http.response.body", "body": b""})
            if sent and message.get("more_body"):
                raise ClientDisconnect  # a stream would go on for hours

        asked = {**scope, "method": "GET"}  # the server looks at its own while it sends
        try:
            await self.app(asked, receive, head_alone)
        except ClientDisconnect:
            return
        finally:
            scope.update({**asked, "method": "HEAD"})
