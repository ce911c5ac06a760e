"""Absolute addresses of what the API serves, as the client that asks reaches it."""

from contextvars import ContextVar

PREFIX = "/v1"
_base: ContextVar[str] = ContextVar("base", default="")


def set_base(url: str) -> None:
    """Set the scheme and host of the request that is being served."""
    _base.set(url.rstrip("/"))


def current_base() -> str:
    """The scheme and host of the request that is being served."""
    return _base.get()


def link(path: str) -> str:
    """The address of a path under the prefix: `link("/jobs/job_…")`."""
    return f"{_base.get()}{PREFIX}{path}"
