"""How keys look over HTTP."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from api.access.scopes import MEANINGS, Scope
from api.http.bodies import Shown
from models.scheduling.key_limits import KeyLimits, OwnLimits
from models.spec.body import Body, Name

LONGEST_DAYS = 3650
LONGEST_GRACE_SECONDS = 30 * 24 * 3600
KEY = "key_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=16), AfterValidator(lambda given: sorted(set(given)))]
SCOPES_ARE = "What it may do: " + "; ".join(f"`{scope}`: {meaning}" for scope, meaning in MEANINGS.items()) + "."


class KeySpec(Body):
    """A key to make. It may do no more, and use no more, than the key that makes it."""

    name: Name = Field(description="What it is for.", examples=["ci"])
    scopes: Scopes = Field(description=SCOPES_ARE, examples=[["jobs:read", "jobs:write"]])
    expires_days: float | None = Field(
        None, gt=0, le=LONGEST_DAYS, description="It opens for so many days; for ever if null.", examples=[90]
    )
    limits: OwnLimits = Field(default_factory=lambda: OwnLimits(), description="Where it may use less or more.")


class KeyEdit(Body):
    """What of a key may be changed; what is left out stays."""

    name: Name = Field(default="", description="What it is for.")
    scopes: Scopes = Field(default=[], description="All that it may do from now on.")
    limits: OwnLimits = Field(default_factory=lambda: OwnLimits(), description="All its own limits.")


class Rotation(Body):
    """How long the secret that is replaced still opens."""

    grace_seconds: int = Field(
        0, ge=0, le=LONGEST_GRACE_SECONDS, description="The old secret opens for so long.", examples=[3600]
    )


class KeyBody(Shown):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[Scope] = Field(description="What it may do.")
    limits: KeyLimits = Field(description="What it may use.")
    created_at: datetime
    expires_at: datetime | None = Field(description="When it opens no more; null for never.")
    revoked_at: datetime | None = Field(description="When it was revoked; null if it was not.")
    last_used_at: datetime | None = Field(description="To the minute; null if it never was.")
    previous_until: datetime | None = Field(description="Until when the secret before the last rotation opens.")
    links: dict[str, str]


class KeyMade(KeyBody):
    """A key with its secret, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"description": "`key` is shown in this answer and never again."})

    key: str = Field(description="The secret: send it as `Authorization: Bearer dsk_…`.")


class Used(Shown):
    """What a key uses now."""

    stored_bytes: int = Field(description="Bytes of its uploads and results.")
    queued_jobs: int = Field(description="Jobs that wait.")
    running_jobs: int = Field(description="Jobs that run.")
    requests: int = Field(description="Requests within the minute, to the process that answers.")


class KeyUse(KeyBody):
    """A key, and what it uses of its limits."""

    used: Used
