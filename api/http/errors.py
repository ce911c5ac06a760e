"""Every error that the API answers with, as one tree.

    ApiError                        status, title, a sentence, perhaps pointers and headers
    ├── BadRequest              400 the request cannot be read
    │   ├── MalformedJson           the body is not JSON
    │   ├── BadHeader               a header cannot be read
    │   ├── BadCursor               the cursor is not one of ours
    │   ├── DigestMismatch          the bytes are not those that a digest header names
    │   └── NoBytes                 an upload without bytes
    ├── Unauthorised            401 no key, or a key that is not known
    ├── Forbidden               403 the key has not the scope that this needs
    ├── NotFound                404 there is no such thing, or it belongs to another key
    ├── MethodNotAllowed        405
    ├── Conflict                409 the thing is not in a state that allows it
    │   └── InFlight                the same Idempotency-Key is being served
    ├── Gone                    410 it was there, and its time is over
    ├── TooLarge                413 more bytes than are allowed
    │   └── QuotaExceeded           more bytes than the key may store
    ├── UnsupportedMediaType    415 the body is of a type that is not read here
    ├── RangeNotSatisfiable     416 the range lies outside of the bytes
    ├── Invalid                 422 the request can be read, and is wrong; lists every problem with its pointer
    ├── TooMany                 429 a limit of the key is reached
    ├── Internal                500 a bug of ours
    ├── Unavailable             503 the database or the storage does not answer
    └── InsufficientStorage     507 the storage is full

All of them are sent as `application/problem+json` (RFC 9457).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar


class ApiError(Exception):
    """An answer that is not a success."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong in the service"

    def __init__(
        self,
        detail: str,
        *,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ):
        super().__init__(detail)
        self.detail, self.errors = detail, tuple(errors)
        self.headers, self.extra = dict(headers or {}), dict(extra or {})

    def document(self, request_id: str) -> dict[str, Any]:
        """The problem document."""
        body: dict[str, Any] = {
            "type": f"urn:distillery:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.errors:
            body["errors"] = [{"pointer": pointer, "message": message} for pointer, message in self.errors]
        return body | self.extra


class BadRequest(ApiError):
    """The request cannot be read."""

    status, kind, title = 400, "bad-request", "The request cannot be read"


class MalformedJson(BadRequest):
    """The body is not JSON."""

    kind, title = "malformed-json", "The body is not JSON"


class BadHeader(BadRequest):
    """A header cannot be read."""

    kind, title = "bad-header", "A header cannot be read"


class BadCursor(BadRequest):
    """The cursor is not one of ours."""

    kind, title = "bad-cursor", "The cursor is not known"


class DigestMismatch(BadRequest):
    """The bytes are not those that a digest header names."""

    kind, title = "digest-mismatch", "The bytes are not those that were announced"


class NoBytes(BadRequest):
    """An upload without bytes."""

    kind, title = "no-bytes", "No bytes were sent"


class Unauthorised(ApiError):
    """No key, or a key that is not known."""

    status, kind, title = 401, "unauthorised", "A key is needed"

    def __init__(self, detail: str, challenge: str = 'Bearer realm="distillery"'):
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class Forbidden(ApiError):
    """The key may not do this."""

    status, kind, title = 403, "forbidden", "The key may not do this"


class NotFound(ApiError):
    """There is no such thing, or it belongs to another key."""

    status, kind, title = 404, "not-found", "There is no such thing"


class MethodNotAllowed(ApiError):
    """The path knows other methods."""

    status, kind, title = 405, "method-not-allowed", "This method is not allowed here"


class Conflict(ApiError):
    """The thing is not in a state that allows it."""

    status, kind, title = 409, "conflict", "Its state does not allow this"


class InFlight(Conflict):
    """The same Idempotency-Key is being served."""

    kind, title = "in-flight", "The same request is being served"


class Gone(ApiError):
    """It was there, and its time is over."""

    status, kind, title = 410, "gone", "It is no longer kept"


class TooLarge(ApiError):
    """More bytes than are allowed."""

    status, kind, title = 413, "too-large", "The body is too large"


class QuotaExceeded(TooLarge):
    """More bytes than the key may store."""

    kind, title = "quota-exceeded", "The key's storage is full"


class UnsupportedMediaType(ApiError):
    """The body is of a type that is not read here."""

    status, kind, title = 415, "unsupported-media-type", "This type of body is not read here"


class RangeNotSatisfiable(ApiError):
    """The range lies outside of the bytes."""

    status, kind, title = 416, "range-not-satisfiable", "The range lies outside of the bytes"


class Invalid(ApiError):
    """The request can be read, and is wrong."""

    status, kind, title = 422, "invalid", "The request is wrong"

    def __init__(self, errors: Sequence[tuple[str, str]], detail: str = "", hint: str | None = None):
        count = "One value is" if len(errors) == 1 else f"{len(errors)} values are"
        sentences = (detail or f"{count} wrong.", hint)
        super().__init__(" ".join(filter(None, sentences)), errors=errors)


class TooMany(ApiError):
    """A limit of the key is reached."""

    status, kind, title = 429, "too-many", "A limit is reached"


class Internal(ApiError):
    """A bug of ours."""


class Unavailable(ApiError):
    """The database, the storage or the broker does not answer."""

    status, kind, title = 503, "unavailable", "A part of the service does not answer"


class InsufficientStorage(ApiError):
    """There is no room left in the service's storage; trying again does not help before the operator has made some."""

    status, kind, title = 507, "insufficient-storage", "The storage is full"
