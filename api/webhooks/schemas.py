"""Response bodies of webhooks."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.http.bodies import ResponseBody

EXAMPLE_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw1Zx0yQ3Tg5c="


class SecretBody(ResponseBody):
    """The signing secret of a key, without the secret itself."""

    created_at: datetime = Field(description="When the secret was created.")
    previous_until: datetime | None = Field(
        description="Until when messages are signed with the previous secret too; null if they are not."
    )


class NewSecretBody(SecretBody):
    """A new secret, shown only once."""

    secret: str = Field(description="`whsec_` and 32 random bytes in base64. Store it: it is never shown again.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"secret": EXAMPLE_SECRET, "created_at": "2026-11-21T09:00:00Z", "previous_until": None}
        }
    )


class TryBody(ResponseBody):
    """One try at a delivery."""

    at: datetime
    status_code: int | None = Field(description="Status code of the receiver's response; null without a response.")
    error: str | None = Field(
        description="Why there was no response: `timeout`, `no_connection`, `connection_broken`, `certificate_refused`, or "
        "`address_refused` if the host name resolved to an address that is not public and not allowed."
    )


class DeliveryBody(ResponseBody):
    """A message to a receiver."""

    id: str = Field(description="The `webhook-id` of every try.")
    type: str = Field(description="`job.running`, `job.succeeded`, `job.failed` or `job.cancelled`.")
    url: str
    status: Literal["pending", "delivered", "failed", "disabled"] = Field(
        description="`failed` after the last scheduled try; `disabled` once the receiver has responded with 410."
    )
    tries: list[TryBody] = Field(description="Tries, oldest first.")
    next_try_at: datetime | None = Field(description="Time of the next try; null if the delivery is not `pending`.")
    created_at: datetime
    finished_at: datetime | None
    body: dict[str, Any] = Field(description="Body of the message.")
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
