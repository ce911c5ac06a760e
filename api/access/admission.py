"""Middleware that authenticates a request before anything of its body is read."""

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import auth
from api.access.auth import Caller
from api.http.errors import NotFound, TooMany
from api.http.links import PREFIX
from api.http.problem_documents import error_of, respond


class Admission:
    """ASGI middleware: requests below the prefix need a valid key that is below its rate limit. Others are refused.

    The caller is in `request.state.caller`. Routes check the scopes.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(f"{PREFIX}/"):
            request = Request(scope)
            try:
                request.state.caller = await _admit(request)
            except Exception as error:
                if (known := error_of(error)) is None:
                    raise
                await respond(request, known)(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def _admit(request: Request) -> Caller:
    """The caller of a request.

    Raises:
        Unauthorised: the request has no valid key.
        TooMany: the key has sent too many requests.
        NotFound: the path contains a NUL character, which Postgres refuses and no id or name contains.
    """
    address = request.client.host if request.client else ""
    caller = await auth.caller_of(request.headers.get("authorization"), address)
    request.state.key_id = caller.key_id
    usage = auth.counted(caller, request.scope["state"])
    if usage is not None and usage.exceeded:
        detail = (
            f"This key may send {usage.quota} requests a minute, and has sent more. "
            f"Try again in {usage.reset_seconds} seconds."
        )
        raise TooMany(detail, headers={"Retry-After": str(usage.reset_seconds)})
    if "\0" in request.scope["path"]:
        raise NotFound("The path contains a NUL character, so it names nothing.")
    return caller
