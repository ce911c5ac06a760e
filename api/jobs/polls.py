"""The short way of a poll: `GET /v1/jobs/{id}` without dependencies and validation, of which it needs none.

Polling is most of what this service is asked. Whatever is not a plain poll that succeeds goes on to the app, which answers
it as if it had not been here: other requests, `Prefer: wait`, keys to look up, every error.
"""

import re

from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import auth
from api.access.auth import Caller
from api.http.errors import ApiError
from api.http.links import PREFIX
from api.jobs.answer import answer
from api.jobs.routes import router
from api.jobs.shared_reads import SharedReads

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
        headers = Headers(scope=scope)
        caller = auth.known_caller(headers.get("authorization"))
        if caller is None or SCOPE not in caller.scopes or "prefer" in headers:
            return False
        if not _counted(caller, scope):
            return False
        reads: SharedReads = scope["app"].state.reads
        try:
            shown = await reads.read(caller.key_id, job_id, headers.get("if-none-match"))
        except (ApiError, SQLAlchemyError):
            return False
        scope["route"] = self._route
        await answer(shown)(scope, receive, send)
        return True


def _counted(caller: Caller, scope: Scope) -> bool:
    """Count the request; False, without counting it, if the key has sent too many."""
    state = scope.setdefault("state", {})
    if caller.limits is not None:
        quota = caller.limits.requests_a_minute
        if auth.requests.count(caller.key_id, quota, more=0).used >= quota:
            return False
        state["rate"] = auth.requests.count(caller.key_id, quota).headers()
    state["key_id"] = caller.key_id
    return True
