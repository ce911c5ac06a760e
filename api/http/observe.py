"""Middleware for observability: request ids, access log, request metrics and unhandled exceptions."""

import re
import time
from collections.abc import Mapping
from functools import lru_cache

import structlog
import uuid6
from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.errors import Internal
from api.http.links import PREFIX, set_base
from api.http.problem_documents import respond
from models.storage.errors import StorageError

REQUESTS = Counter("distillery_http_requests", "HTTP requests.", ["method", "route", "status"])
SECONDS = Histogram(
    "distillery_http_request_seconds", "Seconds until the last byte of a response.", ["method", "route"]
)
ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CLIENT_CLOSED = 499

log = structlog.get_logger("api")


class Observe:
    """ASGI middleware around the whole app.

    The request id comes from `X-Request-ID` or is generated. It is in the response header, in every problem document and
    in every log line. An unhandled exception becomes a 500 without internal details.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # the first of several counts
        scope.setdefault("state", {})["request_id"] = request_id = _request_id(headers)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        server = tuple(scope.get("server") or ()) or None  # a list from some servers, which no cache takes
        set_base(_base(scope["scheme"], headers.get(b"host"), server, scope.get("root_path", "")))
        started = time.perf_counter()
        status = 0
        streamed = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, streamed
            if message["type"] == "http.response.start":
                status = message["status"]
                streamed = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    *_rate_headers(scope),
                ]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = status or CLIENT_CLOSED
        except Exception as error:
            if status and isinstance(error, StorageError):
                log.error(
                    "response_aborted", path=scope["path"], error=str(error)
                )  # the client sees that it ends early
            else:
                log.exception("request_failed", path=scope["path"])
            if not status:
                error = Internal("The service failed. Report the request id to its operator, who finds it in the log.")
                await respond(Request(scope, receive), error)(scope, receive, send_with_headers)
        finally:
            _record(scope, status or CLIENT_CLOSED, time.perf_counter() - started, streamed)
            structlog.contextvars.unbind_contextvars("request_id")


def _rate_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Rate limit headers; empty until the request is authenticated."""
    found = scope.get("state", {}).get("rate") or {}
    return [(name.lower().encode(), value.encode()) for name, value in found.items()]


def current_request_id() -> str | None:
    """The id of the current request."""
    found: str | None = structlog.contextvars.get_contextvars().get("request_id")
    return found


@lru_cache(maxsize=256)
def _base(scheme: str, host: bytes | None, server: tuple[str, int | None] | None, root_path: str) -> str:
    """The URL of the app as the client sees it."""
    headers = [] if host is None else [(b"host", host)]
    scope = {
        "type": "http",
        "scheme": scheme,
        "server": server,
        "root_path": root_path,
        "path": "/",
        "headers": headers,
    }
    return str(Request(scope).base_url)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if ACCEPTABLE_ID.fullmatch(given) else uuid6.uuid7().hex


def _record(scope: Scope, status: int, seconds: float, streamed: bool) -> None:
    # label with the route template, not the path, to keep the number of label values small
    route = getattr(scope.get("route"), "path", "none")
    if route != "none" and scope["path"].startswith(f"{PREFIX}/"):
        route = f"{PREFIX}{route}"  # FastAPI's route path lacks the prefix
    method = scope["method"] if scope["method"] in _METHODS else "other"
    _requests(method, route, status).inc()
    if not streamed:  # the duration of an event stream is not a latency
        _seconds(method, route).observe(seconds)
    key = scope.get("state", {}).get("key_id")
    log.info(
        "request", method=method, path=scope["path"], status=status, milliseconds=round(seconds * 1000, 1), key=key
    )


@lru_cache(maxsize=1024)
def _requests(method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(method, route, str(status))


@lru_cache(maxsize=1024)
def _seconds(method: str, route: str) -> Histogram:
    return SECONDS.labels(method, route)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
