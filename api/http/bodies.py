"""Base classes of request and response bodies, and a JSON parser that is stricter than FastAPI's."""

import json
import math
from collections.abc import Callable, Coroutine, Iterator, Sequence
from email.message import Message
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from api.http.errors import Invalid, MalformedJson, TooLarge, UnsupportedMediaType

JSON_BYTES = 2**20
"""Largest JSON body."""
MAX_DEPTH = 64
"""Deepest nesting of a JSON body."""
MAX_FIELDS = 1000
"""Most fields of one object."""
MAX_FIELDS_IN_ALL = 20_000
"""Most fields of all objects of a body. Every unknown field is an error, so this limits the time to collect the errors."""
MAX_NAME = 1024
"""Longest field name, in characters. Names are repeated in the pointers of errors."""
SMALL_BYTES = 16 * 2**10
"""Bodies up to this size are parsed at once; larger ones in a thread, since parsing them would delay other requests."""


class RequestBody(BaseModel):
    """Base class of request bodies. Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class ResponseBody(BaseModel):
    """Base class of response bodies. Numbers that are not finite are sent as null."""

    model_config = ConfigDict(from_attributes=True, ser_json_inf_nan="null")


def without_default(schema: dict[str, Any]) -> None:
    """For `json_schema_extra` of a field that may be left out, and then changes nothing: its default means no value."""
    schema.pop("default", None)


class StrictRequest(Request):
    """A request whose JSON body has a limited size, finite numbers and text that Postgres can store."""

    async def load(self) -> None:
        """Read and parse the body.

        Raises:
            TooLarge: the body has more than `JSON_BYTES` bytes.
            UnsupportedMediaType: the Content-Type is not JSON.
            MalformedJson: see `parse`.
        """
        chunks: list[bytes] = []
        size = 0
        announced = self.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > JSON_BYTES:
            raise TooLarge(f"The JSON body has {announced} bytes. At most {JSON_BYTES} are allowed.")
        async for chunk in self.stream():
            size += len(chunk)
            if size > JSON_BYTES:
                raise TooLarge(f"The JSON body is too large. At most {JSON_BYTES} bytes are allowed.")
            chunks.append(chunk)
        self._body = b"".join(chunks)
        if self._body:
            if self.headers.get("content-encoding", "identity").lower() != "identity":
                raise UnsupportedMediaType("The body has a Content-Encoding. Send the JSON without one.")
            _require_json(self.headers.get("content-type"))
            small = size <= SMALL_BYTES
            self._json = parse(self._body) if small else await run_in_threadpool(parse, self._body)


class StrictRoute(APIRoute):
    """A route that reads its JSON body as a `StrictRequest`, and refuses parameters in the URL that it does not know, if it
    knows any: a misspelt filter would give everything."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()
        has_body = self.body_field is not None
        known = set(_parameters(self.dependant))

        async def handler(request: Request) -> Response:
            unknown = [name for name in request.query_params if known and name not in known]
            if unknown and "authorization" in request.headers:  # without a key, the answer is about the key
                listed = ", ".join(sorted(known))
                words = f"is not a known parameter; known are {listed}"
                raise Invalid([(name[:64], words) for name in dict.fromkeys(unknown)])
            strict = StrictRequest(request.scope, request.receive)
            if has_body:
                await strict.load()
            return await original(strict)

        return handler


def _parameters(dependant: Dependant) -> Iterator[str]:
    """The names of a route's parameters in the URL, its dependencies' included."""
    yield from (field.alias for field in dependant.query_params)
    for each in dependant.dependencies:
        yield from _parameters(each)


def parse(body: bytes) -> Any:
    """Parse a JSON text, in a time proportional to its length.

    Raises:
        MalformedJson: the text is not valid JSON, not UTF-8, nested too deeply or has too many fields, or it contains a
            value that is not allowed: NaN, an infinity, a NUL character or a lone surrogate.
    """
    try:
        value = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_Objects())
    except json.JSONDecodeError as error:
        raise MalformedJson(f"{error.msg} at line {error.lineno}, column {error.colno}.") from error
    except UnicodeDecodeError as error:
        raise MalformedJson("The body is not UTF-8.") from error
    except RecursionError as error:
        raise MalformedJson(f"The body is nested more than {MAX_DEPTH} levels deep.") from error
    except ValueError as error:  # from the hooks below, or an integer with thousands of digits
        raise MalformedJson(f"{str(error).partition(';')[0]}.") from error
    _check(value, MAX_DEPTH)
    return value


def _require_json(content_type: str | None) -> None:
    message = Message()
    message["content-type"] = content_type or ""
    if message.get_content_maintype() != "application" or not (
        message.get_content_subtype() == "json" or message.get_content_subtype().endswith("+json")
    ):
        raise UnsupportedMediaType("The body must be JSON. Send it with 'Content-Type: application/json'.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"The number {text[:32]} is too large for a 64-bit float")
    return number


class _Objects:
    """Makes the objects of one JSON text, and limits their fields."""

    def __init__(self) -> None:
        self._fields = 0

    def __call__(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        self._fields += len(pairs)
        if len(pairs) > MAX_FIELDS or self._fields > MAX_FIELDS_IN_ALL:
            raise ValueError(
                f"One object may have {MAX_FIELDS} fields, and the whole body {MAX_FIELDS_IN_ALL}. These are more"
            )
        found: dict[str, Any] = {}
        for name, value in pairs:
            if len(name) > MAX_NAME:
                raise ValueError(f"The name of a field has {len(name)} characters. At most {MAX_NAME} are allowed")
            if name in found:
                raise ValueError(f"The field {name[:64]!r} appears twice in one object")
            found[name] = value
        return found


def _check(value: Any, depth: int) -> None:
    if depth < 0:
        raise MalformedJson(f"The body is nested more than {MAX_DEPTH} levels deep.")
    if isinstance(value, str):
        if "\0" in value or not _encodable(value):
            raise MalformedJson("A string contains a NUL character or a lone surrogate.")
    elif isinstance(value, dict):
        for name, item in value.items():
            _check(name, depth - 1)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True
