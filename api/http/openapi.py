"""The OpenAPI document: FastAPI's own, with the media type of errors corrected and an example for every body."""

from functools import lru_cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.http.bodies import ResponseBody
from api.http.errors import ApiError, Internal, Invalid
from api.http.examples import EXAMPLES
from api.http.problem_documents import MEDIA_TYPE, title_of

REQUEST_ID = "0190f3a2b4c87d1e9f00a1b2c3d4e5f6"


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, built once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
            separate_input_output_schemas=app.separate_input_output_schemas,
        )
        for path in schema["paths"].values():
            for method, operation in path.items():
                _add_errors(method, operation)
                schemas = schema["components"]["schemas"]
                for status, response in operation["responses"].items():
                    _complete(status, response.get("content", {}), schemas)
                _complete("", operation.get("requestBody", {}).get("content", {}), schemas)
        app.openapi_schema = schema
    return app.openapi_schema


def _add_errors(method: str, operation: dict[str, Any]) -> None:
    """The errors of all operations that read a body or write."""
    responses = operation["responses"]
    added = {408} if "requestBody" in operation else set()
    added |= {507} if method in ("post", "put", "patch", "delete") else set()
    for status in map(str, sorted(added)):
        responses.setdefault(
            status, {"description": title_of(int(status)), "content": responses["500"]["content"].copy()}
        )


def _complete(status: str, content: dict[str, Any], schemas: dict[str, Any]) -> None:
    body = content.get("application/json")
    if body is None:
        return
    if status.startswith(("4", "5")):
        content[MEDIA_TYPE] = content.pop("application/json") | {"example": example_of_error(int(status))}
    elif (
        not {"example", "examples"} & {*body, *body.get("schema", {})}
        and (example := example_of(body.get("schema", {}), schemas)) is not None
    ):
        body["example"] = example


def example_of(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """The example of a schema: its own, or a page or list with the example of its items; None if there is none."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = schemas[name]
        if name in known_examples():
            return known_examples()[name]
    if "example" in schema:
        return schema["example"]
    if "data" in schema.get("properties", {}):
        items = example_of(schema["properties"]["data"], schemas)
        return None if items is None else {"data": items, "next_cursor": None}
    if "items" in schema:
        item = example_of(schema["items"], schemas)
        return None if item is None else [item]
    return None


@lru_cache(maxsize=1)
def known_examples() -> dict[str, Any]:
    """Examples by schema name. Those of the models are read here because FastAPI drops their null values."""
    found, bodies = dict(EXAMPLES), [ResponseBody]
    while bodies:
        body = bodies.pop()
        bodies += body.__subclasses__()
        extra = body.__dict__.get("model_config", {}).get("json_schema_extra")
        if isinstance(extra, dict) and "example" in extra:
            found.setdefault(body.__name__, extra["example"])
    return found


def example_of_error(status: int) -> dict[str, Any]:
    """An example problem document for a status."""
    kind = next((one for one in ApiError.__subclasses__() if one.status == status), Internal)
    if kind is Invalid:
        errors = [("/objectives/1/temperature", "must be greater than 0, not -1")]
        return Invalid(errors).document(REQUEST_ID)
    document = {"type": f"urn:distillery:problem:{kind.kind}", "title": kind.title, "status": status}
    return document | {"detail": f"{(kind.__doc__ or '').strip()}", "request_id": REQUEST_ID}
