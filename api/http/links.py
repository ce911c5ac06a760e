"""Absolute URLs of the API, with the scheme and host that the client used."""

from contextvars import ContextVar

PREFIX = "/v1"
_base: ContextVar[str] = ContextVar("base", default="")


def set_base(url: str) -> None:
    """Set the scheme and host of the current request."""
    _base.set(url.rstrip("/"))


def current_base() -> str:
    """The scheme and host of the current request."""
    return _base.get()


def link(path: str) -> str:
    """The URL of a path below the prefix: `link("/jobs/job_…")`."""
    return f"{_base.get()}{PREFIX}{path}"
