"""The link that an embedded service prints: it signs its reader in once, without typing the key.

Belongs to the data folder: whoever may write there may sign in. The file holds the SHA-256 of the link's token only.
"""

import hashlib
import json
import os
import secrets
import sys

from models.cannot_start import explained
from models.settings import Settings, settings

PATH = "/sign-in"


def make_link(config: Settings, url: str) -> str:
    """A new link to the dashboard at `url`; an earlier one that was not used is no longer valid."""
    token = secrets.token_urlsafe(32)
    path = config.sign_in_file
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"sha256": hashlib.sha256(token.encode()).hexdigest()}, file)
    partial.replace(path)
    return f"{url}{PATH}?token={token}"


def main() -> None:
    """`python -m models.sign_in_link`: print a new link of the running embedded service."""
    with explained():
        config = settings()
        file = config.data / "service.json"
        if not file.exists():
            sys.exit(f"No embedded service runs on {config.data}. Start it with 'make up'.")
    print(make_link(config, json.loads(file.read_text())["url"]))


if __name__ == "__main__":
    main()
