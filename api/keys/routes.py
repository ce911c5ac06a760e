"""`/keys`."""

from typing import Annotated

from fastapi import APIRouter, Body, Response

from api.dependencies import Admin, CurrentKey, Identifier, PlainWindow
from api.http.bodies import StrictRoute
from api.http.paging import Page
from api.http.problem_documents import problems
from api.keys import service
from api.keys.schemas import KeyBody, KeyEdit, KeyMade, KeySpec, KeyUse, Rotation

router = APIRouter(prefix="/keys", tags=["keys"], route_class=StrictRoute)
EXAMPLE = {"name": "ci", "scopes": ["jobs:read", "jobs:write", "uploads:read", "uploads:write"], "expires_days": 90}


@router.post(
    "",
    summary="Create a key",
    operation_id="create_key",
    status_code=201,
    response_model=KeyMade,
    responses=problems(400, 413, 415, 422),
)
def create_key(caller: Admin, spec: Annotated[KeySpec, Body(examples=[EXAMPLE])], response: Response) -> KeyMade:
    """The secret is in this response only and is never shown again."""
    made = service.create(caller, spec)
    response.headers["Location"] = made.links["self"]
    response.headers["Cache-Control"] = "no-store"
    return made


@router.get(
    "", summary="List keys", operation_id="list_keys", response_model=Page[KeyBody], responses=problems(400, 422)
)
def list_keys(caller: Admin, window: PlainWindow) -> Page[KeyBody]:
    """Newest first, including revoked keys."""
    return service.page(window)


@router.get(
    "/me",
    summary="Show the key of the request",
    operation_id="get_own_key",
    response_model=KeyUse,
    responses=problems(422),
)
def show_own(key: CurrentKey) -> KeyUse:
    """Scopes, limits and current usage. Every key may call this."""
    return service.show(key)


@router.get(
    "/{identifier}",
    summary="Show a key",
    operation_id="get_key",
    response_model=KeyUse,
    responses=problems(404, 422),
)
def show_key(caller: Admin, identifier: Identifier) -> KeyUse:
    """Scopes, limits and current usage."""
    return service.show(identifier)


@router.patch(
    "/{identifier}",
    summary="Change a key",
    operation_id="edit_key",
    response_model=KeyBody,
    responses=problems(400, 404, 409, 413, 415, 422),
)
def edit_key(caller: Admin, identifier: Identifier, changes: KeyEdit) -> KeyBody:
    """Fields that are left out do not change."""
    return service.edit(caller, identifier, changes)


@router.post(
    "/{identifier}/rotate",
    summary="Replace the secret of a key",
    operation_id="rotate_key",
    response_model=KeyMade,
    responses=problems(400, 404, 409, 413, 415, 422),
)
def rotate_key(
    caller: Admin,
    identifier: Identifier,
    response: Response,
    rotation: Annotated[Rotation | None, Body(examples=[{"grace_seconds": 3600}])] = None,
) -> KeyMade:
    """The new secret is in this response only and is never shown again. The old secret stays valid for `grace_seconds`.
    The id of the key, its jobs and its uploads do not change."""
    response.headers["Cache-Control"] = "no-store"
    return service.rotate(caller, identifier, (rotation or Rotation()).grace_seconds)


@router.post(
    "/{identifier}/revoke",
    summary="Revoke a key",
    operation_id="revoke_key",
    response_model=KeyBody,
    responses=problems(404, 409, 422),
)
def revoke_key(caller: Admin, identifier: Identifier) -> KeyBody:
    """The key is permanently invalid; its jobs continue. The last key with the scope `admin` cannot be revoked."""
    return service.revoke(identifier)
