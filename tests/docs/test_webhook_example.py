"""The example in docs/api.md verifies webhooks."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from api.webhooks.schemas import EXAMPLE_SECRET

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_example_accepts_a_signed_message_and_rejects_others() -> None:
    [example] = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "Webhook" in block
    ]
    names: dict[str, Any] = {}
    exec(example, names)
    body, now = '{"type": "job.failed"}', datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(EXAMPLE_SECRET).sign("msg_1", now, body),
    }
    assert names["receive"](EXAMPLE_SECRET, body.encode(), headers) == {"type": "job.failed"}
    with pytest.raises(WebhookVerificationError):
        names["receive"](EXAMPLE_SECRET, b'{"type": "job.succeeded"}', headers)
