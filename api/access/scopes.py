"""What a key may be allowed to do. Each is for itself: none includes another."""

from typing import Literal, get_args

Scope = Literal["jobs:read", "jobs:write", "uploads:read", "uploads:write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
MEANINGS: dict[Scope, str] = {
    "jobs:read": "see jobs, their events, metrics and results, and the catalogue",
    "jobs:write": "submit, check, cancel, repeat and delete jobs; webhooks",
    "uploads:read": "see teachers, datasets and files",
    "uploads:write": "make, send, change and delete teachers, datasets and files",
    "admin": "make, change, rotate and revoke keys",
}
