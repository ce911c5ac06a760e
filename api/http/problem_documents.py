"""Problem documents (RFC 9457): how they look, and how every error becomes one, the framework's own included."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from api.http.errors import (
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
from models.spec.problems import problems_of
from models.storage import errors as storage_errors

MEDIA_TYPE = "application/problem+json"
EVERYWHERE = (401, 403, 429, 500, 503)


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
    """The error answers of an operation, for its `responses`; 401, 403, 429, 500 and 503 belong to all of them."""
    titles = {cls.status: cls.title for cls in ApiError.__subclasses__()} | {500: Internal.title}
    return {
        status: {"model": ProblemBody, "description": titles[status]} for status in sorted({*statuses, *EVERYWHERE})
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

    def on_storage(request: Request, error: storage_errors.StorageError) -> JSONResponse:
        if isinstance(error, storage_errors.Full):
            structlog.get_logger(__name__).error("storage_full", key=error.key)
            return respond(
                request, InsufficientStorage("The service's storage is full. Tell its operator to make room.")
            )
        return respond(request, unavailable("storage"))

    app.add_exception_handler(ApiError, on_api_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, on_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, on_http)  # type: ignore[arg-type]
    app.add_exception_handler(OperationalError, on_database)
    app.add_exception_handler(InterfaceError, on_database)
    app.add_exception_handler(InternalError, on_database)  # Postgres has closed a transaction that was idle for long
    app.add_exception_handler(PoolTimeout, on_database)
    app.add_exception_handler(storage_errors.Unavailable, on_storage)  # type: ignore[arg-type]


def unavailable(part: str) -> Unavailable:
    """A part of the service does not answer; the client may try again."""
    return Unavailable(f"The {part} does not answer. Try again in a few seconds.", headers={"Retry-After": "5"})


def _translated(request: Request, error: HTTPException) -> ApiError:
    headers = dict(error.headers or {})
    path = request.url.path
    if error.status_code == 404:
        return NotFound(f"There is nothing at {path}.", headers=headers)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_of(request)) or headers.get("Allow", "")
        detail = f"{request.method} is not allowed at {path}; allowed is {headers.get('Allow', 'another method')}."
        return MethodNotAllowed(detail, headers=headers)
    known = _BY_STATUS.get(error.status_code)
    if known is None or known is Unauthorised:
        return Internal("The request could not be served.")
    return known(str(error.detail), headers=headers)


def _methods_of(request: Request) -> list[str]:
    """Every method that is known at the path of a request; the framework names those of one route alone.

    A path that is written out in the document is matched before those with parameters, as OpenAPI has it.
    """
    documented = request.app.openapi()["paths"]
    path = request.url.path
    templates = [path] if path in documented else [one for one in documented if _matches(one, path)]
    found = {method.upper() for template in templates for method in documented[template]}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def _matches(template: str, path: str) -> bool:
    pattern = re.sub(r"\\\{name\\\}", ".+", re.escape(template))
    return re.fullmatch(re.sub(r"\\\{[^}]*\\\}", "[^/]+", pattern), path) is not None
