"""Limits of keys: a key's own limits, and those of the settings for the rest."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.records import Key
from models.settings import settings
from models.spec.body import Body

Count = Annotated[int, Field(ge=1, le=2**53)]
Priority = Annotated[int, Field(ge=-100, le=100)]


class KeyLimits(Body):
    """The limits of a key."""

    upload_bytes: Count = Field(description="Largest upload, in bytes.")
    storage_bytes: Count = Field(description="Storage quota for uploads, artifacts and previews, in bytes.")
    queued_jobs: Count = Field(description="Largest number of queued jobs.")
    running_jobs: Count = Field(description="Largest number of running jobs; further jobs stay queued.")
    job_minutes: Count = Field(description="Longest duration of a job, in minutes.")
    highest_priority: Priority = Field(description="Highest priority of a job.")
    requests_a_minute: Count = Field(description="Requests per minute to each API process.")


class OwnLimits(Body):
    """A key's own limits. If null, a limit is that of the settings."""

    upload_bytes: Count | None = Field(None, description="Largest upload, in bytes.", examples=[2**30])
    storage_bytes: Count | None = Field(
        None, description="Storage quota for uploads, artifacts and previews, in bytes.", examples=[2**34]
    )
    queued_jobs: Count | None = Field(None, description="Largest number of queued jobs.", examples=[100])
    running_jobs: Count | None = Field(
        None, description="Largest number of running jobs; further jobs stay queued.", examples=[2]
    )
    job_minutes: Count | None = Field(None, description="Longest duration of a job, in minutes.", examples=[60])
    highest_priority: Priority | None = Field(None, description="Highest priority of a job.", examples=[0])
    requests_a_minute: Count | None = Field(
        None, description="Requests per minute to each API process.", examples=[600]
    )


def limits_of(own: Mapping[str, Any] | None) -> KeyLimits:
    """A key's limits: its own where they are set, else those of the settings."""
    config = settings()
    general = {name: getattr(config, name) for name in KeyLimits.model_fields}
    return KeyLimits(**(general | {name: value for name, value in (own or {}).items() if value is not None}))


def limits_of_key(session: Session, key_id: str) -> KeyLimits:
    """The limits of the key with an id."""
    return limits_of(session.scalar(select(Key.limits).where(Key.id == key_id)))
