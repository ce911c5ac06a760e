"""All errors of the API, as one tree.

    ApiError                        status, title, detail; optionally pointers and headers
    ├── BadRequest              400 the request is malformed
    │   ├── MalformedJson           the body is not valid JSON
    │   ├── BadHeader               a header is malformed
    │   ├── BadCursor               the cursor is not valid
    │   ├── DigestMismatch          the bytes do not match the digest header
    │   └── NoBytes                 the upload has no bytes
    ├── Unauthorised            401 the key is missing or not valid
    │   └── SignInNeeded            the browser has no valid session
    ├── Forbidden               403 the key lacks a scope or a permission
    ├── NotFound                404 the resource does not exist or belongs to another key
    ├── MethodNotAllowed        405 the path does not support the method
    ├── TooSlow                 408 the client sends too slowly
    ├── Conflict                409 the state of the resource does not allow the operation
    │   └── InFlight                another request with the same Idempotency-Key is in progress
    ├── Gone                    410 the resource has expired and was removed
    ├── TooLarge                413 the body is too large
    │   └── QuotaExceeded           the storage quota of the key is used up
    ├── UnsupportedMediaType    415 the media type of the body is not supported
    ├── RangeNotSatisfiable     416 the range starts after the end
    ├── WrongHost               421 the host is not that of the dashboard
    ├── Invalid                 422 values are not valid; lists every problem with its pointer
    ├── TooMany                 429 a limit of the key or of the address is reached
    ├── HeadTooLarge            431 the head of the request is too large
    ├── Internal                500 a bug in the service
    ├── Unavailable             503 the database, the storage or the broker does not answer
    └── InsufficientStorage     507 the storage is full

All of them are sent as `application/problem+json` (RFC 9457).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

MOST_ERRORS = 100
"""Most errors that a response lists."""


class ApiError(Exception):
    """An error response."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ):
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

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
    """The request is malformed."""

    status = 400
    kind = "bad-request"
    title = "Malformed request"


class MalformedJson(BadRequest):
    """The body is not valid JSON."""

    kind = "malformed-json"
    title = "Malformed JSON"


class BadHeader(BadRequest):
    """A header is malformed."""

    kind = "bad-header"
    title = "Malformed header"


class BadCursor(BadRequest):
    """The cursor is not valid."""

    kind = "bad-cursor"
    title = "Invalid cursor"


class DigestMismatch(BadRequest):
    """The received bytes do not match the digest header."""

    kind = "digest-mismatch"
    title = "Digest mismatch"


class NoBytes(BadRequest):
    """The upload has no bytes."""

    kind = "no-bytes"
    title = "Empty upload"


class Unauthorised(ApiError):
    """The key is missing, unknown, expired or revoked."""

    status = 401
    kind = "unauthorised"
    title = "A valid key is required"

    def __init__(self, detail: str, challenge: str = 'Bearer realm="distillery"'):
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class SignInNeeded(Unauthorised):
    """The browser has no valid session of the dashboard."""

    kind = "sign-in-needed"
    title = "Sign in"


class Forbidden(ApiError):
    """The key lacks a scope, or would grant more than it has."""

    status = 403
    kind = "forbidden"
    title = "The key does not allow this"


class NotFound(ApiError):
    """The resource does not exist, or it belongs to another key."""

    status = 404
    kind = "not-found"
    title = "Not found"


class MethodNotAllowed(ApiError):
    """The path does not support this method."""

    status = 405
    kind = "method-not-allowed"
    title = "Method not allowed"


class TooSlow(ApiError):
    """The head or the body of the request arrives too slowly."""

    status = 408
    kind = "too-slow"
    title = "The request arrives too slowly"


class Conflict(ApiError):
    """The state of the resource does not allow this operation."""

    status = 409
    kind = "conflict"
    title = "Conflict with the state of the resource"


class InFlight(Conflict):
    """Another request with the same Idempotency-Key is in progress."""

    kind = "in-flight"
    title = "The same request is in progress"


class Gone(ApiError):
    """The resource has expired and was removed."""

    status = 410
    kind = "gone"
    title = "No longer available"


class TooLarge(ApiError):
    """The body is larger than allowed."""

    status = 413
    kind = "too-large"
    title = "The body is too large"


class QuotaExceeded(TooLarge):
    """The upload does not fit into the storage quota of the key."""

    kind = "quota-exceeded"
    title = "The storage quota of the key is used up"


class UnsupportedMediaType(ApiError):
    """The media type of the body is not supported."""

    status = 415
    kind = "unsupported-media-type"
    title = "Unsupported media type"


class RangeNotSatisfiable(ApiError):
    """The range starts after the end of the file."""

    status = 416
    kind = "range-not-satisfiable"
    title = "Range not satisfiable"


class WrongHost(ApiError):
    """The request to the dashboard names a host that is not this service."""

    status = 421
    kind = "wrong-host"
    title = "This is not the host of the dashboard"


class Invalid(ApiError):
    """At least one value in the request is not valid."""

    status = 422
    kind = "invalid"
    title = "Invalid request"

    def __init__(self, errors: Sequence[tuple[str, str]], detail: str = "", hint: str | None = None, unlisted: int = 0):
        """Lists the first `MOST_ERRORS` errors. `unlisted` is the number of further ones that `errors` lacks."""
        total = len(errors) + unlisted
        count = "One value is" if total == 1 else f"{total} values are"
        first = f"The first {MOST_ERRORS} are listed." if total > MOST_ERRORS else None
        sentences = (detail or f"{count} not valid.", first, hint)
        super().__init__(" ".join(filter(None, sentences)), errors=errors[:MOST_ERRORS])


class TooMany(ApiError):
    """A limit of the key or of the address is reached."""

    status = 429
    kind = "too-many"
    title = "A limit is reached"


class HeadTooLarge(ApiError):
    """The URL and the headers of the request are too large."""

    status = 431
    kind = "head-too-large"
    title = "The head of the request is too large"


class Internal(ApiError):
    """A bug in the service."""


class Unavailable(ApiError):
    """The database, the storage or the broker does not answer."""

    status = 503
    kind = "unavailable"
    title = "A part of the service does not answer"


class InsufficientStorage(ApiError):
    """The storage of the service is full. A retry fails too until the operator has freed some space."""

    status = 507
    kind = "insufficient-storage"
    title = "The storage is full"
