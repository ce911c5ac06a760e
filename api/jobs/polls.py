"""The short way of a poll: `GET /v1/jobs/{id}` without dependencies and validation, of which it needs none.

Polling is most of what this service is asked. Whatever is not a plain poll that succeeds goes on to the app, which answers
it as if it had not been here: other requests, `Prefer: wait`, keys to look up, every error.
"""

import re

from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import auth
from api.http.errors import ApiError
from api.http.links import PREFIX
from api.jobs.answer import answer
from api.jobs.crowds import Crowds
from api.jobs.routes import router

PATH = re.compile(f"{PREFIX}{router.prefix}/(job_[0-9a-f]{{32}})")
SCOPE = "jobs:read"


class Polls:
    """ASGI middleware: answers plain polls of jobs."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self._route = next(route for route in router.routes if getattr(route, "operation_id", None) == "get_job")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if found is None or not await self._answer(found[1], scope, receive, send):
            await self.app(scope, receive, send)

    async def _answer(self, job_id: str, scope: Scope, receive: Receive, send: Send) -> bool:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        caller = auth.known_caller(headers.get(b"authorization", b"").decode("latin-1"))
        if caller is None or SCOPE not in caller.scopes or b"prefer" in headers or len(headers) < len(scope["headers"]):
            return False
        state = scope.setdefault("state", {})
        usage = auth.counted(caller, state)
        if usage is not None and usage.exceeded:
            return False
        known = headers.get(b"if-none-match")
        crowds: Crowds = scope["app"].state.crowds
        try:
            shown = await crowds.read(caller.key_id, job_id, None if known is None else known.decode("latin-1"))
        except (ApiError, SQLAlchemyError):
            return False
        state["key_id"] = caller.key_id
        scope["route"] = self._route
        await answer(shown)(scope, receive, send)
        return True
