"""Every error that the API answers with, as one tree.

    ApiError                        status, title, a sentence, perhaps pointers and headers
    ├── BadRequest              400 the request cannot be read
    │   ├── MalformedJson           the body is not JSON
    │   ├── BadHeader               a header cannot be read
    │   ├── BadCursor               the cursor is not one of ours
    │   ├── DigestMismatch          the bytes are not those that a digest header names
    │   └── NoBytes                 an upload without bytes
    ├── Unauthorised            401 no key, or a key that is not known
    ├── NotFound                404 there is no such thing, or it belongs to another key
    ├── MethodNotAllowed        405
    ├── Conflict                409 the thing is not in a state that allows it
    │   └── InFlight                the same Idempotency-Key is being served
    ├── TooLarge                413 more bytes than are allowed
    │   └── QuotaExceeded           more bytes than the key may store
    ├── UnsupportedMediaType    415 the body is of a type that is not read here
    ├── RangeNotSatisfiable     416 the range lies outside of the bytes
    ├── Invalid                 422 the request can be read, and is wrong; lists every problem with its pointer
    ├── TooMany                 429 a limit of the key is reached
    ├── Internal                500 a bug of ours
    └── Unavailable             503 the database or the storage does not answer

All of them are sent as `application/problem+json` (RFC 9457).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.exceptions import HTTPException

from models import storage
from models.problems import problems_of

MEDIA_TYPE = "application/problem+json"


class Pointed(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body, or the name of a parameter.")
    message: str = Field(description="What is wrong with it.")


class ProblemBody(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:distillery:problem:invalid",
                "title": "The request is wrong",
                "status": 422,
                "detail": "One value is wrong.",
                "request_id": "0190f3a2b4c87d1e9f00a1b2c3d4e5f6",
                "errors": [{"pointer": "/objectives/1/temperature", "message": "Input should be greater than 0"}],
            }
        }
    )

    type: str = Field(description="A URI that names this kind of problem.")
    title: str = Field(description="What kind of problem this is.")
    status: int = Field(description="The status of the answer.")
    detail: str = Field(description="What is wrong this time, and what to do.")
    request_id: str = Field(description="Names this request in the service's log.")
    errors: list[Pointed] | None = Field(None, description="All that is wrong, where there is something to point at.")


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

    def __init__(self, errors: Sequence[tuple[str, str]], detail: str = ""):
        count = "One value is" if len(errors) == 1 else f"{len(errors)} values are"
        super().__init__(detail or f"{count} wrong.", errors=errors)


class TooMany(ApiError):
    """A limit of the key is reached."""

    status, kind, title = 429, "too-many", "A limit is reached"


class Internal(ApiError):
    """A bug of ours."""


class Unavailable(ApiError):
    """The database, the storage or the broker does not answer."""

    status, kind, title = 503, "unavailable", "A part of the service does not answer"


_BY_STATUS: dict[int, type[ApiError]] = {
    cls.status: cls
    for cls in (BadRequest, Unauthorised, NotFound, MethodNotAllowed, Conflict, TooLarge, UnsupportedMediaType, TooMany)
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of an operation, for its `responses`; 401, 500 and 503 belong to all of them."""
    titles = {cls.status: cls.title for cls in ApiError.__subclasses__()} | {500: Internal.title}
    return {
        status: {"model": ProblemBody, "description": titles[status]} for status in sorted({*statuses, 401, 500, 503})
    }


def pointers(errors: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(pointer, message) of the framework's errors; a parameter is named, a place in the body has a JSON pointer."""
    found = []
    for error in errors:
        where, *path = error["loc"]
        if where == "body":
            found += [(problem.pointer, problem.message) for problem in problems_of([error], skip=1)]
        else:
            found += [
                (".".join(map(str, path)) or str(where), problem.message) for problem in problems_of([error], skip=99)
            ]
    return list(dict.fromkeys(found))


def respond(request: Request, error: ApiError) -> JSONResponse:
    """The answer that tells of an error."""
    document = error.document(getattr(request.state, "request_id", ""))
    return JSONResponse(document, error.status, error.headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document, the framework's own included."""

    def on_api_error(request: Request, error: ApiError) -> JSONResponse:
        return respond(request, error)

    def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return respond(request, Invalid(pointers(error.errors())))

    def on_http(request: Request, error: HTTPException) -> JSONResponse:
        return respond(request, _translated(request, error))

    def on_database(request: Request, error: Exception) -> JSONResponse:
        return respond(request, unavailable("database"))

    def on_storage(request: Request, error: storage.StorageError) -> JSONResponse:
        return respond(request, unavailable("storage"))

    app.add_exception_handler(ApiError, on_api_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, on_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, on_http)  # type: ignore[arg-type]
    app.add_exception_handler(OperationalError, on_database)
    app.add_exception_handler(InterfaceError, on_database)
    app.add_exception_handler(storage.Unavailable, on_storage)  # type: ignore[arg-type]


def unavailable(part: str) -> Unavailable:
    """A part of the service does not answer; the client may try again."""
    return Unavailable(f"The {part} does not answer. Try again in a few seconds.", headers={"Retry-After": "5"})


def _translated(request: Request, error: HTTPException) -> ApiError:
    headers = dict(error.headers or {})
    path = request.url.path
    if error.status_code == 404:
        return NotFound(f"There is nothing at {path}.", headers=headers)
    if error.status_code == 405:
        detail = f"{request.method} is not allowed at {path}; allowed is {headers.get('Allow', 'another method')}."
        return MethodNotAllowed(detail, headers=headers)
    known = _BY_STATUS.get(error.status_code)
    if known is None or known is Unauthorised:
        return Internal("The request could not be served.")
    return known(str(error.detail), headers=headers)
