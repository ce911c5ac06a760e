"""How webhooks look over HTTP."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.http.bodies import Shown

EXAMPLE_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw1Zx0yQ3Tg5c="


class SecretBody(Shown):
    """The secret that a key's webhooks are signed with, without the secret itself."""

    created_at: datetime = Field(description="When it was made.")
    previous_until: datetime | None = Field(
        description="Until then the secret before it signs too; null if there is none that does."
    )


class NewSecretBody(SecretBody):
    """A new secret, shown this once."""

    secret: str = Field(description="`whsec_` and 32 random bytes in base64. Keep it: it is not shown again.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"secret": EXAMPLE_SECRET, "created_at": "2026-11-21T09:00:00Z", "previous_until": None}
        }
    )


class TryBody(Shown):
    """One try at a delivery."""

    at: datetime
    status_code: int | None = Field(description="What the receiver answered; null if it did not.")
    error: str | None = Field(
        description="Why no answer came: `timeout`, `no_connection`, `connection_broken`, `certificate_refused`, or "
        "`address_refused` where the name led to an address that is not outside."
    )


class DeliveryBody(Shown):
    """A message to a receiver."""

    id: str = Field(description="The `webhook-id` of every try.")
    type: str = Field(description="`job.running`, `job.succeeded`, `job.failed` or `job.cancelled`.")
    url: str
    status: Literal["pending", "delivered", "failed", "disabled"] = Field(
        description="`failed` after the last try of the schedule; `disabled` once the receiver has answered 410."
    )
    tries: list[TryBody] = Field(description="The oldest first.")
    next_try_at: datetime | None = Field(description="Null once it is over.")
    created_at: datetime
    finished_at: datetime | None
    body: dict[str, Any] = Field(description="What is sent.")
    links: dict[str, str]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "msg_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b",
                "type": "job.succeeded",
                "url": "https://example.com/hooks/jobs",
                "status": "pending",
                "tries": [{"at": "2026-11-21T09:12:03Z", "status_code": 503, "error": None}],
                "next_try_at": "2026-11-21T09:12:08Z",
                "created_at": "2026-11-21T09:12:02Z",
                "finished_at": None,
                "body": {"type": "job.succeeded", "timestamp": "2026-11-21T09:12:02Z", "data": {"status": "succeeded"}},
                "links": {},
            }
        }
    )
