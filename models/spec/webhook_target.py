"""The webhook of a job: its URL and events."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from models.addresses import is_inward, is_within, literal
from models.settings import settings
from models.spec.body import Body
from models.spec.problems import Problem, complaint

EventType = Literal["job.running", "job.succeeded", "job.failed", "job.cancelled"]
EVENTS: tuple[EventType, ...] = get_args(EventType)
FINAL_EVENTS: tuple[EventType, ...] = ("job.succeeded", "job.failed", "job.cancelled")
PRINTABLE = re.compile(r"[!-~]+")
HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\]")
PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Target:
    """The parts of a URL that a request needs."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        return f"{self.host.lower()}:{self.port}"


def target_of(url: str) -> Target:
    """The parts of a URL. It is parsed strictly, so that no other parser can read the same URL differently.

    Raises:
        ValueError: the URL is invalid or not allowed; the message is for the user.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    if not PRINTABLE.fullmatch(url) or "\\" in url:
        raise ValueError(
            "must contain only printable ASCII characters; write host names in punycode and percent-encode the rest"
        )
    if parts.scheme not in PORTS:
        raise ValueError("must start with https://")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password; verify the signature of deliveries instead")
    if "#" in url:
        raise ValueError("must not have a fragment")
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc.removesuffix(":")
    if not HOST.fullmatch(host):
        raise ValueError("must have a valid host name")
    rest = url.partition("://")[2].removeprefix(parts.netloc)  # as written: urlsplit drops an empty query
    path = rest if rest.startswith("/") else f"/{rest}"
    return Target(parts.scheme, host.strip("[]"), PORTS[parts.scheme] if port is None else port, path)


def _reachable(url: str) -> str:
    """Refuse URLs to which no delivery can be sent. The addresses of a host name are checked at each delivery."""
    try:
        target = target_of(url)
    except ValueError as error:
        raise complaint(Problem("", str(error))) from error
    allowed = settings().webhook_networks
    address = literal(target.host)
    within = address is not None and is_within(address, allowed)
    if target.scheme != "https" and not allowed:
        raise complaint(Problem("", "must start with https://"))
    if target.port not in settings().webhook_port_numbers:
        ports = ", ".join(map(str, settings().webhook_port_numbers))
        raise complaint(Problem("", f"must use port {ports}, not {target.port}"))
    if address is not None and is_inward(address) and not within:
        raise complaint(Problem("", "must have a public address; this one belongs to a private or local network"))
    return url


def _whole(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


Url = Annotated[str, StringConstraints(min_length=1, max_length=2000), AfterValidator(_reachable)]


class WebhookSpec(Body):
    """A webhook for changes of a job's status. Deliveries are signed as in Standard Webhooks."""

    url: Url = Field(
        description="URL that receives a POST for each event; it must start with https://.",
        examples=["https://example.com/hooks/jobs"],
    )
    events: list[EventType] = Field(
        list(FINAL_EVENTS),
        min_length=1,
        max_length=len(EVENTS),
        description="Events to deliver. If left out: the three final statuses of a job.",
        examples=[list(FINAL_EVENTS)],
    )

    @model_validator(mode="after")
    def _each_event_once(self) -> "WebhookSpec":
        if len(set(self.events)) != len(self.events):
            raise complaint(Problem("/events", "must name each event once"))
        return self


Webhook = Annotated[WebhookSpec, BeforeValidator(_whole, json_schema_input_type=WebhookSpec | str)]
"""An object, or a URL alone."""


def resolved(written: Any) -> dict[str, Any] | None:
    """A webhook with its defaults written out, as JSON."""
    if written is None:
        return None
    given = _whole(written)
    return {"url": given["url"], "events": list(given.get("events") or FINAL_EVENTS)}
