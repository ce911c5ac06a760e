"""HTTP with retries of idempotent requests.

A request that is idempotent (GET, HEAD, PUT, DELETE, or a POST with an `Idempotency-Key`) is retried after a broken
connection and after 408, 429, 502, 503 and 504, with exponential back-off or after the time in `Retry-After`. Any other
request is retried only if it certainly did not reach the service. A 409 is never retried.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
import stamina

from distillery_client.errors import DistilleryError, Unreachable, refused

RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504})
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
MAX_RETRY_AFTER_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 8.0

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
        self.url = url
        self.attempts = attempts

    def close(self) -> None:
        self.http.close()

    def request(self, method: str, path: str, *, accept: tuple[int, ...] = (), **options: Any) -> httpx.Response:
        """Send a request, with retries; `options` are those of `httpx.Client.request`.

        Raises:
            Refused: the status is neither a success nor one of `accept`.
            Unreachable: there was no response.
        """
        return self.retry(
            lambda: self._send(method, path, accept, options), _is_idempotent(method, options.get("headers"))
        )

    def retry(self, call: Callable[[], T], idempotent: bool = True) -> T:
        """Run `call` with the retries of this module; httpx's errors become those of this package."""
        try:
            for attempt in stamina.retry_context(
                on=_pause(idempotent),
                attempts=self.attempts,
                timeout=None,
                wait_initial=FIRST_PAUSE_SECONDS,
                wait_max=MAX_PAUSE_SECONDS,
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
        """One request whose body the caller reads. It is not retried, because only the caller can resume the body."""
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


def _is_idempotent(method: str, headers: dict[str, str] | None) -> bool:
    return method in IDEMPOTENT_METHODS or "Idempotency-Key" in (headers or {})


def _pause(idempotent: bool) -> Callable[[Exception], bool | float]:
    """A hook for stamina, which returns False to give up, True for stamina's back-off, or the seconds to wait."""

    def pause(error: Exception) -> bool | float:
        if isinstance(error, httpx.HTTPStatusError):
            return idempotent and error.response.status_code in RETRIED_STATUSES and _requested_pause(error.response)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return True
        return (
            idempotent and isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
        )

    return pause


def _requested_pause(response: httpx.Response) -> bool | float:
    seconds = retry_after_seconds(response)
    if seconds is None:
        return True
    return seconds if seconds <= MAX_RETRY_AFTER_SECONDS else False


def retry_after_seconds(response: httpx.Response) -> float | None:
    """The time in `Retry-After`, in seconds from now; None if the header is missing or malformed."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time()) if value else None
    except ValueError:
        return None
