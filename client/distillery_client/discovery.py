"""Where the service is and which key opens it, when the caller does not say.

In this order: the caller's arguments; `DISTILL_URL` and `DISTILL_KEY`; the file `service.json` that an embedded service
leaves in its data folder (`DISTILL_DATA`, else `.distillery` here or in a folder above) while it is up. The embedded
key is sent to the embedded service only, never to an address from elsewhere.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from distillery_client.errors import Misconfigured


@dataclass(frozen=True)
class Service:
    """An address and a key; `repr` hides the key."""

    url: str
    key: str

    def __repr__(self) -> str:
        return f"Service(url={self.url!r}, key=…)"


def find(url: str | None = None, key: str | None = None, data: Path | None = None) -> Service:
    """The service to talk to.

    Raises:
        Misconfigured: no address or no key was found; the message says what was looked at.
    """
    url = url or os.environ.get("DISTILL_URL")
    key = key or os.environ.get("DISTILL_KEY")
    if url and key:
        return Service(url.rstrip("/"), key)
    embedded = _embedded(data)
    if embedded and (url is None or url.rstrip("/") == embedded.url):
        return Service(embedded.url, key or embedded.key)
    if url:
        raise Misconfigured(f"no key for {url}: set DISTILL_KEY")
    raise Misconfigured("no service was found: start one with `make up`, or set DISTILL_URL and DISTILL_KEY")


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
            f"{file} cannot be read ({error}): start the service again, or set DISTILL_URL and DISTILL_KEY"
        ) from error
