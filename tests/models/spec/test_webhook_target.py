"""The form of a webhook in a job's spec."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as draw
from pydantic import TypeAdapter, ValidationError

from models.settings import Settings
from models.spec.problems import problems_of
from models.spec.webhook_target import FINAL_EVENTS, Webhook, resolved, target_of

READ: TypeAdapter[Any] = TypeAdapter(Webhook)


def refusal(written: Any) -> str:
    with pytest.raises(ValidationError) as found:
        READ.validate_python(written)
    return "; ".join(f"{problem.pointer} {problem.message}" for problem in problems_of(found.value))


def test_a_url_alone_means_all_final_events() -> None:
    assert READ.validate_python("https://example.org/a?b=c").events == list(FINAL_EVENTS)
    written_out = {"url": "https://example.org/a", "events": list(FINAL_EVENTS)}
    assert resolved("https://example.org/a") == resolved({"url": "https://example.org/a"}) == written_out
    assert resolved(written_out) == written_out and resolved(None) is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org", "must start with https://"), ("ftp://example.org", "must start with https://"),
        ("example.org", "must start with https://"), ("https://", "must have a valid host name"),
        ("https://a b.org/", "must contain only printable ASCII"), ("https://exämple.org/", "must contain only printable ASCII"),
        ("https://example.org\\@inner/", "must contain only printable ASCII"), ("https://example.org/\r\nx: y", "must contain only pri"),
        ("https://me:secret@example.org/", "must not contain a user"), ("https://example.org/#x", "must not have a frag"),
        ("https://example.org:8443/", "must use port 443, not 8443"), ("https://example.org:99999/", "is not a URL"),
        ("https://[fe80::1%25eth0]/", "must have a valid host name"), ("https://127.0.0.1/", "must have a public address"),
        ("https://2130706433/", "must have a public address"), ("https://0x7f.1/", "must have a public address"),
        ("https://[::1]/", "must have a public address"), ("https://[::ffff:10.0.0.1]/", "must have a public address"),
        ("https://localhost/", "must have a public address"), ("https://169.254.169.254/latest/", "must have a public address"),
        ("", "must have at least 1 character"), ("https://example.org/" + "a" * 2000, "must have at most 2000"),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_delivered_to_are_refused(url: str, message: str) -> None:
    assert refusal(url).startswith(f"/url {message}"), refusal(url)
    assert refusal({"url": url}).startswith(f"/url {message}")


def test_events_must_be_known_and_listed_once() -> None:
    url = "https://example.org/"
    assert refusal({"url": url, "events": ["job.done"]}).startswith("/events/0 must be 'job.running'")
    assert refusal({"url": url, "events": ["job.failed"] * 2}) == "/events must name each event once"
    assert refusal({"url": url, "events": []}).startswith("/events must have at least 1 item")
    assert refusal({"events": ["job.failed"]}) == "/url is required"
    assert refusal({"url": url, "secret": "x"}) == "/secret is not a known field"
    assert refusal(7) == " must be an object, not 7"


def test_allowed_networks_and_ports_are_accepted(configure: Callable[..., Any]) -> None:
    configure(webhook_allow="127.0.0.0/8, fd00::/8", webhook_ports="443,9000")
    for url in ("http://127.0.0.1:9000/", "https://localhost/", "http://inner.test:9000/", "https://[fd00::1]/"):
        READ.validate_python(url)
    assert refusal("https://10.0.0.1/").startswith("/url must have a public address")
    assert refusal("http://127.0.0.1/") == "/url must use port 443, 9000, not 80"


@pytest.mark.parametrize("name", ["webhook_allow", "webhook_ports", "webhook_retry_seconds"])
def test_invalid_webhook_settings_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="webhook setting"):
        Settings(**{name: "here"})


@given(draw.text(draw.characters(min_codepoint=33, max_codepoint=126), max_size=30))
def test_the_parts_of_an_accepted_url_are_unambiguous(rest: str) -> None:
    try:
        target = target_of(f"https://{rest}")
    except ValueError:
        return
    assert target.host and not set(target.host) & set("/\\@?#%") and 0 <= target.port < 65536
    assert target.path.startswith("/") and rest.endswith(target.path.removeprefix("/"))
