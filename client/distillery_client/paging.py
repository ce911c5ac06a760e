"""Paginated lists."""

from collections.abc import Iterator
from typing import Any

from distillery_client.connection import Connection


def pages(connection: Connection, path: str, filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every entry of a list; pages are fetched lazily. Filters that are None are left out."""
    query = {name: value for name, value in filters.items() if value is not None}
    while True:
        page = connection.request("GET", path, params=query).json()
        yield from page["data"]
        if not page.get("next_cursor"):
            return
        query = query | {"cursor": page["next_cursor"]}
