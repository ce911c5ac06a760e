"""Connections: uvicorn's own, with time limits that uvicorn lacks and problem documents for requests that it cannot parse.

`SlowBodies` (`api/http/slow_bodies.py`) limits the time of bodies that a route reads. What happens before and after a route
is here: heads, bodies that are read after their response, and clients that do not read.
"""

import json
import time
from typing import Any

import structlog
import uuid6
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.http.errors import ApiError, BadRequest, HeadTooLarge, TooSlow
from api.http.observe import REQUESTS
from api.http.problem_documents import MEDIA_TYPE
from models.settings import settings

HEAD_BYTES = 64 * 2**10
"""Largest head of a request. One read of the socket may exceed it."""
MOST_PIPELINED = 16
"""Most requests that wait behind another one of their connection."""
CHECK_TICKS = 10
"""Number of uvicorn's ticks (0.1 s) between two checks of all connections."""

log = structlog.get_logger("api")


class Connection(HttpToolsProtocol):
    """A client's connection. The server calls `check` about once a second."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._limit = settings().client_seconds
        self._in_head = False
        self._head_bytes = 0
        self._since = time.monotonic()
        """Last time at which a request or a response began or ended."""
        self._unread, self._unread_since = 0, self._since
        """Bytes that the client has not read yet, and the time since which their number has not changed."""
        self._served: RequestResponseCycle | None = None
        """The request being handled, or the last one."""
        self._refusal: ApiError = BadRequest("The request is not valid HTTP/1.1.")

    def check(self) -> None:
        """End the connection if the client has been silent for too long."""
        now = time.monotonic()
        unread = self.transport.get_write_buffer_size()
        if unread != self._unread:
            self._unread, self._unread_since = unread, now
        if unread:
            if now - self._unread_since > self._limit:
                self.transport.abort()  # close() would wait until the client has read everything
        elif not self.transport.is_closing() and not self._busy and now - self._since > self._limit:
            if self._in_head:
                self._refuse(TooSlow(f"The head of the request did not arrive within {self._limit:g} seconds."))
            else:
                self.transport.close()

    @property
    def _busy(self) -> bool:
        return self._served is not None and not self._served.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._served is not None:  # uvicorn tells only the newest request, which may wait behind this one
            self._served.disconnected = True
            self._served.message_event.set()

    def data_received(self, data: bytes) -> None:
        was_in_head = self._in_head
        super().data_received(data)
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(HeadTooLarge(f"The head of the request has more than {HEAD_BYTES} bytes."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._since = time.monotonic()

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:
            self._refusal = BadRequest(f"More than {MOST_PIPELINED} requests wait on this connection.")
            raise ValueError("too many requests wait")  # ends the parser
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._since = time.monotonic()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal)

    def _refuse(self, error: ApiError) -> None:
        """Send an error and close. If another response is being sent, only close."""
        if self.transport.is_closing():
            return
        REQUESTS.labels("other", "none", str(error.status)).inc()
        log.info("connection_refused", status=error.status, detail=error.detail, client=self.client)
        if not self._busy:
            request_id = uuid6.uuid7().hex
            body = json.dumps(error.document(request_id)).encode()
            lines = (
                f"content-type: {MEDIA_TYPE}",
                f"content-length: {len(body)}",
                f"x-request-id: {request_id}",
                "connection: close",
            )
            head = STATUS_LINE[error.status] + "\r\n".join(lines).encode() + b"\r\n\r\n"
            self.transport.write(head + body)
        self.transport.close()
