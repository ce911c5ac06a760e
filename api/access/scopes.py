"""Scopes: what a key may do. No scope includes another."""

from typing import Literal, get_args

Scope = Literal["jobs:read", "jobs:write", "uploads:read", "uploads:write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
MEANINGS: dict[Scope, str] = {
    "jobs:read": "read jobs, their events, metrics, previews and artifacts, and the catalogue",
    "jobs:write": "submit, validate, cancel, retry and delete jobs; manage webhooks",
    "uploads:read": "read teachers, datasets and files",
    "uploads:write": "create, upload, change and delete teachers, datasets and files",
    "admin": "create, change, rotate and revoke keys",
}
