"""What a key may use: the settings, where the key has no limits of its own."""

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
    """What a key may use."""

    upload_bytes: Count = Field(description="Bytes of one upload.")
    storage_bytes: Count = Field(description="Bytes of all its uploads and results.")
    queued_jobs: Count = Field(description="Jobs that wait at once.")
    running_jobs: Count = Field(description="Jobs that run at once; more of them wait.")
    job_minutes: Count = Field(description="Minutes of one job.")
    highest_priority: Priority = Field(description="The highest priority of its jobs.")
    requests_a_minute: Count = Field(description="Requests to one process of the API.")


class OwnLimits(Body):
    """Where a key differs from the service's settings; null is the setting."""

    upload_bytes: Count | None = Field(None, description="Bytes of one upload.", examples=[2**30])
    storage_bytes: Count | None = Field(None, description="Bytes of all its uploads and results.", examples=[2**34])
    queued_jobs: Count | None = Field(None, description="Jobs that wait at once.", examples=[100])
    running_jobs: Count | None = Field(None, description="Jobs that run at once; more of them wait.", examples=[2])
    job_minutes: Count | None = Field(None, description="Minutes of one job.", examples=[60])
    highest_priority: Priority | None = Field(None, description="The highest priority of its jobs.", examples=[0])
    requests_a_minute: Count | None = Field(None, description="Requests to one process of the API.", examples=[600])


def limits_of(own: Mapping[str, Any] | None) -> KeyLimits:
    """The limits of a key with such limits of its own."""
    config = settings()
    general = {name: getattr(config, name) for name in KeyLimits.model_fields}
    return KeyLimits(**(general | {name: value for name, value in (own or {}).items() if value is not None}))


def limits_of_key(session: Session, key_id: str) -> KeyLimits:
    """The limits of the key of an id."""
    return limits_of(session.scalar(select(Key.limits).where(Key.id == key_id)))
