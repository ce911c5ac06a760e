"""Wake-up messages, which say "there may be work" and carry nothing else.

API and workers share the Celery app, its two queues and its settings. Messages are never retried, stored or answered,
as a lost one does no harm: the database is the source of truth, and every worker sweeps it.
"""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog
from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from models.made_once import MadeOnce
from models.settings import Settings, settings

Kind = Literal["distill", "inspect"]
KINDS: tuple[Kind, ...] = ("distill", "inspect")
WAKE_UP = "distillery.wake_up"
"""The name of the only task; the worker defines it."""
GIVE_UP = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
"""Transport options with which a send fails at once if the broker is unavailable."""

log = structlog.get_logger(__name__)


def make_app(settings: Settings) -> Celery:
    """A Celery app for the broker of the settings."""
    app = Celery("distillery", broker=settings.broker, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue="distill",
        task_create_missing_queues=True,
        task_publish_retry=False,
        worker_pool="threads",
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=urlsplit(settings.broker).scheme in ("redis", "rediss"),
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=2.0,
        broker_transport_options=transport_options(settings),
        broker_transport="models.queue.folder_transport:Transport"
        if settings.broker.startswith("filesystem:")
        else None,
        enable_utc=True,
    )
    return app


def transport_options(settings: Settings) -> Mapping[str, Any]:
    """Options of the broker's transport. For files, the folders, which are created."""
    scheme = urlsplit(settings.broker).scheme
    if scheme == "filesystem":
        folders = {name: settings.data.absolute() / "queue" / name for name in ("messages", "control", "taken")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return {
            "data_folder_in": str(folders["messages"]),
            "data_folder_out": str(folders["messages"]),
            "control_folder": str(folders["control"]),
            "processed_folder": str(folders["taken"]),
            "polling_interval": 0.2,
        }
    if scheme in ("redis", "rediss"):
        return {
            "socket_connect_timeout": 2.0,
            "socket_timeout": 5.0,
            "socket_keepalive": True,
            "health_check_interval": 10,
        }
    return {}


@MadeOnce
def app() -> Celery:
    """The Celery app of this process."""
    return make_app(settings())


def wake_up(kind: Kind, count: int = 1) -> bool:
    """Send `count` wake-up messages to the workers of a kind. Call it after the commit that created the work.

    Returns:
        False if the broker is unavailable; this is logged.
    """
    try:
        with app().connection_for_write() as connection:
            connection.transport_options.update(GIVE_UP)
            producer = app().amqp.Producer(connection, auto_declare=False)
            for _ in range(count):
                app().send_task(WAKE_UP, queue=kind, producer=producer, retry=False, ignore_result=True)
    except (OperationalError, KombuError, ConnectionError, OSError) as error:
        log.warning("wake_up_not_sent", kind=kind, error=str(error))
        return False
    return True
