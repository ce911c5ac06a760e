"""The courier: a thread in every worker that delivers webhooks. Several may run at the same time.

Each try runs in its own thread, so a slow receiver delays neither sweeps nor jobs. The number of concurrent tries is
limited in total, per receiver and per key, so that no receiver and no key uses all of them.
"""

import threading
import time
from collections import Counter
from datetime import UTC, datetime

import httpcore
import structlog
from standardwebhooks import Webhook

from models.settings import settings
from models.spec.webhook_target import target_of
from worker.sending_thread import SendingThread
from worker.webhooks.deliveries import DueDelivery, Outcome, claim, settle
from worker.webhooks.outward import Refused, post

AT_ONCE = 8
AT_ONCE_TO_ONE = 2
AT_ONCE_OF_A_KEY = 4
FAREWELL_SECONDS = 3.0
"""How long a stopping worker waits for running tries. Another worker repeats those that are not settled by then."""

log = structlog.get_logger(__name__)


class Courier(SendingThread):
    """Delivers due webhooks, from entering to leaving the context."""

    name = "courier"

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[threading.Thread, DueDelivery] = {}

    def await_end(self) -> None:
        with self.changed:
            self.changed.wait_for(lambda: not self._running, FAREWELL_SECONDS)

    def next_pause(self) -> float:
        return 0.0 if self._send_one() else settings().sweep_seconds

    def _send_one(self) -> bool:
        with self.changed:
            deliveries = list(self._running.values())
        if len(deliveries) >= AT_ONCE:
            return False
        delivery = claim(
            _at_least(AT_ONCE_TO_ONE, Counter(delivery.origin for delivery in deliveries)),
            _at_least(AT_ONCE_OF_A_KEY, Counter(delivery.key_id for delivery in deliveries)),
        )
        if delivery is None:
            return False
        thread = threading.Thread(target=self._deliver, args=(delivery,), name=delivery.id, daemon=True)
        with self.changed:
            self._running[thread] = delivery
        thread.start()
        return True

    def _deliver(self, delivery: DueDelivery) -> None:
        try:
            deliver(delivery)
        except Exception:
            log.exception("delivery_not_settled", delivery=delivery.id)  # retried when its claim expires
        finally:
            with self.changed:
                del self._running[threading.current_thread()]
                self.changed.notify_all()


def _at_least(most: int, counts: Counter[str]) -> list[str]:
    return [name for name, count in counts.items() if count >= most]


def deliver(delivery: DueDelivery) -> str | None:
    """Try a delivery once and record the outcome; returns its status, None if another worker has taken it over."""
    outcome = attempt(delivery)
    status = settle(delivery, outcome)
    result = {"status_code": outcome.status_code, "error": outcome.error}
    log.info("webhook_sent", delivery=delivery.id, attempt=delivery.attempt, status=status, **result)
    return status


def attempt(delivery: DueDelivery) -> Outcome:
    """Send a delivery; returns the outcome. Of the response only the status code is kept."""
    began = time.monotonic()
    try:
        target = target_of(delivery.url)
        headers = signed(delivery, delivery.sent_at + time.monotonic() - began)
        return Outcome(status_code=post(target, headers, delivery.body.encode(), settings().webhook_seconds))
    except (Refused, ValueError) as error:
        log.warning("webhook_refused", delivery=delivery.id, error=str(error))
        return Outcome(error="address_refused")
    except httpcore.TimeoutException:
        return Outcome(error="timeout")
    except httpcore.ConnectError as error:
        return Outcome(error="certificate_refused" if "CERTIFICATE" in str(error).upper() else "no_connection")
    except (httpcore.NetworkError, httpcore.ProtocolError):
        return Outcome(error="connection_broken")


def signed(delivery: DueDelivery, at: float) -> dict[str, str]:
    """The headers of a message as in Standard Webhooks, with one signature for each secret."""
    moment = datetime.fromtimestamp(int(at), UTC)
    signatures = [Webhook(secret).sign(delivery.id, moment, delivery.body) for secret in delivery.secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Distillery-Webhooks/1",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": " ".join(signatures),
    }
