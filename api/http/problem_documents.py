"""Problem documents (RFC 9457): their schema, and exception handlers that turn every error into one."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from api.http.errors import (
    MOST_ERRORS,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    InsufficientStorage,
    Internal,
    Invalid,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    TooMany,
    Unauthorised,
    Unavailable,
    UnsupportedMediaType,
)
from models.database import UNAVAILABLE, is_full
from models.spec.problems import problems_of
from models.storage import errors as storage_errors

MEDIA_TYPE = "application/problem+json"
EVERYWHERE = (401, 403, 429, 500, 503)


class PointedError(BaseModel):
    """One value that is not valid."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body, or the name of a parameter.")
    message: str = Field(description="What is wrong with the value.")


class ProblemBody(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:distillery:problem:invalid",
                "title": "Invalid request",
                "status": 422,
                "detail": "One value is not valid.",
                "request_id": "0190f3a2b4c87d1e9f00a1b2c3d4e5f6",
                "errors": [{"pointer": "/objectives/1/temperature", "message": "Input should be greater than 0"}],
            }
        }
    )

    type: str = Field(description="URI of the problem type.")
    title: str = Field(description="Summary of the problem type.")
    status: int = Field(description="HTTP status of the response.")
    detail: str = Field(description="What is wrong with this request and what to do.")
    request_id: str = Field(description="Id of this request in the service's log.")
    errors: list[PointedError] | None = Field(None, description="Every value that is not valid, if there are any.")


_BY_STATUS: dict[int, type[ApiError]] = {
    cls.status: cls
    for cls in (
        BadRequest,
        Unauthorised,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Conflict,
        TooLarge,
        UnsupportedMediaType,
        TooMany,
    )
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of an operation, for its `responses`. 401, 403, 429, 500 and 503 are always included.

    `api/http/openapi.py` adds 408 and 507 where they can occur.
    """
    return {
        status: {"model": ProblemBody, "description": title_of(status)} for status in sorted({*statuses, *EVERYWHERE})
    }


def title_of(status: int) -> str:
    """The title of the errors with a status."""
    titles = {cls.status: cls.title for cls in ApiError.__subclasses__()} | {500: Internal.title}
    return titles[status]


def pointers(errors: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(pointer, message) of FastAPI's validation errors: a JSON pointer into the body, or the name of a parameter."""
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
    """The problem document of an error, as a response."""
    document = error.document(getattr(request.state, "request_id", ""))
    return JSONResponse(document, error.status, error.headers, MEDIA_TYPE)


def error_of(error: Exception) -> ApiError | None:
    """The error response for an exception of the service; None if the exception is a bug."""
    if isinstance(error, ApiError):
        return error
    full = "database" if is_full(error) else "storage" if isinstance(error, storage_errors.Full) else None
    if full:
        structlog.get_logger(__name__).error(f"{full}_full", error=str(error))
        return InsufficientStorage(f"The {full} of the service is full. Ask its operator to free some space.")
    if isinstance(error, UNAVAILABLE):
        return unavailable("database")
    if isinstance(error, storage_errors.Unavailable):
        return unavailable("storage")
    return None


def install(app: FastAPI) -> None:
    """Register exception handlers that turn every error into a problem document, FastAPI's own errors included."""

    def on_known(request: Request, error: Exception) -> JSONResponse:
        known = error_of(error)
        if known is None:
            raise error
        return respond(request, known)

    def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = error.errors()
        return respond(request, Invalid(pointers(errors[:MOST_ERRORS]), unlisted=len(errors[MOST_ERRORS:])))

    def on_http(request: Request, error: HTTPException) -> JSONResponse:
        return respond(request, _translated(request, error))

    for kind in (ApiError, *UNAVAILABLE, storage_errors.Unavailable):
        app.add_exception_handler(kind, on_known)
    app.add_exception_handler(RequestValidationError, on_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, on_http)  # type: ignore[arg-type]


def unavailable(part: str) -> Unavailable:
    """The error for a database or storage that does not answer; the client may retry."""
    return Unavailable(f"The {part} does not answer. Try again in a few seconds.", headers={"Retry-After": "5"})


def _translated(request: Request, error: HTTPException) -> ApiError:
    headers = dict(error.headers or {})
    path = request.url.path
    if error.status_code == 404:
        return NotFound(f"The path {path} does not exist.{_meant(request, path)}", headers=headers)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_of(request)) or headers.get("Allow", "")
        detail = f"{path} does not support {request.method}. Use one of: {headers.get('Allow', 'another method')}."
        if request.method in ("PUT", "POST") and _exists(request, f"{path}/content"):
            detail += f" Bytes are sent by PUT to {path}/content."
        return MethodNotAllowed(detail, headers=headers)
    known = _BY_STATUS.get(error.status_code)
    if known is None or known is Unauthorised:
        return Internal("The service could not handle the request.")
    return known(str(error.detail), headers=headers)


def _meant(request: Request, path: str) -> str:
    """A sentence with the path that was probably meant; nothing if none is near."""
    plain = re.sub(r"/{2,}", "/", path).rstrip("/")
    if "/content/" in plain:
        return f" Did you mean {plain.partition('/content/')[0]}/content? curl adds the file's name to a URL that ends with a slash."
    near = next((each for each in (plain, f"/v1{plain}") if each != path and _exists(request, each)), None)
    return f" Did you mean {near}?" if near else ""


def _exists(request: Request, path: str) -> bool:
    return any(_matches(template, path) for template in request.app.openapi()["paths"])


def _methods_of(request: Request) -> list[str]:
    """All methods of the request's path, for the Allow header; Starlette names only those of one route.

    Paths without parameters are matched before those with parameters, as OpenAPI specifies.
    """
    documented = request.app.openapi()["paths"]
    path = request.url.path
    templates = [path] if path in documented else [one for one in documented if _matches(one, path)]
    found = {method.upper() for template in templates for method in documented[template]}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def _matches(template: str, path: str) -> bool:
    pattern = re.sub(r"\\\{name\\\}", ".+", re.escape(template))
    return re.fullmatch(re.sub(r"\\\{[^}]*\\\}", "[^/]+", pattern), path) is not None
