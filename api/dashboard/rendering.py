"""Templates, and the headers of every page."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.http.texts import FILTERS

FOLDER = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from other servers, and no script or style in a page itself."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

DOWNLOAD_POLICY = {"Content-Security-Policy": "sandbox; default-src 'none'; img-src 'self'"}
"""A stored file never runs in the dashboard's origin."""


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The templates; every value is escaped, and a name that does not exist is an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(FILTERS)
    return environment


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page or a part of one. Templates know the visitor and the visitor's form token."""
    visitor = getattr(request.state, "visitor", None)
    form_token = getattr(request.state, "form_token", "")
    text = templates().get_template(template).render(
        visitor=visitor, form_token=form_token, path=request.url.path, **values
    )  # fmt: skip
    return HTMLResponse(text, status, HEADERS)
