"""Discovery of the service's URL and key.

In this order: the caller's arguments; `DISTILL_URL` and `DISTILL_KEY`; the file `service.json` that an embedded service
keeps in its data folder while it runs (`DISTILL_DATA`, else `.distillery` in the working folder or one of its parents).
The key of an embedded service is sent only to that service, never to another URL.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from distillery_client.errors import Misconfigured


@dataclass(frozen=True)
class Service:
    """A URL and a key; `repr` hides the key."""

    url: str
    key: str

    def __repr__(self) -> str:
        return f"Service(url={self.url!r}, key=…)"


def find(url: str | None = None, key: str | None = None, data: Path | None = None) -> Service:
    """Find the URL and the key of the service.

    Raises:
        Misconfigured: no URL or no key was found; the message says what to set.
    """
    url = url or os.environ.get("DISTILL_URL")
    key = key or os.environ.get("DISTILL_KEY")
    if url and key:
        return Service(url.rstrip("/"), key)
    embedded = _embedded(data)
    if embedded and (url is None or url.rstrip("/") == embedded.url):
        return Service(embedded.url, key or embedded.key)
    if url:
        raise Misconfigured(f"No key was found for {url}. Set DISTILL_KEY.")
    raise Misconfigured("No service was found. Start one with `make up`, or set DISTILL_URL and DISTILL_KEY.")


def _embedded(data: Path | None) -> Service | None:
    for folder in _folders(data):
        file = folder / "service.json"
        if file.is_file():
            return _read(file)
    return None


def _folders(data: Path | None) -> list[Path]:
    if data is not None:
        return [data]
    if named := os.environ.get("DISTILL_DATA"):
        return [Path(named)]
    here = Path.cwd()
    return [folder / ".distillery" for folder in (here, *here.parents)]


def _read(file: Path) -> Service:
    try:
        content = json.loads(file.read_text())
        key = (file.parent / content["key_file"]).read_text().strip()
        return Service(str(content["url"]).rstrip("/"), key)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(
            f"{file} or its key file cannot be read ({error}). Restart the service, or set DISTILL_URL and DISTILL_KEY."
        ) from error
