"""`/keys`: keys of the service, and the webhook secret of the visitor's key."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from api.access.scopes import MEANINGS, SCOPES
from api.dashboard.rendering import render
from api.dashboard.visitors import CurrentVisitor, Form, PageRoute, Visitor, form_of, require
from api.http.errors import Invalid, NotFound
from api.http.paging import Window
from api.keys import service
from api.keys.schemas import KeySpec
from api.webhooks import service as webhooks
from models.spec.problems import problems_of

router = APIRouter(prefix="/keys", route_class=PageRoute, include_in_schema=False)
MOST_KEYS = 200


def _values(visitor: Visitor, **more: Any) -> dict[str, Any]:
    keys = service.page(Window(MOST_KEYS, None)).data if visitor.may("admin") else []
    try:
        secret = webhooks.show_secret(visitor.key_id)
    except NotFound:
        secret = None
    given = {"made": None, "new_secret": None, "problem": ""}
    return given | {"keys": keys, "own": service.show(visitor.key_id), "secret": secret, "scopes": MEANINGS} | more


async def _page(request: Request, visitor: Visitor, status: int = 200, **more: Any) -> Response:
    values = await run_in_threadpool(lambda: _values(visitor, **more))
    return render(request, "keys.html", status, **values)


@router.get("")
async def show(request: Request, visitor: CurrentVisitor) -> Response:
    """The visitor's key, and for admins all keys."""
    return await _page(request, visitor)


@router.post("")
async def create(request: Request, visitor: CurrentVisitor) -> Response:
    """Create a key, and show its secret once."""
    require(visitor, "admin")
    form = await form_of(request)
    try:
        made = await run_in_threadpool(service.create, visitor.caller, _spec(form))
    except (ValidationError, Invalid) as error:
        known = problems_of(error) if isinstance(error, ValidationError) else []
        words = [f"{one.pointer.strip('/')}: {one.message}" for one in known]
        if isinstance(error, Invalid):
            words = [f"{pointer.strip('/')}: {message}" for pointer, message in error.errors]
        return await _page(request, visitor, 422, problem="; ".join(words))
    return await _page(request, visitor, made=made)


def _spec(form: Form) -> KeySpec:
    scopes = [value for name, value in form.pairs if name == "scope" and value in SCOPES]
    days = form.get("expires_days", "").strip()
    try:
        expires = float(days) if days else None
    except ValueError as error:
        raise Invalid([("/expires_days", "must be a number of days")]) from error
    return KeySpec.model_validate({"name": form.get("name", ""), "scopes": scopes, "expires_days": expires})


@router.post("/webhook-secret")
async def make_secret(request: Request, visitor: CurrentVisitor) -> Response:
    """Create or replace the secret that signs webhooks, and show it once."""
    require(visitor, "jobs:write")
    made = await run_in_threadpool(webhooks.make_secret, visitor.key_id)
    return await _page(request, visitor, new_secret=made)


@router.post("/{identifier}/rotate")
async def rotate(request: Request, visitor: CurrentVisitor, identifier: str) -> Response:
    """Replace the secret of a key, and show the new one once."""
    require(visitor, "admin")
    made = await run_in_threadpool(service.rotate, visitor.caller, identifier, 0)
    return await _page(request, visitor, made=made)


@router.post("/{identifier}/revoke")
async def revoke(request: Request, visitor: CurrentVisitor, identifier: str) -> Response:
    """Revoke a key."""
    require(visitor, "admin")
    await run_in_threadpool(service.revoke, identifier)
    return await _page(request, visitor)
