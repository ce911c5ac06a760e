"""HTTP with retries: what may be repeated is repeated, everything else is not.

A request that may be repeated (GET, HEAD, PUT, DELETE, or a POST with an `Idempotency-Key`) is sent again after a
broken connection and after 408, 429, 502, 503 and 504, with exponential back-off or as `Retry-After` says. Any other
request is sent again only when it certainly did not arrive. 409 is an answer, never a reason to repeat.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
import stamina

from distillery_client.errors import DistilleryError, Unreachable, refused

REPEATED_STATUSES = frozenset({408, 429, 502, 503, 504})
REPEATABLE_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
LONGEST_RETRY_AFTER_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 8.0

T = TypeVar("T")


class Connection:
    """A pool of connections to one service, with its key."""

    def __init__(
        self,
        url: str,
        key: str,
        timeout_seconds: float = 30.0,
        attempts: int = 8,
        transport: httpx.BaseTransport | None = None,
    ):
        self.http = httpx.Client(
            base_url=f"{url}/v1/",
            headers={"Authorization": f"Bearer {key}", "User-Agent": "distillery_client"},
            timeout=timeout_seconds,
            transport=transport,
        )
        self.url, self.attempts = url, attempts

    def close(self) -> None:
        self.http.close()

    def request(self, method: str, path: str, *, accept: tuple[int, ...] = (), **options: Any) -> httpx.Response:
        """The answer to a request; `options` are those of `httpx.Client.request`.

        Raises:
            Refused: the status is neither a success nor one of `accept`.
            Unreachable: there was no answer.
        """
        return self.repeat(
            lambda: self._send(method, path, accept, options), _repeatable(method, options.get("headers"))
        )

    def repeat(self, call: Callable[[], T], repeatable: bool = True) -> T:
        """What `call` returns, called again as the module says; httpx's errors become this package's."""
        try:
            for attempt in stamina.retry_context(
                on=_pause(repeatable),
                attempts=self.attempts,
                timeout=None,
                wait_initial=FIRST_PAUSE_SECONDS,
                wait_max=LONGEST_PAUSE_SECONDS,
                wait_jitter=FIRST_PAUSE_SECONDS,
            ):
                with attempt:
                    return call()
        except httpx.HTTPStatusError as error:
            raise refused(error.response) from error
        except httpx.TransportError as error:
            raise Unreachable(f"{self.url} does not answer: {error or type(error).__name__}") from error
        raise DistilleryError("a request was never sent")

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """One request whose body is read by the caller; no retries here, since the caller knows where to go on."""
        with self.http.stream(method, path, **options) as response:
            if response.is_error:
                response.read()
                response.raise_for_status()
            yield response

    def _send(self, method: str, path: str, accept: tuple[int, ...], options: dict[str, Any]) -> httpx.Response:
        content = options.get("content")
        prepared = options | {"content": content()} if callable(content) else options
        response = self.http.request(method, path, **prepared)
        if not response.is_success and response.status_code not in accept:
            raise httpx.HTTPStatusError(response.reason_phrase, request=response.request, response=response)
        return response


def _repeatable(method: str, headers: dict[str, str] | None) -> bool:
    return method in REPEATABLE_METHODS or "Idempotency-Key" in (headers or {})


def _pause(repeatable: bool) -> Callable[[Exception], bool | float]:
    """For stamina: False to give up, True for its own back-off, or the seconds to wait."""

    def pause(error: Exception) -> bool | float:
        if isinstance(error, httpx.HTTPStatusError):
            return repeatable and error.response.status_code in REPEATED_STATUSES and _wished(error.response)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return True
        return (
            repeatable and isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
        )

    return pause


def _wished(response: httpx.Response) -> bool | float:
    seconds = retry_after_seconds(response)
    if seconds is None:
        return True
    return seconds if seconds <= LONGEST_RETRY_AFTER_SECONDS else False


def retry_after_seconds(response: httpx.Response) -> float | None:
    """What `Retry-After` asks for, in seconds from now; None where it is missing or makes no sense."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time()) if value else None
    except ValueError:
        return None
