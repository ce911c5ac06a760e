"""How pages write texts."""

import pytest
from jinja2 import Environment

from api.http.texts import coded


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("set `batch_size` to `8`.", "set <code>batch_size</code> to <code>8</code>."),
        ("`<script>`<img src=x>`\u202e`", "<code>&lt;script&gt;</code>&lt;img src=x&gt;<code>\ufffd</code>"),
        ("one ` alone, `two\nlines`, ``", "one ` alone, `two\nlines`, ``"),
        ("x" * 70, "x" * 59 + "…"),
        (f"`{'x' * 70}`", f"`{'x' * 58}…"),
    ],
)
def test_what_stands_between_backticks_is_code_and_everything_is_escaped(text: str, html: str) -> None:
    environment = Environment(autoescape=True)
    environment.filters["coded"] = coded
    assert environment.from_string("{{ text|coded(60) }}").render(text=text) == html
