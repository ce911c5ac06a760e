"""Templates, the headers of every page, and how texts of strangers are shown."""

import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

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
MOST_CHARACTERS = 160
"""Longest text of a stranger that a page shows."""
UNSAFE = re.compile("[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
"""Control characters, invisible ones, and those that change the direction of what follows them."""


def shown(value: Any, most: int = MOST_CHARACTERS) -> str:
    """A stranger's text: without characters that are invisible or turn the text around, and not longer than `most`."""
    text = UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(value))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(value: Any, digits: int = 4) -> str:
    """A number with some significant digits; a dash without a number."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return "–"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def human_bytes(value: Any) -> str:
    """1536 becomes `1.5 KiB`; a dash without a number."""
    if not isinstance(value, int | float):
        return "–"
    count = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def percent(value: Any) -> str:
    """0.123 becomes `12.3 %`."""
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "–"


def moment(value: Any) -> str:
    """A time in UTC, to the second; the browser's script writes it in local time."""
    if value is None:
        return "–"
    at = value if isinstance(value, datetime) else datetime.fromtimestamp(float(value), UTC)
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(value: Any) -> str:
    """A time for the attribute `datetime`."""
    if value is None:
        return ""
    at = value if isinstance(value, datetime) else datetime.fromtimestamp(float(value), UTC)
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(value: Any) -> str:
    """75.0 becomes `1 min 15 s`."""
    if not isinstance(value, int | float):
        return "–"
    seconds = max(0, round(value))
    if seconds < 60:
        return f"{value:.1f} s" if value < 10 else f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def pretty(value: Any) -> str:
    """JSON for readers. Characters that are invisible or turn the text around are written as escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The templates; every value is escaped, and a name that does not exist is an error."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    filters = (shown, number, human_bytes, percent, moment, iso, duration, pretty)
    environment.filters.update({one.__name__: one for one in filters})
    return environment


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page or a part of one. Templates know the visitor and the visitor's form token."""
    visitor = getattr(request.state, "visitor", None)
    form_token = getattr(request.state, "form_token", "")
    text = templates().get_template(template).render(
        visitor=visitor, form_token=form_token, path=request.url.path, **values
    )  # fmt: skip
    return HTMLResponse(text, status, HEADERS)
