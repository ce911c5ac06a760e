"""How pages and reports write numbers, times, sizes, and the texts of strangers."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

MOST_CHARACTERS = 160
"""Longest text of a stranger that a page shows."""
UNSAFE = re.compile("[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
"""Control characters, invisible ones, and those that change the direction of what follows them."""
CODE = re.compile(r"`([^`\s](?:[^`\n]*[^`\s])?)`")


def shown(value: Any, most: int = MOST_CHARACTERS) -> str:
    """A stranger's text: without characters that are invisible or turn the text around, and not longer than `most`."""
    text = UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(value))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def coded(value: Any, most: int = MOST_CHARACTERS) -> Markup:
    """A text like `shown`, as HTML: escaped, and what stands between backticks as code."""
    parts = CODE.split(shown(value, most))
    return Markup().join(
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts)
    )


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


def methods(given: Any) -> str:
    """The methods of a list of a spec with their weights, in words."""
    rows = [one for one in given or [] if isinstance(one, dict)]
    return ", ".join(
        f"{number(one['weight'])} × {one.get('name')}" if "weight" in one else str(one.get("name")) for one in rows
    )


FILTERS: dict[str, Callable[..., Any]] = {
    one.__name__: one for one in (shown, coded, number, human_bytes, percent, moment, iso, duration, pretty, methods)
}
"""The filters of templates by name."""
