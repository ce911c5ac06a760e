"""Request and response bodies of keys."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from api.access.scopes import MEANINGS, Scope
from api.http.bodies import ResponseBody, without_default
from models.scheduling.key_limits import KeyLimits, OwnLimits
from models.spec.body import Body, Name

MAX_DAYS = 3650
MAX_GRACE_SECONDS = 30 * 24 * 3600
KEY = "key_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b"
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=16), AfterValidator(lambda given: sorted(set(given)))]
SCOPES_HELP = "Allowed operations. " + "; ".join(f"`{scope}`: {meaning}" for scope, meaning in MEANINGS.items()) + "."


class KeySpec(Body):
    """A key to create. Its scopes and limits must not exceed those of the key that creates it."""

    name: Name = Field(description="Purpose of the key.", examples=["ci"])
    scopes: Scopes = Field(description=SCOPES_HELP, examples=[["jobs:read", "jobs:write"]])
    expires_days: float | None = Field(
        None, gt=0, le=MAX_DAYS, description="Days until the key expires. If null, it never does.", examples=[90]
    )
    limits: OwnLimits = Field(
        default_factory=lambda: OwnLimits(),
        description="Limits of the key. A limit that is null or left out is that of the key that creates it.",
    )


class KeyEdit(Body):
    """Changes to a key. Fields that are left out do not change."""

    name: Name = Field(default="", json_schema_extra=without_default, description="Purpose of the key.")
    scopes: Scopes = Field(
        default=[], json_schema_extra=without_default, description="New scopes; they replace all old ones."
    )
    limits: OwnLimits = Field(
        default_factory=lambda: OwnLimits(),
        description="New limits; they replace all own limits of the key. If null, a limit is that of the settings.",
    )


class Rotation(Body):
    """How long the replaced secret stays valid."""

    grace_seconds: int = Field(
        0, ge=0, le=MAX_GRACE_SECONDS, description="Seconds for which the old secret stays valid.", examples=[3600]
    )


class KeyBody(ResponseBody):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[Scope] = Field(description="Allowed operations.")
    limits: KeyLimits = Field(description="Limits of the key.")
    created_at: datetime
    expires_at: datetime | None = Field(description="When the key expires; null for never.")
    revoked_at: datetime | None = Field(description="When the key was revoked; null if it is not revoked.")
    last_used_at: datetime | None = Field(description="Last use, to the minute; null if the key was never used.")
    previous_until: datetime | None = Field(description="When the secret before the last rotation expires.")
    links: dict[str, str]


class KeyMade(KeyBody):
    """A key with its secret, which is shown only once."""

    model_config = ConfigDict(
        json_schema_extra={
            "description": "A key with its secret. `key` is in this response only and is never shown again."
        }
    )

    key: str = Field(description="The secret. Send it as `Authorization: Bearer dsk_…`.")


class KeyUsage(ResponseBody):
    """Current usage of a key."""

    stored_bytes: int = Field(description="Bytes of its uploads, artifacts and previews.")
    queued_jobs: int = Field(description="Number of queued jobs.")
    running_jobs: int = Field(description="Number of running jobs.")
    requests: int = Field(description="Requests in the current minute to the API process that responds.")


class KeyUse(KeyBody):
    """A key and its current usage."""

    used: KeyUsage
